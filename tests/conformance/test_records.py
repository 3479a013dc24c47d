"""Records of pages: how they may be cut, what may stand between them, and what ends a connection. Each test runs with both
versions of TLS and both suites, unless it says otherwise."""
import asyncio
import hashlib
import json
import struct
import time

import harness
import lag
import records
from harness import test
from inbox import PATIENCE, SLACK
from records import (ALERT, BAD_RECORD_MAC, CHANGE_CIPHER_SPEC, CLOSE_NOTIFY, DATA, HANDSHAKE, NO_RENEGOTIATION, PLAIN_SIZE_MAX, RECORD_OVERFLOW,
                     UNEXPECTED_MESSAGE, USER_CANCELED)
from test_metrics import measured, scrape
from test_pages import alive_by_ping
from tls import AES, CHACHA20, SUITES, V12, V13
from websocket import PING, PONG, TEXT, frame

TLS = True
IDLE_MAX = 32  # (crates/tls/src/channel.rs): records in a row without a byte for the page
HALF_S = 1  # how long a part of a record keeps its place while others wait for one
MOODS_S = 6
HALVES = 330  # more parts than any board has places for them


def each(sentence, suites=SUITES, **options):
    """A test for each suite, one after the other, on one relay. It is given the test, a page whose transport makes its own
    records, that page's number of the business server, the daemon, and the uplink."""
    def register(function):
        @test(sentence, **options)
        async def one(t):
            daemon, business, up = await t.relay()
            for topic, suite in enumerate(suites, 1):
                t.line.context = harness.AUTHORITY.context(suite)
                page, link = await recorded(t, daemon), t.link()
                page.subscribe(link)
                up.accept(await up.expect("Subscribe", link=link), topic=topic, page_messages=True)
                await page.expect("subscribed", topic=topic)
                page.topic, page.suite, page.link = topic, suite, link
                await function(t, daemon, up, page, page.writer.transport)
                t.check()
        return one
    return register


async def recorded(t, daemon, receive_buffer=None):
    async def opener(host, port, limit=2**16, local_addr=None):
        return await t.line.open(host, port, limit=limit, local_addr=local_addr, kind=records.Connection, receive_buffer=receive_buffer)
    return await t.page(daemon, opener=opener)


async def goes_on(up, page, sequence=1):
    """Both directions work."""
    page.send(page.topic, f"message {sequence}")
    await up.expect("PageMessage", topic=page.topic, data=f"message {sequence}")
    up.message(page.topic, sequence)
    await page.expect("message", sequence=sequence)


async def ended(page, line, description, level=2):
    """The connection ends with this alert, and with it the page's place."""
    event = await page.gone()
    assert event["type"] == "cut" and line.alert == (level, description), (event, line.alert, description)


async def ponged(page, text, timeout=PATIENCE):
    until = time.monotonic() + timeout
    while text.encode() not in page.pongs:
        assert time.monotonic() < until, f"no pong with {text}, but {page.pongs[-4:]}"
        await asyncio.sleep(0.005)


def message(page, text):
    return frame(TEXT, json.dumps({"type": "send", "topic": page.topic, "data": text}))


async def heard(up, page, *texts):
    for text in texts:
        await up.expect("PageMessage", topic=page.topic, data=text)


# --- how data may be cut ---


@each("a record of 16 KB holds many messages, and one that ends inside of a message another half: all are read")
async def full_record(t, daemon, up, page, line):
    pongs = len(page.pongs)
    pings = b"".join(frame(PING, f"{number:0120}") for number in range(200))
    data = message(page, "first") + pings + message(page, "second")
    assert len(data) > PLAIN_SIZE_MAX
    line.write(data)  # one full record, and one more
    await heard(up, page, "first", "second")
    await alive_by_ping(page)
    # Not each of many pings must be answered, but the last one is (RFC 6455, 5.5.3).
    assert len(page.pongs) > pongs and page.pongs[-1] in (f"{199:0120}".encode(), b"there?"), page.pongs[-1]


