"""The smallest business server of docs/protocol.md, cut out of the page and run: behind real daemons, and before a relay that is
played here."""
import asyncio
import os
import re
import subprocess
import sys

import wire
from daemon import ROOT, ends_with_us
from harness import PORTS, test
from inbox import PATIENCE, SLACK, Mismatch

PLAIN = True
LINK, TOPIC = "demo", 1
SECRET, NEXT = b"correct horse battery staple", b"of the next line"


def program():
    page = (ROOT / "docs" / "protocol.md").read_text()
    chapter = re.search(r"^## The smallest business server\n(.*?)^## ", page, re.M | re.S)
    assert chapter, "docs/protocol.md has no chapter about the smallest business server"
    blocks = re.findall(r"^```python\n(.*?)^```$", chapter[1], re.M | re.S)
    assert len(blocks) == 1, f"that chapter has {len(blocks)} programs"
    return blocks[0]


class Smallest:
    """The program as a process of its own, at a port of its own."""

    def __init__(self, t):
        self.t, self.port, self.process, self.said = t, PORTS.take(), None, []
        self.address = f"127.0.0.1:{self.port}"
        (t.directory / "secret").write_bytes(SECRET + b"\n")
        (t.directory / "secrets").write_bytes(SECRET + b"\n\n" + NEXT + b"\n")
        (t.directory / "smallest.py").write_text(program())

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "smallest.py", "secrets", self.address, cwd=self.t.directory, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, preexec_fn=ends_with_us)
        await self.says("listening at")
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.terminate()
        left, _ = await self.process.communicate()
        if b"Traceback" in b"".join(self.said) + left:
            self.t.broken(f"the program failed: {(b''.join(self.said) + left).decode()}")

    async def says(self, words):
        """Returns when the program has said this."""
        async with asyncio.timeout(20 * SLACK):
            while words.encode() not in (line := await self.process.stdout.readline()):
                self.said.append(line)
                assert line, f"the program ended: {b''.join(self.said).decode()}"

    async def relay(self):
        daemon = await self.t.daemon([self.address], secret_file="secret", plaintext=True).start()
        await self.says("is connected")
        return daemon


async def watches(t, daemon, since=None):
    """A page behind the link, and its epoch."""
    page = await t.page(daemon)
    answer = await page.join(LINK, since=since)
    assert (answer["topic"], answer["page_messages"]) == (TOPIC, False), answer
    return page, answer["epoch"]


async def then(page, kind, **fields):
    """The next event but for messages, which may come before it."""
    while True:
        event = await page.events.next(f"{kind} {fields}", 20 * SLACK)
        if event["type"] not in ("message", "alive"):
            return page.match(event, kind, fields)


@test("the smallest business server: a page gets the state and each message in order, and goes on in a new epoch after a restart", waits=5)
async def restarts(t):
    smallest = Smallest(t)
    async with smallest:
        daemon = await smallest.relay()
        page, epoch = await watches(t, daemon)
        assert (await page.until("state", sequence=1))["data"]["title"] == "The smallest room"
        assert await page.track(TOPIC, "messages", 2) == ["message 1", "message 2"]
    await then(page, "uplink", up=False)
    async with smallest:
        await then(page, "uplink", up=True)
        assert (await then(page, "epoch"))["epoch"] != epoch
        await page.until("state", sequence=1)
        assert await page.track(TOPIC, "messages", 2) == ["message 1", "message 2"]


@test("the smallest business server: serves two relays at once, and a page that changes from one to the other loses nothing", waits=5)
async def two_relays(t):
    async with Smallest(t) as smallest:
        first, second = await smallest.relay(), await smallest.relay()
        page, epoch = await watches(t, first)
        assert await page.track(TOPIC, "messages", 2) == ["message 1", "message 2"]
        await page.leave()
        page, again = await watches(t, second, since=(int(epoch), 3))
        assert again == epoch
        await page.until("state", sequence=1)
        assert await page.track(TOPIC, "messages", 4) == ["message 3", "message 4"]


