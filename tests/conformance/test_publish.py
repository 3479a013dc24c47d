"""Publications that exceed a limit: dropped, reported as a gap, and the uplink goes on."""
from harness import test
from inbox import SLACK


async def pair(t):
    daemon, business, up = await t.relay()
    return up, await t.joined(daemon, up, t.link())


BROKEN = {
    "nothing": b"", "white space": b"  ", "not UTF-8": b'"\xff"', "a surrogate in UTF-8": b'"\xed\xa0\x80"', "cut": b'{"a":', "two values": b"1 2",
    "a trailing comma": b"[1,]", "single quotes": b"'a'", "NaN": b"NaN", "a byte order mark": b"\xef\xbb\xbf1", "a comment": b"1 //",
    "a leading zero": b"01", "a bare control byte in a string": b'"\n"', "a nul at the end": b"1\0", "a bad escape": b'"\\x41"', "no quotes": b"{a:1}",
    "a plus": b"+1", "a frame of its own": b'1},{"type":"end","topic":7,"reason":"x"', "upper case": b"TRUE",
}


@test("a message whose bytes are not one JSON value in UTF-8 becomes a gap, and the uplink goes on")
async def broken_messages(t):
    up, page = await pair(t)
    up.message(7, 1)
    await page.expect("message", sequence=1)
    n = 1
    for name, data in BROKEN.items():
        up.publish(7, "messages", n + 1, "whole", data)
        up.message(7, n + 2)
        seen = await page.track(7, "messages", n + 2)
        assert seen == [f"gap {n + 1}-{n + 1}", f"message {n + 2}"], (name, seen)
        n += 2
    assert up.open


@test("a state whose bytes are not one JSON value in UTF-8 is dropped, and the next one comes")
async def broken_states(t):
    up, page = await pair(t)
    up.state(7, 1)
    n = 1
    for name, data in BROKEN.items():
        up.publish(7, "state", n + 1, "whole", data)
        up.state(7, n + 2)
        await page.until("state", sequence=n + 2)
        n += 2
    assert all(e["sequence"] % 2 for _, e in page.events.history if e["type"] == "state"), "a broken state was shown"
    assert up.open


@test("a message nested without end does not harm the relay")
async def nested(t):
    up, page = await pair(t)
    up.message(7, 1)
    up.message(7, 2, data="[" * 3000 + "]" * 3000)
    up.message(7, 3, data="[" * 8000)
    up.message(7, 4)
    seen = await page.track(7, "messages", 4)
    assert seen in (["message 1", "gap 2-3", "message 4"], ["message 1", "message 2", "gap 3-3", "message 4"]), seen


@test("a publication larger than its track's limit becomes a gap: the bytes of a frame that is too large are skipped")
async def too_large(t):
    up, page = await pair(t)
    up.message(7, 1)
    up.message(7, 2, data='"' + "x" * (1024 * 1024 - 2) + '"')
    up.message(7, 3)
    up.state(7, 1)
    up.state(7, 2, data='"' + "x" * (1024 * 1024 - 2) + '"')
    up.state(7, 3)
    seen = await page.track(7, "messages", 3, timeout=15 * SLACK)
    # A board may allow a message of 1 MiB; no existing one does.
    assert seen in (["message 1", "gap 2-2", "message 3"], ["message 1", "message 2", "message 3"]), seen
    await page.until("state", sequence=3)
    up.media(7, "video", "init 1", "start 2")
    up.publish(7, "video", 3, "continue", b"x" * 1_114_000)
    up.media(7, "video", "start 4")
    seen = await page.track(7, "video", 4, timeout=15 * SLACK)
    assert [s for s in seen if s != "init 1"] == ["start 2", "gap 3-3", "start 4"], seen
    await up.barrier()


@test("frames that are too large, one after the other, keep the uplink's framing")
async def too_large_again(t):
    up, page = await pair(t)
    up.message(7, 1)
    for n in range(2, 12):
        up.publish(7, "video", n - 1, "start", b"\xff" * 1_100_000)
        up.message(7, n)
        await up.writer.drain()
    assert await page.track(7, "messages", 11, timeout=15 * SLACK) == [f"message {n}" for n in range(1, 12)]
    await up.barrier()


@test("an init whose MIME type is too long becomes a gap, and the uplink goes on")
async def long_mime(t):
    up, page = await pair(t)
    up.media(7, "video", "init 1", "start 2")
    up.publish(7, "video", 3, "init", b"i", "m" * 256)
    up.media(7, "video", "continue 4", "init 5", "start 6")
    seen = await page.track(7, "video", 6)
    assert seen[:2] == ["init 1", "start 2"] and seen[-1] == "start 6", seen
    assert seen[2:] in (["gap 3-4", "init 5", "start 6"], ["gap 3-5", "init 5", "start 6"]), seen
    up.publish(7, "audio", 1, "init", b"i", "m" * 255)
    await page.expect("media", track="audio", mime="m" * 255)


@test("a dropped publication is a gap for a page that comes back with since, too")
async def remembered(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    up.message(7, 1)
    up.message(7, 2, data="broken")
    up.message(7, 3)
    await page.track(7, "messages", 3)
    back = await t.page(daemon)
    await back.join(link, since=(7, 2))
    assert await back.track(7, "messages", 3) == ["gap 2-2", "message 3"]