@each("a message is read however it is cut into records, at each of its bytes, with empty records between them")
async def cuts(t, daemon, up, page, line):
    for at in range(1, len(frame(PING, "000"))):
        ping = frame(PING, f"{at:03}")
        parts = [ping[:at], *[b""] * (at % 3), ping[at:]]
        line.raw(b"".join([line.record(DATA, part) for part in parts]))
        await ponged(page, f"{at:03}")
    text = message(page, "cut at each byte")
    line.raw(b"".join([line.record(DATA, bytes([byte])) for byte in text]))
    await heard(up, page, "cut at each byte")
    text = message(page, "cut in two")
    for part in (text[:1], text[1:6], text[6:]):
        line.raw(line.record(DATA, part))
        await asyncio.sleep(0.05)
    await heard(up, page, "cut in two")


@each("a record is read however TCP cuts it: byte by byte, and many of them in one segment", waits=8)
async def dribble(t, daemon, up, page, line):
    for byte in line.record(DATA, message(page, "a byte in each segment")):
        line.raw(bytes([byte]))
        await asyncio.sleep(0.002)
    await heard(up, page, "a byte in each segment")
    await asyncio.sleep(1.1)
    line.raw(b"".join(line.record(DATA, message(page, f"record {number}")) for number in range(3)))
    await heard(up, page, *(f"record {number}" for number in range(3)))
    # Two records and a half, and the rest later.
    data = [line.record(DATA, frame(PING, f"{number}")) for number in range(3)]
    whole = b"".join(data)
    line.raw(whole[:-7])
    await asyncio.sleep(0.2)
    line.raw(whole[-7:])
    await ponged(page, "2")


@each("padding is no data, however much of it there is", suites=SUITES[:2])
async def padded(t, daemon, up, page, line):
    for number, padding in enumerate((1, 255, PLAIN_SIZE_MAX - 100)):
        line.raw(line.record(DATA, message(page, f"padded {number}"), padding))
        await heard(up, page, f"padded {number}")
    line.raw(line.record(DATA, b"", 1000))
    await goes_on(up, page)


@each("the relay's own records are at most 4 KiB, so that a page can show what it has, and hold all of a burst's bytes in order")
async def own_records(t, daemon, up, page, line):
    del line.sizes[:]
    up.state(page.topic, 1, b'"%s"' % (b"s" * 20000))
    up.message(page.topic, *range(1, 41), data=b'"%s"' % (b"m" * 500))
    await page.reached(page.topic, "message", 40)
    await page.reached(page.topic, "state", 1)
    assert sum(line.sizes) > 40 * 500 + 20000 and max(line.sizes) <= 4096, line.sizes


# --- key updates ---


@each("key updates of the page: its next records are opened, and one that asks for ours is answered before the next data", suites=SUITES[:2])
async def updates(t, daemon, up, page, line):
    sequence = 0
    for is_asked in (False, True, True, False, True):
        asked, sequence = line.updates + is_asked, sequence + 1
        line.raw(line.update(is_asked))
        up.message(page.topic, sequence)
        await page.expect("message", sequence=sequence)
        line.write(frame(PING, f"{sequence}"))
        await ponged(page, f"{sequence}")
        assert line.updates == asked, f"{line.updates} key updates came, {asked} were to"
    await goes_on(up, page, sequence + 1)


@each("key updates in the middle of a burst, of either kind and many, change nothing of what a page gets", suites=SUITES[:2])
async def updates_in_burst(t, daemon, up, page, line):
    up.media(page.topic, "video", "init 1")
    last = 1500
    for sequence in range(2, last + 1):
        up.publish(page.topic, "video", sequence, "start" if sequence % 50 == 2 else "continue", b"v" * 3000)
        if sequence % 20 == 0:
            await page.reached(page.topic, "video", sequence)
            # A page that sends nothing else may send but few of them.
            line.raw(line.update(sequence % 40 == 0) + line.record(DATA, frame(PONG, b"")))
    seen = await page.track(page.topic, "video", last, timeout=30 * SLACK)
    assert seen[0] == "init 1" and len(seen) == last and not any(entry.startswith("gap") for entry in seen), seen[:5]
    # Requests that come while one is not answered yet are answered by one.
    assert 10 <= line.updates <= last // 40, line.updates
    await goes_on(up, page)


