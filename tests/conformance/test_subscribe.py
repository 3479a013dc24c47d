"""Subscribing: requests to the business server, admission, and the lifetime of grants."""
import asyncio
import time

import lag
from harness import test
from inbox import SLACK


def places(frame):
    """The `since` of a Subscribe as (epoch, next of messages), or None."""
    return None if frame.since is None else (frame.since[0], frame.since[1][1])


@test("Accept names topic, epoch and page_messages, and the confirming subscribed says so")
async def accepted(t):
    daemon, business, up = await t.relay()
    page = await t.page(daemon)
    page.subscribe(t.link(), id=4294967295)
    ask = await up.expect("Subscribe")
    assert ask.since is None, ask
    up.accept(ask, topic=4294967295, epoch=2**64 - 1, page_messages=True)
    await page.expect("subscribed", id=4294967295, topic=4294967295, epoch=str(2**64 - 1), page_messages=True)
    other = await t.joined(daemon, up, t.link(), topic=0)
    assert other.events.history[0][1]["raw"].startswith('{"type":"subscribed","id":1,"topic":0,"epoch":"7","page_messages":false')


@test("a link is first requested as a whole, without a page's name; one that is not shared, with the page's address and origin")
async def page_info(t):
    daemon, business, up = await t.relay()
    link, source = t.link(128), t.source()
    page = await t.page(daemon, source=source, origin="https://share.example")
    page.subscribe(link)
    whole = await up.expect("Subscribe", link=link, address="", origin="", since=None)
    up.accept(whole, shared=False)
    await up.expect("Subscribe", link=link, address=source, origin="https://share.example")
    await page.nothing(0.2)  # the request for the whole link admits no page
    link = t.link()
    (await t.page(daemon)).subscribe(link)
    assert (await up.by_name(link)).origin == ""


@test("Deny reaches the page with its reason and no retry")
async def denied(t):
    daemon, business, up = await t.relay()
    for reason in ("this link has expired", "", 'a "quoted" \\ reason\n你好 </script>', "x" * 256):
        page, link = await t.page(daemon), t.link()
        id = page.subscribe(link)
        await up.deny_link(link, reason)
        event = await page.expect("denied", id=id, reason=reason)
        assert "retry" not in event, event


@test("concurrent requests are distinguished by their number, in whatever order they are answered")
async def echoed(t):
    daemon, business, up = await t.relay()
    pages, asks = [], []
    for _ in range(4):
        link = t.link()
        pages.append(await t.page(daemon))
        pages[-1].subscribe(link)
        asks.append(await up.expect("Subscribe", link=link))
    assert len({a.request for a in asks}) == 4, asks
    for topic in (3, 1, 0, 2):
        up.accept(asks[topic], topic=topic + 10)
    for topic, page in enumerate(pages):
        await page.expect("subscribed", topic=topic + 10)


@test("shared: a herd of 50 pages that wait for one link costs one request")
async def herd(t):
    daemon, business, up = await t.relay()
    link = t.link()
    pages = await asyncio.gather(*(t.page(daemon) for _ in range(50)))
    for page in pages:
        page.subscribe(link)
    ask = await up.expect("Subscribe", link=link)
    await asyncio.sleep(0.5)
    up.accept(ask, ttl_s=300)
    up.message(7, 1)
    for page in pages:
        await page.expect("subscribed", topic=7)
        await page.expect("message", sequence=1)
    await up.audience(7, 50)
    assert up.seen("Subscribe") == 1


@test("shared: for ttl_s seconds further pages are admitted without a request")
async def further(t):
    daemon, business, up = await t.relay()
    link = t.link()
    await t.joined(daemon, up, link)
    for _ in range(5):
        await (await t.page(daemon)).join(link, topic=7)
    assert up.seen("Subscribe") == 1


