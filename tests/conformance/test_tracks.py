"""What each track promises: the start of a late page, order, gaps, and media that can always be decoded."""
import asyncio
import json

from harness import test
from inbox import SLACK, Mismatch
from websocket import PING, frame


async def room(t, **grant):
    """A daemon, topic 7 with one page, and a way to add late pages."""
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link, **grant)

    async def late(**options):
        other = await t.page(daemon)
        await other.join(link, **options)
        return other
    return up, page, late


def one_of(seen, *allowed):
    if seen not in allowed:
        raise Mismatch(f"expected {' or '.join(map(str, allowed))}, saw {seen}")


@test("`subscribed` comes before anything of its topic")
async def first(t):
    daemon, business, up = await t.relay()
    page = await t.page(daemon)
    page.subscribe(t.link())
    ask = await up.expect("Subscribe")
    up.accept(ask)
    up.state(7, 1)
    up.media(7, "video", "init 1", "start 2")
    up.message(7, 1)
    assert (await page.events.next("subscribed"))["type"] == "subscribed"
    await page.track(7, "messages", 1)
    await page.track(7, "state", 1)
    await page.track(7, "video", 2)


@test("state: a late page gets the newest, alone")
async def late_state(t):
    up, page, late = await room(t)
    for n in (1, 2, 3):
        up.state(7, n)
    await page.until("state", sequence=3)
    other = await late()
    await other.expect("state", sequence=3, data={"n": 3})
    await other.nothing(0.2)


@test("messages: a late page gets the last `replay`, oldest first, and no gap before them")
async def late_messages(t):
    for replay, expected in ((0, []), (1, [20]), (5, list(range(16, 21))), (50, list(range(1, 21)))):
        up, page, late = await room(t, replay=replay)
        up.message(7, *range(1, 21))
        await page.track(7, "messages", 20)
        other = await late()
        if expected:
            assert await other.track(7, "messages", 20) == [f"message {n}" for n in expected]
        await other.nothing(0.2)
        up.message(7, 21)
        await other.expect("message", sequence=21)


@test("messages: as many as the relay still holds, where `replay` is more")
async def late_all(t):
    up, page, late = await room(t, replay=65535)
    up.message(7, 5, 6, 7)
    await page.track(7, "messages", 7)
    assert await (await late()).track(7, "messages", 7) == ["message 5", "message 6", "message 7"]


@test("messages: each sequence once, in order, to every page")
async def in_order(t):
    up, page, late = await room(t, replay=0)
    pages = [page] + [await late() for _ in range(9)]
    for start in range(1, 401, 20):
        up.message(7, *range(start, start + 20))
        await asyncio.sleep(0.005)
    for page in pages:
        seen = await page.track(7, "messages", 400, timeout=15 * SLACK)
        assert seen == [f"message {n}" for n in range(1, 401)], seen


@test("audio, video: a late page gets the init with its own sequence, then everything from the start of the newest group")
async def late_media(t):
    up, page, late = await room(t)
    for track in ("audio", "video"):
        up.media(7, track, "init 1", "start 2", "continue 3", "start 4", "continue 5", "continue 6")
        await page.track(7, track, 6)
    other = await late()
    for track in ("audio", "video"):
        assert await other.track(7, track, 6) == ["init 1", "start 4", "continue 5", "continue 6"]
        up.media(7, track, "continue 7", "start 8")
        assert await other.track(7, track, 8) == ["continue 7", "start 8"]
        assert await page.track(7, track, 8) == ["continue 7", "start 8"]


@test("media frames carry track, part, topic, sequence, MIME and the chunk as they were published")
async def layout(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link(), topic=0x01020304)
    chunk, mime = bytes(range(256)) * 70, 'video/mp4; codecs="avc1.42E01E, mp4a.40.2"'
    up.publish(0x01020304, "video", 2**40, "init", chunk, mime)
    up.publish(0x01020304, "video", 2**40 + 1, "start", chunk + b"1")
    up.publish(0x01020304, "video", 2**40 + 2, "continue", b"")
    up.publish(0x01020304, "audio", 1, "init", b"", "m" * 255)
    up.publish(0x01020304, "audio", 2, "start", b"\0")
    await page.until("media", track="video", part="init", topic=0x01020304, sequence=2**40, mime=mime, data=chunk)
    await page.until("media", track="video", part="start", sequence=2**40 + 1, data=chunk + b"1")
    await page.until("media", track="video", part="continue", sequence=2**40 + 2, data=b"")
    await page.until("media", track="audio", part="init", sequence=1, mime="m" * 255, data=b"")
    await page.until("media", track="audio", part="start", sequence=2, data=b"\0")