@each("more than 32 key updates without any data end the connection", suites=SUITES[:2])
async def update_flood(t, daemon, up, page, line):
    for _ in range(IDLE_MAX):
        line.raw(line.update())
    await goes_on(up, page)
    for _ in range(IDLE_MAX + 1):
        line.raw(line.update(True))
    await ended(page, line, UNEXPECTED_MESSAGE)


@each("what is no key update by its form ends the connection", suites=SUITES[:2], waits=5)
async def malformed_updates(t, daemon, up, page, line):
    for body in (bytes([24, 0, 0, 1, 2]), bytes([24, 0, 0, 0]), bytes([24, 0, 0, 2, 0, 0]), bytes([24, 0, 0, 1]), records.update(False) * 2,
                 bytes([4, 0, 0, 0]), bytes([1, 0, 0, 1, 0]), b""):
        other = await recorded(t, daemon)
        line = other.writer.transport
        line.raw(line.record(HANDSHAKE, body))
        await other.gone()
        assert line.alert and line.alert[0] == 2 and line.alert[1] in (UNEXPECTED_MESSAGE, 47, 50), (body, line.alert)
    await goes_on(up, page)


# --- what ends a connection ---


@each("a flipped bit anywhere in a record ends the connection with the alert bad_record_mac, and nobody else notices", waits=5)
async def flipped(t, daemon, up, page, line):
    text = frame(TEXT, "x" * 50)
    size = len(text) + {(V12, AES): 29, (V12, CHACHA20): 21}.get(page.suite, 22)
    for at in [*range(5, size, 7), size - 1]:
        other = await recorded(t, daemon)
        line = other.writer.transport
        record = bytearray(line.record(DATA, text))
        assert len(record) == size
        record[at] ^= 1 << at % 8
        line.raw(bytes(record))
        await ended(other, line, BAD_RECORD_MAC)
    await goes_on(up, page)


@each("a record that comes twice, or before the one that it follows, ends the connection with bad_record_mac", waits=5)
async def replayed(t, daemon, up, page, line):
    for again in (True, False):
        other = await recorded(t, daemon)
        line = other.writer.transport
        first, second = line.record(DATA, frame(PING, "1")), line.record(DATA, frame(PING, "2"))
        line.raw(first * 2 if again else second + first)
        await ended(other, line, BAD_RECORD_MAC)
    await goes_on(up, page)


@each("records whose head can't be TLS, or that are too long, end the connection with an alert", waits=5)
async def bad_heads(t, daemon, up, page, line):
    for head in (struct.pack(">BHH", DATA, 0x303, PLAIN_SIZE_MAX + 300), struct.pack(">BHH", DATA, 0x303, 0xFFFF), struct.pack(">BHH", 99, 0x303, 20),
                 struct.pack(">BHH", DATA, 0x503, 20), struct.pack(">BHH", DATA, 0x303, 0), struct.pack(">BHH", DATA, 0x303, 7),
                 b"GET /healthz HTTP/1.1\r\n\r\n"):
        other = await recorded(t, daemon)
        line = other.writer.transport
        line.raw(head + bytes(64))
        await other.gone()
        assert line.alert and line.alert[0] == 2, (head, line.alert)
    other = await recorded(t, daemon)
    line = other.writer.transport
    line.raw(line.record(DATA, bytes(PLAIN_SIZE_MAX + 1)))
    await ended(other, line, RECORD_OVERFLOW)
    await goes_on(up, page)


@each("a change of cipher, a handshake message or a record of no known kind is not expected any more", waits=5)
async def unexpected(t, daemon, up, page, line):
    hello = bytes([1, 0, 0, 2, 3, 3])
    for content, body in ((CHANGE_CIPHER_SPEC, b"\1"), (HANDSHAKE, hello), (24, b"\1\0\0"), (0, b"x")):
        other = await recorded(t, daemon)
        line = other.writer.transport
        line.raw(line.record(content, body))
        await other.gone()
        is_renegotiation = page.suite[0] == V12 and content == HANDSHAKE
        assert line.alert == ((1, NO_RENEGOTIATION) if is_renegotiation else (2, UNEXPECTED_MESSAGE)), (content, line.alert)
    other = await recorded(t, daemon)
    line = other.writer.transport
    line.raw(struct.pack(">BHHB", CHANGE_CIPHER_SPEC, 0x303, 1, 1))  # not sealed
    await other.gone()
    assert line.alert and line.alert[0] == 2, line.alert
    await goes_on(up, page)


