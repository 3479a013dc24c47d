"""Peers that send as fast as they are read, or drip: no other peer is delayed. Delivery to a bystander is compared with
delivery before the flood, in the same run; floods are separate processes (flood.py)."""
import asyncio
import contextlib
import json
import os
import socket as sockets
import statistics
import struct
import sys
import time

import flood
import harness
import lag
import tls
import websocket
import wire
from harness import PORTS, test
from inbox import SLACK

FLOODS = 3
ROUNDS = 40
STALL = 0.5  # s: maximum delay of a message during any flood
NOISE = 0.01  # s: tolerated delay by the flooding processes themselves, on a machine with two cores
TAKEN = 16 << 20  # more than the socket buffers of both sides beyond what the relay reads
CHUNK = 1 << 20


@contextlib.asynccontextmanager
async def flooding(kind, address, count=FLOODS):
    """Floods that have begun, and go on in the body."""
    command, pipe = [sys.executable, flood.__file__, kind, str(address)], asyncio.subprocess.PIPE
    floods = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=tls.environment(address)) for _ in range(count)]
    try:
        for one in floods:
            assert await asyncio.wait_for(one.stdout.readline(), 40 * SLACK) == b"begun\n"
        yield
    finally:
        for one in floods:
            one.stdin.close()
            await one.wait()


async def times(deliver, count=ROUNDS):
    """Durations of successive deliveries, less the lag of the suite's own loop."""
    taken = []
    for _ in range(count):
        began = time.monotonic()
        await deliver()
        took = time.monotonic() - began
        taken.append(max(0, took - lag.lost(began)))
        await asyncio.sleep(0.01)
    return taken


async def bystander(t, kinds, address_of):
    """During each kind of flood, a page gets its messages nearly as fast as without it."""
    metrics, console = PORTS.take(), t.path("console.sock")
    daemon, _, uplink = await t.relay(metrics={"listen": f"127.0.0.1:{metrics}"}, console={"socket": console})
    page = await t.joined(daemon, uplink, t.link())
    count = 0

    async def deliver():
        nonlocal count
        count += 1
        uplink.message(7, count)
        await page.expect("message", timeout=30 * SLACK, sequence=count)

    for kind in kinds:
        without = await times(deliver)
        address = {"page": daemon.port, "metrics": metrics, "console": console}[address_of]
        async with flooding(kind, address):
            taken = await times(deliver)
        compare(kind, without + await times(deliver), taken)


def compare(what, without, taken):
    median, limit = statistics.median(taken), 3 * statistics.median(without) + NOISE * SLACK
    assert median < limit, f"{what}: {1000 * median:.1f} ms at the median, {1000 * statistics.median(without):.1f} ms without"
    # Other programs may delay a single run; a relay that is held up is so repeatedly.
    stalls = [round(one, 2) for one in taken if one > STALL * SLACK + 3 * max(without)]
    assert len(stalls) < 2, f"{what}: deliveries stood still for {stalls} s, at most {max(without):.2f} s without"


@test("three pages that flood empty fragments don't hold up another page's messages", timeout=150, crowded=True)
async def fragments(t):
    await bystander(t, ["empty fragments"], "page")


@test("three pages that flood anything else don't hold up another page's messages", timeout=400, crowded=True)
async def other_frames(t):
    kinds = [kind for kind in flood.PAGES if kind != "empty fragments"]
    await bystander(t, kinds[::3] if harness.AUTHORITY else kinds, "page")


@test("talk behind an HTTP answer doesn't hold up a page's messages, on the pages' port", timeout=150, crowded=True)
async def behind_answers(t):
    await bystander(t, ["talk behind an answer", "talk behind a refusal", "a head without end"], "page")


@test("talk behind an HTTP answer doesn't hold up a page's messages, on the metrics' port", timeout=150, crowded=True, plain=True)
async def behind_scrapes(t):
    await bystander(t, ["talk behind a scrape"], "metrics")


