"""The page protocol's edges, WebSocket rules, close codes, and what keeps a page alive."""
import asyncio
import struct
import time

import lag
import tls
import websocket
from harness import test
from inbox import PATIENCE, SLACK, Mismatch
from test_faults import codes, status
from websocket import BINARY, CLOSE, PING, PONG, TEXT, frame


async def opened(t):
    """A page with one subscription, and its uplink."""
    daemon, business, up = await t.relay()
    return up, await t.joined(daemon, up, t.link(), page_messages=True)


async def alive(up, page, sequence=1):
    up.message(7, sequence)
    await page.expect("message", sequence=sequence)


async def closed(page, code, timeout=PATIENCE):
    event = await page.gone(timeout)
    if event.get("code") != code:
        raise Mismatch(f"{page.name}: expected a close with {code}, saw {event}; before: {page.events.history[-4:]!r}")
    return event


def violation(name, data):
    @test(f"{name}: an error, and the third time close code 1008")
    async def three_times(t):
        up, page = await opened(t)
        page.raw(data)
        await page.expect("error")
        await alive(up, page)
        page.raw(data)
        await page.expect("error")
        page.raw(data)
        await closed(page, 1008)
        await up.audience(7, 0)


violation("an unknown type", frame(TEXT, '{"type":"dance"}'))
violation("JSON that does not parse", frame(TEXT, '{"type":'))
violation("a binary frame", frame(BINARY, b"\0\1"))
violation("an empty text", frame(TEXT, ""))


@test("the three violations may be of different kinds")
async def mixed(t):
    up, page = await opened(t)
    page.json({"type": "nonsense"})
    page.text("not json")
    await page.expect("error")
    await page.expect("error")
    page.raw(frame(BINARY, b""))
    await closed(page, 1008)


def answered(name, text):
    @test(f"{name} is answered by an error or a denial, and does no harm")
    async def one(t):
        up, page = await opened(t)
        page.pending.update({n: None for n in (0, 1, 2, 2**32, -1)})
        page.text(text)
        event = await page.events.next("an error or a denial")
        assert event["type"] in ("error", "denied"), event
        await alive(up, page)
        assert up.seen("Subscribe") == 1 and up.seen("PageMessage") == 0


answered("a subscribe without a link", '{"type":"subscribe","id":1}')
answered("a subscribe without an id", '{"type":"subscribe","link":"abcd"}')
answered("an id beyond u32", '{"type":"subscribe","id":4294967296,"link":"abcd"}')
answered("a negative id", '{"type":"subscribe","id":-1,"link":"abcd"}')
answered("a link that is a number", '{"type":"subscribe","id":2,"link":7}')
answered("a since whose epoch is no number", '{"type":"subscribe","id":2,"link":"abcd","since":{"epoch":"x","next":[0,1,0,0]}}')
answered("a since with three nexts", '{"type":"subscribe","id":2,"link":"abcd","since":{"epoch":"7","next":[0,1,0]}}')
answered("a JSON array", '["subscribe"]')
answered("an object without a type", "{}")
answered("two values", '{"type":"alive"}{"type":"alive"}')
answered("a send whose data is no string", '{"type":"send","topic":7,"data":{"a":1}}')
answered("a send to a topic that the page does not hold", '{"type":"send","topic":8,"data":"x"}')
answered("deep nesting", '{"type":"subscribe","id":1,"x":' + "[" * 1500)


@test("an unsubscribe of a topic that the page does not hold does no harm")
async def unsubscribe_unknown(t):
    up, page = await opened(t)
    page.unsubscribe(99)
    await asyncio.sleep(0.2)
    assert all(e["type"] == "error" for e in page.events.items), page.events.items
    page.events.items.clear()
    await alive(up, page)


@test("unknown fields are ignored, of any kind and in any order")
async def unknown_fields(t):
    daemon, business, up = await t.relay()
    page, link = await t.page(daemon), t.link()
    page.pending[5] = None
    page.text(' { "extra" : {"type":"x","deep":[1,{"link":"no"}]} , "link" :"%s", "since": null,\n "n":1e5, "id": 5 , "type" : "subscribe", "z":null } ' % link)
    up.accept(await up.expect("Subscribe", link=link, since=None), page_messages=True)
    await page.expect("subscribed", id=5)
    page.text('{"x":[],"type":"send","data":"a\\u00e9\\ud83d\\udc4d\\n","topic":7}')
    await up.expect("PageMessage", data="aé👍\n")
    page.text('{"more":true,"topic":7,"type":"unsubscribe"}')
    await page.expect("end", topic=7)


