"""A business server for tests: listens, completes the handshake, and then does only what a test asks for. It decodes the
relay's frames strictly; anything that the protocol does not allow fails the test."""
import asyncio
import os
import time

import wire
from inbox import PATIENCE, Mailbox, Mismatch


class Uplink:
    """One connection of the relay, after its handshake."""

    def __init__(self, business, reader, writer, hello, challenge):
        self.business, self.test, self.reader, self.writer, self.hello = business, business.test, reader, writer, hello
        self.challenge = challenge
        self.frames, self.answers_pings, self.open = Mailbox("uplink"), True, True
        self.outstanding, self.last_sent_at = set(), time.monotonic()
        self.extended = business.extended and hello.nonce.endswith(wire.MARK)
        self.ended = asyncio.Event()
        self.task = asyncio.ensure_future(self.run())

    async def run(self):
        try:
            while True:
                size = wire.length(await self.reader.readexactly(4))
                payload = await self.reader.readexactly(size)
                try:
                    self.frame(wire.decode(wire.TO_BUSINESS_EXTENDED if self.extended else wire.TO_BUSINESS, payload))
                except wire.WireError as error:
                    raise wire.WireError(f"{error} in {payload[:80].hex()}") from None
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            pass
        except wire.WireError as error:
            self.test.broken(f"the relay sent a frame that does not decode: {error}")
        self.open = False
        self.ended.set()
        self.writer.close()

    def frame(self, frame):
        frame.at = time.monotonic()
        if frame.kind == "Subscribe":
            if frame.request in self.outstanding:
                self.test.broken(f"request number {frame.request} is under way twice")
            self.outstanding.add(frame.request)
        if frame.kind == "Ping" and self.answers_pings:
            self.send("Pong", nonce=frame.nonce)
        self.frames.put(frame)
        if frame.kind == "Subscribe" and self.business.auto:
            self.business.auto(self, frame)

    # --- what the business server sends ---

    def raw(self, data):
        self.last_sent_at = time.monotonic()
        self.writer.write(data)

    def send(self, kind, **fields):
        self.raw(wire.encode(wire.TO_RELAY_EXTENDED, kind, **fields))

    def author(self, page):
        """The name of a page of this connection as an author."""
        return wire.author(self.challenge, self.hello.nonce, page)

    def accept(self, subscribe, topic=7, epoch=7, shared=True, ttl_s=300, page_messages=False, replay=50):
        self.outstanding.discard(subscribe.request)
        self.send("Accept", request=subscribe.request, topic=topic, epoch=epoch, shared=shared, ttl_s=ttl_s,
                  page_messages=page_messages, replay=replay)

    def deny(self, subscribe, reason="no"):
        self.outstanding.discard(subscribe.request)
        self.send("Deny", request=subscribe.request, reason=reason)

    async def by_name(self, link):
        """The relay requests a link as a whole, learns that it is not shared, and requests it by a page's name."""
        self.accept(await self.expect("Subscribe", link=link, address="", origin=""), shared=False)
        return await self.expect("Subscribe", link=link)

    async def deny_link(self, link, reason="no"):
        """Denies a dead link: requested as a whole and, if nothing was accepted for it yet, by one page's name."""
        self.deny(await self.expect("Subscribe", link=link, address="", origin=""), reason)
        self.deny(await self.expect("Subscribe", link=link), reason)

    def message(self, topic, *sequences, data=None):
        for n in sequences:
            self.publish(topic, "messages", n, "whole", data)

    def state(self, topic, sequence, data=None):
        self.publish(topic, "state", sequence, "whole", data)

    def media(self, topic, track, *parts):
        """`parts` such as "init 1", "start 2", "continue 3"."""
        for part in parts:
            name, number = part.split()
            self.publish(topic, track, int(number), name, f"{track} {part}".encode(), f"{track}/webm" if name == "init" else None)

    def publish(self, topic, track, sequence, part, data=None, mime=None):
        data = b'{"n":%d}' % sequence if data is None else data.encode() if isinstance(data, str) else data
        self.send("Publish", topic=topic, track=track, sequence=sequence, part=part, mime=mime, data=data)

    def drop(self):
        """Breaks the connection."""
        self.writer.transport.abort()

    async def barrier(self):
        """Returns when the relay has answered a ping, which proves that it has read everything before."""
        nonce = int.from_bytes(os.urandom(4), "little")
        self.send("Ping", nonce=nonce)
        await self.expect("Pong", nonce=nonce)

    # --- what the relay sends ---

    async def expect(self, kind, timeout=PATIENCE, **fields):
        """Takes the first frame of this kind with these fields; others stay queued."""
        return await self.frames.take(lambda f: f.kind == kind and all(getattr(f, k) == v for k, v in fields.items()),
                                      f"{kind} {fields or ''}", timeout)

    async def audience(self, topic, pages, timeout=PATIENCE):
        return await self.expect("Audience", timeout, topic=topic, pages=pages)

    def seen(self, kind, **fields):
        """The number of such frames on this connection, taken or not."""
        return sum(f.kind == kind and all(getattr(f, k) == v for k, v in fields.items()) for _, f in self.frames.history)

    async def none(self, kind, seconds=0.4, **fields):
        """No frame of this kind is queued or arrives within `seconds`."""
        await asyncio.sleep(seconds)
        left = [f for f in self.frames.items if f.kind == kind and all(getattr(f, k) == v for k, v in fields.items())]
        if left:
            raise Mismatch(f"uplink: expected no {kind} {fields or ''}, saw {left!r}")

    async def end(self, timeout=PATIENCE):
        """The relay closes this connection."""
        try:
            await asyncio.wait_for(self.ended.wait(), timeout)
        except asyncio.TimeoutError:
            raise Mismatch(f"expected the relay to end the uplink's connection within {timeout:.1f} s") from None