@test("what is typed at the console as fast as it is read doesn't hold up a page's messages", timeout=150, crowded=True, plain=True)
async def consoles(t):
    await bystander(t, ["lines", "commands"], "console")


@test("who talks without end behind an answer has it whole, and is cut off", timeout=60)
async def cut_off(t):
    metrics = PORTS.take()
    daemon, _, _ = await t.relay(metrics={"listen": f"127.0.0.1:{metrics}"})
    for port, path in (daemon.port, "/healthz"), (metrics, "/metrics"):
        reader, writer = await tls.open_connection(port=port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        status, headers = await websocket.read_head(reader)
        assert status == 200 and len(await reader.readexactly(int(headers["content-length"]))) > 0
        size = 0
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 4096)
                await writer.drain()
                size += 4096
                await asyncio.sleep(0)
                assert size < TAKEN, f"{size} bytes were taken behind an answer"
        writer.close()


@test("a message in 64 fragments is taken; with one more the page is closed with 1008 at once, and keeps what it said before", timeout=60)
async def fragments_limit(t):
    daemon, _, uplink = await t.relay()

    def message(text, count):
        """The message in `count` frames, all of it in the first one, with a ping in between."""
        parts = [text.encode()] + [b""] * (count - 1)
        frames = [websocket.frame(0 if at else websocket.TEXT, part, fin=at == count - 1) for at, part in enumerate(parts)]
        return b"".join(frames[:1] + [websocket.frame(websocket.PING, b"p")] + frames[1:])

    page = await t.page(daemon)
    link = t.link()
    page.raw(message(json.dumps({"type": "subscribe", "id": 1, "link": link}), 64))
    page.pending[1] = None
    uplink.accept(await uplink.expect("Subscribe", link=link), page_messages=True)
    await page.expect("subscribed")
    # Complete messages before it count, those after it don't.
    said = [json.dumps({"type": "send", "topic": 7, "data": word}) for word in ("before", "never", "behind")]
    page.raw(message(said[0], 2) + message(said[1], 65) + message(said[2], 1))
    await page.expect("close", code=1008)
    await uplink.expect("PageMessage", data="before")
    await uplink.none("PageMessage")
    # One that never ends, and one that ends while the page is being closed.
    page = await t.page(daemon)
    page.raw(websocket.frame(websocket.TEXT, b"", fin=False) + websocket.frame(0, b"", fin=False) * 64)
    await page.expect("close", code=1008)
    # Bytes that came with the request's head count too.
    reader, writer, _ = await websocket.connect(daemon.port, behind_head=message("{}", 65))
    while (frame := await asyncio.wait_for(websocket.read_frame(reader), 5 * SLACK))[0] != websocket.CLOSE:
        pass
    assert struct.unpack(">H", frame[1][:2]) == (1008,), frame
    writer.close()