@test("not shared: the request for the whole link admits no page, and each page is then requested by itself")
async def each_its_own(t):
    daemon, business, up = await t.relay()
    link, sources = t.link(), [t.source() for _ in range(5)]
    assert len(set(sources)) == 5
    pages = [await t.page(daemon, source=source) for source in sources]
    for page in pages:
        page.subscribe(link)
    whole = await up.expect("Subscribe", link=link, address="")
    await asyncio.sleep(0.3)
    up.accept(whole, shared=False, ttl_s=300)
    asked = set()
    for _ in range(5):
        ask = await up.expect("Subscribe", link=link)
        asked.add(ask.address)
        up.accept(ask, shared=False, ttl_s=300)
    assert asked == set(sources), "a page was not asked for, or twice"
    for page in pages:
        await page.expect("subscribed")
    await up.audience(7, 5)
    page = await t.page(daemon)
    page.subscribe(link)
    assert (await up.expect("Subscribe", link=link)).address, "known as not shared: by its name at once"


@test("not shared: a page's own denial is that page's alone, and remembered for 2 s by link, address and origin")
async def own_answer(t):
    daemon, business, up = await t.relay()
    link, banned = t.link(), t.source()
    first = await t.joined(daemon, up, link, shared=False)
    waiting = await t.page(daemon)
    second = await t.page(daemon, source=banned, origin="https://share.example")
    waiting.subscribe(link)
    other = await up.expect("Subscribe", link=link)
    second.subscribe(link)
    with lag.within(2):
        up.deny(await up.expect("Subscribe", link=link, address=banned), "not you")
        await second.expect("denied", reason="not you")
        second.subscribe(link)
        await second.expect("denied", reason="not you")
        assert up.seen("Subscribe", address=banned) == 1, "asked again within 2 s"
        await first.nothing(0.2)
        await waiting.nothing(0.1)
    # Another origin, or another address, is another page.
    third = await t.page(daemon, source=banned)
    third.subscribe(link)
    up.accept(await up.expect("Subscribe", link=link, address=banned, origin=""), shared=False)
    await third.expect("subscribed")
    up.accept(other, shared=False)
    await waiting.expect("subscribed")


@test("one banned viewer who asks twice a second costs the honest ones nothing, also if others watch")
async def banned(t):
    banned = t.source()
    daemon, business, up = await t.relay()
    link = t.link()

    def decide(up, ask):
        up.deny(ask, "you are banned") if ask.address == banned else up.accept(ask, shared=False, ttl_s=300)
    business.auto = decide
    rude = await t.page(daemon, source=banned)
    for _ in range(6):
        rude.subscribe(link)
        await rude.expect("denied", reason="you are banned")
        honest = [await t.page(daemon, source=t.source()) for _ in range(2)]
        for page in honest:
            await page.join(link, topic=7)
        up.message(7, 1)
        await asyncio.sleep(0.5)
        await honest[0].leave()
        await honest[1].leave()
    assert up.seen("Subscribe", address=banned) <= 3, "a denied page is asked for once in 2 s"


@test("a shared grant of no time: a banned page's denial ends nobody who watches")
async def banned_elsewhere(t):
    daemon, business, up = await t.relay()
    link, banned = t.link(), t.source()
    pages = [await t.joined(daemon, up, link, ttl_s=0)]
    rude = await t.page(daemon, source=banned)
    rude.subscribe(link)
    # The business server denies only new pages: not shared, and denied by name.
    up.accept(await up.expect("Subscribe", link=link, address=""), shared=False)
    up.deny(await up.expect("Subscribe", link=link, address=banned), "you are banned")
    await rude.expect("denied", reason="you are banned")
    await pages[0].nothing(0.3)
    up.message(7, 1)
    await pages[0].expect("message", sequence=1)


@test("a business server that decides by address and denies the empty one: its pages are asked for by name")
async def shy(t):
    daemon, business, up = await t.relay()
    link, own = t.link(), t.link()
    business.auto = lambda up, ask: (up.accept(ask, topic=7 if ask.link == link else 8, shared=ask.link == link, ttl_s=300)
                                     if ask.address else up.deny(ask, "who asks?"))
    pages = [await t.page(daemon) for _ in range(20)]
    for page in pages:
        page.subscribe(link)
    for page in pages:
        await page.expect("subscribed", topic=7)
    assert up.seen("Subscribe", link=link) == 2, "the whole, and one name: its answer is shared"
    pages = [await t.page(daemon) for _ in range(3)]
    for page in pages:
        await page.join(own, topic=8)
    assert up.seen("Subscribe", link=own, address="") == 1
    up.drop()
    up = await business.uplink()
    await up.audience(8, 3)
    up.message(8, 1)
    for page in pages:
        await page.until("message", sequence=1)