@each("more than 32 empty records in a row end the connection; with data between them they are none", waits=5)
async def empty(t, daemon, up, page, line):
    for _ in range(3):
        line.raw(b"".join(line.record(DATA, b"") for _ in range(IDLE_MAX)) + line.record(DATA, frame(PONG, b"")))
    await goes_on(up, page)
    line.raw(b"".join(line.record(DATA, b"") for _ in range(IDLE_MAX + 1)))
    await ended(page, line, UNEXPECTED_MESSAGE)
    await up.audience(page.topic, 0)


@each("alerts of the page: user_canceled is none, a fatal one and close_notify end the page, and only close_notify is answered", waits=20)
async def alerts(t, daemon, up, page, line):
    line.raw(line.record(ALERT, bytes([1, USER_CANCELED])))
    await goes_on(up, page)
    for alert in (bytes([2, BAD_RECORD_MAC]), bytes([1, CLOSE_NOTIFY]), bytes([2, 80])):
        other = await recorded(t, daemon)
        await other.join(page.link)
        await up.audience(page.topic, 2)
        other.writer.transport.raw(other.writer.transport.record(ALERT, alert))
        await other.gone()
        answer = (1, CLOSE_NOTIFY) if alert[1] == CLOSE_NOTIFY else None
        assert other.writer.transport.alert == answer, (alert, other.writer.transport.alert)
        await up.audience(page.topic, 1)
    for body in (b"\1", b"\2\0\0", b""):
        other = await recorded(t, daemon)
        line = other.writer.transport
        line.raw(line.record(ALERT, body))
        await other.gone()
        assert line.alert and line.alert[0] == 2, (body, line.alert)


@each("a page that is cut off without close_notify leaves its topic, in the middle of a record too", waits=12)
async def truncated(t, daemon, up, page, line):
    for size in (0, 20):
        other = await recorded(t, daemon)
        await other.join(page.link)
        await up.audience(page.topic, 2)
        other.closed = True
        other.writer.transport.raw(other.writer.transport.record(DATA, frame(PING, "x"))[:size])
        other.writer.transport.under.write_eof()
        await up.audience(page.topic, 1)
        other.abort()
    await goes_on(up, page)


@each("the relay's close frame is followed by close_notify, once the page's own has come, and by nothing")
async def close_notify(t, daemon, up, page, line):
    page.send(page.topic, "here")
    number = (await up.expect("PageMessage", data="here")).page
    up.send("Kick", page=number, reason="x")
    event = await page.gone()
    assert (event.get("code"), event.get("reason")) == (1008, "x"), event
    assert await asyncio.wait_for(asyncio.shield(page.ended), PATIENCE)
    assert line.alert == (1, CLOSE_NOTIFY) and not line.buffer, (line.alert, line.buffer)


@test("pages that begin a record and don't end it: who sends whole ones needs no place, who has kept its part for long gives its own to others", timeout=120, crowded=True)
async def halves(t):
    daemon, business, up = await t.relay(limits={"pages": 400})
    link = t.link()
    keeper = await t.joined(daemon, up, link, page_messages=True)
    began, stuck = time.monotonic(), []
    for number in range(HALVES):
        page = await recorded(t, daemon)
        page.rest = page.writer.transport.record(DATA, frame(PING, "x" * 60))
        page.writer.transport.raw(page.rest[:20])
        stuck.append(page)
    keeper.send(7, "whole")
    await up.expect("PageMessage", data="whole")
    up.message(7, 1)
    await keeper.expect("message", sequence=1)
    # The last one's begin is certainly read, at the expense of the first one's.
    await asyncio.sleep(max(0.5, began + HALF_S + 0.5 - time.monotonic()))
    for page in stuck:
        page.writer.transport.raw(page.rest[20:])
    until, waits = time.monotonic() + PATIENCE, stuck
    while waits := [page for page in waits if not page.pongs and not page.ended.done()]:
        assert time.monotonic() < until, f"{len(waits)} pages were neither served nor cut off"
        await asyncio.sleep(0.02)
    served = [bool(page.pongs) for page in stuck]
    assert not served[0] and served[-1] and served == sorted(served), served
    keeper.send(7, "still there")
    await up.expect("PageMessage", data="still there")