class Business:
    def __init__(self, test, secret=b"", unix=None, port=None, tls=None):
        """`tls`: an SSLContext. `others`: secrets that are accepted besides the first."""
        self.others = []
        self.test, self.secret, self.unix, self.port, self.tls = test, secret, unix, port, tls
        self.auto = None         # called with (uplink, subscribe) for each Subscribe
        self.extended = False    # offers extensions
        self.by_hand = False     # hand out bare (reader, writer) pairs for a handshake by the test
        self.gate = asyncio.Event()  # closed: connections are accepted, but nothing is sent
        self.gate.set()
        self.uplinks, self.connections, self.writers, self.nonces, self.dials = Mailbox("business server"), Mailbox("business server"), [], set(), []
        self.server = None

    async def start(self):
        if self.unix:
            self.server = await asyncio.start_unix_server(self.connected, self.unix, ssl=self.tls)
        else:
            self.server = await asyncio.start_server(self.connected, "127.0.0.1", self.port, reuse_address=True, ssl=self.tls)
        return self

    @property
    def address(self):
        return f"unix:{self.unix}" if self.unix else f"127.0.0.1:{self.port}"

    def stop(self):
        """Stops listening and breaks its connections."""
        if self.server:
            self.server.close()
            self.server = None
        if self.unix and os.path.exists(self.unix):
            os.unlink(self.unix)
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def connected(self, reader, writer):
        self.writers.append(writer)
        self.dials.append(time.monotonic())
        try:
            await self.gate.wait()
            if self.by_hand:
                self.connections.put((reader, writer))
            else:
                hello, challenge = await self.shake_hands(reader, writer)
                self.uplinks.put(Uplink(self, reader, writer, hello, challenge))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        except (wire.WireError, Mismatch) as error:
            self.test.broken(f"handshake: {error!r}")
            writer.close()

    async def shake_hands(self, reader, writer):
        nonce, hello = await self.challenge(reader, writer)
        if hello.version != wire.VERSION:
            raise Mismatch(f"Hello of version {hello.version}")
        fitting = [secret for secret in (self.secret, *self.others) if hello.proof == wire.proof(secret, b"sharelinkd relay", nonce, hello.nonce)]
        if not fitting:
            raise Mismatch(f"the relay's proof is wrong: {hello!r}, challenge nonce {nonce.hex()}")
        if hello.nonce in self.nonces:
            raise Mismatch("the relay used a nonce twice")
        if hello.nonce.endswith(wire.MARK) != self.extended:
            raise Mismatch("extensions are for those who offer them")
        self.nonces.add(hello.nonce)
        self.welcome(writer, nonce, hello, secret=fitting[0])
        return hello, nonce

    async def challenge(self, reader, writer, version=wire.VERSION):
        nonce = os.urandom(12) + wire.MARK if self.extended else os.urandom(16)
        writer.write(wire.encode(wire.TO_RELAY, "Challenge", version=version, nonce=nonce))
        frame = wire.decode(wire.TO_BUSINESS, await reader.readexactly(wire.length(await reader.readexactly(4))))
        if frame.kind != "Hello":
            raise Mismatch(f"expected Hello, saw {frame!r}")
        return nonce, frame

    def welcome(self, writer, nonce, hello, version=wire.VERSION, proof=None, secret=None):
        right = wire.proof(self.secret if secret is None else secret, b"sharelinkd business", hello.nonce, nonce)
        writer.write(wire.encode(wire.TO_RELAY, "Welcome", version=version, proof=right if proof is None else proof))

    async def uplink(self, timeout=4 * PATIENCE):
        """The relay's next connection with a completed handshake."""
        return await self.uplinks.next("the relay to connect and shake hands", timeout)