@test("a business server that floods tiny frames doesn't hold up pages, health or its own connection", timeout=150, crowded=True, plain=True)
async def uplink_floods(t):
    daemon, _, uplink = await t.relay()
    page = await t.joined(daemon, uplink, t.link())
    uplink.message(7, 5)
    await page.expect("message", sequence=5)

    async def ping():
        page.raw(websocket.frame(websocket.PING, b"now"))
        count = len(page.pongs)
        while len(page.pongs) == count:
            await asyncio.sleep(0.001)

    pong = wire.encode(wire.TO_RELAY, "Pong", nonce=1)
    old = wire.encode(wire.TO_RELAY, "Publish", topic=7, track="messages", sequence=1, part="whole", mime=None, data=b"1")
    unknown = wire.encode(wire.TO_RELAY, "Publish", topic=8, track="messages", sequence=1, part="whole", mime=None, data=b"1")
    for name, frame in ("pongs", pong), ("superfluous publications", old), ("unknown topics", unknown):
        without = await times(ping)
        size, going = 0, True

        async def send():
            nonlocal size
            block = frame * (65536 // len(frame))
            while going:
                uplink.raw(block)
                size += len(block)
                await uplink.writer.drain()
                await asyncio.sleep(0.002)

        sending = asyncio.ensure_future(send())
        while size < CHUNK and not sending.done():
            await asyncio.sleep(0.01)
        taken = await times(ping)
        going = False
        await sending
        await uplink.barrier()
        compare(name, without + await times(ping), taken)
    uplink.message(7, 6)
    await page.expect("message", sequence=6)


async def drip(write, data, seconds, parts=60):
    """Sends data in equal pieces over this many seconds. Each has a time of its own: what a loaded machine delays does
    not add up."""
    size, began = -(-len(data) // parts), time.monotonic()
    for number, at in enumerate(range(0, len(data), size), 1):
        write(data[at:at + size])
        await asyncio.sleep(began + number * seconds / parts - time.monotonic())


@test("a chunk of 1 MB that takes longer than 30 s arrives: each byte of it is a sign of life", waits=36, plain=True)
async def slow_chunk(t):
    daemon, _, uplink = await t.relay()
    page = await t.joined(daemon, uplink, t.link())
    uplink.media(7, "video", "init 1")
    await page.expect("media", track="video", part="init")
    uplink.answers_pings = False  # a server with one thread is busy with the chunk
    data = os.urandom(1_000_000)
    chunk = wire.encode(wire.TO_RELAY, "Publish", topic=7, track="video", sequence=2, part="start", mime=None, data=data)
    await drip(uplink.raw, chunk, 33)
    await page.expect("media", track="video", part="start", sequence=2)
    assert uplink.open and "nothing received from it" not in daemon.log()


@test("a business server that reads slowly is there: the relay waits until all is taken", waits=40, plain=True)
async def slow_reader(t):
    business = await t.business()
    business.by_hand = True
    business.server.sockets[0].setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 8192)
    daemon = await t.daemon([business.address]).start()
    reader, writer = await business.connections.next("the relay to connect", 10 * SLACK)
    reader._limit = 4096  # read-ahead would hide that the reader is slow
    nonce, hello = await business.challenge(reader, writer)
    business.welcome(writer, nonce, hello)
    # More answers than all buffers on the way hold; then it stops sending, and reads at 5 KB/s.
    writer.write(wire.encode(wire.TO_RELAY, "Ping", nonce=2**32 - 1) * 100_000)
    await writer.drain()
    began = time.monotonic()
    while time.monotonic() - began < 36:
        with contextlib.suppress(asyncio.TimeoutError):
            assert await asyncio.wait_for(reader.read(1024), 1), f"the relay gave up after {time.monotonic() - began:.0f} s"
        await asyncio.sleep(0.2)
    assert "the connection was ended" not in daemon.log()


@test("a handshake that drips is done where it is whole within 20 s, and given up where it is not", waits=24, plain=True)
async def slow_handshake(t):
    async def once(seconds):
        business = await t.business()
        business.by_hand = True
        daemon = await t.daemon([business.address]).start()
        reader, writer = await business.connections.next("the relay to connect", 10 * SLACK)
        began = time.monotonic()
        challenge = wire.encode(wire.TO_RELAY, "Challenge", version=wire.VERSION, nonce=os.urandom(16))
        dripping = asyncio.ensure_future(drip(writer.write, challenge, seconds, len(challenge)))
        try:
            said = await asyncio.wait_for(reader.read(1), 25 * SLACK)
        except ConnectionError:
            said = b""
        dripping.cancel()
        return daemon, bool(said), time.monotonic() - began

    (_, said, _), (daemon, said_late, after) = await asyncio.gather(once(14), once(200))
    assert said, "a handshake of 14 s was given up"
    assert not said_late and 19 < after < 23 * SLACK, f"a handshake that drips was given up after {after:.1f} s"
    await daemon.logs("no complete frame received from it")
