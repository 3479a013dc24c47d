"""HTTP on the pages' port."""
import asyncio
import re
import time

import daemon as daemon_module
import lag
import websocket
from harness import PORTS, test
from inbox import SLACK, Mismatch
from websocket import http


async def plain(t, **changes):
    return await t.daemon(["127.0.0.1:1"], **changes).start()


@test("GET /s/<link> is the share page with its headers, whether or not the link is good: nothing is asked")
async def share_page(t):
    daemon, business, up = await t.relay()
    for link in (t.link(), "a", t.link(128)):
        response = await http(daemon.port, f"/s/{link}")
        assert response.status == 200, response
        headers = response.headers
        assert headers.get("content-type", "").lower().startswith("text/html"), headers
        assert headers.get("content-security-policy"), headers
        assert headers.get("referrer-policy") == "no-referrer", headers
        assert headers.get("x-content-type-options") == "nosniff", headers
        assert headers.get("cache-control") == "no-store", headers
        assert b"<html" in response.body.lower(), response
        assert int(headers.get("content-length", len(response.body))) == len(response.body)
    await up.none("Subscribe", 0.2)


@test("what can't be a share link is no share page")
async def no_link(t):
    daemon = await plain(t)
    for target in ("/s/", "/s", "/s/" + "x" * 129, "/s/a/b", "/s/%3Cscript%3E", "/s/a b"):
        response = await http(daemon.port, target)
        assert response is None or 400 <= response.status < 500, (target, response)


@test("a query behind the link does no harm")
async def query(t):
    response = await http((await plain(t)).port, "/s/abc?utm_source=x&y=%3Cscript%3Ealert(1)%3C/script%3E")
    assert response.status == 200 and b"alert(1)" not in response.body, response


@test("GET /sharelink.js is an ES module for any origin")
async def client(t):
    response = await http((await plain(t)).port, "/sharelink.js", headers={"Origin": "https://anywhere.example"})
    assert response.status == 200, response
    assert response.headers.get("access-control-allow-origin") == "*", response
    assert "javascript" in response.headers.get("content-type", ""), response
    assert b"export" in response.body


@test("the share page's own assets are under /assets/, and all that it names exist")
async def assets(t):
    daemon = await plain(t)
    page = await http(daemon.port, "/s/abc")
    named = set(re.findall(rb'(?:src|href)="(/[^"#?]*)', page.body)) - {b"/"}
    assert named, "the share page names nothing of its own"
    for target in named:
        response = await http(daemon.port, target.decode())
        assert target.startswith(b"/assets/") or target == b"/sharelink.js", f"{target} is not under /assets/"
        assert response.status == 200, (target, response)
    response = await http(daemon.port, "/assets/nothing-here")
    assert response.status == 404, response


@test("GET /healthz answers 200 ok")
async def healthz(t):
    response = await http((await plain(t)).port, "/healthz")
    assert response.status == 200 and response.body.strip() == b"ok", response


@test("anything else is 404")
async def not_found(t):
    daemon = await plain(t)
    for target in ("/", "/index.html", "/S/abc", "/healthz/x", "/sharelink.jsx", "/../etc/passwd", "/assets/../../etc/passwd", "/assets/%2e%2e/x", "/favicon.ico"):
        response = await http(daemon.port, target)
        # A favicon is nobody's harm; nor is 400 for a path that climbs.
        assert response is not None and (response.status in (404, 400) or target == "/favicon.ico"), (target, response)


