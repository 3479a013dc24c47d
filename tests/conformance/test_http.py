"""HTTP on the pages' port."""
import asyncio
import datetime
import re
import time

import daemon as daemon_module
import lag
import tls
import websocket
from harness import PORTS, test
from inbox import SLACK, Mismatch
from websocket import http


async def plain(t, **changes):
    return await t.daemon(["127.0.0.1:1"], **changes).start()


@test("GET /s/<link> is the share page with its headers, whether or not the link is good")
async def share_page(t):
    daemon, business, up = await t.relay()
    for link in (t.link(), "a", t.link(128)):
        response = await http(daemon.port, f"/s/{link}", headers={"Sec-Fetch-Dest": "document"})
        assert response.status == 200, response
        headers = response.headers
        assert headers.get("content-type", "").lower().startswith("text/html"), headers
        assert headers.get("content-security-policy"), headers
        assert headers.get("referrer-policy") == "no-referrer", headers
        assert headers.get("x-content-type-options") == "nosniff", headers
        assert headers.get("cache-control") == "no-store", headers
        assert b"<html" in response.body.lower(), response
        assert int(headers.get("content-length", len(response.body))) == len(response.body)
    await up.none("Subscribe", 0.2)  # a browser subscribes by its WebSocket


@test("what can't be a share link is no share page")
async def no_link(t):
    daemon = await plain(t)
    for target in ("/s/", "/s", "/s/" + "x" * 129, "/s/a/b", "/s/%3Cscript%3E", "/s/a b"):
        response = await http(daemon.port, target)
        assert response is None or 400 <= response.status < 500, (target, response)


@test("a query after the link is harmless")
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
        # A favicon is harmless, and so is 400 for a path with `..`.
        assert response is not None and (response.status in (404, 400) or target == "/favicon.ico"), (target, response)


@test("one response for each connection", plain=True)
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


@test("a request head of 8 KiB is taken, one of more is refused with 431, or 414 where it is the address")
async def big_head(t):
    daemon = await plain(t)
    cookies = "; ".join(f"c{n}={'x' * 1000}" for n in range(7))
    for headers in ({"Cookie": cookies}, {f"X-{n}": "y" for n in range(98)}):
        assert (await http(daemon.port, "/healthz", headers=headers)).status == 200, headers
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: "
    assert (await http(daemon.port, "", raw=head + b"x" * (8192 - len(head) - 4) + b"\r\n\r\n")).status == 200
    for headers in ({"X": "x" * 8200}, {"X": "x" * 100_000}, {f"X-{n}": "y" for n in range(120)}):
        response = await http(daemon.port, "/healthz", headers=headers)
        assert response is None or response.status == 431, response
    response = await http(daemon.port, "/" + "x" * 9000)
    assert response is None or response.status == 414, response
    await t.page(daemon, extra=[("Cookie", cookies)])


