"""Drain and reconnection: what a drain finishes, how its pages are spread, when the back-off resets."""
import asyncio
import re
import signal
import time

import lag
import websocket
from harness import test
from inbox import SLACK
from test_faults import Room, codes, crowd, status
from websocket import http

RETRY = re.compile(r"retry=(\d+(?:\.\d+)?)")
CLOSE_S = 2.0  # (board): timeout of the answer to a close frame


def retry_s(event):
    assert event.get("code") == 1012, event
    match = RETRY.fullmatch(event["reason"])
    assert match, event
    return float(match.group(1))


async def stopped(t, daemon, up, room, link):
    """Two pages that stop reading while a frame is half written to their sockets."""
    pages = [await t.page(daemon, receive_buffer=4096) for _ in range(2)]
    for page in pages:
        await page.join(link)
        page.reading.clear()
    for _ in range(3):
        room.count += 1
        up.message(7, room.count, data=b'"%s"' % (b"h" * 60000))
    await up.barrier()
    await asyncio.sleep(0.3)
    return pages


@test("SIGTERM: upgrades and /healthz get 503, what is half written is finished before its 1012, the uplink is closed, exit 0", waits=True)
async def drains_in_order(t):
    room, business = Room(), await t.business()
    business.auto = room.admit
    socket = t.path("console.sock")
    daemon = await t.daemon([business.address], console={"socket": socket}).start()
    up, link = await business.uplink(), t.link()
    half, _ = await stopped(t, daemon, up, room, link)
    viewers = await crowd(t, daemon, room, link, 3)
    for viewer in viewers:
        viewer.task.cancel()
    assert (await status(socket))["health"] == "healthy"

    async def refused():
        try:
            await t.page(daemon)
        except websocket.Refused as refused:
            return refused.response
        raise AssertionError("a page was let in while the relay drains")
    daemon.expected_end = True
    with lag.within(CLOSE_S):
        daemon.signal(signal.SIGTERM)
        retry_s(await viewers[0].page.gone())
        # The drain goes on for the two stalled pages. One of them reads on: its current frame is
        # finished, and no new one is started.
        half.reading.set()
        health, upgrade, told, last = await asyncio.gather(http(daemon.port, "/healthz"), refused(), status(socket), half.gone())
        assert health.status == 503, health
        assert upgrade.status == 503 and int(upgrade.headers["retry-after"]) > 0, upgrade
        assert told["health"] == "down" and "D1" in codes(told), told
        retry_s(last)
        seen = [event["sequence"] for _, event in half.events.history if event["type"] == "message"]
        assert seen and seen[-1] < room.count, f"no frame was half written: {seen} of {room.count}"
    for viewer in viewers[1:]:
        retry_s(await viewer.page.gone())
    # The other one never reads on. It is cut off long before drain_s (10 s).
    began = time.monotonic()
    assert await daemon.exit() == 0
    assert time.monotonic() - began < 7 * SLACK + lag.lost(began), "who answers nothing holds the end up"
    await up.end()


@test("pages that answer nothing hold the end up for drain_s at most", waits=True)
async def drains_in_time(t):
    room, business = Room(), await t.business()
    business.auto = room.admit
    daemon = await t.daemon([business.address], pages={"drain_s": 1}).start()
    up, link = await business.uplink(), t.link()
    await stopped(t, daemon, up, room, link)
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    assert await daemon.exit() == 0
    took = time.monotonic() - began
    assert took < 6 * SLACK + lag.lost(began), f"it waited longer than it may: {took:.1f} s"
    assert took > 0.9, f"it did not wait for its pages: {took:.1f} s"
    assert "2 pages did not answer" in daemon.log(), daemon.log()[-500:]


@test("the retry= of a drain is spread over a time that grows with the number of pages", timeout=180, crowded=True, plain=True)
async def spread(t):
    widest = []
    for count in (10, 1000):
        room, business = Room(), await t.business()
        business.auto = room.admit
        daemon = await t.daemon([business.address]).start()
        await business.uplink()
        viewers = await crowd(t, daemon, room, t.link(), count)
        for viewer in viewers:
            viewer.task.cancel()
        daemon.expected_end = True
        daemon.signal(signal.SIGTERM)
        told = sorted([retry_s(await viewer.page.gone(timeout=20 * SLACK)) for viewer in viewers])
        assert await daemon.exit() == 0
        # Ten draws of ten values: all of them being one happens once in 10^9 runs.
        assert len(set(told)) > (1 if count == 10 else 20), f"not jittered: {told}"
        if count == 1000:
            # Spread evenly: no tenth of the time has more than a fifth of the pages.
            step = (told[-1] - told[0]) / 10
            fullest = max(sum(told[0] + step * n <= at <= told[0] + step * (n + 1) for at in told) for n in range(10))
            assert fullest < count / 5, f"{fullest} of {count} come within {step:.2f} s"
        widest.append(told[-1])
    assert widest[1] > widest[0] + 1, f"at most {widest[0]} s for 10 pages, {widest[1]} s for 1000"


@test("the back-off grows while links break at once, and begins anew only after one has held for a while", waits=40)
async def back_off(t):
    business = await t.business()
    daemon = await t.daemon([business.address]).start()
    up, waits = await business.uplink(), []

    async def lost(up):
        """Breaks the link; returns the next one, and the relay's delay before it dialled."""
        began = time.monotonic()
        up.drop()
        up = await business.uplink(timeout=40 * SLACK)
        return up, max(0, business.dials[-1] - began - lag.lost(began))
    # Each of these completed its handshake: that alone must not reset the back-off. Each delay is a
    # random part of a step that doubles: the seventh is 25.6 s, and twenty short delays in a row
    # happen once in 10^30 runs.
    while len(waits) < 7 or max(waits) < 0.5:
        assert len(waits) < 20, f"it dials at full speed: {waits}"
        up, wait = await lost(up)
        waits.append(wait)
        assert wait < min(30, 0.2 * 2 ** len(waits)) + 3 * SLACK, f"longer than its step: {waits}"
    # A link that holds for more than 10 s resets the back-off: the next dials come within the first
    # steps.
    await asyncio.sleep(11)
    assert up.open
    for _ in range(3):
        up, wait = await lost(up)
        waits.append(wait)
    assert sum(waits[-3:]) < 0.2 + 0.4 + 0.8 + 2 * SLACK, f"it still backs off after a link that held: {waits}"