@test("a dead link costs two requests in 2 s, however often pages ask")
async def dead_link(t):
    daemon, business, up = await t.relay()
    link = t.link()
    business.auto = lambda up, ask: up.deny(ask, "no such link")
    with lag.within(2):
        for _ in range(12):
            page = await t.page(daemon)
            page.subscribe(link)
            await page.expect("denied", reason="no such link")
        assert up.seen("Subscribe") == 2


@test("a renewal that is not answered is asked for again, and a denial that comes late still ends its pages", waits=True)
async def late_denial(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, ttl_s=2)
    first = await up.expect("Subscribe", link=link, timeout=8 * SLACK)
    second = await up.expect("Subscribe", link=link, timeout=40 * SLACK)
    up.message(7, 1)
    await page.until("message", sequence=1)
    up.deny(first, "you left the room")
    await page.until("end", topic=7, reason="you left the room")
    up.accept(second, topic=7, ttl_s=300)  # crossed the denial: has no effect
    again = await t.page(daemon)
    again.subscribe(link)
    event = await again.events.next("an answer")
    assert event["type"] == "denied" and event["reason"] == "you left the room", event


@test("one page's forged since costs the others nothing: alone, first or under way")
async def forged_since(t):
    daemon, business, up = await t.relay()

    def messages(up, ask, epoch=7):
        start = 100 - 50 + 1
        if ask.since is not None and ask.since[0] == epoch and 0 < ask.since[1][1] <= 101:
            start = ask.since[1][1]
        up.message(topics[ask.link], *range(start, 101))

    def decide(up, ask):
        up.accept(ask, topic=topics[ask.link], epoch=7)
        messages(up, ask)
    for forged in ((2**64 - 1, 5), (7, 2**53 - 1)):
        for order in ("first", "under way"):
            topics = {}
            link, topic = t.link(), len(order) + forged[1] % 1000
            topics[link] = topic
            business.auto = None
            liar, honest = await t.page(daemon), await t.page(daemon)
            for page, since in ((liar, forged), (honest, (7, 30)))[:: 1 if order == "first" else -1]:
                page.subscribe(link, since=since, beyond=page is liar)
                ask = await up.expect("Subscribe", link=link) if page is (liar if order == "first" else honest) else ask
            await asyncio.sleep(0.2)
            business.auto = decide
            decide(up, ask)
            await honest.until("subscribed", topic=topic)
            assert await honest.track(topic, "messages", 100) == [f"message {n}" for n in range(30, 101)], (forged, order)


@test("a ttl of 0 covers only the pages that waited")
async def ttl_zero(t):
    daemon, business, up = await t.relay()
    link = t.link()
    pages = [await t.page(daemon) for _ in range(3)]
    for page in pages:
        page.subscribe(link)
    ask = await up.expect("Subscribe", link=link)
    await asyncio.sleep(0.3)
    up.accept(ask, shared=True, ttl_s=0)
    for page in pages:
        await page.expect("subscribed")
    await up.none("Subscribe", 1.0)  # and it is not renewed
    late = await t.page(daemon)
    late.subscribe(link)
    up.accept(await up.expect("Subscribe", link=link), shared=True, ttl_s=0)
    await late.expect("subscribed")


@test("after its time to live a grant without pages admits nobody: it is asked again")
async def ttl_over(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, ttl_s=1)
    await page.leave()
    await asyncio.sleep(1.6)
    again = await t.page(daemon)
    again.subscribe(link)
    ask = await up.expect("Subscribe", link=link)
    up.accept(ask)
    await again.expect("subscribed")


@test("shared, with pages present: the relay renews once, before the end, and the pages stay")
async def renews(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, ttl_s=3)
    accepted = time.monotonic()
    up.message(7, 1, 2)
    ask = await up.expect("Subscribe", link=link)
    took = time.monotonic() - accepted
    assert took < 3.1 * SLACK + lag.lost(accepted), f"renewed after {took:.2f} s of a ttl of 3"
    assert places(ask) == (7, 3), f"the renewal lacks the relay's own place: {ask}"
    await up.none("Subscribe", 0.7)
    up.accept(ask, ttl_s=300)
    up.message(7, 3)
    assert await page.track(7, "messages", 3) == ["message 1", "message 2", "message 3"]
    await (await t.page(daemon)).join(link)
    assert up.seen("Subscribe") == 2


