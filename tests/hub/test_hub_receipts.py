"""Pages' messages through the hub: who wrote them, and what a page hears when the webhook has taken one, or has not."""
import asyncio
import os
import signal

from harness import test
from inbox import SLACK, Mismatch
from receiver import SILENCE, with_webhook

WORDS = "away receipts"


def admits(link, page):
    """Each link shows the topic of its name."""
    return {"accept": True, "topic": link, "page_messages": True}


async def room(t, webhook=None, **sections):
    """A hub with its receiver, a relay that gets receipts, and the number of the topic `room` that it holds."""
    hub, receiver = await with_webhook(t, admits, webhook, **sections)
    relay = await t.relay_end(hub, words=WORDS)
    ask = await relay.accepted("room")
    return hub, receiver, relay, ask.topic


def say(relay, topic, page, id=None, data="hello"):
    """A page's message. Returns its id."""
    id = id or os.urandom(16)
    relay.send("Send", topic=topic, page=page, id=id, data=data)
    return id


async def flush(receiver, relay, topic):
    """Returns when the receiver has got an event that was behind all others."""
    text = os.urandom(8).hex()
    relay.send("PageMessage", topic=topic, page=1, data=text)
    await receiver.event("page.message", data=text)


def unsaid(relay):
    seen = relay.seen("Sent")
    assert not seen, f"{relay.name} was told {seen!r}"


# --- who gets them ---

@test("a relay that names receipts gets them named, and each message comes as the event of its page as an author")
async def named(t):
    hub, receiver = await with_webhook(t, admits)
    relay = await t.relay_end(hub)
    assert relay.nonces[0].endswith(b"+ext"), "the hub offers extensions to all"
    other = await (await t.dial(hub, "other")).shake_hands(extended=True)
    assert set(await other.names(WORDS)) == {"away", "receipts"}
    for name, end, extended in (("plain", relay, False), ("extended", other, True)):
        topic = (await end.accepted("room")).topic
        end.send("PageMessage", topic=topic, page=77, data=name)
        event = await receiver.event("page.message", data=name)
        assert event["author"] == end.author(77) and "message_id" not in event, event
        if extended:
            id = say(end, topic, 77, data="with an id")
            event = await receiver.event("page.message", data="with an id")
            assert (event["author"], event["message_id"], event["topic"]) == (end.author(77), id.hex(), "room"), event
            await end.expect("Sent", page=77, id=id)
            say(end, topic, 78, data="of another page")
            assert (await receiver.event("page.message", data="of another page"))["author"] == end.author(78) != event["author"]
    assert relay.author(77) != other.author(77), "each connection has its own authors"


@test("a relay that names no receipts sees no frame that it doesn't know, and ends with a Send")
async def unnamed(t):
    hub, receiver = await with_webhook(t, admits)
    for words in (None, "away", "x-receipts"):
        relay = await t.relay_end(hub, f"gate{words}", words=words)
        topic = (await relay.accepted("room")).topic
        relay.send("PageMessage", topic=topic, page=1, data=f"from {words}")
        await receiver.event("page.message", data=f"from {words}")
        await relay.barrier()
        kinds = {frame.kind for _, frame in relay.frames.history}
        assert kinds <= {"Accept", "Ping", "Pong", "Features"}, kinds
        say(relay, topic, 1)
        await relay.end()
    relay = await t.relay_end(hub)
    await flush(receiver, relay, (await relay.accepted("room")).topic)
    assert not [event for event in receiver.events if "message_id" in event]


# --- taken ---

@test("Sent comes once the webhook has taken the batch; the same message again is no event, and answered at once")
async def taken(t):
    hub, receiver, one, topic = await room(t)
    two = await t.relay_end(hub, "two", words=WORDS)
    await two.accepted("room")
    id = say(one, topic, 5)
    await one.expect("Sent", page=5, id=id)
    # Again: by the same page, by another one, and by another relay.
    for relay, page in ((one, 5), (one, 6), (two, 5)):
        say(relay, topic, page, id)
        await relay.expect("Sent", page=page, id=id)
    await flush(receiver, two, topic)
    assert len(receiver.seen("page.message", message_id=id.hex())) == 1
    await one.barrier()
    assert (len(one.seen("Sent")), len(two.seen("Sent"))) == (2 + 1, 1)
    # The author is that of the page that was first.
    assert receiver.seen("page.message", message_id=id.hex())[0]["author"] == one.author(5)


@test("a message that waits for the webhook is one event, and its Sent goes where the page asked last")
async def waits(t):
    hub, receiver, one, topic = await room(t)
    two = await t.relay_end(hub, "two", words=WORDS)
    await two.accepted("room")
    receiver.otherwise = 500
    id = say(one, topic, 5)
    await receiver.event("page.message", message_id=id.hex())
    say(two, topic, 9, id)
    await two.barrier()
    unsaid(two)
    receiver.otherwise = 200
    await two.expect("Sent", 60 * SLACK, page=9, id=id)
    await flush(receiver, two, topic)
    seen = receiver.seen("page.message", message_id=id.hex())
    assert len(seen) > 1 and len({event["id"] for event in seen}) == 1, "the same event, more than once"
    await one.barrier()
    unsaid(one)