class Relay:
    """A relay's side of one uplink, as far as a test says."""

    @classmethod
    async def dial(cls, smallest, secret=SECRET, version=wire.VERSION):
        relay = cls()
        relay.reader, relay.writer = await asyncio.open_connection("127.0.0.1", smallest.port)
        challenge, nonce = await relay.next(), os.urandom(16)
        assert (challenge.kind, challenge.version) == ("Challenge", wire.VERSION), challenge
        proof = wire.proof(secret, b"sharelinkd relay", challenge.nonce, nonce)
        relay.say("Hello", version=version, relay="played", nonce=nonce, proof=proof)
        relay.right = wire.proof(secret, b"sharelinkd business", nonce, challenge.nonce)
        return relay

    @classmethod
    async def connected(cls, smallest, **dial):
        relay = await cls.dial(smallest, **dial)
        welcome = await relay.next()
        assert (welcome.kind, welcome.version, welcome.proof) == ("Welcome", wire.VERSION, relay.right), welcome
        return relay

    def say(self, kind, **fields):
        self.writer.write(wire.encode(wire.TO_BUSINESS, kind, **fields))

    async def next(self):
        async with asyncio.timeout(PATIENCE):
            return wire.decode(wire.TO_RELAY, await self.reader.readexactly(wire.length(await self.reader.readexactly(4))))

    async def until(self, kind, **fields):
        """The next such frame; nothing but publications may come before it."""
        while (frame := await self.next()).kind == "Publish" != kind:
            pass
        if frame.kind != kind or any(getattr(frame, key) != value for key, value in fields.items()):
            raise Mismatch(f"expected {kind} {fields}, saw {frame!r}")
        return frame

    async def subscribed(self, request, since=None):
        """Its epoch, and the first two publications behind it, the state as its sequence alone."""
        self.say("Subscribe", request=request, link=LINK, since=since, address="", origin="")
        accept = await self.until("Accept", request=request, topic=TOPIC, shared=True)
        published = [await self.next(), await self.next()]
        assert all((p.kind, p.topic, p.part) == ("Publish", TOPIC, "whole") for p in published), published
        return accept.epoch, [f"{p.track} {p.sequence}" for p in published]

    async def gone(self):
        """The business server closes the connection, and says no more."""
        try:
            async with asyncio.timeout(PATIENCE):
                left = await self.reader.read()
        except ConnectionError:
            left = b""
        assert not left, left
        self.writer.close()


@test("the smallest business server: publishes from where the relay is, where it knows that place, and else as for a late page", waits=3)
async def since(t):
    async with Smallest(t) as smallest:
        relay = await Relay.connected(smallest)
        epoch, seen = await relay.subscribed(1)
        assert seen == ["state 1", "messages 1"], seen
        while (await relay.until("Publish")).sequence < 3:
            pass
        for request, place, expected in [
            (2, (epoch, [2, 2, 0, 0]), ["messages 2", "messages 3"]),
            (3, (epoch, [1, 3, 0, 0]), ["state 1", "messages 3"]),
            (4, (epoch, [0, 0, 0, 0]), ["state 1", "messages 1"]),
            (5, (epoch, [9, 10**6, 0, 0]), ["state 1", "messages 1"]),
            (6, (epoch ^ 1, [2, 2, 0, 0]), ["state 1", "messages 1"]),
        ]:
            assert (await relay.subscribed(request, place)) == (epoch, expected), place
        relay.writer.close()


@test("the smallest business server: denies other links, answers pings, ignores what it has no use for, forgets who unsubscribes", waits=3)
async def answers(t):
    async with Smallest(t) as smallest:
        relay, other = await Relay.connected(smallest), await Relay.connected(smallest)
        relay.say("Subscribe", request=300, link="demos", since=None, address="127.0.0.1", origin="https://share.example")
        await relay.until("Deny", request=300)
        await relay.subscribed(301)
        relay.say("Audience", topic=TOPIC, pages=1)
        relay.say("PageMessage", topic=TOPIC, page=1, data="hello")
        relay.say("Pong", nonce=5)
        relay.writer.write(wire.framed(b"\x63 of a later version"))
        # A frame need not come at once.
        for byte in wire.encode(wire.TO_BUSINESS, "Ping", nonce=1 << 31):
            relay.writer.write(bytes([byte]))
            await relay.writer.drain()
        await relay.until("Pong", nonce=1 << 31)
        relay.say("Unsubscribe", topic=TOPIC)
        relay.say("Ping", nonce=7)
        await relay.until("Pong", nonce=7)
        # All relays get a publication in the same turn: when the other has one, this one would.
        await other.subscribed(1)
        last = (await other.until("Publish")).sequence
        while (await other.until("Publish")).sequence <= last:
            pass
        relay.say("Ping", nonce=8)
        frame = await relay.next()
        assert (frame.kind, getattr(frame, "nonce", None)) == ("Pong", 8), frame


@test("the smallest business server: closes the connection of a relay with another secret or version, or with a broken frame", waits=1)
async def refuses(t):
    async with Smallest(t) as smallest:
        await (await Relay.connected(smallest, secret=NEXT)).subscribed(1)
        for secret in (b"another", b"", SECRET + b"\n" + NEXT):
            await (await Relay.dial(smallest, secret=secret)).gone()
        await (await Relay.dial(smallest, version=2)).gone()
        stranger = await Relay.dial(smallest)
        for broken in (bytes(4), b"\xff" * 4, wire.framed(b"\xff" * 64), wire.framed(b"\1")):
            relay = await Relay.connected(smallest)
            relay.writer.write(broken)
            await relay.gone()
        # Others are served all the same.
        await stranger.until("Welcome")
        await stranger.subscribed(1)


@test("the smallest business server: the documents' command cuts the same program out of the page")
async def command(t):
    for name in ("README.md", "docs/protocol.md"):
        commands = re.findall(r"^(sed .*) > smallest\.py$", (ROOT / name).read_text(), re.M)
        assert len(commands) == 1, f"{name} has {len(commands)} commands that cut it out"
        cut = subprocess.run(["sh", "-c", commands[0]], cwd=ROOT, capture_output=True, check=True)
        assert cut.stdout.decode() == program(), f"{name}: {commands[0]}"
