"""The closing handshake in every state, and each close code: the public suite (autobahn.py) can't check them, since it
accepts a dropped connection as an answer."""
import asyncio
import re
import signal
import struct
import time

import lag
import websocket
from harness import test
from inbox import PATIENCE, SLACK, Mismatch
from test_faults import processor_s, sockets_of
from websocket import BINARY, CLOSE, PING, PONG, TEXT, frame

CLOSE_S = 2.0  # (board): a close frame is answered within
SWEEP_S = 1.2  # each page is visited once a second


def closing(code=None, reason=b""):
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


async def in_order(page, code, reason=None, timeout=PATIENCE):
    """Expects a close frame next, and then only an orderly end of the connection."""
    event = await page.gone(timeout)
    if event.get("code") != code or reason is not None and event["reason"] != reason:
        raise Mismatch(f"{page.name}: expected a close frame with {code} {reason or ''}, saw {event}; before: {page.events.history[-4:]!r}")
    await ended(page)
    return event


async def ended(page):
    """Expects only an orderly end of the connection."""
    try:
        in_order = await asyncio.wait_for(asyncio.shield(page.ended), PATIENCE)
    except asyncio.TimeoutError:
        raise Mismatch(f"{page.name}: the relay did not end the connection") from None
    if not in_order:
        raise Mismatch(f"{page.name}: the connection was reset after the close frame")
    left = [event for event in page.events.items if event["type"] != "cut"]
    if left:
        raise Mismatch(f"{page.name}: expected nothing, saw {left!r}"[:2000])


async def leaves(page, before=b"", code=1000):
    """The page starts the closing handshake, in one write with `before`."""
    page.closed = True
    page.raw(before + closing(code, b"bye"))
    await in_order(page, code, "bye")


def answered(state):
    """The relay echoes the code and reason of the page's close frame and ends the connection; `state` makes the page."""
    def register(function):
        @test(f"a close frame is answered with its code and reason, and the connection ended: {state}")
        async def one(t):
            await function(t)
        return one
    return register


@answered("before the first subscribe")
async def newcomer(t):
    daemon = await t.daemon(["127.0.0.1:1"]).start()
    await leaves(await t.page(daemon))


@answered("while a subscribe waits for the business server")
async def waiting(t):
    daemon, business, up = await t.relay()
    page, link = await t.page(daemon), t.link()
    page.subscribe(link)
    ask = await up.expect("Subscribe", link=link)
    await leaves(page)
    up.accept(ask)  # the page has left
    await up.audience(7, 0)


@answered("idle, with every code that a page may send")
async def idle(t):
    daemon, business, up = await t.relay()
    link = t.link()
    keeper = await t.joined(daemon, up, link)
    for code in (1000, 1001, 1003, 1008, 1011, 1012, 1013, 3000, 4999):
        page = await t.page(daemon)
        await page.join(link)
        await leaves(page, code=code)
    await up.audience(7, 1)
    await keeper.nothing(0.1)


@answered("an empty one with an empty one")
async def empty(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link())
    page.closed = True
    page.raw(closing())
    await in_order(page, 1005)


@answered("in the middle of a fragmented message")
async def fragmented(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link(), page_messages=True)
    await leaves(page, frame(TEXT, '{"type":"send","topic":7,', fin=False) + frame(0, '"data"', fin=False))
    await up.none("PageMessage", 0.1)


@answered("right behind the request's head")
async def at_once(t):
    daemon = await t.daemon(["127.0.0.1:1"]).start()
    page = await t.page(daemon, behind_head=closing(1000, b"bye"))
    page.closed = True
    await in_order(page, 1000, "bye")


@answered("behind the longest ping and the longest pong")
async def behind_pings(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link())
    await leaves(page, frame(PING, "x" * 125) + frame(PONG, "y" * 125))


@answered("while the uplink is down")
async def uplink_down(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link())
    business.stop()
    await page.expect("uplink", up=False)
    await leaves(page)


@answered("while publications come, after whole frames alone")
async def busy(t):
    daemon, business, up = await t.relay()
    link = t.link()
    keeper = await t.joined(daemon, up, link)
    page = await t.page(daemon)
    await page.join(link)
    up.message(7, *range(1, 401), data='"' + "m" * 500 + '"')  # as many as the ring holds
    page.closed = True
    page.raw(closing(1000, b"bye"))
    event = await page.gone()
    assert event == {"type": "close", "code": 1000, "reason": "bye"}, event
    page.events.items.clear()
    await ended(page)
    assert await keeper.track(7, "messages", 400) == [f"message {n}" for n in range(1, 401)]