@test("a renewal that is denied ends all pages of that link, and no other's")
async def renewal_denied(t):
    daemon, business, up = await t.relay()
    link, other_link = t.link(), t.link()
    page = await t.joined(daemon, up, link, ttl_s=2)
    second = await t.page(daemon)
    with lag.within(2):
        await second.join(link)
    other = await t.joined(daemon, up, other_link, ttl_s=300)
    up.deny(await up.expect("Subscribe", link=link), "over")
    await page.expect("end", topic=7, reason="over")
    await second.expect("end", topic=7, reason="over")
    up.message(7, 1)
    await other.expect("message", sequence=1)
    await page.nothing(0.1)


@test("not shared: there is no renewal")
async def no_renewal(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link(), shared=False, ttl_s=1)
    await up.none("Subscribe", 2.0)
    up.message(7, 1)
    await page.expect("message")


@test("a denied link is remembered for 2 s: a herd on a dead link costs one request")
async def denied_remembered(t):
    daemon, business, up = await t.relay()
    link = t.link()
    waiting = [await t.page(daemon) for _ in range(10)]
    for page in waiting:
        page.subscribe(link)
    ask = await up.expect("Subscribe", link=link)
    await asyncio.sleep(0.3)
    with lag.within(2):
        up.deny(ask, "gone")
        up.deny(await up.expect("Subscribe", link=link), "gone")
        denied_at = time.monotonic()
        for page in waiting:
            await page.expect("denied", reason="gone")
        page = await t.page(daemon)
        page.subscribe(link)
        await page.expect("denied")
        assert up.seen("Subscribe") == 2, "asked again within 2 s"
    await asyncio.sleep(max(0, denied_at + 2.4 - time.monotonic()))
    page = await t.page(daemon)
    page.subscribe(link)
    up.accept(await up.expect("Subscribe", link=link))
    await page.expect("subscribed")


@test("a Subscribe that is not answered within 10 s is given up with a retry; an Accept that comes later is harmless", waits=True)
async def unanswered(t):
    daemon, business, up = await t.relay(linger_s=1)
    link, asked = t.link(), time.monotonic()
    page = await t.page(daemon)
    id = page.subscribe(link)
    ask = await up.expect("Subscribe", link=link)
    event = await page.expect("denied", id=id, timeout=20 * SLACK)
    took = time.monotonic() - asked
    assert 8.5 < took < 13 * SLACK + lag.lost(asked), f"given up after {took:.1f} s"
    assert event.get("retry", -1) >= 0, event
    up.accept(ask, topic=7)
    await up.expect("Unsubscribe", topic=7, timeout=8 * SLACK)  # a topic without pages lingers and is dropped
    await page.nothing(0.2)
    assert up.open
    await t.joined(daemon, up, t.link(), topic=8)


@test("several links may lead to one topic")
async def two_links(t):
    daemon, business, up = await t.relay()
    one = await t.joined(daemon, up, t.link(), replay=2)
    up.message(7, 1, 2, 3, 4, 5)
    await one.track(7, "messages", 5)
    two = await t.joined(daemon, up, t.link(), replay=4, page_messages=True)
    assert await two.track(7, "messages", 5) == [f"message {n}" for n in (2, 3, 4, 5)]
    await up.audience(7, 2)
    up.message(7, 6)
    await one.expect("message", sequence=6)
    await two.expect("message", sequence=6)


@test("replay and page_messages belong to the link, not to the topic")
async def of_the_link(t):
    daemon, business, up = await t.relay()
    plain, talking = t.link(), t.link()
    one = await t.joined(daemon, up, plain, page_messages=False, replay=1)
    two = await t.joined(daemon, up, talking, page_messages=True, replay=3)
    up.message(7, 1, 2, 3, 4)
    await one.track(7, "messages", 4)
    await two.track(7, "messages", 4)
    third, fourth = await t.page(daemon), await t.page(daemon)
    await third.join(plain, page_messages=False)
    await fourth.join(talking, page_messages=True)
    assert await third.track(7, "messages", 4) == ["message 4"]
    assert await fourth.track(7, "messages", 4) == ["message 2", "message 3", "message 4"]
    three = await t.page(daemon)
    await three.join(plain)
    three.send(7, "no")
    two.send(7, "yes")
    await up.expect("PageMessage", data="yes")
    await up.none("PageMessage", 0.2, data="no")