@test("a message of a relay that is lost is told to the one that the page has come to")
async def lost_relay(t):
    hub, receiver, one, topic = await room(t)
    two = await t.relay_end(hub, "two", words=WORDS)
    await two.accepted("room")
    receiver.otherwise = 503
    id = say(one, topic, 5)
    await receiver.event("page.message", message_id=id.hex())
    one.drop()
    # The batch is taken while nobody is there for it.
    receiver.otherwise = 200
    await flush(receiver, two, topic)
    say(two, topic, 1, id)
    await two.expect("Sent", page=1, id=id)
    await flush(receiver, two, topic)
    assert len({event["id"] for event in receiver.seen("page.message", message_id=id.hex())}) == 1


# --- not taken ---

@test("what the webhook refuses for good is not told as sent, and a repeat is a new event with the same id of the page")
async def refused(t):
    hub, receiver, relay, topic = await room(t)
    for status in (410, 400, 404):
        receiver.answers = [status]
        id = say(relay, topic, 5)
        first = await receiver.event("page.message", message_id=id.hex())
        await flush(receiver, relay, topic)
        await relay.barrier()
        unsaid(relay)
        say(relay, topic, 5, id)
        second = await receiver.event("page.message", 2, message_id=id.hex())
        assert first["id"] != second["id"], (first, second)
        await relay.expect("Sent", page=5, id=id)
        relay.frames.history.clear()


@test("silence, a redirect and a server's error are no answer: the page hears nothing until the batch is taken", waits=10)
async def unanswered(t):
    hub, receiver, relay, topic = await room(t, {"timeout_s": 1})
    receiver.answers, receiver.otherwise = [SILENCE, 302], 500
    id = say(relay, topic, 5)
    for count in range(1, 4):
        await receiver.until(f"batch {count}", lambda: len(receiver.batches) >= count, 60 * SLACK)
        unsaid(relay)
    receiver.otherwise = 200
    await relay.expect("Sent", 60 * SLACK, page=5, id=id)
    assert len({batch for _, batch, _ in receiver.batches}) == 1, receiver.batches


@test("a message that has no room is not told as sent, and may come again", timeout=240)
async def no_room(t):
    hub, receiver, relay, topic = await room(t, {"timeout_s": 9}, limits={"notices": 2})
    receiver.otherwise = 500
    first = say(relay, topic, 5)
    await receiver.event("page.message", message_id=first.hex())
    # The batch is sent again and again: what comes meanwhile has room for some hundreds.
    ids = [say(relay, topic, 5) for _ in range(2000)]
    await relay.barrier()
    receiver.otherwise = 200
    await relay.expect("Sent", 60 * SLACK, id=first)
    await receiver.until("the drop", lambda: any("dropped" in data for status, _, data in receiver.batches if status == 200))
    await flush(receiver, relay, topic)
    told = {event.get("message_id") for event in receiver.events}
    lost = [id for id in ids if id.hex() not in told]
    dropped = sum(data.get("dropped", 0) for status, _, data in receiver.batches if status == 200)
    assert lost and len(lost) == dropped, (len(lost), dropped)
    for id in ids:
        if id.hex() in told:
            await relay.expect("Sent", id=id)
    assert not {frame.id for frame in relay.seen("Sent")} & {*lost}
    say(relay, topic, 5, lost[0])
    await receiver.event("page.message", message_id=lost[0].hex())
    await relay.expect("Sent", id=lost[0])


@test("where nobody is told of events a Send is not told as sent, before and after a reload")
async def nobody(t):
    signed = await t.hub()
    asked, receiver = await with_webhook(t, admits, {"events": False})
    for hub, link in ((signed, await signed.link("room", page_messages=True)), (asked, "room")):
        relay = await t.relay_end(hub, words=WORDS)
        ask = await relay.accepted(link)
        for _ in range(2):
            say(relay, ask.topic, 5, bytes(16))
        await relay.none("Sent", 1)
        await relay.barrier()
    assert not receiver.events
    await asked.reload(webhook={"events": True})
    await relay.expect("Sent", id=say(relay, ask.topic, 5))
    await asked.reload(webhook={"events": False})
    before = len(receiver.events)
    say(relay, ask.topic, 5)
    await relay.none("Sent", 1)
    assert len(receiver.events) == before and len(relay.seen("Sent")) == 1