@test("data is the publication's own bytes, unchanged, for messages and state")
async def verbatim(t):
    up, page, late = await room(t)
    values = ['{"b" : 1.0e2 ,"a":"\\u4f60\\/", "a":[ ] }', " [1,2]\t", "[\r\n1\n]", "null", "true", "0", "-0.0E-7", '"👍 \\"\\\\ </script>"', '""',
              "123456789012345678901234567890", '{"__proto__":{"x":1}}', "[" * 60 + "]" * 60, json.dumps("好" * 500, ensure_ascii=False)]
    for n, value in enumerate(values, 1):
        up.message(7, n, data=value)
        event = await page.expect("message", sequence=n)
        assert event["raw"] == '{"type":"message","topic":7,"sequence":%d,"data":%s}' % (n, value), event["raw"]
        up.state(7, n, data=value)
        event = await page.expect("state", sequence=n)
        assert event["raw"] == '{"type":"state","topic":7,"sequence":%d,"data":%s}' % (n, value), event["raw"]


@test("payloads at the WebSocket length boundaries arrive whole")
async def boundaries(t):
    up, page, late = await room(t)
    fixed = len('{"type":"message","topic":7,"sequence":1,"data":""}')
    for n, size in enumerate((125, 126, 127, 128, 1000), 1):
        up.message(7, n, data='"' + "a" * (size - fixed) + '"')
        event = await page.expect("message", sequence=n)
        assert len(event["raw"]) == size, (len(event["raw"]), size)
    up.media(7, "video", "init 1")
    for n, size in enumerate((111, 112, 4096, 20000), 2):
        up.publish(7, "video", n, "start", b"\xa5" * size)
        await page.until("media", sequence=n, data=b"\xa5" * size)


@test("gap: a jump in messages names exactly the sequences that are missing")
async def message_jump(t):
    up, page, late = await room(t)
    up.message(7, 1, 2, 5, 6, 100)
    seen = await page.track(7, "messages", 100)
    assert seen == ["message 1", "message 2", "gap 3-4", "message 5", "message 6", "gap 7-99", "message 100"], seen
    assert page.events.history[3][1]["raw"] == '{"type":"gap","topic":7,"track":"messages","from":3,"to":4}'


@test("gap: a jump at the edge of what a sequence may be")
async def far_jump(t):
    up, page, late = await room(t)
    up.message(7, 1, 2**53 - 2, 2**53 - 1)
    seen = await page.track(7, "messages", 2**53 - 1)
    assert seen == ["message 1", f"gap 2-{2**53 - 3}", f"message {2**53 - 2}", f"message {2**53 - 1}"], seen


@test("gap: a late page whose replay spans a hole gets a gap")
async def replayed_hole(t):
    up, page, late = await room(t, replay=3)
    up.message(7, 1, 2, 5, 6)
    await page.track(7, "messages", 6)
    seen = await (await late()).track(7, "messages", 6)
    one_of(seen, ["message 2", "gap 3-4", "message 5", "message 6"])
    back = await late(since=(7, 2))
    assert await back.track(7, "messages", 6) == ["message 2", "gap 3-4", "message 5", "message 6"]
    inside = await late(since=(7, 4))
    assert await inside.track(7, "messages", 6) == ["gap 4-4", "message 5", "message 6"]


@test("a publication below the expected one is dropped and is no error")
async def duplicates(t):
    up, page, late = await room(t)
    up.message(7, 1, 2, 3)
    up.message(7, 1, 2, 3, data='"again"')
    up.message(7, 4)
    assert await page.track(7, "messages", 4) == [f"message {n}" for n in (1, 2, 3, 4)]
    up.state(7, 5)
    await page.expect("state", sequence=5)  # unless the sixth supersedes it
    up.state(7, 4, data='"old"')
    up.state(7, 6)
    await page.expect("state", sequence=6)
    up.media(7, "video", "init 1", "start 2", "continue 3", "init 1", "start 2", "continue 3", "continue 4")
    assert await page.track(7, "video", 4) == ["init 1", "start 2", "continue 3", "continue 4"]
    assert up.open


@test("state: a jump is no gap, the newest is what counts")
async def state_jump(t):
    up, page, late = await room(t)
    up.state(7, 1)
    up.state(7, 9)
    await page.until("state", sequence=9)
    up.message(7, 1)
    await page.until("message", sequence=1)


@test("publications for an unknown topic are dropped and are no error")
async def unknown_topic(t):
    up, page, late = await room(t)
    up.message(8, 1)
    up.media(9, "video", "init 1", "start 2")
    up.message(7, 1)
    await page.expect("message", topic=7, sequence=1)
    assert up.open