@test("a second subscription to a topic that the page already holds is denied")
async def held(t):
    daemon, business, up = await t.relay(auto=lambda up, ask: up.accept(ask, topic=7))
    link = t.link()
    page = await t.page(daemon)
    await page.join(link, topic=7)
    id = page.subscribe(link)
    await page.expect("denied", id=id)
    id = page.subscribe(t.link())
    event = await page.events.take(lambda e: e.get("id") == id, "the answer for another link to the same topic")
    assert event["type"] == "denied", event
    up.message(7, 1)
    await page.expect("message", sequence=1)


@test("a page may hold 8 topics, and no ninth", waits=True)
async def eight(t):
    daemon, business, up = await t.relay()
    topics = iter(range(1, 100))
    business.auto = lambda up, ask: up.accept(ask, topic=next(topics))
    page = await t.page(daemon)
    for topic in range(1, 9):
        await page.join(t.link(), topic=topic, timeout=20 * SLACK)
    for topic in range(1, 9):
        up.message(topic, 1)
    for topic in range(1, 9):
        assert await page.track(topic, "messages", 1) == ["message 1"]
    page.subscribe(t.link())
    event = await page.events.take(lambda e: e["type"] in ("subscribed", "denied", "error"), "an answer to the ninth")
    assert event["type"] != "subscribed", event
    page.unsubscribe(3)
    await page.until("end", topic=3)
    await page.join(t.link(), timeout=20 * SLACK)


@test("an Accept whose topic finds no room: denied with a retry, and the business server gets Unsubscribe")
async def no_room(t):
    daemon, business, up = await t.relay(limits={"topics": 1})
    first = await t.joined(daemon, up, t.link(), topic=1)
    page = await t.page(daemon)
    id = page.subscribe(t.link())
    deadline = time.monotonic() + 6
    while not any(e["type"] == "denied" for e in page.events.items) and time.monotonic() < deadline:
        asks = [f for f in up.frames.items if f.kind == "Subscribe"]
        if asks:
            up.accept(await up.expect("Subscribe"), topic=2)
            await up.expect("Unsubscribe", topic=2)
            break
        await asyncio.sleep(0.05)
    event = await page.expect("denied", id=id)
    assert event.get("retry", -1) >= 0, event
    up.message(1, 1)
    await first.expect("message", sequence=1)


@test("a refresh within the linger costs nothing")
async def refresh(t):
    daemon, business, up = await t.relay(linger_s=5)
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.state(7, 1)
    up.message(7, 1, 2, 3)
    await page.track(7, "messages", 3)
    await page.leave()
    await up.audience(7, 0)
    back = await t.page(daemon)
    await back.join(link, since=(7, 4), topic=7)
    await back.until("state", sequence=1)
    up.message(7, 4)
    assert await back.track(7, "messages", 4) == ["message 4"]
    assert up.seen("Subscribe") == 1 and up.seen("Unsubscribe") == 0


@test("a returning page gets what was published during the linger")
async def while_away(t):
    daemon, business, up = await t.relay(linger_s=5)
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.message(7, 1, 2)
    await page.track(7, "messages", 2)
    await page.leave()
    await up.audience(7, 0)
    up.message(7, 3, 4)
    await up.barrier()
    back = await t.page(daemon)
    await back.join(link, since=(7, 3))
    assert await back.track(7, "messages", 4) == ["message 3", "message 4"]


@test("after the linger the relay unsubscribes, once, and forgets topic and grants")
async def linger_over(t):
    daemon, business, up = await t.relay(linger_s=1)
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.message(7, 1)
    await page.expect("message")
    left = time.monotonic()
    await page.leave()
    await up.expect("Unsubscribe", topic=7)
    took = time.monotonic() - left
    assert 0.8 < took < 4 * SLACK + lag.lost(left), f"after {took:.1f} s of a linger of 1"
    await up.none("Unsubscribe", 0.3)
    back = await t.page(daemon)
    back.subscribe(link)
    ask = await up.expect("Subscribe", link=link)
    assert ask.since is None, f"the topic was forgotten, yet: {ask}"
    up.accept(ask)
    up.message(7, 1, 2)
    await back.expect("subscribed")
    assert await back.track(7, "messages", 2) == ["message 1", "message 2"]