@test("a hub that starts again has forgotten the messages: one that comes again is a new event")
async def restart(t):
    hub, receiver, relay, topic = await room(t)
    id = say(relay, topic, 5)
    await relay.expect("Sent", id=id)
    hub.signal(signal.SIGKILL)
    await hub.exit()
    await relay.end()
    await hub.start()
    relay = await t.relay_end(hub, words=WORDS)
    say(relay, (await relay.accepted("room")).topic, 5, id)
    await receiver.event("page.message", 2, message_id=id.hex())
    await relay.expect("Sent", id=id)


# --- attacks ---

@test("one id in two topics is two messages; a relay can say nothing in a topic that it doesn't hold")
async def topics(t):
    hub, receiver, one, topic = await room(t)
    two = await t.relay_end(hub, "two", words=WORDS)
    other = (await two.accepted("other")).topic
    receiver.otherwise = 500
    id = say(one, topic, 5)
    await receiver.event("page.message", message_id=id.hex())
    # While it waits: under the same id in another topic, and by a relay that doesn't hold this one.
    say(two, other, 6, id)
    say(two, topic, 7, id)
    await two.barrier()
    receiver.otherwise = 200
    await one.expect("Sent", 60 * SLACK, page=5, id=id)
    await two.expect("Sent", page=6, id=id)
    say(two, topic, 7, id)
    await two.none("Sent", page=7)
    seen = {(event["topic"], event["author"]) for event in receiver.seen("page.message", message_id=id.hex())}
    assert seen == {("room", one.author(5)), ("other", two.author(6))}, seen


@test("a relay that floods messages is bounded in memory, and another one's are told", timeout=240, crowded=True)
async def flood(t):
    hub, receiver, relay, topic = await room(t)
    other = await t.relay_end(hub, "other", words=WORDS)
    await other.accepted("room")
    before = hub.memory()
    for _ in range(150):
        for _ in range(1000):
            say(relay, topic, 5)
        await relay.writer.drain()
        await relay.barrier()
    grown = hub.memory() - before
    assert grown < 96 << 20, f"{grown} bytes more after 150 000 messages"
    # Its messages wait behind those of the flood that had room.
    deadline = asyncio.get_running_loop().time() + 60 * SLACK
    while True:
        id = say(other, topic, 7)
        try:
            await other.expect("Sent", 5 * SLACK, page=7, id=id)
            break
        except Mismatch:
            if asyncio.get_running_loop().time() > deadline:
                raise


@test("a relay that never reads its Sents is cut off, and another one's are told", timeout=240, crowded=True)
async def unread(t):
    hub, receiver, _, topic = await room(t)
    greedy, other = await t.relay_end(hub, "greedy", words=WORDS, receive_buffer=4096), await t.relay_end(hub, "other", words=WORDS)
    for relay in (greedy, other):
        await relay.accepted("room")
    id = say(greedy, topic, 5)
    await greedy.expect("Sent", id=id)
    greedy.reading.clear()
    before = hub.memory()
    # Each is answered at once.
    for _ in range(2000):
        for _ in range(500):
            if not greedy.writer.transport.is_closing():
                say(greedy, topic, 5, id)
        try:
            await asyncio.wait_for(greedy.writer.drain(), 20 * SLACK)
        except (asyncio.TimeoutError, ConnectionError):
            break
        if greedy.writer.transport.is_closing() or "reads too slowly" in hub.log():
            break
    await hub.logs("reads too slowly", 40)
    assert hub.memory() - before < 64 << 20
    mine = say(other, topic, 7)
    await other.expect("Sent", page=7, id=mine)
    assert len(receiver.seen("page.message", message_id=id.hex())) == 1


# --- with a relay and pages ---

@test("through a real relay a page's message is the webhook's event, then sent; its author is what the page knows itself by")
async def whole(t):
    hub, receiver = await with_webhook(t, admits)
    box = await t.box(hub)
    page, other = await t.page(box), await t.page(box)
    told = await page.join("room-of-pages", timeout=30 * SLACK)
    assert told["features"] == ["ping", "receipts"] and told["page_messages"], told
    assert (await other.join("room-of-pages"))["author"] != told["author"]
    receiver.answers = [500]
    id = os.urandom(16).hex()
    page.send(told["topic"], "hello", id)
    event = await receiver.event("page.message", message_id=id)
    assert (event["data"], event["author"], event["topic"]) == ("hello", told["author"], "room-of-pages"), event
    await page.expect("sent", 30 * SLACK, id=id)
    # What a back end makes of it: all see it, and one knows that it is its own.
    n = await hub.message("room-of-pages", {"text": event["data"], "author": event["author"]})
    for one in (page, other):
        message = await one.until("message", sequence=n)
        assert message["data"]["author"] == told["author"]
    # The page comes back, under another name, and asks again.
    await page.leave()
    again = await t.page(box)
    name = await again.join("room-of-pages")
    assert name["author"] != told["author"]
    again.send(told["topic"], "hello", id)
    await again.until("sent", id=id)
    assert len({event["id"] for event in receiver.seen("page.message", message_id=id)}) == 1
    assert not [event for _, event in other.events.history if event["type"] == "sent"]
