"""TLS for pages: what is negotiated, HTTP on one connection, and what stands beside it on the plain port. Each record that a
client may send or may not is in test_records.py."""
import asyncio
import json
import os
import pathlib
import ssl
import statistics
import sys
import time

import daemon as daemon_module
import harness
import lag
import records
import tls
import websocket
from daemon import ends_with_us
from harness import PORTS, test
from inbox import PATIENCE, SLACK, Mismatch
from test_floods import bystander
from test_heads import asked, flood
from test_pages import alive_by_ping
from test_reload import reload
from tls import AES, CHACHA20, SUITES, V12, V13
from websocket import http

TLS = True
REQUESTS_MAX = 16
TICKETS = 2
IDLE_S = 5
UNRECOGNIZED_ALPN = "ALERT_NO_APPLICATION_PROTOCOL"


async def served(t, **tls_keys):
    return await t.daemon(["127.0.0.1:1"], tls=tls_keys).start()


async def shaken(t, daemon, context, name=tls.NAME, session=None):
    """A connection with this context."""
    return await t.line.open(port=daemon.port, local_addr=(t.source(), 0), context=context, name=name, session=session)


async def refused(t, daemon, context, alert):
    """The handshake is refused with this alert, as OpenSSL names it."""
    try:
        await shaken(t, daemon, context)
    except ssl.SSLError as error:
        assert alert in str(error).upper().replace(" ", "_"), f"expected {alert}, saw {error}"
    else:
        raise Mismatch(f"hands were shaken where {alert} was expected")


def any_context(**options):
    return tls.client(harness.AUTHORITY.file, **options)


def first_hello(context):
    """The first record of a client."""
    made = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), made, server_hostname=tls.NAME).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return made.read()


def old(version, ciphers="ALL:@SECLEVEL=0"):
    """A context of an old version or with old suites."""
    context = any_context()
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    return context


def connection(writer):
    return writer.transport.object


# --- what is negotiated ---


@test("TLS 1.3 and 1.2, each with AES-128-GCM and ChaCha20-Poly1305, carry a page's messages")
async def suites(t):
    daemon, business, up = await t.relay()
    for number, suite in enumerate(SUITES, 1):
        t.line.context = harness.AUTHORITY.context(suite)
        page, link = await t.page(daemon), t.link()
        page.subscribe(link)
        up.accept(await up.expect("Subscribe", link=link), topic=number)
        await page.expect("subscribed")
        up.message(number, 1)
        await page.expect("message", sequence=1)
        negotiated, (cipher, _, bits) = connection(page.writer).version(), connection(page.writer).cipher()
        assert negotiated == {V13: "TLSv1.3", V12: "TLSv1.2"}[suite[0]], negotiated
        assert cipher == (tls.CIPHERS_13[suite[1]] if suite[0] == V13 else f"ECDHE-ECDSA-{suite[1]}"), cipher


@test("what is older or weaker is refused, and costs nobody else anything")
async def weak(t):
    daemon = await served(t)
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        await refused(t, daemon, old(version), "ALERT")
    for ciphers in ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256"):
        await refused(t, daemon, old(V12, ciphers + ":@SECLEVEL=0"), "HANDSHAKE_FAILURE")
    context = any_context(suite=(V13, AES))
    tls.set_ciphersuites(context, "TLS_AES_256_GCM_SHA384")
    await refused(t, daemon, context, "HANDSHAKE_FAILURE")
    await t.page(daemon)