@test("unsubscribe is answered by end, and when it was the last page the topic lingers")
async def unsubscribes(t):
    daemon, business, up = await t.relay(linger_s=1)
    page = await t.joined(daemon, up, t.link())
    page.unsubscribe(7)
    await page.expect("end", topic=7)
    up.message(7, 1)
    await page.nothing(0.2)
    await up.expect("Unsubscribe", topic=7)


@test("an Accept for a request that was sent before the topic's last Unsubscribe makes the relay subscribe again at once")
async def crossed(t):
    daemon, business, up = await t.relay(linger_s=3)
    page = await t.joined(daemon, up, t.link(), topic=7)
    await page.leave()
    await asyncio.sleep(0.3)
    link = t.link()
    second = await t.page(daemon)
    second.subscribe(link)
    early = await up.expect("Subscribe", link=link)
    await up.expect("Unsubscribe", topic=7)
    up.accept(early, topic=7)
    again = await up.expect("Subscribe", link=link)
    up.accept(again, topic=7)
    up.message(7, 1)
    await second.expect("subscribed", topic=7)
    await second.expect("message", sequence=1)


@test("since is sent upward for a cold link: the epoch, and the messages' next less what the log holds, at least 1")
async def cold(t):
    daemon, business, up = await t.relay()
    held = None
    for following in (10**6, 2 * 10**6, 2**53 - 1):
        page = await t.page(daemon)
        link = t.link()
        page.subscribe(link, since=(2**63 + 5, [9, following, 8, 7]))
        ask = await up.expect("Subscribe", link=link)
        assert ask.since, f"no since: {ask}"
        epoch, (state, messages, audio, video) = ask.since
        assert epoch == 2**63 + 5 and (state, audio, video) == (0, 0, 0), ask
        assert held is None or following - messages == held, f"{following} - {messages}, before {held}"
        held = following - messages
        assert 0 < held < 10**6, f"the relay says that it holds {held} messages"
    page = await t.page(daemon)
    page.subscribe(t.link(), since=(7, 1))
    ask = await up.expect("Subscribe")
    assert ask.since == (7, [0, 1, 0, 0]), ask


@test("since of a cold link is the newest epoch of its waiting pages, and the lowest next of that epoch")
async def cold_herd(t):
    business = await t.business()
    business.gate.clear()
    daemon = await t.daemon([business.address]).start()
    link, probe = t.link(), t.link()
    pages = [await t.page(daemon) for _ in range(5)]
    for page, since in zip(pages, [(7, 2 * 10**6), (9, 3 * 10**6 + 5), None, (9, 3 * 10**6), (8, 1)]):
        page.subscribe(link, since=since)
    prober = await t.page(daemon)
    prober.subscribe(probe, since=(1, 10**6))
    await asyncio.sleep(0.3)
    business.gate.set()
    up = await business.uplink()
    if any(e["type"] == "denied" for page in pages for e in page.events.items):
        return  # a relay may refuse while its uplink is down; then there is no herd
    held = 10**6 - (await up.expect("Subscribe", link=probe)).since[1][1]
    ask = await up.expect("Subscribe", link=link)
    assert ask.since == (9, [0, 3 * 10**6 - held, 0, 0]), f"{ask}, log of {held}"


@test("a page that came back with its since to a cold link gets exactly what it missed, and no message twice")
async def cold_resume(t):
    daemon, business, up = await t.relay()
    page, link = await t.page(daemon), t.link()
    page.subscribe(link, since=(7, 43))
    ask = await up.expect("Subscribe", link=link)
    first = ask.since[1][1]
    up.accept(ask, epoch=7)
    up.state(7, 4)
    up.message(7, *range(first, 46))
    await page.expect("subscribed", epoch="7")
    assert await page.track(7, "messages", 45) == ["message 43", "message 44", "message 45"]
    older = await t.page(daemon)
    await older.join(link, since=(7, max(first, 41)))
    assert await older.track(7, "messages", 45) == [f"message {n}" for n in range(max(first, 41), 46)]


