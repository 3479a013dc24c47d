"""A page in a process of its own, which a test may stop: `viewer.py PORT LINK`. It ends with the message "the last" and says
`whole N` where each message up to N came once and in order, or a gap covered it."""
import asyncio
import json
import sys

import websocket


async def main(port, link):
    reader, writer, _ = await websocket.connect(port)
    writer.write(websocket.frame(websocket.TEXT, json.dumps({"type": "subscribe", "id": 1, "link": link})))
    following = None
    while True:
        opcode, payload = await websocket.read_frame(reader)
        if opcode == websocket.PING:
            writer.write(websocket.frame(websocket.PONG, payload))
        if opcode == websocket.CLOSE:
            return print("closed", payload)
        if opcode != websocket.TEXT:
            continue
        event = json.loads(payload)
        if event["type"] == "subscribed":
            print("subscribed", flush=True)
        first = {"message": "sequence", "gap": "from"}.get(event["type"])
        if first is None:
            continue
        if following is not None and event[first] != following:
            return print("broken", event[first], "expected", following)
        following = event.get("to", event.get("sequence")) + 1
        if event.get("data") == "the last":
            return print("whole", event["sequence"])


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