@test("the relay's processor chooses the suite, in whatever order a client lists them")
async def order(t):
    daemon = await served(t)
    flags = next(line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features")))
    best = AES if "aes" in flags.split() else CHACHA20
    for names in (list(tls.CIPHERS_13.values()), list(tls.CIPHERS_13.values())[::-1]):
        context = any_context(suite=(V13, AES))
        tls.set_ciphersuites(context, ":".join(names))
        _, writer = await shaken(t, daemon, context)
        assert connection(writer).cipher()[0] == tls.CIPHERS_13[best], connection(writer).cipher()
        writer.close()
        context = any_context(suite=(V12, AES))
        context.set_ciphers(":".join(f"ECDHE-ECDSA-{AES if 'AES' in name else CHACHA20}" for name in names))
        _, writer = await shaken(t, daemon, context)
        assert connection(writer).cipher()[0] == f"ECDHE-ECDSA-{best}", connection(writer).cipher()
        writer.close()


@test('min_version = "1.3": TLS 1.2 is refused')
async def min_version(t):
    daemon = await served(t, min_version="1.3")
    t.line.context = harness.AUTHORITY.context((V13, AES))
    await t.page(daemon)
    await refused(t, daemon, harness.AUTHORITY.context((V12, AES)), "PROTOCOL_VERSION")


@test("the name that a client asks for chooses among up to eight certificates: exact, then wildcard, else the first")
async def names(t):
    authority = harness.AUTHORITY
    listed = [[tls.NAME, "127.0.0.1"], ["exact.wild.example"], ["*.wild.example"], ["rsa.example", "www.rsa.example"]]
    listed += [[f"room{number}.example"] for number in range(4)]
    certificates = [authority.issue(names, "rsa" if "rsa" in names[0] else "ec") for names in listed]
    daemon = await served(t, certificates=certificates)
    context = ssl.create_default_context(cafile=authority.file)
    context.check_hostname = False
    wanted = {tls.NAME: 0, "127.0.0.1": 0, None: 0, "unknown.example": 0, "exact.wild.example": 1, "EXACT.Wild.Example": 1,
              "a.wild.example": 2, "B.WILD.EXAMPLE": 2, "a.b.wild.example": 0, "wild.example": 0, "rsa.example": 3, "www.rsa.example": 3,
              "room0.example": 4, "room3.example": 7}
    for version in (V13, V12):
        context.minimum_version = context.maximum_version = version
        for name, index in wanted.items():
            # Not by t.line, which asks for the default name where none is given.
            _, writer = await asyncio.open_connection("127.0.0.1", daemon.port, ssl=context, server_hostname=name or "")
            shown = sorted(value for _, value in writer.get_extra_info("peercert")["subjectAltName"])
            assert shown == sorted(listed[index]), (name, shown)
            writer.transport.abort()


@test("ALPN: http/1.1, which a client may offer alone, among others, or not at all; one that offers only others is refused")
async def alpn(t):
    daemon = await served(t)
    for protocols, chosen in ((["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), ([], None)):
        for version in (V13, V12):
            context = any_context(suite=(version, AES), protocols=protocols)
            reader, writer = await shaken(t, daemon, context)
            assert connection(writer).selected_alpn_protocol() == chosen, protocols
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await websocket.read_response(reader)).status == 200
            writer.close()
    await refused(t, daemon, any_context(protocols=["h2"]), UNRECOGNIZED_ALPN)
    await refused(t, daemon, any_context(protocols=["h2", "http/1.0"]), UNRECOGNIZED_ALPN)


@test("a session is resumed by its ticket, in TLS 1.3 and 1.2, also under another address; two tickets of TLS 1.3 a connection")
async def resumed(t):
    daemon = await served(t)
    for suite in SUITES:
        context, session = any_context(suite=suite), None
        for turn in range(3):
            reader, writer = await shaken(t, daemon, context, session=session)
            assert connection(writer).session_reused == (turn > 0), (suite, turn)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await websocket.read_response(reader)).status == 200
            session = connection(writer).session
            assert session.has_ticket
            writer.close()
        reader, writer = await t.line.open(port=daemon.port, kind=records.Connection, context=context)
        writer.write(asks())
        await answer(reader)
        assert writer.transport.tickets == (TICKETS if suite[0] == V13 else 0), writer.transport.tickets
        writer.close()
    # Also as a page.
    context = any_context(suite=(V13, AES))
    reader, writer = await shaken(t, daemon, context)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await websocket.read_response(reader)

    async def opener(host, port, **options):
        return await t.line.open(host, port, context=context, session=connection(writer).session, **options)
    page = await t.page(daemon, opener=opener)
    assert connection(page.writer).session_reused
    await alive_by_ping(page)


@test("a ticket of before a restart is worth nothing, and harms nothing")
async def old_ticket(t):
    daemon = await served(t)
    for suite in SUITES:
        context = any_context(suite=suite)
        reader, writer = await shaken(t, daemon, context)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await websocket.read_response(reader)
        daemon.expected_end = True
        daemon.process.kill()
        await daemon.process.wait()
        daemon.expected_end = False
        await daemon.start()
        reader, writer = await shaken(t, daemon, context, session=connection(writer).session)
        assert not connection(writer).session_reused
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await websocket.read_response(reader)).status == 200


class Openssl:
    """`openssl s_client`, connected to a daemon: what is typed, and what it prints."""

    def __init__(self, daemon, *arguments):
        self.command = ["openssl", "s_client", "-connect", f"127.0.0.1:{daemon.port}", "-servername", tls.NAME,
                        "-CAfile", harness.AUTHORITY.file, "-verify_return_error", *arguments]
        self.said = b""

    async def __aenter__(self):
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*self.command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT, preexec_fn=ends_with_us)
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def type(self, piece, text, count=1):
        """Types something, and waits until `text` was printed `count` times."""
        self.process.stdin.write(piece)
        try:
            async with asyncio.timeout(PATIENCE):
                while self.said.count(text) < count:
                    data = await self.process.stdout.read(65536)
                    assert data, f"openssl ended: {self.said[-2000:]!r}"
                    self.said += data
        except asyncio.TimeoutError:
            raise Mismatch(f"openssl printed {text} {self.said.count(text)} times of {count}: {self.said[-2000:]!r}") from None

    async def end(self):
        """All that it printed, once its input has ended."""
        self.process.stdin.close()
        self.said += await asyncio.wait_for(self.process.stdout.read(), 2 * PATIENCE)
        return self.said


REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK"


@test("openssl s_client: requests between key updates of either kind, with both suites of TLS 1.3")
async def key_updates(t):
    daemon = await served(t)
    for cipher in tls.CIPHERS_13.values():
        async with Openssl(daemon, "-tls1_3", "-ciphersuites", cipher) as client:
            for turn in range(6):
                await client.type(REQUEST, ANSWER, turn + 1)
                for number, command in enumerate((b"K\n", b"k\n"), 1):
                    await client.type(command, b"KEYUPDATE", 2 * turn + number)
            await client.type(REQUEST, ANSWER, 7)
            said = await client.end()
        assert f"New, TLSv1.3, Cipher is {cipher}".encode() in said, said[-2000:]


@test("openssl s_client: both suites of TLS 1.2, and no renegotiation")
async def openssl_12(t):
    daemon = await served(t)
    for cipher in (AES, CHACHA20):
        async with Openssl(daemon, "-tls1_2", "-cipher", f"ECDHE-ECDSA-{cipher}") as client:
            await client.type(REQUEST, ANSWER)
            said = client.said
            assert f"Cipher is ECDHE-ECDSA-{cipher}".encode() in said and b"Secure Renegotiation IS supported" in said, said[-2000:]
            assert b"Extended master secret: yes" in said, said[-2000:]
            await client.type(b"R\n", b"RENEGOTIATING")
            assert b"no renegotiation" in await client.end(), client.said[-2000:]
    await t.page(daemon)


@test("early data is offered to nobody")
async def early_data(t):
    daemon = await served(t)
    session, early = t.path("session.pem"), t.path("early")
    async with Openssl(daemon, "-tls1_3", "-sess_out", session) as client:
        await client.type(REQUEST, ANSWER)
        assert b"Max Early Data: 0" in await client.end(), client.said[-2000:]
    pathlib.Path(early).write_bytes(REQUEST)
    async with Openssl(daemon, "-tls1_3", "-sess_in", session, "-early_data", early) as client:
        await client.type(REQUEST, ANSWER)
        said = await client.end()
    assert b"Reused, TLSv1.3" in said and b"Early data was not sent" in said and said.count(ANSWER) == 1, said[-3000:]