# --- slow ones ---


async def fits(t, page, until):
    """Reads in fits: some bytes at a time, and now and then nothing for a while."""
    transport, draw = page.reader._transport, t.random
    while not until():
        transport.resume_reading()
        await asyncio.sleep(draw.choice((0, 0, 0.001, 0.005)))
        transport.pause_reading()
        await asyncio.sleep(draw.choice((0, 0.001, 0.002, 0.02)))
    transport.resume_reading()


async def moods(t, page, until):
    """Does at random whatever a page may: cuts its frames into records, and these into segments; empty records, padding, key
    updates of both kinds; reads in fits."""
    line, draw, number, is_13 = page.writer.transport, t.random, 0, page.suite[0] == V13
    while not until():
        number += 1
        frames = b"".join(frame(draw.choice((PING, PONG)), f"{number} " + "x" * draw.randint(0, 110)) for _ in range(draw.randint(1, 6)))
        frames += frame(PING, f"{number} last")
        records, idle = [], 0
        while frames:
            size = draw.choice((1, 7, 100, 1000, 5000))
            records.append(line.record(DATA, frames[:size], draw.choice((0, 0, 1, 300)) if is_13 else 0))
            frames, idle = frames[size:], 0
            while frames and idle < 3 and draw.random() < 0.3:
                records.append(draw.choice((lambda: line.record(DATA, b""), *[lambda: line.update(draw.random() < 0.5)] * is_13))())
                idle += 1
        data = b"".join(records)
        while data:
            size = draw.choice((len(data), 3, 40, 700))
            line.raw(data[:size])
            data = data[size:]
            await asyncio.sleep(draw.choice((0, 0, 0, 0.002)))
        if draw.random() < 0.5:
            line.pause_reading()
            await asyncio.sleep(draw.random() * 0.1)
            line.resume_reading()
        del page.pongs[:-1]
    # It is read once it has taken what waits for it.
    await ponged(page, f"{number} last", 4 * PATIENCE)


@test("pages that do at random whatever they may, in both directions and by each suite: every message or its gap, and no connection is lost", timeout=90, crowded=True)
async def at_random(t):
    daemon, business, up = await t.relay()
    link, pages, is_over = t.link(), [], False
    quick = await t.joined(daemon, up, link)
    for suite in SUITES * 3:
        t.line.context = harness.AUTHORITY.context(suite)
        page = await recorded(t, daemon, receive_buffer=t.random.choice((None, 65536)))
        await page.join(link)
        # Its own answers would come between records that are made and not sent yet.
        page.suite, page.pongs_back = suite, False
        pages.append(page)
    going = [asyncio.ensure_future(moods(t, page, lambda: is_over or page.ended.done())) for page in pages]
    began, last, version = time.monotonic(), 0, 0
    while time.monotonic() - began < MOODS_S:
        for _ in range(t.random.randint(1, 12)):
            last += 1
            up.message(7, last, data=json.dumps({"n": last, "x": "m" * t.random.choice((0, 50, 700, 5000))}))
        if t.random.random() < 0.3:
            version += 1
            up.state(7, version, b'{"n":%d,"x":"%s"}' % (version, b"s" * t.random.randint(0, 5000)))
        await quick.reached(7, "message", last)
        await asyncio.sleep(t.random.choice((0, 0.01, 0.1)))
        for page in pages:
            assert not page.ended.done(), f"{page.name} was lost: {page.events.history[-3:]!r}"[:600]
    is_over = True
    await asyncio.gather(*going)
    up.message(7, last + 1)
    for page in pages:
        await page.reached(7, "message", last + 1)
        messages = [event for _, event in page.events.history if event["type"] == "message"]
        # Its own checks see that no other sequence is missing without a gap.
        assert all(event["data"]["n"] == event["sequence"] for event in messages), page.name
    assert sum(page.writer.transport.updates for page in pages) > 10


