"""A page in a process of its own, which a test may stop: `viewer.py PORT LINK SEED`. When its connection ends, it reconnects
with `since`. It exits at the message "the last" and prints `whole N gaps G returns R` if each message up to N came once
and in order, or was covered by a gap."""
import asyncio
import json
import random
import socket
import sys

import websocket

EPOCH = "7"


class Viewer:
    def __init__(self, port, link):
        self.port, self.link, self.following, self.gaps, self.returns = port, link, None, 0, -1

    async def watch(self):
        """One connection, until it ends; returns the final line after the last message."""
        request = {"type": "subscribe", "id": 1, "link": self.link}
        if self.following:
            request["since"] = {"epoch": EPOCH, "next": [0, self.following, 0, 0]}
        reader, writer, _ = await websocket.connect(self.port)
        # A fixed window: the kernel's auto-tuning would decide how much a stopped viewer's socket
        # still takes.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.returns += 1
        writer.write(websocket.frame(websocket.TEXT, json.dumps(request)))
        while True:
            opcode, payload = await websocket.read_frame(reader)
            if opcode == websocket.PING:
                writer.write(websocket.frame(websocket.PONG, payload))
            if opcode == websocket.CLOSE:
                return writer.close()
            if opcode == websocket.TEXT and (said := self.shown(json.loads(payload))):
                return said

    def shown(self, event):
        if event["type"] == "subscribed" and self.returns == 0:
            print("subscribed", flush=True)
        first = {"message": "sequence", "gap": "from"}.get(event["type"])
        if first is None:
            return None
        if self.following is not None and event[first] != self.following:
            return f"broken {event[first]} expected {self.following}"
        self.gaps += event["type"] == "gap"
        self.following = event.get("to", event.get("sequence")) + 1
        if event.get("data") == "the last":
            return f"whole {event['sequence']} gaps {self.gaps} returns {self.returns}"


async def main(port, link):
    viewer = Viewer(port, link)
    while True:
        try:
            if said := await viewer.watch():
                return print(said)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(random.uniform(0, 1))


random.seed(sys.argv[3])
asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
