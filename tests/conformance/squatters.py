"""Idle connections from a separate process: `squatters.py PORT COUNT HOSTS [SAID]`. COUNT connections come from HOSTS
addresses; each sends SAID, in hexadecimal (nothing, by default), and no more, and is reopened at once when it is cut. Prints `ready` once all
are connecting, ends with its standard input or after a minute, and then prints how many were opened."""
import contextlib
import select
import socket
import sys
import time

SECONDS_MAX = 60
NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT: the port is chosen with the connection


class Flood:
    def __init__(self, port, hosts, said):
        self.port, self.hosts, self.said, self.opened = port, hosts, said, 0
        self.poll, self.sockets = select.epoll(), {}

    def open(self):
        made = socket.socket()
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_IP, NO_PORT, 1)
        made.bind((f"127.66.{self.opened % self.hosts // 250}.{self.opened % self.hosts % 250 + 1}", 0))
        made.connect_ex(("127.0.0.1", self.port))
        self.opened += 1
        self.sockets[made.fileno()] = made
        self.poll.register(made, select.EPOLLIN | (select.EPOLLOUT if self.said else 0))

    @staticmethod
    def answered(made):
        """Whether it was sent something, rather than cut."""
        try:
            return bool(made.recv(65536))
        except OSError:
            return False

    def turn(self):
        for number, event in self.poll.poll(0.1):
            made = self.sockets[number]
            if event & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP) and not self.answered(made):
                del self.sockets[number]
                made.close()
                self.open()
            elif event & select.EPOLLOUT:
                self.poll.modify(made, select.EPOLLIN)
                with contextlib.suppress(ConnectionError):  # which comes as an event
                    made.send(self.said)


def main():
    port, count, hosts = (int(argument) for argument in sys.argv[1:4])
    flood = Flood(port, hosts, bytes.fromhex(sys.argv[4]) if len(sys.argv) > 4 else b"")
    for _ in range(count):
        flood.open()
    print("ready", flush=True)
    until = time.monotonic() + SECONDS_MAX
    while time.monotonic() < until and not select.select([sys.stdin], [], [], 0)[0]:
        flood.turn()
    print(flood.opened, flush=True)


if __name__ == "__main__":
    main()