@test("the document's own examples are understood as they stand")
async def examples(t):
    daemon, business, up = await t.relay()
    page = await t.page(daemon)
    page.pending.update({1: None, 2: ("7", 43)})
    page.text('{"type":"subscribe","id":1,"link":"demo"}')
    up.accept(await up.expect("Subscribe", link="demo", since=None), topic=7, shared=False, page_messages=True)
    up.accept(await up.expect("Subscribe", link="demo"), topic=7, shared=False, page_messages=True)
    await page.expect("subscribed", id=1)
    page.text('{"type":"send","topic":7,"data":"👍"}')
    await up.expect("PageMessage", topic=7, data="👍")
    page.text('{"type":"unsubscribe","topic":7}')
    await page.expect("end", topic=7)
    page.text('{"type":"subscribe","id":2,"link":"demo","since":{"epoch":"7","next":[4,43,0,0]}}')
    ask = await up.expect("Subscribe", link="demo", timeout=8 * SLACK)
    up.accept(ask, topic=7, epoch=7)
    await page.expect("subscribed", id=2, epoch="7")


@test("a frame of 4 KiB is taken, one byte more is closed with 1009")
async def too_big(t):
    up, page = await opened(t)
    fixed = len('{"type":"send","topic":7,"data":"x","pad":""}')
    page.text('{"type":"send","topic":7,"data":"x","pad":"%s"}' % ("p" * (4096 - fixed)))
    await up.expect("PageMessage", data="x")
    page.text('{"type":"send","topic":7,"data":"y","pad":"%s"}' % ("p" * (4097 - fixed)))
    await closed(page, 1009)
    await up.none("PageMessage", 0.2, data="y")


@test("a frame with a huge length is closed with 1009 before its payload comes")
async def claimed(t):
    for head in (b"\x81\xfe\xff\xff", b"\x81\xff" + struct.pack(">Q", 2**40), b"\x82\xff" + struct.pack(">Q", 2**62)):
        up, page = await opened(t)
        page.raw(head + b"\0\0\0\0")
        await closed(page, 1009)


@test("fragments that are too big together are closed with 1009")
async def fragments_too_big(t):
    up, page = await opened(t)
    page.raw(frame(TEXT, '{"a":"' + "x" * 3000, fin=False) + frame(0, "x" * 3000, fin=False) + frame(0, '"}'))
    await closed(page, 1009)


@test("a text that is not UTF-8 is closed with 1007")
async def not_utf8(t):
    for data in (b'{"type":"\xff"}', b"\xc3\x28", b"\xed\xa0\x80"):
        up, page = await opened(t)
        page.raw(frame(TEXT, data))
        await closed(page, 1007)


def broken(name, data):
    @test(f"{name} is closed with 1002")
    async def one(t):
        up, page = await opened(t)
        page.raw(data)
        await closed(page, 1002)


broken("an unmasked frame", frame(TEXT, '{"type":"unsubscribe","topic":7}', masked=False))
broken("a frame with a reserved bit", frame(TEXT, "{}", rsv=4))
broken("a frame with a reserved opcode", frame(3, "{}"))
broken("a control frame with a reserved opcode", frame(11, ""))
broken("a fragmented ping", frame(PING, "", fin=False))
broken("a ping of 126 bytes", frame(PING, "x" * 126))
broken("a continuation of nothing", frame(0, "{}"))
broken("a text inside of a fragmented text", frame(TEXT, "{", fin=False) + frame(TEXT, "{}"))
broken("a close frame of one byte", frame(CLOSE, b"\x03"))


@test("a ping is answered by a pong with its bytes, between fragments too")
async def pings(t):
    up, page = await opened(t)
    page.raw(frame(PING, "a" * 125) + frame(TEXT, '{"type":"send",', fin=False) + frame(PING, "b") + frame(0, '"topic":7,"data"', fin=False)
             + frame(PONG, "unasked") + frame(0, ':"parts"}'))
    await up.expect("PageMessage", data="parts")
    assert page.pongs[-1] == b"b" and page.pongs[0] in (b"a" * 125, b"b"), page.pongs


@test("a frame that arrives byte by byte is accepted")
async def bytewise(t):
    up, page = await opened(t)
    for byte in frame(TEXT, '{"type":"send","topic":7,"data":"slowly"}'):
        page.raw(bytes([byte]))
        await asyncio.sleep(0.002)
    await up.expect("PageMessage", data="slowly")


@test("frames right after the request's head are not lost")
async def pipelined(t):
    daemon, business, up = await t.relay()
    link = t.link()
    reader, writer = await tls.open_connection(port=daemon.port)
    fields = websocket.upgrade_headers(daemon.port, "dGhlIHNhbXBsZSBub25jZQ==")
    writer.write(b"GET /ws HTTP/1.1\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in fields) + b"\r\n"
                 + frame(TEXT, '{"type":"subscribe","id":1,"link":"%s"}' % link))
    await up.expect("Subscribe", link=link)
    status, headers = await websocket.read_head(reader)
    assert status == 101 and headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", headers
    writer.close()