@test("a hole in a media track ends the running group: Continue is dropped until the next Start")
async def media_hole(t):
    up, page, late = await room(t)
    for track in ("audio", "video"):
        up.media(7, track, "init 1", "start 2", "continue 3", "continue 6", "continue 7", "start 8", "continue 9")
        seen = await page.track(7, track, 9)
        one_of([s for s in seen[3:] if s != "init 1"], ["gap 4-7", "start 8", "continue 9"])
        assert seen[:3] == ["init 1", "start 2", "continue 3"], seen


@test("after a hole at a Start nothing but the hole is missing")
async def hole_at_start(t):
    up, page, late = await room(t)
    up.media(7, "video", "init 1", "start 2", "start 5", "continue 6")
    seen = await page.track(7, "video", 6)
    one_of([s for s in seen if s != "init 1"], ["start 2", "gap 3-4", "start 5", "continue 6"])


@test("a new init ends the running group: Continue is dropped until the next Start")
async def new_init(t):
    up, page, late = await room(t)
    up.media(7, "video", "init 1", "start 2", "init 3", "continue 4", "start 5")
    seen = await page.track(7, "video", 5)
    one_of(seen, ["init 1", "start 2", "init 3", "gap 4-4", "start 5"], ["init 1", "start 2", "gap 3-4", "init 3", "start 5"])
    other = await late()
    assert await other.track(7, "video", 5) == ["init 3", "start 5"]


@test("order after a skip: gap, init where the page lacks it, start")
async def skip_over_init(t):
    up, page, late = await room(t)
    up.media(7, "video", "init 1", "start 2", "continue 3", "init 6", "start 7")
    seen = await page.track(7, "video", 7)
    one_of(seen, ["init 1", "start 2", "continue 3", "gap 4-5", "init 6", "start 7"], ["init 1", "start 2", "continue 3", "gap 4-6", "init 6", "start 7"])


@test("a page is given a group only after the init that was in force at its Start")
async def init_after_group(t):
    up, page, late = await room(t)
    up.media(7, "video", "init 1", "start 2", "continue 3", "init 4")
    await page.until("media", part="continue", sequence=3)
    await up.barrier()
    other = await late()
    await asyncio.sleep(0.3)
    kinds = [(e["part"], e["sequence"]) for e in other.events.items if e["type"] == "media"]
    # The group that began under init 1 has ended; under init 4 it can't be decoded.
    assert all(part == "init" for part, _ in kinds) or kinds == [("init", 1), ("start", 2), ("continue", 3), ("init", 4)], kinds
    up.media(7, "video", "continue 5")
    await up.barrier()
    another = await late()
    up.media(7, "video", "start 6")
    for other in (other, another):
        await other.until("media", part="start", sequence=6)
        assert not any(e.get("part") == "continue" and e["sequence"] == 5 for _, e in other.events.history)
    assert (await page.track(7, "video", 6))[-1] == "start 6"


@test("media without an init is delivered to no page until its init comes")
async def no_init(t):
    up, page, late = await room(t)
    up.media(7, "video", "start 1", "continue 2")
    await asyncio.sleep(0.2)
    up.media(7, "video", "init 3", "continue 4", "start 5")
    seen = await page.track(7, "video", 5)
    assert seen[-1] == "start 5" and "init 3" in seen and not any(s in seen for s in ("start 1", "continue 2", "continue 4")), seen


@test("a late page in a media track that has a hole in its newest group waits for the next")
async def late_in_hole(t):
    up, page, late = await room(t)
    up.media(7, "video", "init 1", "start 2", "continue 3", "continue 5")
    up.message(7, 1)
    await page.until("message", sequence=1)
    other = await late()
    await other.until("message", sequence=1)
    await asyncio.sleep(0.2)
    # The group 2..3 has ended; nothing after it belongs to it.
    parts = [(e["part"], e["sequence"]) for e in other.events.items if e["type"] == "media"]
    assert parts in ([], [("init", 1)], [("init", 1), ("start", 2), ("continue", 3)]), parts
    up.media(7, "video", "continue 6", "start 7")
    await other.until("media", part="start", sequence=7)


@test("a group larger than the relay keeps stays live for the page inside it, and is given to others whole or not at all")
async def long_group(t):
    up, page, late = await room(t)
    up.media(7, "video", "init 1")
    up.publish(7, "video", 2, "start", b"s" * 8000)
    for n in range(3, 603):
        up.publish(7, "video", n, "continue", b"c" * 8000)
        if n % 5 == 0:
            await page.reached(7, "video", n)
    seen = await page.track(7, "video", 602)
    assert seen == ["init 1", "start 2"] + [f"continue {n}" for n in range(3, 603)], seen[:5]
    other = await late()
    up.publish(7, "video", 603, "continue", b"c")
    up.publish(7, "video", 604, "start", b"s")
    await other.until("media", part="start", sequence=604)  # the page itself checks that nothing undecodable came
    await page.until("media", part="start", sequence=604)