def cutting(cut):
    """A kind of connection whose hello goes out as the list of pieces that `cut` makes of it, a millisecond after each other."""
    class Cutting(tls.Connection):
        def flush(self):
            if self.is_cut:
                return super().flush()
            self.is_cut = True
            loop = asyncio.get_running_loop()
            for number, piece in enumerate(cut(self.made.read())):
                loop.call_later(0.001 * number, self.under.write, piece)

        is_cut = False
    return Cutting


def fragmented(count):
    """Cuts a hello's record into so many records (RFC 8446, 5.1)."""
    def cut(record):
        size = -(-(len(record) - 5) // count)
        parts = [record[at:at + size] for at in range(5, len(record), size)]
        return [b"".join(record[:3] + len(part).to_bytes(2, "big") + part for part in parts)]
    return cut


@test("a hello is read however TCP and TLS cut it, and one as large as those with keys against quantum computers")
async def cut_hellos(t):
    daemon = await served(t)
    long = any_context(protocols=["http/1.1", *(f"{number:0200}" for number in range(25))])
    for cut in (lambda hello: [hello[at:at + 1 + len(hello) // 1000] for at in range(0, len(hello), 1 + len(hello) // 1000)], lambda hello: [hello[:5], hello[5:]], lambda hello: [hello[:1], hello[1:]],
                fragmented(2), fragmented(5), fragmented(12), lambda hello: [hello[:1400], hello[1400:2800], hello[2800:]]):
        for context in (t.line.context, long):
            reader, writer = await t.line.open(port=daemon.port, kind=cutting(cut), context=context)
            writer.write(REQUEST)
            assert (await answer(reader)).status == 200
            writer.close()


@test("what is no hello, or none that can be answered, ends its connection at once and nothing else")
async def no_hellos(t):
    daemon = await served(t)
    whole = first_hello(t.line.context)

    def record(content, body, version=b"\3\1"):
        return bytes([content]) + version + len(body).to_bytes(2, "big") + body

    for number, data in enumerate((
            record(22, b""), record(22, b"\1\0\0\0"), record(22, b"\1\0\0\1x"), record(22, b"\2\0\0\0"), record(22, bytes(100)), record(23, b"x" * 100),
            record(21, b"\2\50"), record(20, b"\1"), record(22, whole[5:], b"\x09\x09"),
            record(22, whole[5:40] + bytes(len(whole) - 40)), b"\x16\3\1\xff\xff" + bytes(9000), b"\x16\3\1\x40\x01" + bytes(9000),
            record(22, b"\1\xff\xff\xff" + bytes(5000)), whole + whole, whole + record(23, b"x" * 30), whole + record(20, b"\1") + record(22, bytes(40)),
            record(20, b"\1") * 20, record(22, b"\1") * 20, b"\x80\x2e\1\0\2" + bytes(60), b"\0" * 3000)):
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(data)
        began = time.monotonic()
        try:
            await asyncio.wait_for(reader.read(), 3 * SLACK)
        except ConnectionError:
            pass
        except asyncio.TimeoutError:
            raise Mismatch(f"number {number} is waited for: {data[:40].hex()}") from None
        assert time.monotonic() - began < 2 * SLACK + lag.lost(began)
        writer.close()
    await t.page(daemon)
    assert "panicked" not in daemon.log()


@test("a handshake that is not done within 5 s is given up, wherever its peer falls silent, and holds up nobody meanwhile", waits=8)
async def slow_hellos(t):
    daemon = await served(t)
    whole = first_hello(t.line.context)

    async def silent(data, trickle=0.0):
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        began = time.monotonic()
        reading = asyncio.ensure_future(reader.read())
        for at in range(0, len(data), 1 if trickle else len(data)):
            writer.write(data[at:at + 1] if trickle else data)
            if reading in (await asyncio.wait([reading], timeout=trickle))[0]:
                break
        try:
            await asyncio.wait_for(reading, 15 * SLACK)
        except ConnectionError:
            pass
        took = time.monotonic() - began
        assert 4.5 < took < 8 * SLACK + lag.lost(began), f"given up after {took:.1f} s"
        writer.close()
    waiting = asyncio.gather(silent(whole[:1]), silent(whole[:-1]), silent(whole), silent(whole, 0.1))
    while not waiting.done():
        began = time.monotonic()
        assert (await http(daemon.port, "/healthz", timeout=5 * SLACK)).status == 200
        assert time.monotonic() - began < 2 * SLACK + lag.lost(began)
        await asyncio.sleep(0.3)
    await waiting


@test("handshakes of an address have a rate, those that resume too, and another address has its own")
async def rate(t):
    daemon = await t.daemon(["127.0.0.1:1"], limits={"address_asks_burst": 3, "address_asks_per_s": 1}).start()
    context, source, session = any_context(suite=t.line.context.suite), t.source(), None

    async def once(source, session=None):
        reader, writer = await t.line.open(port=daemon.port, local_addr=(source, 0), context=context, session=session)
        writer.write(asks())
        assert (await answer(reader)).status == 200
        writer.close()
        return connection(writer).session
    with lag.within(1):
        for _ in range(3):
            session = await once(source)
        for other in (None, session):
            try:
                await once(source, other)
                raise Mismatch("a fourth handshake at once was answered")
            except ConnectionError:
                pass
        await once(t.source())
    await asyncio.sleep(1.5)
    await once(source)


# --- HTTP on one connection ---


async def answer(reader, is_head=False):
    status, headers = await asyncio.wait_for(websocket.read_head(reader), PATIENCE)
    body = b"" if is_head else await reader.readexactly(int(headers["content-length"]))
    return websocket.Response(status, headers, body)


async def over(reader):
    """The connection ends with `close_notify`, which a TLS stream of this suite checks, and has no byte left."""
    rest = await asyncio.wait_for(reader.read(), PATIENCE)
    assert not rest, rest


def asks(path="/healthz", *lines, method="GET", version="1.1"):
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *lines, "", ""]).encode()


@test("a connection serves one request after the other, at most 16: the last answer says so and ends it")
async def sixteen(t):
    daemon = await served(t)
    reader, writer = await tls.open_connection(port=daemon.port)
    for number in range(1, REQUESTS_MAX + 1):
        path, status = [("/healthz", 200), ("/s/abc", 200), ("/assets/share.css", 200), ("/nothing", 404), ("/s/abc/", 301)][number % 5]
        method = "HEAD" if number % 3 == 0 else "GET"
        writer.write(asks(path, method=method))
        response = await answer(reader, method == "HEAD")
        assert response.status == status and int(response.headers["content-length"]) > 0, (path, response)
        assert response.headers.get("connection") == ("close" if number == REQUESTS_MAX else None), (number, response)
    await over(reader)
    writer.close()


@test("Connection: close, HTTP/1.0, a body, and an answer that refuses the request end the connection; so do bytes behind them")
async def last_ones(t):
    daemon = await served(t)
    for request, status in ((asks("/healthz", "Connection: close"), 200), (asks("/healthz", "Connection: x, Close"), 200),
                            (asks(version="1.0"), 200), (asks(version="1.0") + asks(), 200),
                            (asks("/healthz", "Content-Length: 3") + b"abc", 200), (asks("/healthz", "Content-Length: 0"), 200),
                            (asks("/healthz", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 200),
                            (asks("/healthz", "Connection: close") + asks(), 200), (asks(method="POST"), 405), (asks("/ws"), 426),
                            (b"nonsense\r\n\r\n" + asks(), 400), (asks("/" + "x" * 9000), 414)):
        for before in (0, 1):  # requests on the same connection
            reader, writer = await tls.open_connection(port=daemon.port)
            if before:
                writer.write(asks())
                assert (await answer(reader)).status == 200
            writer.write(request)
            response = await answer(reader)
            ends = b"Content-Length: 0" not in request  # no body, so a request may follow
            assert response.status == status, (request, response)
            assert response.headers.get("connection", "").startswith("close") == ends, (request, response)
            if ends:
                await over(reader)
            writer.close()


@test("requests that are sent ahead are answered in order, however records and heads are cut, and an upgrade may come among them")
async def ahead(t):
    daemon, business, up = await t.relay()
    paths = ["/healthz", "/s/abc", "/sharelink.js", "/nothing", "/healthz", "/assets/share.css"]
    requests = b"".join(asks(path) for path in paths)
    alone = [await http(daemon.port, path) for path in paths]
    for size in (len(requests), 1000, 61, 7, 1):
        reader, writer = await tls.open_connection(port=daemon.port)
        for at in range(0, len(requests), size):
            writer.write(requests[at:at + size])  # a record each
        for path, expected in zip(paths, alone):
            response = await answer(reader)
            assert (response.status, response.body) == (expected.status, expected.body), (size, path, response)
        writer.close()
    # An upgrade, and frames behind it, in one record with the requests before.
    link = t.link()
    fields = "".join(f"{name}: {value}\r\n" for name, value in websocket.upgrade_headers(daemon.port, "dGhlIHNhbXBsZSBub25jZQ=="))
    subscribe = websocket.frame(websocket.TEXT, json.dumps({"type": "subscribe", "id": 1, "link": link}))
    reader, writer = await tls.open_connection(port=daemon.port)
    writer.write(asks() + asks("/nothing") + f"GET /ws HTTP/1.1\r\n{fields}\r\n".encode() + subscribe)
    assert [(await answer(reader)).status for _ in range(2)] == [200, 404]
    status, headers = await websocket.read_head(reader)
    assert status == 101 and headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", headers
    up.accept(await up.expect("Subscribe", link=link))
    opcode, payload = await asyncio.wait_for(websocket.read_frame(reader), PATIENCE)
    assert opcode == websocket.TEXT and json.loads(payload)["type"] == "subscribed", payload
    writer.close()


@test("the upgrade may come on a connection that served fifteen requests before")
async def upgraded(t):
    daemon = await served(t)

    async def opener(host, port, **options):
        reader, writer = await tls.open_connection(host, port, **options)
        for _ in range(REQUESTS_MAX - 1):
            writer.write(asks("/assets/share.js"))
            assert (await answer(reader)).status == 200
        return reader, writer
    page = await t.page(daemon, opener=opener)
    await alive_by_ping(page)


@test("a connection that is idle for 5 s is ended; a head that was begun has its own 5 s", waits=12)
async def idle(t):
    daemon = await served(t)

    async def once(begin, status):
        reader, writer = await tls.open_connection(port=daemon.port)
        writer.write(asks())
        assert (await answer(reader)).status == 200
        began = time.monotonic()
        await asyncio.sleep(begin)
        if status:
            writer.write(b"GET /healthz HT")
            assert (await answer(reader)).status == status
        await asyncio.wait_for(reader.read(), 15 * SLACK)
        took = time.monotonic() - began
        assert IDLE_S + begin - 0.3 < took < IDLE_S + begin + 2 * SLACK + lag.lost(began), f"ended after {took:.1f} s"
        writer.close()
    await asyncio.gather(once(0, None), once(3, 408))


@test("a peer that leaves while an answer is on its way, or closes its side behind a request, costs nothing and loses nothing")
async def leaving(t):
    daemon = await served(t)
    whole = (await http(daemon.port, "/sharelink.js")).body
    for request in (asks("/sharelink.js"), asks("/sharelink.js") + b"GET /", asks() + asks("/sharelink.js")):
        reader, writer = await tls.open_connection(port=daemon.port)
        writer.write(request)
        writer.write_eof()
        if request.startswith(asks()):
            assert (await answer(reader)).status == 200
        assert (await answer(reader)).body == whole, request
        await over(reader)
        writer.close()
        reader, writer = await tls.open_connection(port=daemon.port)
        writer.write(request)
        writer.transport.abort()
    assert (await http(daemon.port, "/healthz")).status == 200


@test("hsts_s is a header of each answer to a request by TLS, and of none that is plain")
async def hsts(t):
    daemon = await served(t, hsts_s=63072000)
    for path in ("/healthz", "/s/abc", "/s/abc/", "/sharelink.js", "/nothing", "/ws"):
        response = await http(daemon.port, path)
        assert response.headers.get("strict-transport-security") == "max-age=63072000", (path, response)
        response = await http(daemon.plain_port, path)
        assert "strict-transport-security" not in response.headers, (path, response)
    without = await served(t)
    assert "strict-transport-security" not in (await http(without.port, "/s/abc")).headers


@test("a page's origin may be the relay's own by https; X-Forwarded-For of a peer that is not trusted counts for nothing")
async def origin(t):
    daemon, business, up = await t.relay()
    for host, own, allowed in (("relay.example", "https://relay.example", True), ("relay.example:8443", "https://relay.example:8443", True),
                               ("relay.example", "https://relay.example:443", True), ("relay.example", "https://relay.example:8443", False),
                               ("relay.example", "https://other.example", False)):
        try:
            await t.page(daemon, origin=own, extra=[("Host", host)])
            assert allowed, own
        except websocket.Refused as refusal:
            assert not allowed and refusal.response.status == 403, (host, own, refusal)
    source, link = t.source(), t.link()
    page = await t.page(daemon, source=source, extra=[("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "http")])
    page.subscribe(link)
    assert (await up.by_name(link)).address == source


# --- beside it ---


@test("HTTP at the port of TLS gets 400 and is told of https:; TLS at the plain port gets 400; the plain port serves on")
async def wrong_port(t):
    daemon = await served(t)
    tls.LINES.pop(daemon.port)
    for request in (asks(), asks("/ws", "Connection: Upgrade", "Upgrade: websocket"), b"GET", b"PUT / HTTP/1.1\r\n"):
        response = await http(daemon.port, "", raw=request)
        assert response.status == 400 and b"https:" in response.body, (request, response)
        assert response.headers["connection"] == "close", response
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.plain_port)
    writer.write(first_hello(any_context()))
    response = await websocket.read_response(reader)
    assert response.status == 400 and b"TLS" in response.body, response
    writer.close()
    assert (await http(daemon.plain_port, "/healthz")).status == 200
    assert (await http(daemon.plain_port, "/s/abc")).status == 200, "loopback is not redirected: a proxy may stand there"


@test("challenge_directory: files named by a token are served to anybody by plain HTTP, and nothing else of the disk is")
async def challenges(t):
    folder = t.directory / "acme"
    (folder / "inside").mkdir(parents=True)
    (t.directory / "secret").write_text("secret")
    token = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA"
    (folder / token).write_text(f"{token}.thumbprint")
    (folder / "inside" / "file").write_text("inside")
    (folder / "with.dot").write_text("dot")
    (folder / "empty").write_text("")
    os.mkfifo(folder / "pipe")
    daemon = await served(t, challenge_directory=str(folder))
    base = "/.well-known/acme-challenge/"
    response = await http(daemon.plain_port, base + token)
    assert response.status == 200 and response.body.decode() == f"{token}.thumbprint", response
    assert response.headers["content-type"].startswith("text/plain"), response
    assert (await http(daemon.plain_port, base + token + "?x=1")).status == 200
    assert (await http(daemon.plain_port, base + "empty")).body == b""
    for tail in ("", ".", "..", "../secret", "..%2fsecret", "%2e%2e/secret", "inside", "inside/file", "inside%2ffile", "with.dot", "unknown",
                 "%00", token + "/", token + "%00", "/" + token, "/etc/passwd", "%2fetc%2fpasswd", "x" * 300, "pipe"):
        response = await http(daemon.plain_port, base + tail, timeout=5 * SLACK)
        assert response.status in (400, 404) and b"secret" not in response.body, (tail, response)
    assert (await http(daemon.port, base + token)).status == 404, "it is for plain HTTP"
    # A new file is there at once; without the key nothing is.
    (folder / "new").write_text("new")
    assert (await http(daemon.plain_port, base + "new")).body == b"new"
    assert (await http((await served(t)).plain_port, base + token)).status == 404


ELSEWHERE = """
import http.client, json, sys
for port, path in json.loads(sys.argv[1]):
    connection = http.client.HTTPConnection("192.0.2.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": "share.example:8080"})
    answer = connection.getresponse()
    print(json.dumps([answer.status, answer.getheader("Location"), len(answer.read())]), flush=True)
"""


@test("a plain request for a share page from beyond loopback is redirected to https: by 308, and nothing else is")
async def redirected(t):
    """In a network namespace where loopback has one more address."""
    ports = [PORTS.take() for _ in range(2)]
    certificates = [harness.AUTHORITY.default]
    daemon = t.daemon(["127.0.0.1:1"])
    daemon.sections["pages"]["listen"] = [f"192.0.2.1:{port}" for port in ports[:1]]
    daemon.sections["tls"] = {"listen": f"192.0.2.1:{ports[1]}", "certificates": certificates}
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    asked = json.dumps([[ports[0], path] for path in ("/s/abc?x=1&y", "/healthz", "/sharelink.js", "/ws", "/s/abc/")])
    script = ('ip link set lo up && ip address add 192.0.2.1/32 dev lo && "$0" run --config "$1" >"$2" 2>&1 & relay=$!; '
              'for _ in $(seq 200); do grep -q ready "$2" 2>/dev/null && break; sleep 0.05; done; '
              '"$3" -c "$4" "$5"; kill $relay')
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    process = await asyncio.create_subprocess_exec(
        *unshare, "sh", "-c", script, daemon_module.binary(), str(daemon.config), str(daemon.log_path), sys.executable, ELSEWHERE, asked,
        stdout=asyncio.subprocess.PIPE, preexec_fn=ends_with_us)
    said = (await asyncio.wait_for(process.communicate(), 30 * SLACK))[0].decode()
    answers = [json.loads(line) for line in said.splitlines()]
    assert answers[0][:2] == [308, f"https://share.example:{ports[1]}/s/abc?x=1&y"], answers
    assert [status for status, _, _ in answers[1:]] == [200, 200, 426, 301], answers


def flooded(sentence, count, hosts):
    @test(sentence, timeout=120, crowded=True)
    async def flooded(t):
        daemon, business, up = await t.relay()
        link = t.link()
        page = await t.joined(daemon, up, link)
        alone = statistics.median(await asked(daemon.port))
        async with flood(daemon.port, count, hosts, first_hello(t.line.context)):
            took = await asked(daemon.port, 5)
            for sequence in range(1, 21):
                began = time.monotonic()
                up.message(7, sequence)
                await page.expect("message", sequence=sequence)
                assert time.monotonic() - began < 0.5 * SLACK + lag.lost(began), "a page waited for the flood"
        assert statistics.median(took) < alone + 2 * SLACK, f"{statistics.median(took):.2f} s at the median, {max(took):.2f} at worst"


flooded("600 connections of one address that send a hello and nothing more cost another's request two seconds at the median, and pages nothing", 600, 1)
flooded("600 connections from 250 addresses that send a hello and nothing more cost another's request two seconds at the median, and pages nothing", 600, 250)


@test("clients that do nothing but shake hands don't hold up a page's messages", timeout=150, crowded=True)
async def handshakes(t):
    await bystander(t, ["handshakes"], "page")


@test("SIGHUP: what is in the certificate's files now counts from the next handshake on; open pages stay; a pair that doesn't match changes nothing")
async def renewed(t):
    pair, other = harness.AUTHORITY.issue([tls.NAME]), harness.AUTHORITY.issue([tls.NAME])
    business = await t.business()
    daemon = await t.daemon([business.address], tls={"certificates": [pair]}).start()
    page = await t.joined(daemon, await business.uplink(), t.link())

    async def serial():
        _, writer = await shaken(t, daemon, any_context())
        number = connection(writer).getpeercert()["serialNumber"]
        writer.close()
        return number

    before = await serial()
    pathlib.Path(pair["certificate_file"]).write_bytes(pathlib.Path(other["certificate_file"]).read_bytes())
    await reload(daemon, "the configuration stays as it was")
    assert await serial() == before, "half a renewal was taken"
    pathlib.Path(pair["key_file"]).write_bytes(pathlib.Path(other["key_file"]).read_bytes())
    await reload(daemon, "configuration reloaded")
    assert await serial() != before, "the certificate before is still served"
    await alive_by_ping(page)
