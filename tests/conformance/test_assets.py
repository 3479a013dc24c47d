"""The page's files: codings, entity tags, versioned addresses, and what a first view weighs."""
import asyncio
import gzip
import json
import pathlib
import re
import shutil
import subprocess

import tls
import websocket
from harness import test
from inbox import SLACK
from websocket import http

WEB = pathlib.Path(__file__).resolve().parents[2] / "src" / "web"
#: Address, file, type, and whether any origin may read it.
FILES = [
    ("/sharelink.js", "sharelink.js", "text/javascript; charset=utf-8", True),
    ("/sharelink.d.ts", "sharelink.d.ts", "text/plain; charset=utf-8", True),
    ("/assets/share.js", "share.js", "text/javascript; charset=utf-8", False),
    ("/assets/share.css", "share.css", "text/css; charset=utf-8", False),
]
#: Bytes that a browser receives for a first view, heads included. Whoever lowers them lowers this.
FIRST_VIEW_SIZE_MAX = 33_500
BROWSER = {"Accept-Encoding": "gzip, deflate, br, zstd"}
SHORT, LONG = "public, max-age=300", "public, max-age=31536000, immutable"


async def plain(t):
    return await t.daemon(["127.0.0.1:1"]).start()


def decoded(response):
    """The body without its coding. Python has no brotli: Node's decodes it where there is one, and tests of the daemon's own everywhere."""
    coding = response.headers.get("content-encoding")
    if coding == "gzip":
        return gzip.decompress(response.body)
    if coding == "br" and (node := shutil.which("node")):
        script = "process.stdout.write(require('zlib').brotliDecompressSync(require('fs').readFileSync(0)))"
        return subprocess.run([node, "-e", script], input=response.body, stdout=subprocess.PIPE, check=True).stdout
    return None if coding == "br" else response.body


async def once(daemon, target, **headers):
    return await http(daemon.port, target, headers={name.replace("_", "-"): value for name, value in headers.items()})


@test("each file comes in the coding that the client prefers, decodes to the same bytes, and is plain for a client that asks for none")
async def codings(t):
    daemon = await plain(t)
    for target, name, kind, is_for_all in FILES:
        source = (WEB / name).read_bytes()
        for accepted, coding in ((None, None), ("", None), ("identity", None), ("deflate, zstd", None), ("gzip", "gzip"), ("GZIP;q=0.1", "gzip"),
                                 ("br", "br"), ("gzip, deflate, br, zstd", "br"), ("br;q=0, gzip;q=0.5", "gzip"), ("gzip;q=0", None),
                                 ("br;q=0.1, gzip;q=0.9", "gzip"), ("*", "gzip"), ("*;q=0", None), ("nonsense;;q=,,", None)):
            if name.endswith(".d.ts") and coding == "br":  # it has no such form
                coding = "gzip" if "gzip" in accepted else None
            response = await (once(daemon, target) if accepted is None else once(daemon, target, Accept_Encoding=accepted))
            headers = response.headers
            assert (response.status, headers.get("content-encoding")) == (200, coding), (target, accepted, response)
            assert headers["vary"] == "Accept-Encoding" and headers["content-type"] == kind, (target, response)
            assert headers.get("access-control-allow-origin") == ("*" if is_for_all else None), (target, response)
            assert headers["x-content-type-options"] == "nosniff", (target, response)
            assert decoded(response) in (source, None), f"{target} as {coding} is not src/web/{name}"
            assert not coding or len(response.body) < len(source) / 2, (target, coding, len(response.body))
    several = b"GET /sharelink.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: br;q=0\r\nX: y\r\naccept-encoding: gzip\r\n\r\n"
    assert (await http(daemon.port, "", raw=several)).headers.get("content-encoding") == "gzip"


@test("the answer to HEAD is that to GET without its body, with the coding, the length and the tag")
async def heads(t):
    daemon = await plain(t)
    for target in [target for target, *_ in FILES] + ["/s/abc"]:
        for accepted in ("br", "gzip", "identity"):
            got = await once(daemon, target, Accept_Encoding=accepted)
            reader, writer = await tls.open_connection(port=daemon.port)
            writer.write(f"HEAD {target} HTTP/1.1\r\nHost: 127.0.0.1:{daemon.port}\r\nConnection: close\r\nAccept-Encoding: {accepted}\r\n\r\n".encode())
            status, headers = await asyncio.wait_for(websocket.read_head(reader), 10 * SLACK)
            assert not await reader.read(), "a body behind the answer to HEAD"
            writer.close()
            assert status == got.status and int(headers["content-length"]) == len(got.body), (target, headers)
            assert {**headers, "date": ""} == {**got.headers, "date": ""}, (target, accepted)


