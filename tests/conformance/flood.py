"""Floods one port of a relay over one connection, as fast as it is read, and reconnects whenever that ends:
`flood.py KIND ADDRESS [SOURCE]`, where ADDRESS is a port or the path of a Unix socket. A separate process, so that it does
not load the suite's loop. Prints `begun` once it has sent more than socket buffers hold, and then nothing more; ends with
its standard input."""
import os
import socket
import ssl
import sys
import threading

import tls

MASK = bytes(4)
CHUNK = 64 * 1024
BEGUN = 1 << 20  # more than the socket buffers of both sides
HANDSHAKES = 100  # after which that flood has begun


def frame(first, payload=b""):
    assert len(payload) < 126
    return bytes([first, 0x80 | len(payload)]) + MASK + payload


SUBSCRIBE = b'{"type":"subscribe","id":1,"link":"no.such.link"}'
# What an upgraded page sends: once, and then repeatedly.
PAGES = {
    "empty fragments": (frame(0x01), frame(0x00)),
    "one-byte fragments": (frame(0x01), frame(0x00, b" ")),
    "pings": (b"", frame(0x89)),
    "long pings": (b"", frame(0x89, b"p" * 125)),
    "pongs": (b"", frame(0x8A)),
    "texts": (b"", frame(0x81)),
    "one-byte texts": (b"", frame(0x81, b"1")),
    "binaries": (b"", frame(0x82)),
    "subscribes": (b"", frame(0x81, SUBSCRIBE)),
    "a long frame": (bytes([0x81, 0xFE, 0x10, 0x00]) + MASK, b" "),
    "bytes behind a close": (frame(0x88), b"x"),
    "bytes behind nonsense": (b"\xff\xff", b"x"),
}
# The same for connections that are not pages.
OTHERS = {
    "talk behind an answer": (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"x"),
    "talk behind a refusal": (b"\r\r\r", b"x"),
    "talk behind a scrape": (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", b"x"),
    "a head without end": (b"GET / HTTP/1.1\r\n", b"a:b\r\n"),
    "lines": (b"", b"x\n"),
    "commands": (b"", b"counters\n"),
}


def upgrade(port):
    return (f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sharelink.v1\r\n\r\n").encode()


def connect(address, source):
    if not address.isdigit():
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection
    connection = socket.create_connection(("127.0.0.1", int(address)), source_address=(source, 0) if source else None)
    return Secured(connection, tls.LINES[int(address)]) if int(address) in tls.LINES else connection


class Secured:
    """A connection by TLS. What arrives after the handshake is not opened, so that reading and writing share nothing."""

    def __init__(self, connection, line):
        self.connection, self.arrived, self.made = connection, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = line.context.wrap_bio(self.arrived, self.made, server_hostname=line.name)
        self.recv, is_shaken = connection.recv, False
        while not is_shaken:
            try:
                self.object.do_handshake()
                is_shaken = True
            except ssl.SSLWantReadError:
                pass
            connection.sendall(self.made.read())
            if not is_shaken and not self.arrived.write(connection.recv(CHUNK)):
                raise ConnectionError

    def sendall(self, data):
        self.object.write(data)
        self.connection.sendall(self.made.read())


def listen(connection):
    """Reads and discards: the relay stops reading from a page that does not read."""
    try:
        while connection.recv(CHUNK):
            pass
    except OSError:
        pass


def flood(kind, address, source):
    begin, again = PAGES.get(kind) or OTHERS[kind]
    begin = upgrade(address) + begin if kind in PAGES else begin
    again *= CHUNK // len(again)
    sent, said = 0, False
    while True:
        try:
            connection = connect(address, source)
            threading.Thread(target=listen, args=[connection], daemon=True).start()
            connection.sendall(begin)
            while True:
                connection.sendall(again)
                sent += len(again)
                if sent > BEGUN and not said:
                    said = print("begun", flush=True) or True
        except OSError:
            sent += CHUNK  # a flood that was cut off counts as begun


def shake_hands(address, source):
    """TLS handshakes, one after the other, and nothing else."""
    for count in range(1, 1 << 30):
        try:
            connect(address, source).connection.close()
        except OSError:
            pass
        if count == HANDSHAKES:
            print("begun", flush=True)


def end_with_input():
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    _address, _source = sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
    if sys.argv[1] == "handshakes":
        shake_hands(_address, _source)
    flood(sys.argv[1], _address, _source)