@test("a close frame is answered by a close frame with its code")
async def close_echo(t):
    up, page = await opened(t)
    page.closed = True
    page.raw(frame(CLOSE, struct.pack(">H", 1000) + b"bye"))
    await closed(page, 1000)
    await up.audience(7, 0)
    try:
        assert await asyncio.wait_for(page.reader.read(), PATIENCE) == b""
    except ConnectionError:
        pass
    except asyncio.TimeoutError:
        raise Mismatch("the relay did not end the connection after the close frames") from None


@test("a page that is cut off without a word leaves its topic")
async def cut_off(t):
    up, page = await opened(t)
    await up.audience(7, 1)
    page.abort()
    await up.audience(7, 0)


@test("a first subscribe is due within 10 s of the upgrade: else 1008; pings and nonsense are none", waits=True)
async def first_subscribe(t):
    daemon, business, up = await t.relay()
    began = time.monotonic()
    silent, pinging = await t.page(daemon), await t.page(daemon)
    prompt = await t.joined(daemon, up, t.link())

    async def ping():
        while True:
            pinging.raw(frame(PING, ""))
            await asyncio.sleep(1)
    pinger = asyncio.ensure_future(ping())
    for page in (silent, pinging):
        await closed(page, 1008, timeout=20 * SLACK)
        took = time.monotonic() - began
        assert 8.5 < took < 14 * SLACK + lag.lost(began), f"{page.name} closed after {took:.1f} s"
    pinger.cancel()
    await alive(up, prompt)


@test("alive goes out when nothing else did for 15 s", waits=True)
async def alive_frames(t):
    daemon, business, up = await t.relay()
    page, busy = await t.joined(daemon, up, t.link(), topic=7), await t.joined(daemon, up, t.link(), topic=8)
    since, n = time.monotonic(), 0
    up.message(7, 1)
    await page.expect("message")
    while not any(e["type"] == "alive" for e in page.events.items) and time.monotonic() - since < 25 * SLACK:
        n += 1
        up.message(8, n)
        await asyncio.sleep(0.5)
    took = page.events.history[-1][0] - since
    event = await page.expect("alive", timeout=0.1)
    assert event["raw"] == '{"type":"alive"}', event["raw"]
    assert 13.5 < took < 18 * SLACK + lag.lost(since), f"alive after {took:.1f} s"
    assert not any(e["type"] == "alive" for _, e in busy.events.history), "alive although messages went out"


@test("WebSocket pings every 25 s; a page that answers nothing but pings lives beyond 60 s", waits=70, plain=True)
async def ping_rhythm(t):
    up, page = await opened(t)
    await asyncio.sleep(70)
    times = [page.opened_at, *page.pings]
    assert len(times) >= 3 and all(20 < b - a < 30 * SLACK + lag.lost(page.opened_at) for a, b in zip(times, times[1:])), times
    await alive(up, page)
    gaps = [b[0] - a[0] for a, b in zip(page.events.history, page.events.history[1:])]
    assert max(gaps) < 30 * SLACK + lag.lost(page.opened_at), f"a quiet page heard nothing for {max(gaps):.0f} s: it can't tell a dead relay from a quiet room"


@test("a page to which nothing can be written and from which nothing comes is gone within about 60 s", waits=30)
async def stalled(t):
    daemon, business, up = await t.relay()
    link = t.link()
    keeper = await t.joined(daemon, up, link)
    page = await t.page(daemon, receive_buffer=4096)
    await page.join(link)
    await up.audience(7, 2)
    page.reading.clear()
    page.reader._transport.pause_reading()
    stopped = time.monotonic()
    n = 0
    while not any(f.kind == "Audience" and f.pages == 1 for f in up.frames.items):
        up.message(7, n + 1, n + 2, data='"' + "x" * 1000 + '"')
        n += 2
        await asyncio.sleep(0.02 if n < 4000 else 0.5)
        assert time.monotonic() - stopped < 75 * SLACK + lag.lost(stopped), "a page that had stopped was still counted after 75 s"
    assert not any(e["type"] in ("close", "cut") for _, e in keeper.events.history)


@test("origins: an Origin that is not allowed gets 403; a listed one, the relay's own host and none at all are allowed")
async def origins(t):
    daemon, business, up = await t.relay()
    for origin in ("https://evil.example", "null", "https://share.example.evil.example", "http://share.example", "https://share.example:444",
                   f"http://127.0.0.1.evil:{daemon.port}", "https://evil.example/https://share.example", "", "https://sub.share.example"):
        try:
            await t.page(daemon, origin=origin)
            if origin:
                raise Mismatch(f"a page of origin {origin!r} was let in")
        except websocket.Refused as refused:
            assert refused.response and refused.response.status == 403, (origin, refused)
    for origin in (None, "https://share.example", f"http://127.0.0.1:{daemon.port}", f"https://127.0.0.1:{daemon.port}"):
        await t.page(daemon, origin=origin)
    await t.page(daemon, origin="https://relay.example", extra=[("Host", "relay.example")])
    await t.page(daemon, origin="https://relay.example:8443", extra=[("Host", "relay.example:8443")])


