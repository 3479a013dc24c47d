"""A web page as the relay sees it. Checks the protocol's invariants on every frame: `subscribed` before anything of its
topic, no sequence twice, no jump without a gap, no chunk that can't be decoded. A violation fails any test."""
import asyncio
import json
import socket
import struct
import time

import tls
import websocket
from inbox import PATIENCE, Mailbox, Mismatch

MEDIA_TRACKS = {2: "audio", 3: "video"}
MEDIA_PARTS = {1: "init", 2: "start", 3: "continue"}
FIELDS = {
    "subscribed": {"id": int, "topic": int, "epoch": str, "page_messages": bool},
    "denied": {"id": int, "reason": str},
    "state": {"topic": int, "sequence": int, "data": object},
    "message": {"topic": int, "sequence": int, "data": object},
    "gap": {"topic": int, "track": str, "from": int, "to": int},
    "epoch": {"topic": int, "epoch": str},
    "end": {"topic": int, "reason": str},
    "uplink": {"up": bool},
    "alive": {},
    "sent": {"id": str},
    "error": {"reason": str},
}


class Track:
    """What a page has seen of one track. `next` is None until its counter is set."""

    def __init__(self, name, following=None):
        self.name, self.next, self.has_init, self.in_group = name, following, False, False

    def gap(self, first, last):
        if first > last:
            return f"a gap from {first} to {last}"
        if self.next is not None and first != self.next:
            return f"a gap from {first} where {self.next} was next"
        self.next, self.in_group = last + 1, False

    def message(self, sequence):
        if self.next is not None and sequence != self.next:
            return f"message {sequence} where {self.next} was next"
        self.next = sequence + 1

    def state(self, sequence):
        if self.next is not None and sequence < self.next:
            return f"state {sequence} after {self.next - 1}"
        self.next = sequence + 1

    def media(self, part, sequence):
        if part == "init":
            if self.next is not None and sequence > self.next:
                return f"init {sequence} without a gap from {self.next}"
            # A first init may be a repeated one, which moves no counter.
            self.next = sequence + 1 if sequence == self.next else self.next
            self.has_init, self.in_group = True, False
            return None
        if not self.has_init:
            return f"{part} {sequence} before any init"
        if self.next is not None and sequence != self.next:
            return f"{part} {sequence} where {self.next} was next"
        if part == "continue" and not self.in_group:
            return f"continue {sequence} outside of a group"
        self.next, self.in_group = sequence + 1, True


