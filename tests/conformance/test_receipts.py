"""What a page knows besides content: what its relay has, who it is, whether the line lives, and what became of what it sent."""
import asyncio
import os

from harness import test

FEATURES = "away receipts"


async def extended(t, words=FEATURES):
    """A relay whose business server gives receipts."""
    business = await t.business()
    business.extended = True
    daemon = await t.daemon([business.address]).start()
    up = await business.uplink()
    named = await up.expect("Features")
    assert {"away", "receipts"} <= set(named.words.split()), named
    up.send("Features", words=words)
    return daemon, business, up


async def viewer(t, daemon, up, link, page_messages=True):
    page = await t.page(daemon)
    page.subscribe(link)
    up.accept(await up.expect("Subscribe", link=link), page_messages=page_messages)
    return page, await page.expect("subscribed")


@test("subscribed says what the relay has and who the page is, whatever the business server knows")
async def standing(t):
    daemon, business, up = await t.relay()
    page, answer = await viewer(t, daemon, up, t.link())
    assert answer["features"] == ["ping"], answer
    page.send(7, "hello")
    said = await up.expect("PageMessage", data="hello")
    assert answer["author"] == up.author(said.page), answer
    other, answer = await viewer(t, daemon, up, t.link())
    assert answer["author"] == up.author(said.page + 1), "each page is another author"


@test("ping is answered by alive, behind the errors of what was sent before and without a share of its limits")
async def ping(t):
    daemon, business, up = await t.relay()
    page, _ = await viewer(t, daemon, up, t.link(), page_messages=False)
    for _ in range(50):
        page.json({"type": "ping"})
        await page.expect("alive")
    page.send(7, "refused")
    page.json({"type": "ping"})
    await page.expect("error")
    await page.expect("alive")
    order = [event["type"] for _, event in page.events.history if event["type"] in ("error", "alive")]
    assert order[-2:] == ["error", "alive"], order


@test("where both know receipts, a message with an id goes as Send, and Sent is the page's sent")
async def receipts(t):
    daemon, business, up = await extended(t)
    page, answer = await viewer(t, daemon, up, t.link())
    assert answer["features"] == ["ping", "receipts"], answer
    ids = [os.urandom(16) for _ in range(3)]
    for n, id in enumerate(ids):
        page.send(7, f"message {n}", id.hex())
    said = [await up.expect("Send", id=id) for id in ids]
    assert [frame.data for frame in said] == ["message 0", "message 1", "message 2"] and up.author(said[0].page) == answer["author"]
    page.send(7, "without an id")
    await up.expect("PageMessage", data="without an id")
    for frame in reversed(said):
        up.send("Sent", page=frame.page, id=frame.id)
    for id in reversed(ids):
        await page.expect("sent", id=id.hex())
    # Of a page that is not there.
    up.send("Sent", page=said[0].page + 1000, id=ids[0])
    page.send(7, "once more", ids[0].hex())
    assert (await up.expect("Send", id=ids[0])).data == "once more", "the relay remembers no messages"


@test("a message with an id that is refused is answered by an error with the id, in each case")
async def refused(t):
    daemon, business, up = await extended(t)
    page, _ = await viewer(t, daemon, up, t.link())
    muted, _ = await viewer(t, daemon, up, t.link(), page_messages=False)
    id = lambda: os.urandom(16).hex()  # noqa: E731
    for sender, topic, data, word in ((page, 9, "x", "no subscription"), (page, 7, "x" * 513, "512 bytes"), (muted, 7, "x", "takes no messages")):
        name = id()
        sender.send(topic, data, name)
        answer = await sender.expect("error", id=name)
        assert word in answer["reason"], answer
    burst = [id() for _ in range(8)]
    for name in burst:
        page.send(7, "x", name)
    answer = await page.expect("error")
    assert "too many" in answer["reason"] and answer["id"] in burst, answer
    for wrong in ("", "0" * 31, "0" * 33, "A" * 32, "g" * 32):
        other, _ = await viewer(t, daemon, up, t.link())
        other.send(7, "x", wrong)
        assert "128 random bits" in (await other.expect("error"))["reason"]
    fresh, _ = await viewer(t, daemon, up, t.link())
    business.stop()
    await fresh.expect("uplink", up=False)
    name = id()
    fresh.send(7, "x", name)
    assert "can't be reached" in (await fresh.expect("error", id=name))["reason"]


@test("a business server without receipts is sent no ids, and a page that uses one is told")
async def without(t):
    daemon, business, up = await t.relay()
    page, _ = await viewer(t, daemon, up, t.link())
    name = os.urandom(16).hex()
    page.send(7, "x", name)
    assert "no receipts" in (await page.expect("error", id=name))["reason"]
    page.send(7, "y")
    await up.expect("PageMessage", data="y")
    assert up.seen("PageMessage") == 1


@test("after another connection pages hear what it has and who they are there, also those that missed that it was lost")
async def another(t):
    daemon, business, up = await extended(t)
    page, answer = await viewer(t, daemon, up, t.link())
    page.send(7, "x", os.urandom(16).hex())
    number = (await up.expect("Send")).page
    assert answer["author"] == up.author(number)
    business.stop()
    business.extended = False
    await business.start()
    up = await business.uplink(timeout=60)
    await page.expect("uplink", up=False)
    plain = await page.expect("uplink", up=True)
    assert plain["features"] == ["ping"] and plain["author"] == up.author(number) != answer["author"], plain
    business.stop()
    business.extended = True
    await business.start()
    up = await business.uplink(timeout=60)
    await up.expect("Features")
    await asyncio.sleep(0.3)
    await page.expect("uplink", up=False)
    assert [event["up"] for _, event in page.events.history if event["type"] == "uplink"][-1] is False, "not before it is known what this one has"
    up.send("Features", words=FEATURES)
    again = await page.expect("uplink", up=True)
    assert again["features"] == ["ping", "receipts"] and again["author"] == up.author(number), again


@test("Sent where nobody asked for it ends the connection")
async def unasked(t):
    daemon, business, up = await extended(t, words="away")
    up.send("Sent", page=1, id=bytes(16))
    await up.end()
    await daemon.logs("a frame that both sides know")
