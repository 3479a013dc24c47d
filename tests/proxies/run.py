#!/usr/bin/env python3
"""Tests the recipes of docs/proxies.md: each is extracted from the page and started with only ports and paths replaced, and a
page connects through it by wss. Needs nginx, haproxy, caddy and openssl, and a release build. The pages and the business
server are those of tests/conformance."""
import asyncio
import functools
import os
import pathlib
import re
import resource
import ssl
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "conformance"))
sys.dont_write_bytecode = True

import harness  # noqa: E402
import websocket  # noqa: E402
from harness import PORTS  # noqa: E402
from page import open_page  # noqa: E402

QUIET_S = 80  # longer than every timeout in the recipes


def recipe(name):
    blocks = re.findall(rf"^```{name}\n(.*?)^```$", (ROOT / "docs" / "proxies.md").read_text(), re.M | re.S)
    assert len(blocks) == 1, f"docs/proxies.md has {len(blocks)} recipes for {name}"
    return blocks[0]


def replaced(text, *pairs):
    for old, new in pairs:
        assert old in text, f"{old} is not in the recipe"
        text = text.replace(old, new)
    return text


class Proxy:
    """One proxy in front of one relay, in a directory of its own."""

    def __init__(self, t, name, relay_port):
        self.name, self.directory, self.port = name, t.directory, PORTS.take()
        certificate(self.directory)
        config = self.directory / name
        config.write_text(getattr(self, name)(relay_port))
        command = {
            "nginx": ["nginx", "-c", config, "-p", self.directory, "-e", self.directory / "nginx.log"],
            "haproxy": ["haproxy", "-db", "-f", config],
            "caddy": ["caddy", "run", "--adapter", "caddyfile", "--config", config],
        }[name]
        self.log = open(self.directory / "proxy.log", "wb")
        environment = dict(os.environ, HOME=str(self.directory), PATH=os.environ["PATH"] + ":/usr/sbin")
        self.process = subprocess.Popen([str(part) for part in command], stdout=self.log, stderr=self.log, env=environment)

    def nginx(self, relay_port):
        text = replaced(recipe("nginx"), ("listen 443", f"listen 127.0.0.1:{self.port}"), ("127.0.0.1:8080", f"127.0.0.1:{relay_port}"),
                        ("/etc/ssl", str(self.directory)))
        paths = "".join(f"{key}_temp_path {self.directory}/{key};\n" for key in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return f"daemon off;\nmaster_process off;\npid {self.directory}/pid;\nevents {{}}\nhttp {{\n{paths}{text}}}\n"

    def haproxy(self, relay_port):
        return replaced(recipe("haproxy"), ("bind :443", f"bind 127.0.0.1:{self.port}"), ("127.0.0.1:8080", f"127.0.0.1:{relay_port}"),
                        ("/etc/ssl", str(self.directory)))

    def caddy(self, relay_port):
        text = replaced(recipe("caddy"), ("relay.example {", f"relay.example:{self.port} {{\n    bind 127.0.0.1"),
                        ("127.0.0.1:8080", f"127.0.0.1:{relay_port}"), ("/etc/ssl", str(self.directory)))
        return "{\n    admin off\n    auto_https off\n}\n" + text

    async def ready(self):
        for _ in range(600):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust(), server_hostname="relay.example")
                writer.close()
                return
            except OSError:
                assert self.process.poll() is None, f"{self.name} ended: {self.said()}"
                await asyncio.sleep(0.05)
        raise AssertionError(f"{self.name} does not answer: {self.said()}")

    def trust(self):
        context = ssl.create_default_context(cafile=str(self.directory / "relay.crt"))
        context.set_alpn_protocols(["http/1.1"])
        return context

    def said(self):
        return (self.directory / "proxy.log").read_text(errors="replace")[-2000:]

    def opener(self):
        return functools.partial(asyncio.open_connection, ssl=self.trust(), server_hostname="relay.example")

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def certificate(directory):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=relay.example", "-addext", "subjectAltName=DNS:relay.example",
                    "-keyout", directory / "relay.key", "-out", directory / "relay.crt"], check=True, capture_output=True)
    (directory / "relay.pem").write_bytes((directory / "relay.crt").read_bytes() + (directory / "relay.key").read_bytes())