@test("what a client has is not sent again: If-None-Match gets 304 without a body, for the same coding alone")
async def known(t):
    daemon = await plain(t)
    tags = {}
    for target, *_ in FILES:
        for accepted in ("br", "gzip", "identity"):
            whole = await once(daemon, target, Accept_Encoding=accepted)
            tag, coding = whole.headers["etag"], whole.headers.get("content-encoding")
            assert re.fullmatch(r'"[0-9a-f]+"', tag) and tags.setdefault(tag, (target, coding)) == (target, coding), (tag, tags)
            for match in (tag, f"W/{tag}", f'"a", W/"b,c" , {tag}', "*"):
                response = await once(daemon, target, Accept_Encoding=accepted, If_None_Match=match)
                assert (response.status, response.body) == (304, b""), (match, response)
                for name in ("cache-control", "etag", "vary", "access-control-allow-origin"):
                    assert response.headers.get(name) == whole.headers.get(name), (name, response)
                assert "date" in response.headers and not [name for name in response.headers if name.startswith("content-")], response
            for match in (tag.strip('"'), '"a", "b"', "W/", '"'):
                response = await once(daemon, target, Accept_Encoding=accepted, If_None_Match=match)
                assert (response.status, response.body) == (200, whole.body), (match, response)
    version = (await once(daemon, "/sharelink.js")).headers["etag"]
    assert (await once(daemon, "/sharelink.js", Accept_Encoding="gzip", If_None_Match=version)).status == 200, "another coding is another form"
    if daemon.port in tls.LINES:  # the connection goes on behind a 304
        reader, writer = await tls.open_connection(port=daemon.port)
        writer.write(f"GET /sharelink.js HTTP/1.1\r\nHost: x\r\nIf-None-Match: {version}\r\n\r\n".encode() * 2)
        for _ in range(2):
            status, headers = await asyncio.wait_for(websocket.read_head(reader), 10 * SLACK)
            assert status == 304 and "connection" not in headers, (status, headers)
        writer.close()


@test("the share page names each file by its version, which is kept for a year; any other address of it for 5 minutes")
async def versions(t):
    daemon = await plain(t)
    page = (await once(daemon, "/s/abc")).body.decode()
    named = re.findall(r'"(/[^"?]*)\?v=([^"]*)"', page)
    assert sorted(path for path, _ in named) == ["/assets/share.css", "/assets/share.js", "/sharelink.js"], named
    for path, version in named:
        for query, caching in ((f"?v={version}", LONG), (f"?v={version}&try=1", LONG), ("", SHORT), ("?v=", SHORT), (f"?v={version}x", SHORT),
                               (f"?v={version[:-1]}", SHORT), ("?v=3", SHORT), (f"?x={version}", SHORT)):
            response = await once(daemon, path + query, **{"Accept-Encoding": "br"})
            assert (response.status, response.headers["cache-control"]) == (200, caching), (path, query, response)
        match = {"If-None-Match": response.headers["etag"], "Accept-Encoding": "br"}
        assert (await once(daemon, f"{path}?v={version}", **match)).headers["cache-control"] == LONG, path


@test("the share page comes as gzip to a client that takes it, with its card, and is never stored")
async def pages(t):
    daemon, business, up = await t.relay()
    link = t.link()
    plainly = await once(daemon, f"/s/{link}", Sec_Fetch_Dest="document")
    assert "content-encoding" not in plainly.headers and plainly.headers["vary"] == "Accept-Encoding", plainly
    for accepted in ("gzip", "gzip, deflate, br, zstd", "br, gzip;q=0.1"):
        response = await once(daemon, f"/s/{link}", Sec_Fetch_Dest="document", Accept_Encoding=accepted)
        assert response.headers["content-encoding"] == "gzip" and response.headers["cache-control"] == "no-store", response
        assert "etag" not in response.headers and decoded(response) == plainly.body, accepted
    viewer = await t.joined(daemon, up, link, shared=True)
    up.state(7, 1, json.dumps({"title": "Ünïcode <b>&", "description": "d" * 250}))
    await viewer.expect("state")
    plainly = await once(daemon, f"/s/{link}")
    response = await once(daemon, f"/s/{link}", Accept_Encoding="gzip")
    assert 'og:title" content="Ünïcode &lt;b&gt;&amp;"' in plainly.body.decode(), plainly
    assert response.headers["content-encoding"] == "gzip" and decoded(response) == plainly.body


@test("a first view is page, style and two scripts: their bytes on the wire are counted")
async def weight(t):
    daemon = await plain(t)
    page = await once(daemon, "/s/abc", Sec_Fetch_Dest="document", **BROWSER)
    addresses = re.findall(r'"(/[^"?]*\?v=[^"]*)"', decoded(page).decode())
    assert len(addresses) == 3, addresses
    sizes = {}
    for target in ["/s/abc", *addresses]:
        reader, writer = await tls.open_connection(port=daemon.port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{daemon.port}\r\nConnection: close\r\nSec-Fetch-Dest: document\r\n"
                     f"Accept-Encoding: {BROWSER['Accept-Encoding']}\r\n\r\n".encode())
        sizes[target.partition("?")[0]] = len(await asyncio.wait_for(reader.read(), 10 * SLACK))
        writer.close()
    total = sum(sizes.values())
    print(f"a first view: {total} bytes on the wire, of at most {FIRST_VIEW_SIZE_MAX}: {sizes}")
    assert total <= FIRST_VIEW_SIZE_MAX, sizes