class Page:
    def __init__(self, test, name, reader, writer, headers):
        self.test, self.name, self.reader, self.writer, self.headers = test, name, reader, writer, headers
        self.events, self.pings, self.pongs = Mailbox(name), [], []
        self.pending, self.topics, self.next_id = {}, {}, 1
        self.pongs_back, self.reading, self.closed = True, asyncio.Event(), False
        self.ended = asyncio.get_running_loop().create_future()  # how the connection ended: in order (True), or by a reset or inside a frame
        self.reading.set()
        self.opened_at = self.last_at = time.monotonic()
        self.task = asyncio.ensure_future(self.run())

    # --- what the page does ---

    def raw(self, data):
        self.writer.write(data)

    def text(self, text):
        self.raw(websocket.frame(websocket.TEXT, text))

    def json(self, value):
        self.text(json.dumps(value, ensure_ascii=False))

    def subscribe(self, link, since=None, beyond=False, id=None, **extra):
        """`since`: (epoch, next of messages) or (epoch, [four]). `beyond`: the relay may serve it as a late page. Returns the id."""
        if id is None:
            id, self.next_id = self.next_id, self.next_id + 1
        request = {"type": "subscribe", "id": id, "link": link, **extra}
        place = None
        if since is not None:
            following = since[1] if isinstance(since[1], list) else [0, since[1], 0, 0]
            request["since"] = {"epoch": str(since[0]), "next": following}
            if following[1] and not beyond:
                place = (str(since[0]), following[1])
        self.pending[id] = place
        self.json(request)
        return id

    async def join(self, link, since=None, timeout=PATIENCE, **expected):
        """Subscribes, and retries after a `denied` with a `retry`. Returns the `subscribed`."""
        until = time.monotonic() + timeout
        while True:
            id = self.subscribe(link, since)
            answer = await self.events.take(lambda e: e.get("id") == id or e["type"] in ("close", "cut"),
                                            f"an answer to subscription {id}", max(0.01, until - time.monotonic()))
            if answer["type"] != "denied" or "retry" not in answer or time.monotonic() > until:
                break
            await asyncio.sleep(min(answer["retry"], 2))
        self.match(answer, "subscribed", expected)
        return answer

    def unsubscribe(self, topic):
        self.json({"type": "unsubscribe", "topic": topic})

    def send(self, topic, data, id=None):
        self.json({"type": "send", "topic": topic, "data": data, **({"id": id} if id is not None else {})})

    async def close(self, code=1000):
        self.raw(websocket.frame(websocket.CLOSE, struct.pack(">H", code)))
        await self.leave()

    async def leave(self):
        """Drops the connection, as a closed tab does."""
        self.closed = True
        self.task.cancel()
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    def abort(self):
        self.closed = True
        self.task.cancel()
        self.writer.transport.abort()

    # --- what the page receives ---

    def match(self, event, kind, fields):
        if event["type"] != kind or any(event.get(k.rstrip("_")) != v for k, v in fields.items()):
            raise Mismatch(f"{self.name}: expected {kind} {fields or ''}, saw {event!r}"[:2000])
        return event

    async def expect(self, kind, timeout=PATIENCE, **fields):
        """Expects this as the next event, ignoring `alive`. A field that is a Python keyword takes a trailing `_`."""
        what = f"{kind} {fields or ''}"
        return self.match(await self.events.take(lambda e: e["type"] != "alive" or kind == "alive", what, timeout), kind, fields)

    async def until(self, kind, timeout=PATIENCE, **fields):
        """Takes the first such event; others stay queued."""
        return await self.events.take(
            lambda e: e["type"] == kind and all(e.get(k.rstrip("_")) == v for k, v in fields.items()), f"{kind} {fields or ''}", timeout)

    async def gone(self, timeout=PATIENCE):
        """The end of the connection: the event `close`, or `cut` where no close frame came."""
        return await self.events.take(lambda e: e["type"] in ("close", "cut"), "the connection's end", timeout)

    async def nothing(self, seconds=0.4):
        await asyncio.sleep(seconds)
        self.test.check()
        left = [e for e in self.events.items if e["type"] != "alive"]
        if left:
            raise Mismatch(f"{self.name}: expected nothing, saw {left!r}"[:2000])

    async def track(self, topic, track, last, timeout=PATIENCE):
        """One track up to sequence `last`, as a list such as ["gap 1-4", "init 1", "start 5"]; adjacent gaps are merged."""
        seen, at = [], 0
        until = time.monotonic() + timeout
        while at < last:
            event = await self.events.take(lambda e: e["type"] in ("close", "cut") or e.get("topic") == topic and (
                e.get("track") == track or e["type"] == {"messages": "message"}.get(track, track)),
                f"{track} of topic {topic} up to {last}, so far {seen[-8:]}", max(0.01, until - time.monotonic()))
            if event["type"] in ("close", "cut"):
                raise Mismatch(f"{self.name}: {event!r} after {seen[-8:]}, before {track} {last}")
            if event["type"] == "gap":
                at = event["to"]
                if seen and seen[-1].startswith("gap") and int(seen[-1].split("-")[1]) + 1 == event["from"]:
                    seen[-1] = f"{seen[-1].split('-')[0]}-{at}"
                else:
                    seen.append(f"gap {event['from']}-{at}")
                continue
            self.own_number(event)
            at = max(at, event["sequence"])
            seen.append(f"{event.get('part') or event['type']} {event['sequence']}")
        return seen

    async def reached(self, topic, kind, sequence, timeout=PATIENCE):
        """Returns when the page has received this publication; takes nothing. Lets a test publish no faster than a page reads."""
        until = time.monotonic() + timeout
        while not any(e.get("topic") == topic and (e.get("track") or e["type"]) == kind and e.get("sequence") == sequence
                      for _, e in self.events.history[-200:]):
            await self.events.change(until, f"{kind} {sequence} of topic {topic}", timeout)

    def own_number(self, event):
        data = event["data"]
        if isinstance(data, dict) and "n" in data and data["n"] != event["sequence"]:
            raise Mismatch(f"{self.name}: {event!r} carries the data of another publication")

    # --- reading and checking ---

    async def run(self):
        try:
            while True:
                await self.reading.wait()
                opcode, payload = await websocket.read_frame(self.reader)
                self.frame(opcode, payload)
        except (asyncio.IncompleteReadError, ConnectionError, OSError) as error:
            self.ended.set_result(isinstance(error, asyncio.IncompleteReadError) and not error.partial)
            if not any(e["type"] == "close" for e in self.events.items):
                self.events.put({"type": "cut"})
        except Exception as error:  # anything that the protocol does not allow
            self.test.broken(f"{self.name}: {type(error).__name__}: {error}")
            self.events.put({"type": "cut"})

    def frame(self, opcode, payload):
        if opcode == websocket.PING:
            self.pings.append(time.monotonic())
            if self.pongs_back:
                self.raw(websocket.frame(websocket.PONG, payload))
            return
        if opcode == websocket.PONG:
            self.pongs.append(payload)
            return
        if opcode == websocket.CLOSE:
            code = struct.unpack(">H", payload[:2])[0] if payload else 1005
            self.events.put({"type": "close", "code": code, "reason": payload[2:].decode()})
            if not self.closed:
                self.raw(websocket.frame(websocket.CLOSE, payload[:2]))
            return
        self.last_at = time.monotonic()
        event = self.parse(opcode, payload)
        fault = self.check(event)
        if fault:
            self.test.broken(f"{self.name}: {fault}; the event: {event!r}"[:2000])
        self.events.put(event)

    def parse(self, opcode, payload):
        if opcode == websocket.BINARY:
            track, part, topic, sequence = struct.unpack(">BBIQ", payload[:14])
            event = {"type": "media", "track": MEDIA_TRACKS[track], "part": MEDIA_PARTS[part], "topic": topic,
                     "sequence": sequence, "data": payload[14:]}
            if part == 1:
                event["mime"] = payload[15:15 + payload[14]].decode()
                event["data"] = payload[15 + payload[14]:]
            return event
        text = payload.decode("utf-8", "strict")
        try:
            event = json.loads(text)
        except RecursionError:  # Python's parser, not the protocol, limits the nesting
            start = text.index('"data":') + 7
            event = {**json.loads(text[:start] + "null}"), "data": text[start:-1]}
        shape = FIELDS.get(event.get("type"))
        assert shape is not None, f"unknown type in {text[:200]}"
        for key, kind in shape.items():
            assert key in event and isinstance(event[key], kind), f"{key} missing or of another kind in {text[:200]}"
        event["raw"] = text
        return event

    def check(self, event):
        kind, topic = event["type"], event.get("topic")
        if kind in ("subscribed", "denied"):
            if event["id"] not in self.pending:
                return "an answer to no request"
            place = self.pending.pop(event["id"])
            if kind == "denied":
                return None
            if topic in self.topics:
                return "subscribed twice to one topic"
            self.topics[topic] = self.new_tracks(place[1] if place and place[0] == event["epoch"] else None)
            return None
        if topic is None:
            return None
        if topic not in self.topics:
            return "of a topic that the page is not subscribed to"
        tracks = self.topics[topic]
        if kind == "end":
            del self.topics[topic]
        elif kind == "epoch":
            self.topics[topic] = self.new_tracks(None)
        elif kind == "gap":
            return tracks[event["track"]].gap(event["from"], event["to"])
        elif kind == "media":
            return tracks[event["track"]].media(event["part"], event["sequence"])
        elif kind == "message":
            return tracks["messages"].message(event["sequence"])
        elif kind == "state":
            return tracks["state"].state(event["sequence"])
        return None

    @staticmethod
    def new_tracks(following):
        return {name: Track(name, following if name == "messages" else None) for name in ("state", "messages", "audio", "video")}


async def open_page(test, name, port, origin=None, extra=None, source=None, receive_buffer=None, opener=tls.open_connection, **options):
    if receive_buffer is None:
        opened = await websocket.connect(port, origin=origin, extra=extra, source=source, opener=opener, **options)
        return Page(test, name, *opened)
    # A large receive buffer would keep taking data for a page that stops reading.
    async def small(host, port_, local_addr=None, limit=None):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setblocking(False)
        if local_addr:
            raw.bind(local_addr)
        await asyncio.get_event_loop().sock_connect(raw, (host, port_))
        return await tls.open_connection(sock=raw, limit=4096)

    opened = await websocket.connect(port, origin=origin, extra=extra, source=source, opener=small, **options)
    return Page(test, name, *opened)