#: What HTTP requires of a server: a request, and the allowed statuses.
REQUESTS = [
    (b"GET http://any.example/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),  # RFC 9112, 3.2.2
    (b"GET HTTPS://any.example:8443/healthz?x HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    (b"GET http://any.example HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (b"GET http:///healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET http://a@b/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET ftp://a/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"CONNECT any.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"POST /ws HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"HEAD /ws HTTP/1.1\r\nHost: x\r\n\r\n", 426),
    (b"GET /healthz HTTP/1.1\r\n\r\n", 400),  # 3.2: a Host, one, and a right one
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    (b"GET http://a/healthz HTTP/1.1\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: \xe9.example\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
    (b"GET /healthz HTTP/1.1\r\nHost: a_b.example.:80\r\n\r\n", 200),
    (b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 200),
    (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    (b"GET /healthz HTTP/1.2\r\nHost: x\r\n\r\n", 200),  # RFC 9110, 2.5
    (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"GET /healthz HTTP/1.10\r\nHost: x\r\n\r\n", 400),
    (b"GET /healthz http/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /healthz\r\n\r\n", 400),
    (b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),  # 2.2
    (b"GET /healthz HTTP/1.1\nHost: x\n\n", 200),
    (b"GET /healthz HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400),
    (b"GET /health\rz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", 400),  # 5.1
    (b"GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n", 400),  # 5.2
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 200),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\nContent-Length: 03\r\n\r\nabc", 200),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),  # 6.3
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\nContent-Length: 3\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: ,\r\n\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\nHost: [v1.fe80::a]:80\r\n\r\n", 200),
    (b"HEAD /healthz HTTP/1.1\r\n\r\n", 400),
    (b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    (b"\r\nHEAD / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    (b"HEAD / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
    (b"HEAD / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 8192, 431),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", 200),
    (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: \xff\xfe\r\n\r\n", 200),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS: answered at once
]


@test("what HTTP demands of a server: targets, versions, Host, lengths, line ends")
async def demands(t):
    daemon = await plain(t)
    for raw, status in REQUESTS:
        response = await http(daemon.port, "", raw=raw, timeout=4 * SLACK) if not raw.lstrip().startswith(b"HEAD") else await head(daemon, raw)
        assert response is not None and response.status == status, (raw, response)
        stays = daemon.port in tls.LINES and status in (200, 404) and not re.search(rb"HTTP/1\.0|Content-Length:|Transfer-Encoding:", raw)
        assert response.headers.get("connection", "").startswith("close") != stays, (raw, response)
        date = datetime.datetime.strptime(response.headers["date"], "%a, %d %b %Y %H:%M:%S GMT")
        assert abs(date.replace(tzinfo=datetime.timezone.utc).timestamp() - time.time()) < 60, response
        if status == 405:
            assert response.headers["allow"] == "GET, HEAD", response
        if status == 426:
            assert response.headers["upgrade"] == "websocket" and response.headers["connection"] == "close, Upgrade", response


async def head(daemon, raw):
    reader, writer = await tls.open_connection(port=daemon.port)
    writer.write(raw)
    status, headers = await asyncio.wait_for(websocket.read_head(reader), 10 * SLACK)
    assert "connection" not in headers or not await reader.read(), "a body behind the answer to HEAD"
    writer.close()
    return websocket.Response(status, headers, b"")


@test("any equivalent spelling of a link is redirected to its canonical one, and keeps its query")
async def spellings(t):
    daemon = await plain(t)
    for target, plain_target in (("/s/room~7/", "/s/room~7"), ("/s/room%7E7", "/s/room~7"), ("/s/room%7e7/", "/s/room~7"), ("/s/a%2Db%2ec%5Fd", "/s/a-b.c_d"),
                                 ("/s/%72oom?x=%7E&y", "/s/room?x=%7E&y"), ("/%73/room", "/s/room"), ("/s/%72%6F%6fm%37", "/s/room7"),
                                 ("http://any.example/s/room/?x", "/s/room?x")):
        for method in ("GET", "HEAD"):
            raw = f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            response = await (http(daemon.port, "", raw=raw) if method == "GET" else head(daemon, raw))
            assert response.status == 301 and response.headers["location"] == plain_target, (target, response)
        response = await http(daemon.port, plain_target)
        assert response.status == 200 and b"<html" in response.body, response
    for target in ("/s/room//", "//s/room", "/s//", "/s/%", "/s/%7", "/s/%7G", "/s/a%2Fb", "/s/%252e", "/s/a%20b", "/s/%00", "/s/%0d%0aX:%20y", "/s/" + "%61" * 129):
        response = await http(daemon.port, target)
        assert response.status == 404 and "location" not in response.headers, (target, response)
    assert (await http(daemon.port, "/sharelink%2Ejs")).status == 200


KEY = "dGhlIHNhbXBsZSBub25jZQ=="


async def upgraded(daemon, *lines, version="1.1"):
    """The answer to an upgrade with exactly these header lines."""
    raw = f"GET /ws HTTP/{version}\r\n".encode() + b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines) + b"\r\n"
    return await answer(daemon, raw)


async def answer(daemon, raw):
    reader, writer = await tls.open_connection(port=daemon.port)
    writer.write(raw)
    status, headers = await asyncio.wait_for(websocket.read_head(reader), 10 * SLACK)
    writer.transport.abort()
    return websocket.Response(status, headers, b"")

HOST, CONNECTION, UPGRADE = "Host: share.example", "Connection: Upgrade", "Upgrade: websocket"
VERSION, KEYED, PROTOCOL = "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Protocol: sharelink.v1"
RIGHT = [HOST, CONNECTION, UPGRADE, VERSION, KEYED, PROTOCOL]


def but(line, *others):
    """A valid upgrade with one header line replaced."""
    return [other for each in RIGHT for other in (others if each is line else [each])]


#: Upgrades and their answers: a list may span several lines (RFC 9110, 5.3), a single value may not
#: (RFC 6455, 4.2.1).
UPGRADES = [
    (RIGHT, 101),
    (but(CONNECTION, "Connection: keep-alive", "Connection: Upgrade"), 101),
    (but(CONNECTION, "connection: , keep-alive ,,\tuPGRADE ,"), 101),
    (but(CONNECTION, b"Connection: \xff", "Connection: upgrade"), 101),
    (but(CONNECTION, b"Connection: \xff, upgrade"), 101),
    (but(UPGRADE, "Upgrade: websocket, h2c"), 101),
    (but(UPGRADE, "Upgrade: h2c", "Upgrade: WebSocket"), 101),
    (but(UPGRADE, b"Upgrade: \xff", "Upgrade: WebSocket"), 101),
    (but(PROTOCOL, "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: , sharelink.v1"), 101),
    (but(PROTOCOL, b"Sec-WebSocket-Protocol: \xff, sharelink.v1"), 101),
    (but(HOST, "Host: [::1]:8080"), 101),
    (RIGHT + ["Content-Length: 0"], 101),
    (RIGHT + ["Origin: https://share.example"], 101),
    (RIGHT + ["Sec-WebSocket-Extensions: permessage-deflate", b"User-Agent: caf\xe9"], 101),
    (but(CONNECTION), 400),
    (but(CONNECTION, b"Connection: upgrade\xff"), 400),
    (but(CONNECTION, "Connection: keep-alive", "Connection: close"), 400),
    (but(UPGRADE), 426),
    (but(UPGRADE, b"Upgrade: \xff"), 426),
    (but(UPGRADE, "Upgrade: h2c"), 426),
    (but(VERSION, "Sec-WebSocket-Version: 12"), 426),
    (but(VERSION, "Sec-WebSocket-Version: 13, 8"), 426),
    (but(VERSION, VERSION, VERSION), 400),
    (but(VERSION), 400),
    (but(KEYED), 400),
    (but(KEYED, KEYED, KEYED), 400),
    (but(KEYED, "Sec-WebSocket-Key: c2hvcnQ="), 400),
    (but(KEYED, "Sec-WebSocket-Key: " + "A" * 24), 400),
    (but(KEYED, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!=="), 400),
    (but(KEYED, b"Sec-WebSocket-Key: \xff" + b"A" * 21 + b"=="), 400),
    (but(PROTOCOL, "Sec-WebSocket-Protocol: sharelink.v2"), 400),
    (but(PROTOCOL), 400),
    (but(HOST), 400),
    (but(HOST, HOST, HOST), 400),
    (RIGHT + ["Content-Length: 2"], 400),
    (RIGHT + ["Transfer-Encoding: chunked"], 400),
    (RIGHT + ["Origin: https://share.example", "Origin: https://share.example"], 400),
    (RIGHT + [b"Origin: https://shar\xe9.example"], 403),
    (RIGHT + [b"Origin: \xff"], 403),
    (RIGHT + ["Origin: https://share.example https://evil.example"], 403),
    (RIGHT + ["Origin: https://evil.example"], 403),
    (RIGHT + ["Origin:"], 403),
]


@test("an upgrade's lists may stand in several header lines, what is one value may not, and what can't be read is not absent")
async def upgrade_lists(t):
    daemon = await plain(t)
    for lines, status in UPGRADES:
        response = await upgraded(daemon, *lines)
        assert response.status == status, (lines, response)
        if status == 101:
            assert response.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", response
        if status == 426:
            assert response.headers["sec-websocket-version"] == "13" and response.headers["upgrade"] == "websocket", response
    assert (await upgraded(daemon, *RIGHT, version="1.0")).status == 426
    assert (await answer(daemon, "\r\n".join(["GET http://share.example/ws HTTP/1.1", *RIGHT, "Origin: https://share.example", "", ""]).encode())).status == 101
    strict = await plain(t, pages={"origins": ["*"], "require_origin": True})
    for line, status in ((b"Origin: \xff", 403), (b"Origin: https://any.example", 101), (b"X: y", 403)):
        assert (await upgraded(strict, *RIGHT, line)).status == status, line


@test("the share page may connect to its own host alone, and a Host can put nothing else into its header lines")
async def policy(t):
    daemon = await plain(t)

    async def sources(host):
        raw = b"GET /s/abc HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
        response = await http(daemon.port, "", raw=raw)
        assert response.status == 200, (host, response)
        policy = response.headers["content-security-policy"]
        return next(part.split()[1:] for part in policy.split(";") if part.split()[0] == "connect-src")

    for host in ("share.example", "share.example:8443", "127.0.0.1:8080", "a_b-c.example"):
        assert await sources(host.encode()) == ["'self'", f"wss://{host}", f"ws://{host}"], host
    for host in (b"", b"*", b"*.example", b"a;script-src", b"a'unsafe-inline'", b"a,b", b"[::1]:80", b"a%20b", b"a:0", b"a:99999", b".", b"a."):
        assert await sources(host) == ["'self'"], host


@test("a request head that is not whole within 5 s gets 408, however it trickles in", waits=True)
async def slow_head(t):
    daemon = await plain(t)

    async def trickle(head, every):
        started = time.monotonic()
        reader, writer = await tls.open_connection(port=daemon.port)

        async def write():
            for byte in head:
                writer.write(bytes([byte]))
                await asyncio.sleep(every)
        task = asyncio.ensure_future(write())
        try:
            data = await asyncio.wait_for(reader.read(), 15 * SLACK)
        except asyncio.TimeoutError:
            raise Mismatch("an incomplete head was still open after 15 s") from None
        finally:
            task.cancel()
            writer.close()
        took = time.monotonic() - started
        assert 4.9 < took < 7 * SLACK + lag.lost(started), f"given up after {took:.1f} s"
        assert data.startswith(b"HTTP/1.1 408 "), data

    await asyncio.gather(trickle(b"", 1), trickle(b"GET /hea", 0.01), trickle(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200, 0.2))


async def backlog(port):
    """The limit of a listener's accept queue."""
    ss = await asyncio.create_subprocess_exec("ss", "-ltnH", f"sport = :{port}", stdout=asyncio.subprocess.PIPE)
    return int((await ss.communicate())[0].split()[2])


@test("several listen addresses share the backlog", plain=True)
async def listens(t):
    second = PORTS.take()
    daemon = t.daemon(["127.0.0.1:1"])
    daemon.sections["pages"]["listen"] = [f"127.0.0.1:{daemon.port}", f"127.0.0.1:{second}"]
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await daemon.start()
    for port in (daemon.port, second):
        assert (await http(port, "/healthz")).status == 200
    alone = await t.daemon(["127.0.0.1:1"]).start()
    whole, half, other = [await backlog(port) for port in (alone.port, daemon.port, second)]
    assert half == other == whole // 2 > 0, f"the backlog is not shared: {whole} alone, {half} and {other} of two"