async def full(t, size, count):
    """A page with a full socket: it reads nothing while the relay has much more for it. A second page shows when that is so."""
    daemon, business, up = await t.relay()
    up.daemon, link = daemon, t.link()
    keeper = await t.joined(daemon, up, link, page_messages=True)
    page = await t.page(daemon, receive_buffer=4096)
    await page.join(link)
    page.send(7, "here")
    number = (await up.expect("PageMessage", data="here")).page
    page.reading.clear()
    page.reader._transport.pause_reading()
    # All of it fits into the ring; otherwise the ring would overtake the page inside a frame.
    assert size * count < 260 << 10
    step = max(1, 20000 // max(1, size))
    for first in range(1, count + 1, step):
        last = min(first + step, count + 1) - 1
        up.message(7, *range(first, last + 1), data=b'"%s"' % (b"m" * size))
        await keeper.reached(7, "message", last)
    keeper.events.items.clear()
    return daemon, up, page, number, keeper


def reads_again(page):
    page.reader._transport.resume_reading()
    page.reading.set()


@answered("in the middle of the relay's frame, once the page reads on: the frame is finished first")
async def mid_frame(t):
    daemon, up, page, number, keeper = await full(t, 60000, 4)
    page.closed = True
    with lag.within(CLOSE_S):
        page.raw(closing(1000, b"bye"))
        await asyncio.sleep(0.5)
        reads_again(page)
        while (event := await page.events.next("frames, then a close frame"))["type"] in ("message", "gap"):
            pass
        assert event == {"type": "close", "code": 1000, "reason": "bye"}, event
        await ended(page)
    await up.audience(7, 1)


async def spent(daemon, seconds=1.0):
    """The daemon's processor use, as a fraction of a core."""
    before, began = processor_s(daemon), time.monotonic()
    await asyncio.sleep(seconds)
    return (processor_s(daemon) - before) / (time.monotonic() - began)


async def kicked(up, page, number):
    """Closed while its socket is full: once it reads on, it gets the rest of its frame and the close frame; until then the
    relay uses no processor."""
    with lag.within(CLOSE_S):
        up.send("Kick", page=number, reason="x")
        await up.barrier()
        used = await spent(up.daemon, 0.4)
        reads_again(page)
        while (event := await page.events.next("frames, then a close frame"))["type"] in ("message", "gap"):
            pass
        assert event == {"type": "close", "code": 1008, "reason": "x"}, event
        await ended(page)
    assert used < 0.3, f"the relay spins: {used:.0%} of a processor"
    await up.audience(7, 1)


@test("a page that reads nothing is closed in the middle of a frame", waits=True)
async def kicked_mid_frame(t):
    daemon, up, page, number, keeper = await full(t, 60000, 4)
    await kicked(up, page, number)


@test("a page that reads nothing, not even the pongs to its own pings, costs no processor, and is closed between two frames", waits=True)
async def kicked_between(t):
    daemon, up, page, number, keeper = await full(t, 0, 0)
    for _ in range(4000):
        page.raw(frame(PING, "x" * 125))
    await asyncio.sleep(1)
    used = await spent(daemon)
    assert used < 0.3, f"the relay spins: {used:.0%} of a processor"
    await kicked(up, page, number)


@test("both sides close at once: one close frame each, and the connection is ended")
async def both(t):
    daemon, business, up = await t.relay()
    link = t.link()
    keeper = await t.joined(daemon, up, link, page_messages=True)
    for _ in range(10):
        page = await t.page(daemon)
        await page.join(link)
        page.send(7, "here")
        number = (await up.expect("PageMessage", data="here")).page
        page.closed = True
        up.send("Kick", page=number, reason="x")
        page.raw(closing(4000, b"mine"))
        event = await page.gone()
        assert (event.get("code"), event.get("reason")) in ((1008, "x"), (4000, "mine")), event
        await ended(page)
    # And once when the relay's is certainly sent.
    page = await t.page(daemon)
    await page.join(link)
    page.send(7, "last")
    page.closed = True
    up.send("Kick", page=(await up.expect("PageMessage", data="last")).page, reason="x")
    assert (await page.gone()).get("code") == 1008
    page.raw(frame(TEXT, "too late") + frame(PING, "too late") + closing(4000, b"mine"))
    await ended(page)
    await up.audience(7, 1)
    await keeper.nothing(0.1)


def broken(name, data, code):
    @test(f"{name}: close code {code}, and the page's own close frame is taken for the answer")
    async def one(t):
        daemon, business, up = await t.relay()
        page = await t.joined(daemon, up, t.link())
        page.raw(data)
        await in_order(page, code)
        await up.audience(7, 0)
        again = await t.page(daemon)
        again.closed = True
        again.raw(data + closing(1000))
        await in_order(again, code)
    return one


broken("a reserved opcode", frame(3, ""), 1002)
broken("a reserved opcode behind the longest ping", frame(PING, "x" * 125) + frame(3, ""), 1002)
broken("a close code that nobody may send", closing(1005), 1002)
broken("a close frame whose reason is not UTF-8", closing(1000, b"\xff"), 1007)
broken("a fragmented text that is not UTF-8", frame(TEXT, b"\xe4\xbd", fin=False) + frame(0, b"\x20"), 1007)
broken("a message that is too big behind the longest ping", frame(PING, "x" * 125) + frame(BINARY, bytes(4097)), 1009)


@test("1013 with retry=<decimal seconds>: a page that two new epochs passed by while it read nothing")
async def too_slow(t):
    daemon, up, page, number, keeper = await full(t, 60000, 4)
    with lag.within(CLOSE_S):
        for epoch in (8, 9):
            other, link = await t.page(daemon), t.link()
            other.subscribe(link)
            up.accept(await up.expect("Subscribe", link=link), epoch=epoch)
            await other.expect("subscribed", epoch=str(epoch))
            await keeper.until("epoch", epoch=str(epoch))
        reads_again(page)
        while (event := await page.events.next("a close frame"))["type"] in ("message", "gap"):
            pass
        assert event.get("code") == 1013 and re.fullmatch(r"retry=\d+(\.\d+)?", event["reason"]), event
        await ended(page)


@test("a page that never answers the relay's close frame is dropped in time, whether it is silent, talks on or reads nothing", waits=True)
async def unanswered(t):
    daemon, up, deaf, number, keeper = await full(t, 300, 600)
    silent, talking, lingering, stubborn = [await t.page(daemon) for _ in range(4)]
    numbers = [number]
    for page in (silent, talking, lingering, stubborn):
        await caught_up(page, t.links[0], 600)
        page.send(7, page.name)
        numbers.append((await up.expect("PageMessage", data=page.name)).page)
        page.closed = True
    await up.audience(7, 6)
    began = time.monotonic()
    with lag.within(CLOSE_S):
        for number in numbers:
            up.send("Kick", page=number, reason="x")
        for page in (silent, talking, lingering, stubborn):
            assert (await page.gone()).get("code") == 1008
        # One answers and keeps the connection open.
        lingering.raw(closing(1008))
        await ended(lingering)

    async def talk():
        while talkers := [page for page in (talking, stubborn) if not page.ended.done()]:
            for page in talkers:
                page.raw(frame(TEXT, '{"type":"dance"}') + frame(PING, "x") if page is talking else frame(3, "nonsense"))
            await asyncio.sleep(0.02)
    talker = asyncio.ensure_future(talk())
    try:
        await asyncio.wait_for(asyncio.shield(silent.ended), CLOSE_S + SWEEP_S + PATIENCE)
        took = time.monotonic() - began
        assert CLOSE_S - 0.2 < took < CLOSE_S + SWEEP_S + SLACK + lag.lost(began), f"dropped after {took:.1f} s"
        await up.audience(7, 1, timeout=PATIENCE)
        while (held := await sockets_of(daemon)) > 1:
            assert time.monotonic() - began < CLOSE_S + SWEEP_S + 2 * SLACK + lag.lost(began), f"{held} connections are still held"
            await asyncio.sleep(0.05)
    finally:
        talker.cancel()
    await keeper.nothing(0.1)


async def caught_up(page, link, last):
    """Joined, after its replay."""
    await page.join(link)
    await page.track(7, "messages", last)


@test("while it drains: a page's own close frame is answered, a page that never answers delays no other, and the daemon exits 0", waits=True)
async def draining(t):
    daemon, up, deaf, number, keeper = await full(t, 300, 600)
    silent, leaving, waiting = [await t.page(daemon) for _ in range(3)]
    for page in (silent, leaving):
        await caught_up(page, t.links[0], 600)
    waiting.subscribe(t.link())
    silent.closed = leaving.closed = True
    await up.barrier()
    began = time.monotonic()
    daemon.expected_end = True
    daemon.signal(signal.SIGTERM)
    leaving.raw(closing(4000, b"mine"))
    event = await leaving.gone(20 * SLACK)
    assert event.get("code") in (1012, 4000), event
    await ended(leaving)
    for page in (keeper, waiting):
        event = await in_order(page, 1012, timeout=20 * SLACK)
        assert re.fullmatch(r"retry=\d+(\.\d+)?", event["reason"]), event
    assert (await silent.gone()).get("code") == 1012
    assert await daemon.exit() == 0
    took = time.monotonic() - began
    assert took < CLOSE_S + SWEEP_S + 2 * SLACK + lag.lost(began), f"the drain took {took:.1f} s"
