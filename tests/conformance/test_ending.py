"""Revoke, End and Kick; audience counts; what pages send."""
import asyncio
import time

from harness import test
from websocket import TEXT, frame


@test("Revoke ends every session's subscription made with that link, and its grant, and nobody else's")
async def revoke(t):
    daemon, business, up = await t.relay()
    link, other_link = t.link(), t.link()
    page = await t.joined(daemon, up, link)
    second = await t.page(daemon)
    await second.join(link)
    other = await t.joined(daemon, up, other_link)
    up.message(7, 1)
    up.send("Revoke", link=link, reason="the host left")
    up.message(7, 2)
    for ended in (page, second):
        await ended.until("end", topic=7, reason="the host left")
        assert not any(e.get("sequence") == 2 for _, e in ended.events.history)
    assert await other.track(7, "messages", 2) == ["message 1", "message 2"]
    again = await t.page(daemon)
    again.subscribe(link)
    up.deny(await up.expect("Subscribe", link=link), "no more")
    await again.expect("denied", reason="no more")


@test("after Revoke a page may subscribe again and is asked for anew")
async def revoke_again(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.send("Revoke", link=link, reason="")
    await page.expect("end", topic=7, reason="")
    id = page.subscribe(link)
    up.accept(await up.expect("Subscribe", link=link))
    await page.expect("subscribed", id=id)
    up.message(7, 1)
    await page.expect("message", sequence=1)


@test("pages that wait for a Subscribe of a revoked link go on waiting for its answer")
async def revoke_waiting(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.page(daemon)
    page.subscribe(link)
    ask = await up.expect("Subscribe", link=link)
    up.send("Revoke", link=link, reason="x")
    await up.barrier()
    await page.nothing(0.2)
    up.accept(ask)
    await page.expect("subscribed")


@test("Revoke of an unknown link is harmless")
async def revoke_unknown(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link())
    up.send("Revoke", link="nobody-has-this", reason="x")
    up.send("Revoke", link="", reason="x")
    up.send("End", topic=99, reason="x")
    up.send("Kick", page=4_000_000_000, reason="x")
    await up.barrier()
    await page.nothing(0.1)


@test("End ends the topic for all, whatever their link; other topics go on")
async def end(t):
    daemon, business, up = await t.relay()
    link = t.link()
    pages = [await t.joined(daemon, up, link), await t.joined(daemon, up, t.link())]
    other = await t.joined(daemon, up, t.link(), topic=8)
    up.send("End", topic=7, reason="the room closed")
    up.message(7, 1)
    for page in pages:
        assert (await page.expect("end", topic=7, reason="the room closed"))["raw"] == '{"type":"end","topic":7,"reason":"the room closed"}'
        await page.nothing(0.1)
    up.message(8, 1)
    await other.expect("message", topic=8, sequence=1)
    page = await t.page(daemon)
    page.subscribe(link)
    up.accept(await up.expect("Subscribe", link=link), epoch=9)
    up.message(7, 1)
    await page.expect("subscribed", epoch="9")
    await page.expect("message", sequence=1)


@test("a page of two topics keeps the other one when one ends")
async def two_topics(t):
    daemon, business, up = await t.relay()
    page = await t.page(daemon)
    for topic in (7, 8):
        page.subscribe(t.link())
        up.accept(await up.expect("Subscribe"), topic=topic)
        await page.expect("subscribed", topic=topic)
    up.message(7, 1)
    up.message(8, 1, 2)
    assert await page.track(7, "messages", 1) == ["message 1"]
    assert await page.track(8, "messages", 2) == ["message 1", "message 2"]
    up.send("End", topic=7, reason="x")
    await page.expect("end", topic=7)
    up.message(8, 3)
    await page.expect("message", topic=8, sequence=3)


@test("Kick closes one page with 1008 and the reason")
async def kick(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, page_messages=True)
    other = await t.page(daemon)
    await other.join(link)
    page.send(7, "hello")
    number = (await up.expect("PageMessage", topic=7, data="hello")).page
    other.send(7, "hi")
    assert (await up.expect("PageMessage", data="hi")).page != number
    up.send("Kick", page=number, reason="be kind")
    event = await page.gone()
    assert event == {"type": "close", "code": 1008, "reason": "be kind"}, event
    await up.audience(7, 1)
    up.message(7, 1)
    await other.expect("message", sequence=1)


@test("Kick with a reason longer than a close frame holds still closes with 1008 and valid UTF-8")
async def kick_long(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link(), page_messages=True)
    page.send(7, "x")
    up.send("Kick", page=(await up.expect("PageMessage")).page, reason="好" * 85)
    event = await page.gone()
    assert event.get("code") == 1008 and "好好".startswith(event["reason"][:2]), event


@test("a page's number is the same for all that it sends, and is not reused within one uplink connection")
async def numbers(t):
    daemon, business, up = await t.relay()
    link, seen = t.link(), set()
    keeper = await t.joined(daemon, up, link, page_messages=True)
    for turn in range(6):
        page = await t.page(daemon)
        await page.join(link)
        page.send(7, f"{turn} a")
        page.send(7, f"{turn} b")
        one = (await up.expect("PageMessage", data=f"{turn} a")).page
        assert (await up.expect("PageMessage", data=f"{turn} b")).page == one
        assert one not in seen, f"page number {one} was used before"
        seen.add(one)
        await page.leave()
        await asyncio.sleep(0.05)
    await keeper.nothing(0.1)


@test("Audience goes out after an Accept and when the number of pages changed; the last value always goes out")
async def audience(t):
    daemon, business, up = await t.relay()
    link = t.link()
    first = await t.joined(daemon, up, link)
    await up.audience(7, 1)
    pages = [await t.page(daemon) for _ in range(4)]
    for page in pages:
        await page.join(link)
    await up.audience(7, 5)
    for page in pages:
        await page.leave()
    await up.audience(7, 1)
    first.unsubscribe(7)
    await up.audience(7, 0)


@test("Audience: at most once a second for each topic", waits=True)
async def audience_rate(t):
    daemon, business, up = await t.relay()
    link, began = t.link(), time.monotonic()
    await t.joined(daemon, up, link)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        page = await t.page(daemon)
        await page.join(link)
        await asyncio.sleep(0.05)
        await page.leave()
    keeper = await t.page(daemon)
    await keeper.join(link)
    await asyncio.sleep(2.5)
    times = [(at, f.pages) for at, f in up.frames.history if f.kind == "Audience" and f.topic == 7]
    assert times[-1][1] == 2, f"the last value did not go out: {times}"
    # The first one follows the Accept; after that, no two are sent within one second. Count them
    # rather than measure the intervals: one that was read late shortens the next interval.
    assert 4 <= len(times) <= times[-1][0] - began + 2, times


@test("PageMessage carries what a page sent, only where its link's grant has page_messages")
async def page_messages(t):
    daemon, business, up = await t.relay()
    allowed = await t.joined(daemon, up, t.link(), page_messages=True)
    refused = await t.joined(daemon, up, t.link(), topic=8, page_messages=False)
    for data in ("hello", "", "👍", 'q"\\\n\0', "x" * 512, "👍" * 128):
        allowed.send(7, data)
        await up.expect("PageMessage", topic=7, data=data, timeout=8)
        await asyncio.sleep(0.25)
    refused.send(8, "no")
    allowed.send(9, "no")
    await up.none("PageMessage", 0.4)
    await refused.until("error")


@test("send: at most 512 bytes; more is answered by an error and not forwarded")
async def send_size(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link(), page_messages=True)
    page.send(7, "x" * 513)
    await page.expect("error")
    page.send(7, "好" * 171)
    await page.expect("error")
    page.send(7, "fits")
    await up.expect("PageMessage", data="fits")
    assert up.seen("PageMessage") == 1


@test("send: 5 at once and 1 a second from then on; more is answered by an error, not forwarded, and never closes the page", waits=True)
async def send_rate(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link(), page_messages=True)
    started = time.monotonic()
    page.raw(b"".join(frame(TEXT, '{"type":"send","topic":7,"data":"m%d"}' % n) for n in range(12)))  # at once
    for n in range(5):
        await up.expect("PageMessage", data=f"m{n}")
    for _ in range(6):
        await page.expect("error")
    await asyncio.sleep(0.3)
    forwarded = up.seen("PageMessage")
    assert 5 <= forwarded <= 5 + (time.monotonic() - started) + 1, f"{forwarded} were forwarded"
    page.events.items.clear()
    await asyncio.sleep(2.3)
    page.send(7, "later")
    page.send(7, "later still")
    await up.expect("PageMessage", data="later")
    await up.expect("PageMessage", data="later still")
    up.message(7, 1)
    await page.until("message", sequence=1)
