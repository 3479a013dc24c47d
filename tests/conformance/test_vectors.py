"""The frozen vectors: this suite's own codec is checked against them, and the daemon gets them as input."""
import asyncio

import websocket
import wire
from harness import test
from inbox import Mismatch
from page import Page
from vectors import VECTORS, cases, octets

PLAIN = True


@test("this suite's own codec agrees with the frozen vectors")
async def codec(t):
    for name, table in (("to-business.txt", wire.TO_BUSINESS), ("to-relay.txt", wire.TO_RELAY)):
        for case in cases(name):
            data = octets(case["hex"])
            frame = wire.decode(table, data[4:])
            assert wire.length(data[:4]) == len(data) - 4, case
            assert case["is"].startswith(frame.kind), case
            again = wire.encode(table, frame.kind, **{k: v for k, v in frame.__dict__.items() if k != "kind"})
            assert (again == data) != ("only" in case), case
    for name, table in (("to-business-invalid.txt", wire.TO_BUSINESS), ("to-relay-invalid.txt", wire.TO_RELAY)):
        for case in cases(name):
            if "error" in case:
                data = octets(case["hex"])
                try:
                    wire.length(data[:4])
                    raise Mismatch(f"decoded {wire.decode(table, data[4:])!r}: {case}")
                except wire.WireError as error:
                    assert error.args[0] in case["error"].split("|"), (error, case)
    for case in cases("handshake.txt"):
        secret, asked, greeted = octets(case["secret"]), octets(case["challenge_nonce"]), octets(case["hello_nonce"])
        assert wire.proof(secret, b"sharelinkd relay", asked, greeted).hex() == case["hello_proof"]
        assert wire.proof(secret, b"sharelinkd business", greeted, asked).hex() == case["welcome_proof"]


@test("this suite's own page reads the frozen frames")
async def page_codec(t):
    for name in ("text.txt", "media.txt", "close.txt"):
        for case in cases(name, VECTORS.parent / "page-v1"):
            reader = asyncio.StreamReader()
            reader.feed_data(octets(case["frame"]))
            opcode, payload = await websocket.read_frame(reader)
            assert opcode == {"text.txt": websocket.TEXT, "media.txt": websocket.BINARY, "close.txt": websocket.CLOSE}[name]
            if name == "close.txt":
                continue
            assert len(payload) == int(case["payload"]), case
            event = Page.parse(None, opcode, payload)
            assert event["type"] == case.get("type", "media") and str(event.get("topic", "")) == case.get("topic", ""), case
            assert str(event.get("sequence", "")) == case.get("sequence", ""), case
            assert event.get("raw") == case.get("text", event.get("raw")), case


@test("every frame that the protocol allows is understood, one byte at a time too")
async def understood(t):
    daemon, business, up = await t.relay()
    frames = [octets(c["hex"]) for c in cases("to-relay.txt") if not c["is"].startswith(("Challenge", "Welcome"))]
    for frame in frames:
        up.raw(frame)
    await up.barrier()
    for frame in frames:
        if len(frame) < 200:
            for at in range(len(frame)):
                up.raw(frame[at:at + 1])
                if at % 8 == 0:
                    await asyncio.sleep(0)
    await up.barrier()
    assert up.open


def refused(name, share, shares):
    @test(name)
    async def one_share(t):
        chosen = [c for c in cases("to-relay-invalid.txt") if "error" in c and c["error"] != "sequence"][share::shares]
        for case in chosen:
            daemon, business, up = await t.relay()
            before = len(daemon.log())
            up.raw(octets(case["hex"]))
            if "truncated" in case["error"]:
                up.send("Ping", nonce=1)  # so that a relay that wrongly waits for more bytes gets them
            try:
                await up.end()
            except Mismatch as error:
                raise Mismatch(f"case {case['name']!r}: {error}") from None
            for _ in range(40):
                said = [line for line in daemon.log()[before:].splitlines() if "frame" in line.lower() and "byte" in line.lower()]
                if said:
                    break
                await asyncio.sleep(0.05)
            if not any(any(c.isdigit() for c in line) for line in said):
                raise Mismatch(f"case {case['name']!r}: the log does not say at which byte of which frame: {daemon.log()[before:]!r}")
            await daemon.end()
            business.stop()


for index in range(4):
    refused(f"what does not decode ends the uplink's connection, and the log names frame and byte ({index + 1} of 4)", index, 4)


@test("a sequence of 0 or of 2^53 and more is never shown to a page")
async def sequences(t):
    for sequence in (0, 2**53, 2**64 - 1):
        daemon, business, up = await t.relay()
        page = await t.joined(daemon, up, t.link())
        up.message(7, sequence, data='"never"')
        await asyncio.sleep(0.3)
        assert not any(e["type"] == "message" for _, e in page.events.history), page.events.history


@test("nothing of a frame that does not decode is used, and the relay reconnects and serves on")
async def recovers(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.message(7, 1)
    whole = wire.encode(wire.TO_RELAY, "Publish", topic=7, track="messages", sequence=2, part="whole", mime=None, data=b'"never"')[4:]
    up.raw(wire.framed(whole + b"\0"))
    await page.expect("message", sequence=1)
    await page.expect("uplink", up=False)
    up = await business.uplink()
    again = await up.expect("Subscribe", link=link)
    assert again.since and again.since[1][1] == 2, again
    up.accept(again)
    up.message(7, 2)
    await page.until("message", sequence=2, data={"n": 2})
