"""While the business server reads nothing, or is away, the relay is idle: its output waits, and it uses no processor."""
import asyncio
import socket
import time

import wire
from harness import test
from inbox import SLACK
from test_faults import processor_s

PLAIN = True


async def rests(daemon):
    before, began = processor_s(daemon), time.monotonic()
    await asyncio.sleep(1.5)
    used = (processor_s(daemon) - before) / (time.monotonic() - began)
    assert used < 0.3, f"the relay spins: {used:.0%} of a processor"


async def stalled(t):
    """A business server that stops reading, and a relay with much to send to it."""
    business = await t.business()
    business.server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    daemon = await t.daemon([business.address]).start()
    up = await business.uplink()
    page = await t.joined(daemon, up, t.link())
    up.writer.transport.pause_reading()
    for _ in range(1000):  # more pongs than the socket buffers hold
        up.raw(b"".join(wire.encode(wire.TO_RELAY, "Ping", nonce=nonce) for nonce in range(100)))
        await up.writer.drain()
    up.message(7, 1)
    await page.expect("message", sequence=1)  # all pings were read
    return daemon, business, up, page


@test("a business server that reads nothing: the relay rests, and goes on where it stood once it reads again", waits=3)
async def reads_nothing(t):
    daemon, business, up, page = await stalled(t)
    await rests(daemon)
    up.message(7, 2)
    await page.expect("message", sequence=2)
    up.writer.transport.resume_reading()
    read = -1
    while read < len(up.frames.history):  # until all queued frames have come
        read = len(up.frames.history)
        await asyncio.sleep(0.5 * SLACK)
    await up.barrier()


@test("a business server that is killed while the relay has much to say to it: the relay rests until it is there again", waits=3)
async def killed(t):
    daemon, business, up, page = await stalled(t)
    business.stop()
    await page.expect("uplink", up=False)
    await rests(daemon)
    await business.start()
    up = await business.uplink(timeout=40 * SLACK)
    await up.barrier()


@test("an invalid frame right after one that needs an answer: the relay is idle until the next dial", waits=3)
async def nonsense(t):
    daemon, business, up = await t.relay()
    business.server.close()
    up.raw(wire.encode(wire.TO_RELAY, "Ping", nonce=7) + b"\xff" * 64)
    await up.end()
    await rests(daemon)
