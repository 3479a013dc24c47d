"""Places in the table of pages: when a page loses its place, how many one network may have, its rate limit, and which origins are
counted."""
import asyncio
import time

import websocket
from harness import test
from inbox import PATIENCE, SLACK, Mismatch
from test_pages import alive_by_ping, closed
from test_reload import reload
import daemon as daemon_module


def denying(up, ask):
    up.deny(ask, "no such room")


def from_address(address):
    return {"source": "127.0.0.1", "extra": [("X-Forwarded-For", address)]}


async def refused(t, daemon, **options):
    """Expects a refusal: 503 with `Retry-After`."""
    try:
        page = await t.page(daemon, **options)
    except websocket.Refused as refusal:
        assert refusal.response and refusal.response.status == 503, refusal
        assert int(refusal.response.headers["retry-after"]) > 0, refusal
        return
    page.abort()
    raise Mismatch("a page was admitted beyond its limit")


async def until_free(t, daemon, **options):
    """A page that retries until there is a place: a close frame arrives before the place is free."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return await t.page(daemon, **options)
        except websocket.Refused:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.05)


@test("pages that were denied for good and answer no ping give their places back in the time for a first subscription")
async def denied_for_good(t):
    limits = {"pages": 50, "first_subscribe_ms": 1500}
    daemon, business, up = await t.relay(auto=denying, limits=limits)
    link, began, pages = t.link(), time.monotonic(), []
    for _ in range(50):
        page = await t.page(daemon)
        page.pongs_back = False
        page.subscribe(link)
        pages.append(page)
    for page in pages:
        assert "retry" not in await page.expect("denied")
    await refused(t, daemon)
    for page in pages:
        await closed(page, 1008)
    assert time.monotonic() - began > 1.4, "a page was closed before its time"
    await until_free(t, daemon)


@test("a page that waits for an answer is not closed for want of a subscription, and at the latest with 1013 and retry=<decimal seconds>")
async def waiting(t):
    daemon, business, up = await t.relay(limits={"first_subscribe_ms": 200, "unsubscribed_ms": 4000})
    prompt = await t.joined(daemon, up, t.link())
    page, late, began = await t.page(daemon), t.link(), time.monotonic()
    page.subscribe(late)
    await up.expect("Subscribe", link=late)
    never = await t.page(daemon)
    await closed(never, 1008)  # it connected later, and is visited as often
    await alive_by_ping(page)
    event = await closed(page, 1013, timeout=4 + PATIENCE)
    assert time.monotonic() - began > 3.9, "it was closed before its time"
    assert event["reason"].startswith("retry=") and float(event["reason"][6:]) > 0, event
    await alive_by_ping(prompt)


@test("a page that was told to come back is not told 1008, whatever it lacks: too many requests, or no business server")
async def told_to_return(t):
    limits = {"first_subscribe_ms": 200, "unsubscribed_ms": 3000, "page_asks_burst": 1}
    daemon, business, up = await t.relay(auto=denying, limits=limits)
    page, other = await t.page(daemon), await t.page(daemon)
    page.subscribe(t.link())
    page.subscribe(t.link())
    other.subscribe(t.link())
    assert {"retry" in await page.expect("denied") for _ in range(2)} == {True, False}
    await closed(other, 1008)
    event = await closed(page, 1013, timeout=3 + PATIENCE)
    assert event["reason"].startswith("retry="), event
    alone = await t.daemon(["127.0.0.1:1"], limits={"first_subscribe_ms": 200, "unsubscribed_ms": 3000}).start()
    page = await t.page(alone)
    page.subscribe(t.link())
    event = await closed(page, 1013, timeout=3 + PATIENCE)
    assert event["reason"].startswith("retry="), event


@test("a page whose last subscription is over is closed with 1008 in its time, however often it asks in vain; one that watches stays")
async def over(t):
    daemon, business, up = await t.relay(limits={"first_subscribe_ms": 1000, "unsubscribed_ms": 3000})
    links = [t.link() for _ in range(3)]
    ended, left, stays = [await t.joined(daemon, up, link, topic=7 + number) for number, link in enumerate(links)]
    stays.subscribe(links[0])
    await stays.expect("subscribed", topic=7)
    up.send("End", topic=7, reason="over")
    began = time.monotonic()
    for page in (ended, stays):
        await page.expect("end", topic=7)
    left.json({"type": "unsubscribe", "topic": 8})
    await left.expect("end", topic=8)
    await asyncio.sleep(1)
    ended.subscribe(links[0])
    up.deny(await up.expect("Subscribe", link=links[0]), "not yet")
    await ended.expect("denied")
    for page in (ended, left):
        await closed(page, 1008, timeout=3 + PATIENCE)
    assert time.monotonic() - began > 2.9, "a page was closed before its time"
    up.message(9, 1)
    await stays.expect("message", sequence=1)


@test("a page that answers no ping is gone after 60 s although it reads; one that answers stays", waits=75, plain=True)
async def no_pong(t):
    daemon, business, up = await t.relay()
    silent, link, began = await t.joined(daemon, up, (link := t.link())), link, time.monotonic()
    answering = await t.page(daemon)
    answering.subscribe(link)
    await answering.expect("subscribed")
    silent.pongs_back = False
    sequence = 0
    while not silent.ended.done():
        sequence += 1
        up.message(7, sequence)
        await answering.expect("message", sequence=sequence)
        assert time.monotonic() - began < 75 * SLACK, "it still has its place"
        await asyncio.sleep(0.5)
    assert silent.pings and time.monotonic() - began > 58, f"it was gone after {time.monotonic() - began:.1f} s"
    assert answering.pings and not answering.ended.done()


@test("one network gets no more than a quarter of a table that is above three quarters full; loopback and trusted proxies are none")
async def share(t):
    daemon = await t.daemon(["127.0.0.1:1"], pages={"trusted_proxies": ["127.0.0.1"]}, limits={"pages": 12}).start()
    pages = [await t.page(daemon, **from_address(f"2001:db8:0:7::{host:x}")) for host in range(1, 11)]
    await refused(t, daemon, **from_address("2001:db8:0:7:ffff::1"))
    await t.page(daemon, **from_address("2001:db8:0:8::1"))
    await t.page(daemon, source="127.0.0.1")
    await refused(t, daemon, **from_address("192.0.2.1"))
    for page in pages[:7]:
        await page.close()
        await until_free(t, daemon, source="127.0.0.1")
        await refused(t, daemon, **from_address("2001:db8:0:7::1"))
    await pages[7].close()
    await until_free(t, daemon, **from_address("2001:db8:0:7::1"))


@test("pages_per_address: addresses of IPv6 count by their /64, and a reload changes it at once")
async def per_network(t):
    daemon = t.daemon(["127.0.0.1:1"], pages={"trusted_proxies": ["127.0.0.1"]}, limits={"pages_per_address": 2})
    await daemon.start()
    for host in (1, 2):
        await t.page(daemon, **from_address(f"2001:db8::{host}"))
    await refused(t, daemon, **from_address("2001:db8::3"))
    await t.page(daemon, **from_address("2001:db8:0:1::3"))
    for most in (3, 0, '"auto"'):
        daemon.config.write_text(daemon_module.toml(daemon.sections).replace("pages_per_address = 2", f"pages_per_address = {most}"))
        await reload(daemon, "configuration reloaded")
        await t.page(daemon, **from_address("2001:db8::3"))
        if most == 3:
            await refused(t, daemon, **from_address("2001:db8::4"))


@test("an address asks at most as often as its burst and its rate say, over any time and however many pages it has")
async def asks(t):
    burst, per_s = 60, 20
    limits = {"page_asks_burst": 32, "address_asks_burst": burst, "address_asks_per_s": per_s}
    daemon, business, up = await t.relay(auto=denying, limits=limits)
    source, link = t.source(), t.link()
    pages = [await t.page(daemon, source=source) for _ in range(20)]
    first = await t.page(daemon)
    first.subscribe(link)
    await first.expect("denied")  # remembered, so that later ones are answered at once
    began = time.monotonic()
    for page in pages:
        for _ in range(30):
            page.subscribe(link)
        await asyncio.sleep(0)
    answers = [(await page.expect("denied"))["reason"] for page in pages for _ in range(30)]
    passed = sum(reason == "no such room" for reason in answers)
    most = burst + per_s * (time.monotonic() - began) + 1
    assert burst <= passed <= most, f"{passed} of {len(answers)} passed, at most {most:.0f} may"


@test("made-up hosts and origins, however many, take no honest page's origin: neither a listed one's nor the relay's own host's")
async def origins(t):
    daemon, business, up = await t.relay()
    for number in range(150):
        host = f"made-up-{number}.example"
        await t.page(daemon, source="127.0.0.2", origin=f"https://{host}", extra=[("Host", host)])
    own = f"http://127.0.0.1:{daemon.port}"
    for origin in ("https://share.example", own):
        page, link = await t.page(daemon, origin=origin), t.link()
        page.subscribe(link)
        assert (await up.by_name(link)).origin == origin