@test('origins = ["*"] allows any Origin')
async def any_origin(t):
    daemon = await t.daemon(["127.0.0.1:1"], pages={"origins": ["*"]}).start()
    for origin in ("https://anything.example", "http://localhost:3000"):
        await t.page(daemon, origin=origin)


@test("require_origin = true: a request without an Origin gets 403")
async def require_origin(t):
    daemon = await t.daemon(["127.0.0.1:1"], pages={"require_origin": True}).start()
    try:
        await t.page(daemon)
        raise Mismatch("a page without an Origin was let in")
    except websocket.Refused as refused:
        assert refused.response.status == 403, refused
    await t.page(daemon, origin="https://share.example")


@test("with the table full the next page gets 503 with Retry-After, and a seat that is freed is given again")
async def full(t):
    socket = t.path("console.sock")
    daemon = await t.daemon(["127.0.0.1:1"], limits={"pages": 3}, console={"socket": socket}).start()
    pages = [await t.page(daemon) for _ in range(2)]
    assert "T1" not in codes(await status(socket))
    pages.append(await t.page(daemon))
    told = await status(socket)
    assert "T1" in codes(told) and told["health"] == "degraded", told
    for _ in range(3):
        try:
            await t.page(daemon)
            raise Mismatch("a fourth page was let in")
        except websocket.Refused as refused:
            assert refused.response and refused.response.status == 503, refused
            assert "retry-after" in refused.response.headers, refused
    for page in pages:
        await alive_by_ping(page)
    await pages[0].close()
    until = time.monotonic() + PATIENCE
    while True:
        try:
            await t.page(daemon)
            break
        except websocket.Refused:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)


async def alive_by_ping(page):
    page.raw(frame(PING, "there?"))
    until = time.monotonic() + PATIENCE
    while not page.pongs:
        assert time.monotonic() < until, f"{page.name} got no pong"
        await asyncio.sleep(0.02)


@test("pages_per_address: one page more from an address is refused, another address is not")
async def per_address(t):
    daemon = await t.daemon(["127.0.0.1:1"], limits={"pages_per_address": 2}).start()
    source = t.source()
    for _ in range(2):
        await t.page(daemon, source=source)
    try:
        page = await t.page(daemon, source=source)
        assert (await page.gone()).get("code") == 1008, "closed with another code"
    except websocket.Refused as refused:
        assert refused.response is None or 400 <= refused.response.status < 600, refused
    await t.page(daemon)


@test("behind a trusted proxy the page's address is the rightmost of X-Forwarded-For that is not trusted itself")
async def forwarded(t):
    daemon, business, up = await t.relay(pages={"trusted_proxies": ["127.0.0.0/8", "10.1.2.3", "2001:db8:aa::/48"]})
    for fields, address in (
            (["203.0.113.7"], "203.0.113.7"),
            (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
            (["198.51.100.1,203.0.113.7 , 10.1.2.3,127.0.0.1"], "203.0.113.7"),
            (["198.51.100.1", "203.0.113.9", "10.1.2.3"], "203.0.113.9"),
            (["203.0.113.7, 2001:db8::7"], "2001:db8::7"),
            (["2001:db8::7, 2001:db8:aa::1"], "2001:db8::7"),
            (["203.0.113.7, ,", "", "10.1.2.3,"], "203.0.113.7"),
            (["203.0.113.7, unknown, 10.1.2.3"], "10.1.2.3"),
            (["203.0.113.7, \u00e9, 10.1.2.3"], "10.1.2.3"),
            (["203.0.113.7, 10.1.2.4"], "10.1.2.4")):
        page, link = await t.page(daemon, extra=[("X-Forwarded-For", value) for value in fields]), t.link()
        page.subscribe(link)
        ask = await up.by_name(link)
        assert ask.address == address, (fields, ask.address)


@test("X-Forwarded-For of a peer that is not trusted counts for nothing")
async def not_forwarded(t):
    daemon, business, up = await t.relay(pages={"trusted_proxies": ["127.0.0.1", "10.0.0.0/8"]})
    source, link = t.source(), t.link()
    page = await t.page(daemon, source=source, extra=[("X-Forwarded-For", "203.0.113.7")])
    page.subscribe(link)
    assert (await up.by_name(link)).address == source
