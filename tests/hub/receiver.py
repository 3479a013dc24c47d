"""A company's endpoint for the hub's webhooks. It checks no signature: `webhooks.py` does, with others' libraries."""
import asyncio
import json

from inbox import SLACK, Mismatch

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
SILENCE = None


class Receiver:
    """Answers each `subscribe` by `verdict(link, page)`, and batches of events by the statuses in `answers`, one after the
    other, then by `otherwise`. `asked`, `events` (taken or not) and `batches` (status, id, data) keep what came."""

    def __init__(self, verdict):
        self.verdict, self.answers, self.asked, self.events, self.batches = verdict, [], [], [], []
        self.otherwise, self.came = 200, asyncio.Event()

    async def start(self):
        self.server = await asyncio.start_server(self.attend, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def section(self):
        """`[webhook]` of a hub that calls it."""
        return {"url": f"http://127.0.0.1:{self.port}/hook", "secret_files": ["webhook"], "timeout_s": 9}

    async def attend(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                field = lambda name: head.split(f"{name}:")[1].split()[0]  # noqa: E731
                call = json.loads(await reader.readexactly(int(field("content-length"))))
                status, answer = 200, {}
                if call["type"] == "subscribe":
                    page = call["data"]["page"]
                    self.asked.append((call["data"]["link"], page))
                    answer = self.verdict(call["data"]["link"], page)
                else:
                    status = self.answers.pop(0) if self.answers else self.otherwise
                    self.events += call["data"]["events"]
                    self.batches.append((status, field("webhook-id"), call["data"]))
                self.came.set()
                if status is SILENCE:
                    continue
                body = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 %d Status\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)
        except (OSError, EOFError):
            writer.close()

    async def until(self, what, found, timeout=20 * SLACK):
        """Waits until `found()` is true, and returns it."""
        try:
            async with asyncio.timeout(timeout):
                while not (result := found()):
                    self.came.clear()
                    await self.came.wait()
                return result
        except asyncio.TimeoutError:
            raise Mismatch(f"no {what} in {self.batches[-3:]!r}"[:2000]) from None

    def seen(self, kind, **fields):
        return [e for e in self.events if e["type"] == kind and all(e.get(k) == v for k, v in fields.items())]

    async def event(self, kind, count=1, **fields):
        """The `count`th such event."""
        return (await self.until(f"event {kind} {fields}", lambda: self.seen(kind, **fields)[count - 1:]))[0]


async def with_webhook(t, verdict, webhook=None, **sections):
    """A hub that asks a receiver, and the receiver."""
    receiver = await Receiver(verdict).start()
    (t.directory / "webhook").write_text(SECRET + "\n")
    hub = await t.hub(links={"admission": "webhook", "keys": []}, webhook={**receiver.section(), **(webhook or {})}, **sections)
    return hub, receiver
