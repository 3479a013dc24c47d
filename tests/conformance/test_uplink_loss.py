"""Losing the uplink, resuming, and new epochs."""
import asyncio

from harness import test
from inbox import SLACK, Mismatch


async def lose(business, up):
    """Breaks the connection; returns the next one."""
    up.drop()
    return await business.uplink()


@test("pages get notices that the uplink is down and up again, and stay connected")
async def told(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up = await lose(business, up)
    assert (await page.expect("uplink", up=False))["raw"] == '{"type":"uplink","up":false}'
    up.accept(await up.expect("Subscribe", link=link))
    await page.expect("uplink", up=True)
    up.message(7, 1)
    await page.expect("message", sequence=1)


@test("a resubscription carries the relay's own next sequences, and no message is lost or doubled")
async def resumes(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.state(7, 3)
    up.message(7, 40, 41, 42)
    up.media(7, "video", "init 1", "start 2", "continue 3")
    await page.track(7, "video", 3)
    up = await lose(business, up)
    ask = await up.expect("Subscribe", link=link)
    assert ask.since and ask.since[0] == 7, ask
    state, messages, audio, video = ask.since[1]
    assert (state, messages, video) == (4, 43, 4) and audio in (0, 1), ask
    up.accept(ask)
    up.message(7, 43, 44)
    up.media(7, "video", "continue 4", "start 5")
    assert await page.track(7, "messages", 44) == [f"message {n}" for n in range(40, 45)]
    assert await page.track(7, "video", 5) == ["continue 4", "start 5"]


@test("a replay that overlaps is dropped, and what the business server left out is a gap")
async def overlaps(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.message(7, 1, 2, 3)
    up.media(7, "video", "init 1", "start 2", "continue 3")
    up = await lose(business, up)
    up.accept(await up.expect("Subscribe", link=link))
    up.message(7, 2, 3, 4, 9)
    up.media(7, "video", "init 1", "start 20", "continue 21")
    assert await page.track(7, "messages", 9) == ["message 1", "message 2", "message 3", "message 4", "gap 5-8", "message 9"]
    seen = await page.track(7, "video", 21)
    assert [s for s in seen[1:] if s != "init 1"] == ["start 2", "continue 3", "gap 4-19", "start 20", "continue 21"], seen


@test("publications for a topic that this uplink connection has not accepted yet are dropped")
async def before_accept(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.message(7, 1)
    await page.expect("message", sequence=1)
    up = await lose(business, up)
    ask = await up.expect("Subscribe", link=link)
    up.message(7, 2, data='"early"')
    up.message(7, 3, data='"early"')
    up.accept(ask)
    up.message(7, 2, 3)
    await page.until("message", sequence=2, data={"n": 2})
    await page.until("message", sequence=3, data={"n": 3})
    assert up.open


@test("each shared link with pages is requested once, each page with its own grant separately, and links without pages not at all")
async def resubscribes(t):
    daemon, business, up = await t.relay()
    shared, own, empty = t.link(), t.link(), t.link()
    pages = [await t.joined(daemon, up, shared, topic=1)]
    for _ in range(4):
        pages.append(await t.page(daemon))
        await pages[-1].join(shared)
    for _ in range(3):
        pages.append(await t.joined(daemon, up, own, topic=2, shared=False))
    gone = await t.joined(daemon, up, empty, topic=3)
    await gone.leave()
    await up.audience(3, 0)
    up = await lose(business, up)
    for link, topic, grant in ((shared, 1, True), (own, 2, False), (own, 2, False), (own, 2, False)):
        up.accept(await up.expect("Subscribe", link=link), topic=topic, shared=grant)
    await up.none("Subscribe", 0.7)
    up.message(1, 1)
    up.message(2, 1)
    for page in pages:
        await page.until("message", sequence=1)
    late = await t.page(daemon)
    late.subscribe(empty)
    ask = await up.expect("Subscribe", link=empty)
    assert ask.since is None, f"a topic without pages is dropped with its uplink, yet: {ask}"


@test("the first Subscribe for a topic carries the relay's own next sequences, whichever of its links it is for")
async def first_of_topic(t):
    daemon, business, up = await t.relay()
    links = [t.link(), t.link()]
    pages = [await t.joined(daemon, up, link) for link in links]
    up.message(7, 1, 2, 3)
    for page in pages:
        await page.track(7, "messages", 3)
    up = await lose(business, up)
    asks = [await up.frames.take(lambda f: f.kind == "Subscribe", "a Subscribe") for _ in links]
    assert sorted(a.link for a in asks) == sorted(links), asks
    assert asks[0].since and asks[0].since[0] == 7 and asks[0].since[1][1] == 4, asks
    up.accept(asks[0])
    up.message(7, 4)
    up.accept(asks[1])
    up.message(7, 1, 2, 3, 4, 5)
    for page in pages:
        assert await page.track(7, "messages", 5) == ["message 4", "message 5"]


@test("a page that subscribes without an uplink is notified, or denied with a retry")
async def told_on_subscribing(t):
    daemon, business, up = await t.relay()
    held = await t.joined(daemon, up, t.link())
    business.gate.clear()
    up.drop()
    await held.expect("uplink", up=False)
    page = await t.page(daemon)
    page.subscribe(t.link())
    event = await page.events.take(lambda e: e["type"] in ("uplink", "denied"), "`uplink` or `denied`", 3 * SLACK)
    assert event.get("up") is False or "retry" in event, event


@test("a page denied on resubscription gets `end`, others stay")
async def denied_now(t):
    daemon, business, up = await t.relay()
    link, other_link = t.link(), t.link()
    page, other = await t.joined(daemon, up, link, topic=1), await t.joined(daemon, up, other_link, topic=2)
    up = await lose(business, up)
    up.deny(await up.expect("Subscribe", link=link), "over")
    up.accept(await up.expect("Subscribe", link=other_link), topic=2)
    await page.until("end", topic=1, reason="over")
    up.message(2, 1)
    await other.until("message", topic=2, sequence=1)


@test("not shared: of pages resubscribed one by one only the denied one gets end")
async def one_denied(t):
    daemon, business, up = await t.relay()
    link = t.link()
    sources = {}
    for _ in range(3):
        source = t.source()
        page = await t.page(daemon, source=source)
        page.subscribe(link)
        ask = await up.by_name(link) if not sources else await up.expect("Subscribe", link=link)
        up.accept(ask, shared=False)
        await page.expect("subscribed")
        sources[source] = page
    unlucky = next(iter(sources))
    up = await lose(business, up)
    for _ in range(3):
        ask = await up.expect("Subscribe", link=link)
        up.deny(ask, "you") if ask.address == unlucky else up.accept(ask, shared=False)
    up.message(7, 1)
    for source, page in sources.items():
        await page.until("end", reason="you") if source == unlucky else await page.until("message", sequence=1)


@test("no new page is admitted to a topic before its Accept, whatever its grant")
async def nobody_new(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, ttl_s=300)
    up.message(7, 1)
    await page.expect("message")
    business.gate.clear()
    up.drop()
    await page.expect("uplink", up=False)
    new = await t.page(daemon)
    id = new.subscribe(link)
    await asyncio.sleep(0.5)
    assert not any(e["type"] == "subscribed" for _, e in new.events.history), "admitted while the uplink is down"
    business.gate.set()
    up = await business.uplink()
    ask = await up.expect("Subscribe", link=link)
    await asyncio.sleep(0.2)
    assert not any(e["type"] == "subscribed" for _, e in new.events.history), "admitted before the Accept"
    up.accept(ask)
    business.auto = lambda up, ask: up.accept(ask)
    answer = await new.events.take(lambda e: e["type"] in ("subscribed", "denied"), "an answer")
    if answer["type"] == "denied":
        assert "retry" in answer, answer
        await new.join(link)
    assert await new.track(7, "messages", 1) == ["message 1"]
    await page.until("uplink", up=True)


@test("a subscription that waited while the uplink is down is answered once it is up, or was denied with a retry")
async def waits(t):
    daemon, business, up = await t.relay()
    held = await t.joined(daemon, up, t.link())
    business.gate.clear()
    up.drop()
    await held.expect("uplink", up=False)
    page, link = await t.page(daemon), t.link()
    page.subscribe(link)
    await asyncio.sleep(0.3)
    business.auto = lambda up, ask: up.accept(ask, topic=8 if ask.link == link else 7)
    business.gate.set()
    answer = await page.events.take(lambda e: e["type"] in ("subscribed", "denied"), "an answer", 8 * SLACK)
    if answer["type"] == "denied":
        assert "retry" in answer, answer
        await page.join(link, topic=8, timeout=15 * SLACK)


@test("a renewal that fails for want of an uplink: the pages stay, nobody is admitted beyond the time")
async def no_renewal(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, ttl_s=2)
    business.gate.clear()
    up.drop()
    await page.expect("uplink", up=False)
    await asyncio.sleep(2.5)
    late = await t.page(daemon)
    late.subscribe(link)
    await asyncio.sleep(0.3)
    assert not any(e["type"] == "subscribed" for _, e in late.events.history)
    await page.nothing(0.1)
    business.gate.set()
    up = await business.uplink()
    up.accept(await up.expect("Subscribe", link=link))
    await page.until("uplink", up=True)
    up.message(7, 1)
    await page.until("message", sequence=1)


@test("a page that left during the outage is not counted, and one that stayed is")
async def counted(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    leaver = await t.page(daemon)
    await leaver.join(link)
    await up.audience(7, 2)
    business.gate.clear()
    up.drop()
    await page.expect("uplink", up=False)
    await leaver.leave()
    await asyncio.sleep(0.2)
    business.gate.set()
    up = await business.uplink()
    up.accept(await up.expect("Subscribe", link=link))
    await up.audience(7, 1)


@test("a request pending when the uplink was lost is repeated, or denied with a retry")
async def under_way(t):
    daemon, business, up = await t.relay()
    page, link = await t.page(daemon), t.link()
    page.subscribe(link)
    await up.expect("Subscribe", link=link)
    business.auto = lambda up, ask: up.accept(ask)
    await lose(business, up)
    answer = await page.events.take(lambda e: e["type"] in ("subscribed", "denied"), "an answer", 15 * SLACK)
    assert answer["type"] == "subscribed" or "retry" in answer, answer


@test("a new epoch: what was still ahead on messages, then epoch, then anything new")
async def new_epoch(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.state(7, 5)
    up.message(7, *range(1, 31))
    up.media(7, "video", "init 1", "start 2")
    await up.barrier()
    up = await lose(business, up)
    up.accept(await up.expect("Subscribe", link=link), epoch=8)
    up.state(7, 1, data='"new"')
    up.message(7, 1, 2)
    up.media(7, "video", "init 1", "start 2", "continue 3")
    assert await page.track(7, "messages", 30) == [f"message {n}" for n in range(1, 31)]
    await page.until("epoch", topic=7, epoch="8")
    order = [e for _, e in page.events.history]
    at = next(i for i, e in enumerate(order) if e["type"] == "epoch")
    assert order[at]["raw"] == '{"type":"epoch","topic":7,"epoch":"8"}'
    await page.until("state", sequence=1, data="new")
    await page.until("message", sequence=2)
    await page.until("media", part="continue", sequence=3)
    order = [e for _, e in page.events.history]
    assert not any(e["type"] == "state" and e["data"] == "new" for e in order[:at]), "new state before the epoch"
    assert [e["sequence"] for e in order[at:] if e["type"] == "message"] == [1, 2]
    assert [(e["part"], e["sequence"]) for e in order[at:] if e["type"] == "media"] == [("init", 1), ("start", 2), ("continue", 3)]


@test("a new epoch for a page that was not reading: still the old messages or their gap, then epoch")
async def new_epoch_behind(t):
    daemon, business, up = await t.relay()
    link = t.link()
    await t.joined(daemon, up, link)
    page = await t.page(daemon, receive_buffer=4096)
    await page.join(link)
    up.message(7, 1)
    await page.expect("message", sequence=1)
    page.reading.clear()
    up.message(7, *range(2, 302), data='"' + "x" * 700 + '"')
    await up.barrier()
    up = await lose(business, up)
    up.accept(await up.expect("Subscribe", link=link), epoch=8)
    up.message(7, 1, 2, 3)
    await up.barrier()
    page.reading.set()
    try:
        seen = await page.track(7, "messages", 301)
        assert seen[-1] in ("message 301",) or seen[-1].startswith("gap"), seen[-1]
        await page.until("epoch", epoch="8")
        assert (await page.track(7, "messages", 3))[-1] == "message 3"
    except Mismatch as error:
        end = [e for _, e in page.events.history if e["type"] in ("close", "cut")]
        if not end or end[0].get("code", 1013) != 1013:
            raise error


@test("a new epoch without losing the uplink, in the Accept for another link")
async def epoch_in_accept(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link(), epoch=7)
    up.message(7, 1, 2)
    second = await t.page(daemon)
    link = t.link()
    second.subscribe(link)
    up.accept(await up.expect("Subscribe", link=link), epoch=8)
    up.message(7, 1)
    assert await page.track(7, "messages", 2) == ["message 1", "message 2"]
    await page.until("epoch", epoch="8")
    await page.until("message", sequence=1)
    await second.expect("subscribed", epoch="8")
    assert await second.track(7, "messages", 1) == ["message 1"]


@test("after a new epoch a late page gets nothing of the old one, and since of the old one counts for nothing")
async def late_after_epoch(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.state(7, 1)
    up.message(7, 1, 2, 3)
    up.media(7, "video", "init 1", "start 2")
    await page.track(7, "video", 2)
    up = await lose(business, up)
    up.accept(await up.expect("Subscribe", link=link), epoch=8)
    up.message(7, 10)
    await page.until("message", sequence=10)
    for since in (None, (7, 2)):
        late = await t.page(daemon)
        await late.join(link, since=since, epoch="8")
        await late.expect("message", sequence=10)
        await late.nothing(0.2)


@test("a restarted relay: pages come back with their since and miss nothing")
async def restarted_relay(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.message(7, 1, 2, 3)
    await page.track(7, "messages", 3)
    daemon.process.kill()
    daemon.expected_end = True
    await daemon.process.wait()
    await page.gone()
    await daemon.start()
    up = await business.uplink()
    back = await t.page(daemon)
    back.subscribe(link, since=(7, 4))
    ask = await up.expect("Subscribe", link=link)
    assert ask.since and ask.since[0] == 7 and 1 <= ask.since[1][1] <= 4, ask
    up.accept(ask)
    up.message(7, *range(ask.since[1][1], 7))
    await back.expect("subscribed")
    assert await back.track(7, "messages", 6) == ["message 4", "message 5", "message 6"]


@test("after each of several losses the page goes on where it was", waits=True)
async def many_losses(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    for turn in range(5):
        up.message(7, turn * 2 + 1, turn * 2 + 2)
        await up.barrier()
        up.drop()
        up = await business.uplink(timeout=25 * SLACK)
        ask = await up.expect("Subscribe", link=link)
        assert ask.since[1][1] == turn * 2 + 3, ask
        up.accept(ask)
    up.message(7, 11)
    assert await page.track(7, "messages", 11) == [f"message {n}" for n in range(1, 12)]
    assert page.topics