@test("a page that is too slow: messages go on after an exact gap or the connection is cut, and others lose nothing", waits=True)
async def slow(t):
    daemon, business, up = await t.relay()
    link = t.link()
    quick = await t.joined(daemon, up, link)
    slow = await t.page(daemon, receive_buffer=4096)
    await slow.join(link)
    slow.reading.clear()
    last = 6000
    for start in range(1, last, 20):
        up.message(7, *range(start, start + 20), data='"' + "m" * 1000 + '"')
        await quick.reached(7, "message", start + 19)
    up.message(7, last + 1)
    seen = await quick.track(7, "messages", last + 1, timeout=30 * SLACK)
    assert seen == [f"message {n}" for n in range(1, last + 2)], "a page that kept up lost something"
    slow.reading.set()
    up.message(7, last + 2)
    try:
        await slow.track(7, "messages", last + 2, timeout=20 * SLACK)  # the page checks that every jump has its exact gap
    except Mismatch as error:
        end = [e for _, e in slow.events.history if e["type"] in ("close", "cut")]
        if not end or end[0].get("code", 1013) != 1013:
            raise error
    await (await t.page(daemon)).join(link)


@test("a slow page of media: a gap, then the start of the newest group, never a chunk that it can't decode", waits=True)
async def slow_media(t):
    daemon, business, up = await t.relay()
    link = t.link()
    quick = await t.joined(daemon, up, link)
    slow = await t.page(daemon, receive_buffer=4096)
    await slow.join(link)
    slow.reading.clear()
    up.media(7, "video", "init 1")
    n = 1
    for group in range(150):
        for part in ["start"] + ["continue"] * 9:
            n += 1
            up.publish(7, "video", n, part, b"v" * 4000)
        await quick.reached(7, "video", n)
    await asyncio.sleep(0.5)
    slow.reading.set()
    for _ in range(100):
        up.publish(7, "video", n + 1, "start", b"v")
        n += 1
        await asyncio.sleep(0.02)
    await quick.until("media", part="start", sequence=n, timeout=20 * SLACK)
    await slow.events.take(lambda e: e["type"] in ("close", "cut") or e.get("sequence") == n, f"start {n} or the end", 20 * SLACK)


@test("a slow page of media that stopped between two frames is not cut off: it gets its gap, then the newest group from its start", waits=True)
async def slow_between(t):
    daemon, business, up = await t.relay()
    link = t.link()
    quick = await t.joined(daemon, up, link)
    # Chunks far smaller than the kernel's segments, sent one by one, and at different offsets for
    # each page: at the end of a segment most pages stop between two frames.
    slow = [await t.page(daemon, receive_buffer=4096) for _ in range(8)]
    for number, page in enumerate(slow):
        await page.join(link)
        page.raw(frame(PING, "x" * number * 13))
        while not page.pongs:
            await asyncio.sleep(0.01)
        page.reading.clear()
        page.reader._transport.pause_reading()
    up.media(7, "video", "init 1")
    n = 1
    for group in range(200):
        for part in ["start"] + ["continue"] * 9:
            n += 1
            up.publish(7, "video", n, part, b"v" * 60)
            if part == "start" or group < 50:
                await quick.reached(7, "video", n)
    await quick.reached(7, "video", n)
    newest = n - 9
    for page in slow:
        page.reader._transport.resume_reading()
        page.reading.set()
    skipped = 0
    for page in slow:
        last = await page.events.take(lambda e: e["type"] in ("close", "cut") or e.get("sequence") == n, f"continue {n} or the end", 20 * SLACK)
        if last["type"] != "media":
            continue  # it was inside a frame that is gone
        # The page checks that the gap covers exactly what is missing.
        seen = [f"gap to {e['to']}" if e["type"] == "gap" else f"{e['part']} {e['sequence']}" for _, e in page.events.history if e["type"] in ("gap", "media")]
        tail = seen[-11:] if seen[-11] != "init 1" else seen[-12:-11] + seen[-10:]
        assert tail == [f"gap to {newest - 1}", f"start {newest}"] + [f"continue {at}" for at in range(newest + 1, n + 1)], seen[-13:]
        skipped += 1
    assert skipped >= 4, f"{skipped} of {len(slow)} got their gap"