@test("one response for each connection")
async def one_response(t):
    daemon = await plain(t)
    response = await http(daemon.port, "", raw=b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert response.status == 200 and response.body.strip() == b"ok", response
    response = await http(daemon.port, "/healthz", headers={"Connection": "keep-alive"})
    assert response.status == 200 and response.headers.get("connection", "close").lower() == "close", response


@test("other methods are refused")
async def methods(t):
    daemon = await plain(t)
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        response = await http(daemon.port, "/s/abc", method=method, headers={"Content-Length": "0"})
        assert response is None or 400 <= response.status < 600, (method, response)


@test("/ws without a proper upgrade gets 400 or 426")
async def no_upgrade(t):
    daemon = await plain(t)
    response = await http(daemon.port, "/ws")
    assert response.status in (400, 426), response
    for extra in ([("Upgrade", None)], [("Connection", "close")], [("Sec-WebSocket-Version", "12")], [("Sec-WebSocket-Version", None)],
                  [("Sec-WebSocket-Key", None)], [("Upgrade", "h2c")]):
        try:
            await t.page(daemon, extra=extra)
            raise Mismatch(f"upgraded with {extra}")
        except websocket.Refused as refused:
            assert refused.response and refused.response.status in (400, 426), (extra, refused)


@test("header names in any case, and a Connection header with several tokens, upgrade")
async def header_case(t):
    daemon = await plain(t)
    await t.page(daemon, extra=[("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket")])
    await t.page(daemon, extra=[("sec-websocket-protocol", "chat, sharelink.v1")])


@test("no HTTP nonsense harms the relay")
async def nonsense(t):
    daemon = await plain(t)
    for raw in (b"\r\n\r\n", b"\0\1\2\3\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 64 + b"\r\n\r\n",
                b"GET /healthz HTTP/1.1\r\nHost x\r\n\r\n", b"GET /ws HTTP/1.1\r\n: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"G" * 100 + b"\r\n\r\n"):
        try:
            response = await http(daemon.port, "", raw=raw, timeout=8)
            assert response is None or 400 <= response.status < 600, (raw, response)
        except asyncio.TimeoutError:
            raise Mismatch(f"neither answered nor closed: {raw!r}") from None
    assert (await http(daemon.port, "/healthz")).status == 200


@test("a request head of more than 4 KiB is refused")
async def big_head(t):
    daemon = await plain(t)
    assert (await http(daemon.port, "/healthz", headers={"X": "x" * 3800})).status == 200
    for headers in ({"X": "x" * 4200}, {"X": "x" * 100_000}):
        response = await http(daemon.port, "/healthz", headers=headers)
        assert response is None or 400 <= response.status < 500, response
    response = await http(daemon.port, "/" + "x" * 5000)
    assert response is None or 400 <= response.status < 500, response


@test("a request head that is not whole within 5 s gets 408, however it trickles in", waits=True)
async def slow_head(t):
    daemon = await plain(t)

    async def trickle(head, every):
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)

        async def write():
            for byte in head:
                writer.write(bytes([byte]))
                await asyncio.sleep(every)
        task = asyncio.ensure_future(write())
        try:
            data = await asyncio.wait_for(reader.read(), 15 * SLACK)
        except asyncio.TimeoutError:
            raise Mismatch("a head that was not whole was still waited for after 15 s") from None
        finally:
            task.cancel()
            writer.close()
        took = time.monotonic() - started
        assert 4.9 < took < 7 * SLACK + lag.lost(started), f"given up after {took:.1f} s"
        assert data.startswith(b"HTTP/1.1 408 "), data

    await asyncio.gather(trickle(b"", 1), trickle(b"GET /hea", 0.01), trickle(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200, 0.2))


@test("connections that say nothing do not keep others out: who waits gets the place of one that had it for 1 s", waits=True)
async def idle_connections(t):
    daemon = await plain(t, limits={"heads": 8})
    started, lasted = time.monotonic(), []

    async def idle():
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        data = await reader.read()
        lasted.append((time.monotonic() - started, data))
        writer.close()

    # Those that come first have every place; four times as many wait behind them, and who means it behind those.
    idlers = [asyncio.ensure_future(idle()) for _ in range(40)]
    try:
        await asyncio.sleep(0.1)
        answered = await http(daemon.port, "/healthz", timeout=20 * SLACK)
        took = time.monotonic() - started
        assert answered is not None and answered.status == 200, answered
        assert took < 5 + 2 * SLACK + lag.lost(started), f"answered after {took:.1f} s"
        cut = [at for at, data in lasted if not data]
        assert len(cut) >= 33 and min(cut) > 0.9, f"a place is kept for 1 s, and then it is another's: {sorted(cut)}"
    finally:
        for idler in idlers:
            idler.cancel()


@test("several listen addresses")
async def listens(t):
    second = PORTS.take()
    daemon = t.daemon(["127.0.0.1:1"])
    daemon.sections["pages"]["listen"] = [f"127.0.0.1:{daemon.port}", f"127.0.0.1:{second}"]
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await daemon.start()
    for port in (daemon.port, second):
        assert (await http(port, "/healthz")).status == 200