@test("a stream of 50 MB to pages that read in fits, by each suite: every byte is right, and less is sealed in vain than goes out", timeout=240, crowded=True)
async def fifty_megabytes(t):
    daemon, business, up, metrics = await measured(t)
    link, pages = t.link(), []
    keeper = await t.joined(daemon, up, link)
    keeper.digest = hashlib.sha256()
    for suite in SUITES:
        t.line.context = harness.AUTHORITY.context(suite)
        page = await t.page(daemon, receive_buffer=16384)
        await page.join(link)
        pages.append(page)
    total, size = 50 << 20, 0
    sent = hashlib.sha256()
    up.media(7, "video", "init 1")
    sequence, is_over = 1, False
    reading = [asyncio.ensure_future(fits(t, page, lambda: is_over)) for page in pages]
    while size < total:
        sequence += 1
        data = t.random.randbytes(t.random.choice((1, 200, 4000, 30_000, 60_000)))
        up.publish(7, "video", sequence, "start" if sequence % 10 == 2 else "continue", data)
        sent.update(data)
        size += len(data)
        if sequence % 16 == 0:  # no page is overtaken
            for page in pages:
                await page.reached(7, "video", sequence, 30 * SLACK)
            for page in (keeper, *pages):
                taken(page)
    for page in (keeper, *pages):
        await page.reached(7, "video", sequence, 30 * SLACK)
        taken(page)
        assert page.digest.digest() == sent.digest() and page.last == sequence, f"{page.name} has other bytes"
    is_over = True
    await asyncio.gather(*reading)
    _, rows = await scrape(metrics)
    in_vain, out = rows["sharelinkd_tls_sealed_in_vain_bytes_total"], rows["sharelinkd_sent_bytes_total"]
    assert 0 < in_vain < out, f"{in_vain:.0f} bytes were sealed in vain, {out:.0f} sent"


def taken(page):
    """Takes the chunks that came into the page's digest."""
    if not hasattr(page, "digest"):
        page.digest = hashlib.sha256()
    for event in page.events.items:
        assert event["type"] in ("media", "alive"), event
        if event["type"] == "media" and event["part"] != "init":
            page.digest.update(event["data"])
            page.last = event["sequence"]
    page.events.items.clear()
    del page.events.history[:-8]


@test("a page that reads in fits and is overtaken gets every message or its gap, and one that reads everything is not delayed", timeout=150, crowded=True)
async def overtaken(t):
    daemon, business, up = await t.relay()
    link = t.link()
    quick, slow = await t.joined(daemon, up, link), []
    for suite in SUITES:
        t.line.context = harness.AUTHORITY.context(suite)
        page = await t.page(daemon, receive_buffer=4096)
        await page.join(link)
        slow.append(page)
    is_over, times = False, []
    reading = [asyncio.ensure_future(fits(t, page, lambda: is_over)) for page in slow]
    last = 4000
    for first in range(1, last, 8):
        began = time.monotonic()
        # The page checks that each is its own, and that a jump has its gap.
        for sequence in range(first, first + 8):
            up.message(7, sequence, data=json.dumps({"n": sequence, "x": "m" * t.random.randint(0, 4000)}))
        await quick.reached(7, "message", first + 7)
        times.append(time.monotonic() - began - lag.lost(began))
    is_over = True
    await asyncio.gather(*reading)
    up.message(7, last + 1)
    assert await quick.track(7, "messages", last + 1, timeout=30 * SLACK) == [f"message {n}" for n in range(1, last + 2)]
    assert sorted(times)[len(times) // 2] < 0.1 * SLACK and max(times) < 1 * SLACK, f"the quick page waited: {max(times):.2f} s"
    gaps = 0
    for page in slow:
        for _, event in page.events.history:
            if event["type"] == "message" and event["sequence"] <= last:
                assert event["data"]["n"] == event["sequence"], event
        end = [event for _, event in page.events.history if event["type"] in ("close", "cut")]
        if end:
            assert end[0].get("code") == 1013, end
            continue
        seen = await page.track(7, "messages", last + 1, timeout=30 * SLACK)
        gaps += sum(entry.startswith("gap") for entry in seen)
    assert gaps, "no page was overtaken"