async def get(proxy, target):
    reader, writer = await proxy.opener()("127.0.0.1", proxy.port)
    # As a browser does, so that the relay requests no card.
    writer.write(f"GET {target} HTTP/1.1\r\nHost: relay.example:{proxy.port}\r\nSec-Fetch-Dest: document\r\nConnection: close\r\n\r\n".encode())
    status, headers = await asyncio.wait_for(websocket.read_head(reader), 30)
    body = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return status, headers, body


async def through(t, name):
    daemon, business, uplink = await t.relay(pages={"trusted_proxies": ["127.0.0.1"], "origins": []})
    proxy = Proxy(t, name, daemon.port)
    try:
        await proxy.ready()
        link = t.link()
        status, headers, body = await get(proxy, f"/s/{link}")
        assert status == 200 and b"<html" in body.lower() and headers.get("content-security-policy"), (status, headers)
        status, _, body = await get(proxy, "/sharelink.js")
        assert status == 200 and b"export" in body, status
        assert (await get(proxy, "/healthz"))[0] == 200

        # The origin is the proxy's own name, so that it is admitted by the forwarded Host header;
        # the address is the browser's, whatever it claims.
        source, origin = t.source(), f"https://relay.example:{proxy.port}"
        page = await open_page(t, "page", proxy.port, source=source, origin=origin, opener=proxy.opener(),
                               extra=[("Host", f"relay.example:{proxy.port}"), ("X-Forwarded-For", "203.0.113.9")])
        t.pages.append(page)
        page.subscribe(link)
        asked = await uplink.by_name(link)
        assert asked.address == source, f"the business server got {asked.address}, not {source}"
        assert asked.origin == origin, asked.origin
        uplink.accept(asked, topic=7, shared=False)
        await page.expect("subscribed", topic=7)
        try:
            await open_page(t, "stranger", proxy.port, source=t.source(), origin="https://elsewhere.example", opener=proxy.opener(),
                            extra=[("Host", f"relay.example:{proxy.port}")])
            raise AssertionError("a page of another origin was admitted")
        except websocket.Refused as refused:
            assert refused.response.status == 403, refused
        large = "x" * 60_000
        uplink.message(7, 1)
        uplink.publish(7, "messages", 2, "whole", data=f'"{large}"'.encode())
        await page.expect("message", sequence=1)
        await page.expect("message", sequence=2, data=large)
        page.raw(websocket.frame(websocket.PING, b"are you there"))
        for _ in range(400):
            if page.pongs:
                break
            await asyncio.sleep(0.05)
        assert page.pongs == [b"are you there"], page.pongs

        await asyncio.sleep(QUIET_S)
        uplink.message(7, 3)
        await page.expect("message", sequence=3)

        daemon.expected_end = True  # before another proxy's test checks
        daemon.signal(15)
        closed = await page.expect("close")
        assert closed["code"] == 1012 and closed["reason"].startswith("retry="), closed
    except Exception as error:
        raise AssertionError(f"{error!r}\n{name} said: {proxy.said()}") from error
    finally:
        proxy.end()


def register():
    for name in ("nginx", "haproxy", "caddy"):
        harness.test(f"{name}'s recipe carries the share page and its connection", waits=True)(functools.wraps(through)(functools.partial(through, name=name)))


async def main():
    register()

    async def one(name, function, _waits, timeout, *_):
        fault, logs = await harness.run(name, function, timeout)
        print(f"{'ok  ' if fault is None else 'FAIL'} {name}", flush=True)
        if fault is not None:
            print("     " + f"{fault}\n{logs}".rstrip().replace("\n", "\n     "), flush=True)
        return fault is None

    passed = await asyncio.gather(*(one(*t) for t in harness.TESTS))
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.exit(asyncio.run(main()))