@test("if the business server no longer has everything, the page gets a gap from its own next on")
async def cold_gap(t):
    daemon, business, up = await t.relay()
    page, link = await t.page(daemon), t.link()
    page.subscribe(link, since=(7, 43))
    up.accept(await up.expect("Subscribe", link=link), epoch=7)
    up.message(7, 60, 61)
    await page.expect("subscribed")
    assert await page.track(7, "messages", 61) == ["gap 43-59", "message 60", "message 61"]


@test("since of another epoch: the page is a late page")
async def other_epoch(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, epoch=8, replay=2)
    up.message(7, 1, 2, 3, 4)
    await page.track(7, "messages", 4)
    back = await t.page(daemon)
    await back.join(link, since=(7, 2), epoch="8")
    assert await back.track(7, "messages", 4) == ["message 3", "message 4"]
    page, link = await t.page(daemon), t.link()
    page.subscribe(link, since=(5, 1000))
    up.accept(await up.expect("Subscribe", link=link), topic=9, epoch=6)
    up.message(9, 20, 21)
    await page.expect("subscribed", epoch="6")
    assert await page.track(9, "messages", 21) == ["message 20", "message 21"]


@test("a page's since matters for messages alone: of state it gets the newest, of media the current group")
async def messages_alone(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.state(7, 1)
    up.state(7, 2)
    up.media(7, "video", "init 1", "start 2", "continue 3", "start 4", "continue 5")
    up.message(7, 1, 2, 3)
    await page.track(7, "messages", 3)
    back = await t.page(daemon)
    await back.join(link, since=(7, [3, 3, 0, 6]))
    assert await back.track(7, "messages", 3) == ["message 3"]
    assert await back.track(7, "state", 2) == ["state 2"]
    assert await back.track(7, "video", 5) == ["init 1", "start 4", "continue 5"]


@test("since of a warm topic: exactly what was missed, or a gap for what the relay no longer holds")
async def warm(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, replay=3)
    up.message(7, *range(1, 21))
    await page.track(7, "messages", 20)
    for following in (1, 7, 20, 21):
        back = await t.page(daemon)
        await back.join(link, since=(7, following))
        up_to = await back.track(7, "messages", 20) if following < 21 else []
        assert up_to == [f"message {n}" for n in range(following, 21)], (following, up_to)
    zero = await t.page(daemon)
    await zero.join(link, since=(7, 0))
    assert await zero.track(7, "messages", 20) == ["message 18", "message 19", "message 20"]
    up.message(7, 21)
    await back.expect("message", sequence=21)


@test("since beyond the counter counts as 0: the page is served as a late page")
async def beyond(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, replay=2)
    up.message(7, 1, 2, 3)
    await page.track(7, "messages", 3)
    back = await t.page(daemon)
    back.subscribe(link, since=(7, 100), beyond=True)
    await back.expect("subscribed")
    assert await back.track(7, "messages", 3) == ["message 2", "message 3"]
    up.message(7, 4)
    await back.expect("message", sequence=4)


@test("with a request for a topic that the relay holds, since is the relay's own next sequences")
async def own_next(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, shared=False)
    up.state(7, 4)
    up.message(7, 10, 11)
    up.media(7, "audio", "init 1", "start 2")
    await page.track(7, "audio", 2)
    second = await t.page(daemon)
    second.subscribe(link, since=(7, 5))
    ask = await up.expect("Subscribe", link=link)
    assert ask.since is not None and ask.since[0] == 7, ask
    assert ask.since[1][:3] == [5, 12, 3] and ask.since[1][3] in (0, 1), ask


@test("what is not a share link is refused without a request")
async def no_link(t):
    daemon, business, up = await t.relay()
    for link in ("", "x" * 129, "sla/sh", "spa ce", "ümlaut", "per%20cent", "nul\0"):
        page = await t.page(daemon)
        page.subscribe(link)
        event = await page.events.next(f"an answer to the link {link!r}")
        assert event["type"] in ("denied", "error"), event
    await up.barrier()
    assert up.seen("Subscribe") == 0
