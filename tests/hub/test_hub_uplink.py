"""The hub as a business server: docs/protocol.md, from a relay's end of the uplink."""
import asyncio
import json
import os
import secrets
import signal

import certificates
import wire
from harness import test
from hub import SECRET, Client, client_tls
from inbox import SLACK, Mismatch
from receiver import with_webhook
from vectors import cases, octets

A_TOPIC = 4_000_000_000  # a number that no topic here has, but for a chance of 1 in 2^32


def write(t, name, text):
    path = t.directory / name
    path.write_text(text + "\n")
    return name


# --- handshake ---

@test("each connection is challenged with version 1 and fresh bytes, and who has the secret is welcome")
async def handshake(t):
    hub = await t.hub()
    nonces = set()
    for _ in range(5):
        relay = await t.dial(hub)
        nonces.add((await relay.read()).nonce)
    assert len(nonces) == 5, nonces
    relay = await t.relay_end(hub)
    await relay.barrier()
    assert [r["name"] for r in (await hub.api("GET", "/v1/fleet"))["relays"]] == ["gate"]


async def refused(t, hub, frame, name="gate"):
    """A connection that sends this in place of `Hello` gets no `Welcome`, and is closed."""
    relay = await t.dial(hub, name)
    challenge = await relay.read()
    relay.raw(frame(challenge))
    try:
        raise Mismatch(f"expected the end of the connection, saw {await asyncio.wait_for(relay.read(), 10 * SLACK)!r}")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass


def hello(secret=SECRET, version=1, name="gate", label=b"sharelinkd relay"):
    def frame(challenge):
        nonce = os.urandom(16)
        proof = wire.proof(secret.encode(), label, challenge.nonce, nonce)
        return wire.encode(wire.TO_BUSINESS, "Hello", version=version, relay=name, nonce=nonce, proof=proof)
    return frame


@test("a wrong proof, another version and any frame but Hello end the connection without a Welcome")
async def strangers(t):
    hub = await t.hub()
    await refused(t, hub, hello("another secret, just as long as that"))
    await refused(t, hub, hello(""))
    await refused(t, hub, hello(label=b"sharelinkd business"))
    for version in (0, 2, 65535):
        await refused(t, hub, hello(version=version))
    for kind, fields in (("Ping", {"nonce": 1}), ("Subscribe", {"request": 1, "link": "a", "since": None, "address": "", "origin": ""}),
                         ("Audience", {"topic": 1, "pages": 1})):
        await refused(t, hub, lambda _: wire.encode(wire.TO_BUSINESS, kind, **fields))
    # A challenge belongs to one connection: another one's answer is no proof.
    other = await (await t.dial(hub)).read()
    await refused(t, hub, lambda _: hello()(other))
    await (await t.relay_end(hub)).barrier()


async def gets_in(t, hub, **options):
    """A relay that dials again where a flood took its place, as relays do."""
    async with asyncio.timeout(30 * SLACK):
        while True:
            try:
                relay = await t.relay_end(hub, **options)
                return await relay.barrier()
            except (OSError, EOFError, Mismatch):
                await asyncio.sleep(0.1)


async def ends_of(t, hub, connections):
    """Waits until the hub has ended these."""
    async def one(reader):
        try:
            while await reader.read(4096):
                pass
        except OSError:
            pass
    async with asyncio.timeout(40 * SLACK):
        await asyncio.gather(*(one(reader) for reader in connections))


@test("who sends nothing is closed, and does not keep a relay out", waits=8)
async def silent_strangers(t):
    hub = await t.hub()
    silent = [await t.dial(hub, f"s{n}") for n in range(100)]
    await gets_in(t, hub)
    await ends_of(t, hub, [relay.reader for relay in silent])


@test("by TLS, too, whose handshakes are bounded", waits=8)
async def silent_handshakes(t):
    made = certificates.certificates()
    hub = await t.hub(**{"uplink.tls": {"certificate_file": made["business.pem"], "key_file": made["business.key"]}})
    descriptors = f"/proc/{hub.process.pid}/fd"
    before = len(os.listdir(descriptors))
    silent = [await asyncio.open_connection("127.0.0.1", hub.uplink_port) for _ in range(1500)]
    await gets_in(t, hub, **client_tls())
    taken = len(os.listdir(descriptors)) - before
    assert taken < 300, f"{taken} descriptors for those that say nothing"
    await ends_of(t, hub, [reader for reader, _ in silent])
    for _, writer in silent:
        writer.transport.abort()


@test("a second Hello ends the connection")
async def second_hello(t):
    hub = await t.hub()
    relay = await t.relay_end(hub)
    relay.send("Hello", version=1, relay="gate", nonce=bytes(16), proof=bytes(32))
    await relay.end()


@test("two secrets are accepted during a change, and each relay is welcomed by its own")
async def two_secrets(t):
    old, new = secrets.token_hex(20), secrets.token_hex(20)
    hub = await t.hub(uplink={"secret": "", "secret_file": [write(t, "old", old), write(t, "new", new)]})
    first, second = await t.relay_end(hub, "one", old), await t.relay_end(hub, "two", new)
    await first.barrier()
    await second.barrier()
    # The old one is removed: who has it goes, the other stays.
    await hub.reload(uplink={"secret_file": ["new"]})
    await first.end()
    await second.barrier()
    await refused(t, hub, hello(old))


@test("a relay's own secret is good for its name and its workers' alone, until its row is removed")
async def own_secrets(t):
    own = secrets.token_hex(20)
    write(t, "gate-1", own)
    hub = await t.hub(uplink={"relays": [{"name": "gate-1", "secret_file": "gate-1"}]})
    relay, worker = await t.relay_end(hub, "gate-1", own), await t.relay_end(hub, "gate-1/2", own)
    other = await t.relay_end(hub, "gate-2")
    for name in ("gate-2", "gate-10", "gate-", "/gate-1"):
        relay_of_another = await t.dial(hub, name)
        try:
            await relay_of_another.shake_hands(own)
            await relay_of_another.end()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
    await relay.barrier()
    await worker.barrier()
    await hub.reload(uplink={"relays": []})
    await relay.end()
    await worker.end()
    await other.barrier()


@test("by TLS the uplink is the same, and a relay without a certificate of the CA is refused")
async def tls(t):
    made = certificates.certificates()
    hub = await t.hub(**{"uplink.tls": {"certificate_file": made["business.pem"], "key_file": made["business.key"], "ca_file": made["ca.pem"]}})
    options = client_tls()
    try:
        await t.relay_end(hub, **options)
        raise Mismatch("a relay without a certificate was welcome")
    except (OSError, EOFError):
        pass
    options["ssl"].load_cert_chain(made["box.pem"], made["box.key"])
    relay = await t.relay_end(hub, **options)
    ask = await relay.accepted(await hub.link("room"))
    n = await hub.message("room", {"text": "by TLS"})
    await relay.expect("Publish", topic=ask.topic, sequence=n)


# --- frames ---

@test("every frame that the protocol allows is understood, one byte at a time too")
async def understood(t):
    hub = await t.hub()
    relay = await t.relay_end(hub)
    relay.checks_answers = False  # the vectors' requests have numbers of their own
    frames = [octets(c["hex"]) for c in cases("to-business.txt") if not c["is"].startswith("Hello")]
    for frame in frames:
        relay.raw(frame)
    await relay.barrier()
    for frame in frames:
        for at in range(len(frame) if len(frame) < 200 else 0):
            relay.raw(frame[at:at + 1])
            if at % 8 == 0:
                await asyncio.sleep(0)
    await relay.barrier()
    assert relay.open


@test("what does not decode, an unknown frame too, ends that relay's connection and no other")
async def invalid(t):
    hub = await t.hub()
    other = await t.relay_end(hub, "other")
    chosen = [c for c in cases("to-business-invalid.txt") if "error" in c]
    assert len(chosen) > 20, chosen
    for case in chosen + [{"name": "variant 7", "hex": "02000000 07 00", "error": "variant"}]:
        relay = await t.relay_end(hub)
        relay.raw(octets(case["hex"].replace("02000000", "02 00 00 00")))
        if "truncated" in case["error"]:
            relay.send("Ping", nonce=1)  # so that a hub that wrongly waits for more bytes gets them
        try:
            await relay.end()
        except Mismatch as error:
            raise Mismatch(f"case {case['name']!r}: {error}") from None
    await other.barrier()


@test("extensions: the hub names its own to a relay that knows them, and to no other one")
async def extensions(t):
    hub = await t.hub()
    relay = await (await t.dial(hub)).shake_hands(extended=True)
    assert relay.extended, "the hub offers none"
    relay.send("Features", words="x-later away")
    assert "away" in (await relay.expect("Features")).words.split()
    await relay.barrier()
    plain = await t.relay_end(hub, "plain")
    await plain.barrier()
    plain.send("Features", words="away")
    await plain.end()


@test("each Ping is answered by a Pong with its nonce")
async def pings(t):
    hub = await t.hub()
    relay = await t.relay_end(hub)
    for nonce in (0, 1, 0x53484152, 2**32 - 1):
        relay.send("Ping", nonce=nonce)
    for nonce in (0, 1, 0x53484152, 2**32 - 1):
        assert (await relay.expect("Pong")).nonce == nonce


@test("a quiet relay is sent a Ping; one that never answers is given up, one that answers stays", waits=45)
async def silence(t):
    hub = await t.hub()
    dead, alive = await t.relay_end(hub, "dead"), await t.relay_end(hub, "alive")
    dead.answers_pings = False
    await dead.expect("Ping", 30 * SLACK)
    await dead.end(60 * SLACK)
    await alive.barrier()
    assert alive.seen("Ping")


# --- links and grants ---

@test("a signed link is accepted with what it says; others are denied, and so is one that was changed")
async def links(t):
    hub = await t.hub()
    relay = await t.relay_end(hub)
    ask = await relay.accepted(await hub.link("room", ttl_s=100, shared=True, page_messages=True, replay=7))
    assert (ask.shared, ask.page_messages, ask.replay) == (True, True, 7) and 1 <= ask.ttl_s <= 100, ask
    alone = await relay.accepted(await hub.link("room", shared=False, replay=0), address="192.0.2.7", origin="https://a.example")
    assert (alone.shared, alone.replay, alone.topic) == (False, 0, ask.topic), alone
    link = await hub.link("room")
    for wrong in (t.link(), "room", link[:-1], link + "A", ("B" if link[0] == "A" else "A") + link[1:], "~" * 128):
        assert await relay.denied(wrong), wrong
    # Another hub's signature.
    assert await relay.denied(await (await t.hub()).link("room"))


@test("a link whose time is over is denied", waits=3)
async def expired(t):
    hub = await t.hub()
    relay = await t.relay_end(hub)
    link = await hub.link("room", ttl_s=1)
    await asyncio.sleep(2.1)
    assert "expired" in await relay.denied(link)


@test("two topics have two numbers, two links of one topic have one, and two relays get the same bytes")
async def numbers(t):
    hub = await t.hub()
    one, two = await t.relay_end(hub, "one"), await t.relay_end(hub, "two")
    room, again = await one.accepted(await hub.link("room")), await one.accepted(await hub.link("room"))
    other, far = await one.accepted(await hub.link("other/room")), await two.accepted(await hub.link("room"))
    assert room.topic == again.topic == far.topic != other.topic
    assert room.epoch == far.epoch
    n = await hub.message("room", "for both")
    assert repr(await one.expect("Publish", track="messages")).split(" at=")[0] == repr(await two.expect("Publish", track="messages")).split(" at=")[0]
    assert len(one.seen("Publish", sequence=n)) == 1, "once, however many links"


@test("without an answer of the webhook there is neither Accept nor Deny, and later requests are answered")
async def unanswered(t):
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    write(t, "webhook", "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=")
    hub = await t.hub(links={"admission": "signed or webhook"}, webhook={
        "url": f"http://127.0.0.1:{port}/hook", "secret_files": ["webhook"], "timeout_s": 1, "events": False})
    relay = await t.relay_end(hub)
    for _ in range(20):
        relay.subscribe(t.link())
    await relay.accepted(await hub.link("room"))
    await relay.none("Deny", 3)
    await relay.barrier()
    silent.close()


# --- what a relay gets ---

TRICKY = [b'{"text":"\\u00e9\\ud83d\\ude00 \xc3\xa9","n":1e400,"m":0.10,"a":[1, 2 ,3]}', b'"a string"', b"null", b"-0.0", b'{"a":1,"a":2}']


@test("a publication's bytes are those of the body, without the white space around it")
async def verbatim(t):
    hub = await t.hub()
    relay = await t.relay_end(hub)
    ask = await relay.accepted(await hub.link("room"))
    for data in TRICKY:
        n = await hub.message("room", b" \n" + data + b"\t ")
        assert (await relay.expect("Publish", topic=ask.topic, sequence=n, track="messages")).data == data
        n = await hub.state("room", data + b"\r\n")
        assert (await relay.expect("Publish", topic=ask.topic, sequence=n, track="state")).data == data


@test("a relay that comes late gets the newest state and the messages that are kept, then all that follows")
async def late(t):
    hub = await t.hub()
    for n in range(1, 41):
        assert await hub.message("room", {"n": n}) == n
        await hub.state("room", {"n": n})
    relay = await t.relay_end(hub)
    ask = await relay.accepted(await hub.link("room"))
    assert [n for n, _ in await relay.messages(ask.topic, 40)] == list(range(1, 41))
    assert (await relay.expect("Publish", track="state")).sequence == 40
    n = await hub.message("room", {"n": 41})
    assert await relay.messages(ask.topic, n) == [(41, b'{"n": 41}')]
    assert len(relay.seen("Publish", track="state")) == 1


@test("a topic that nobody published to is accepted, and its first publication has sequence 1")
async def empty(t):
    hub = await t.hub()
    relay = await t.relay_end(hub)
    ask = await relay.accepted(await hub.link("room"))
    assert ask.epoch
    await relay.none("Publish")
    assert await hub.message("room", "first") == 1
    await relay.expect("Publish", topic=ask.topic, sequence=1)
    assert await hub.epoch("room") == ask.epoch


@test("a relay that names the running epoch gets each track from its own place on")
async def resume(t):
    hub = await t.hub()
    link = await hub.link("room")
    for n in range(1, 21):
        await hub.message("room", {"n": n})
    await hub.state("room", "first")
    epoch = await hub.epoch("room")
    for place, first in ((15, 15), (21, None), (20, 20), (1, 1), (0, 1), (500, 1)):
        relay = await t.relay_end(hub, f"since{place}")
        ask = await relay.accepted(link, (epoch, [2, place, 0, 0]))
        assert ask.epoch == epoch
        await relay.barrier()
        await relay.none("Publish", 0.2, track="state")
        got = [f.sequence for f in relay.seen("Publish", topic=ask.topic, track="messages")]
        assert got == (list(range(first, 21)) if first else []), (place, got)
    # In another epoch it is a late one, and gets the state again.
    relay = await t.relay_end(hub, "old")
    ask = await relay.accepted(link, (epoch - 1, [2, 15, 0, 0]))
    assert [n for n, _ in await relay.messages(ask.topic, 20)] == list(range(1, 21))
    await relay.expect("Publish", track="state", sequence=1)


@test("a relay that is further behind than what is kept gets what is kept, in order, behind a gap")
async def gap(t):
    hub = await t.hub(topics={"messages": 20})
    relay = await t.relay_end(hub, "first")
    link = await hub.link("room")
    ask = await relay.accepted(link)
    await hub.message("room", 1)
    await relay.messages(ask.topic, 1)
    relay.drop()
    for n in range(2, 101):
        await hub.message("room", n)
    again = await t.relay_end(hub, "again")
    ask = await again.accepted(link, (ask.epoch, [0, 2, 0, 0]))
    got = [n for n, _ in await again.messages(ask.topic, 100)]
    assert got[0] > 2 and got == list(range(got[0], 101)) and 20 <= len(got) <= 99, got


@test("a relay that does not read costs others nothing, then gets the newest behind a gap", timeout=120)
async def slow(t):
    hub = await t.hub(topics={"messages": 100, "messages_kib": 1024})
    link = await hub.link("room")
    slow, fast = await t.relay_end(hub, "slow", receive_buffer=4096), await t.relay_end(hub, "fast")
    ask = await slow.accepted(link)
    await fast.accepted(link)
    slow.reading.clear()
    text, before, client = "x" * 32_000, hub.memory(), Client(hub)
    for n in range(1, 501):
        status, answer = await client.message("room", {"n": n, "text": text})
        assert (status, answer["sequence"]) == (200, n), answer
        if n % 10 == 0:  # never further behind than what is kept
            slow.send("Ping", nonce=n)  # a sign of life
            await fast.messages(ask.topic, n)
    client.close()
    assert [f.sequence for f in fast.seen("Publish", track="messages")] == list(range(1, 501))
    grown = hub.memory() - before
    assert grown < 64 << 20, f"{grown} bytes more, after 16 MB of messages"
    slow.reading.set()
    got = [n for n, _ in await slow.messages(ask.topic, 500, 30 * SLACK)]
    holes = sum(after != before + 1 for before, after in zip(got, got[1:]))
    assert got[0] == 1 and holes >= 1 and len(got) < 500, (len(got), holes, got[:5])
    await slow.barrier()


@test("a relay that asks and never reads is cut off, and others are served", timeout=120)
async def unread(t):
    hub = await t.hub()
    greedy, other = await t.relay_end(hub, "greedy", receive_buffer=4096), await t.relay_end(hub, "other")
    greedy.reading.clear()
    # Long answers: more than the kernel keeps of them.
    link = await hub.link("gone")
    await hub.api("POST", "/v1/revoke", {"link": link, "reason": "x" * 256})
    before = hub.memory()
    for _ in range(3000):
        for _ in range(50):
            if not greedy.writer.transport.is_closing():
                greedy.subscribe(link)
        try:
            await asyncio.wait_for(greedy.writer.drain(), 20 * SLACK)
        except (asyncio.TimeoutError, ConnectionError):
            break
        if greedy.writer.transport.is_closing() or "reads too slowly" in hub.log():
            break
    await hub.logs("reads too slowly", 40)
    assert hub.memory() - before < 64 << 20
    await other.barrier()
    await other.accepted(await hub.link("room"))


# --- ends ---

@test("after Unsubscribe a topic's publications end, and another Subscribe goes on from its place")
async def unsubscribe(t):
    hub = await t.hub()
    relay = await t.relay_end(hub)
    link, other = await hub.link("room"), await relay.accepted(await hub.link("other"))
    ask = await relay.accepted(link)
    await hub.message("room", 1)
    await relay.messages(ask.topic, 1)
    relay.send("Unsubscribe", topic=ask.topic)
    relay.send("Unsubscribe", topic=A_TOPIC)
    await relay.barrier()
    await hub.message("room", 2)
    await hub.message("other", 1)
    await relay.messages(other.topic, 1)
    await relay.none("Publish", topic=ask.topic)
    again = await relay.accepted(link, (ask.epoch, [0, 2, 0, 0]))
    assert (again.topic, again.epoch) == (ask.topic, ask.epoch)
    assert [n for n, _ in await relay.messages(ask.topic, 2)] == [2]


async def audience(hub, topic, **expected):
    until = asyncio.get_running_loop().time() + 15 * SLACK
    while True:
        said = (await hub.api("GET", f"/v1/topics/{topic}"))["audience"]
        rows = {row["relay"]: row["pages"] for row in said["relays"]}
        if said["pages"] == sum(expected.values()) and {k: v for k, v in rows.items() if v} == {k: v for k, v in expected.items() if v}:
            return
        if asyncio.get_running_loop().time() > until:
            raise Mismatch(f"expected the audience {expected}, saw {said}")
        await asyncio.sleep(0.02)


@test("the audience is the sum of what relays say of topics that they hold, and a lost relay's pages don't count")
async def audiences(t):
    hub = await t.hub()
    one, two = await t.relay_end(hub, "one"), await t.relay_end(hub, "two")
    link = await hub.link("room")
    ask = await one.accepted(link)
    await two.accepted(link)
    for relay, pages in ((one, 3), (two, 4)):
        relay.send("Audience", topic=ask.topic, pages=pages)
        relay.send("Audience", topic=A_TOPIC, pages=1000)
    await audience(hub, "room", one=3, two=4)
    one.send("Audience", topic=ask.topic, pages=0)
    await audience(hub, "room", one=0, two=4)
    two.drop()
    await audience(hub, "room")
    one.send("Audience", topic=ask.topic, pages=2**32 - 1)
    await audience(hub, "room", one=2**32 - 1)
    one.send("Unsubscribe", topic=ask.topic)
    await audience(hub, "room")


@test("a revoked link is taken from every relay, and denied with the reason from then on")
async def revoke(t):
    hub = await t.hub()
    one, two = await t.relay_end(hub, "one"), await t.relay_end(hub, "two")
    link, other = await hub.link("room"), await hub.link("room")
    await one.accepted(link)
    await two.accepted(link)
    await one.accepted(other)
    await hub.api("POST", "/v1/revoke", {"link": link, "reason": "shared too widely"})
    for relay in (one, two):
        await relay.expect("Revoke", link=link, reason="shared too widely")
        assert await relay.denied(link) == "shared too widely"
        assert await relay.denied(link, address="192.0.2.1", origin="") == "shared too widely"
    assert await (await t.relay_end(hub, "three")).denied(link) == "shared too widely"
    await two.accepted(other)


@test("a kick goes to the relay that has the page, and names it")
async def kick(t):
    hub = await t.hub()
    one, two = await t.relay_end(hub, "one"), await t.relay_end(hub, "two")
    rows = {r["name"]: r["connection"] for r in (await hub.api("GET", "/v1/fleet"))["relays"]}
    await hub.api("POST", "/v1/kick", {"page": f"{rows['two']}.41@two", "reason": "please be kind"}, status=204)
    await two.expect("Kick", page=41, reason="please be kind")
    await one.none("Kick")
    for wrong in (f"{rows['one']}.41@two", "999.41@two", "1.1@three"):
        await hub.api("POST", "/v1/kick", {"page": wrong}, status=404)
    await two.none("Kick", 0.2)


@test("an ended topic is ended on every relay, takes no publication and no page until it is opened, in the same epoch")
async def end(t):
    hub = await t.hub()
    one, two = await t.relay_end(hub, "one"), await t.relay_end(hub, "two")
    link = await hub.link("room")
    ask = await one.accepted(link)
    await two.accepted(link)
    await hub.message("room", 1)
    await hub.api("DELETE", "/v1/topics/room", {"reason": "see you tomorrow"}, status=204)
    for relay in (one, two):
        await relay.expect("End", topic=ask.topic, reason="see you tomorrow")
        assert await relay.denied(link) == "see you tomorrow"
    await hub.api("POST", "/v1/topics/room/messages", "no", status=409)
    await hub.api("POST", "/v1/topics/room/open", status=204)
    again = await one.accepted(link, (ask.epoch, [0, 2, 0, 0]))
    assert (again.topic, again.epoch) == (ask.topic, ask.epoch)
    assert await hub.message("room", 2) == 2
    await one.expect("Publish", topic=ask.topic, sequence=2)


@test("a message that was taken down is a tombstone for a late relay, and a message for those that are there")
async def removed(t):
    hub = await t.hub()
    there = await t.relay_end(hub, "there")
    link = await hub.link("room")
    ask = await there.accepted(link)
    for n in (1, 2, 3):
        await hub.message("room", {"secret": n})
    await hub.api("DELETE", "/v1/topics/room/messages/2")
    said = b'{"kind":"removed","sequence":2}'
    assert (await there.messages(ask.topic, 4))[3] == (4, said)
    late = await t.relay_end(hub, "late")
    await late.accepted(link)
    assert await late.messages(ask.topic, 4) == [(1, b'{"secret": 1}'), (2, said), (3, b'{"secret": 3}'), (4, said)]


@test("a hub that starts again begins a new epoch from sequence 1, and an old place counts for nothing")
async def epochs(t):
    hub = await t.hub()
    link = await hub.link("room")
    for n in range(1, 6):
        await hub.message("room", n)
    relay = await t.relay_end(hub)
    ask = await relay.accepted(link)
    hub.signal(signal.SIGKILL)
    await hub.exit()
    await relay.end()
    await hub.start()
    assert await hub.message("room", "anew") == 1
    relay = await t.relay_end(hub)
    again = await relay.accepted(link, (ask.epoch, [0, 6, 0, 0]))
    assert again.epoch != ask.epoch
    assert await relay.messages(again.topic, 1) == [(1, b'"anew"')]


@test("a hub that is asked to end has sent relays all that it acknowledged, and exits with 0")
async def ends(t):
    hub = await t.hub(topics={"messages": 1000, "messages_kib": 32_768})
    # A relay that came and went before is not the last one.
    (await t.relay_end(hub, "gone")).drop()
    async with asyncio.timeout(10 * SLACK):
        while (await hub.api("GET", "/v1/fleet"))["relays"]:
            await asyncio.sleep(0.01)
    slow, fast = await t.relay_end(hub, "slow"), await t.relay_end(hub, "fast")
    link = await hub.link("room")
    asks = [await relay.accepted(link) for relay in (slow, fast)]
    # It reads again when the hub is at its end: until then far more waits for it than sockets hold.
    slow.reading.clear()
    acknowledged = []

    async def publish(client):
        while True:
            status, answer = await client.message("room", {"text": "x" * 32_000})
            if status == 200:
                acknowledged.append(answer["sequence"])
    publishers = [asyncio.ensure_future(publish(Client(hub))) for _ in range(16)]
    async with asyncio.timeout(60 * SLACK):
        while len(acknowledged) < 250:
            await asyncio.sleep(0.01)
    hub.signal(signal.SIGTERM)
    await asyncio.gather(*publishers, return_exceptions=True)
    slow.reading.set()
    assert await hub.exit() == 0
    for relay, ask in zip((slow, fast), asks):
        await relay.end()
        got = {f.sequence for f in relay.seen("Publish", topic=ask.topic)}
        lost = sorted(set(acknowledged) - got)
        assert not lost, f"{relay.name}: {len(lost)} of {len(acknowledged)}, {lost[:5]}; the last that came is {max(got)}"


# --- the webhook ---

@test("the webhook decides once for a shared link, page by page for another, and a no is a Deny with its reason")
async def webhook(t):
    def verdict(link, page):
        if link == "good":
            return {"accept": True, "topic": "room", "replay": 9, "ttl_s": 60, "page_messages": True}
        if link == "bad":
            return {"accept": False, "reason": "it is over"}
        if page and page["address"] != "192.0.2.1":
            return {"accept": False, "reason": "not you"}
        return {"accept": True, "topic": "room", "shared": False}
    hub, receiver = await with_webhook(t, verdict)
    one, two = await t.relay_end(hub, "one"), await t.relay_end(hub, "two")
    for relay in (one, two):
        ask = await relay.accepted("good")
        assert (ask.shared, ask.replay, ask.page_messages) == (True, 9, True) and 1 <= ask.ttl_s <= 60, ask
        assert await relay.denied("bad") == "it is over"
    assert receiver.asked == [("good", None), ("bad", None)], receiver.asked
    assert not (await one.accepted("alone")).shared
    assert not (await one.accepted("alone", address="192.0.2.1", origin="https://a.example")).shared
    assert await one.denied("alone", address="192.0.2.2", origin="") == "not you"
    assert receiver.asked[-2] == ("alone", {"address": "192.0.2.1", "origin": "https://a.example"}), receiver.asked


@test("what a page sends comes to the webhook with the topic's name and an id that kicks the page")
async def page_messages(t):
    hub, receiver = await with_webhook(t, lambda link, page: {"accept": True, "topic": "room", "page_messages": True})
    relay = await t.relay_end(hub, "hall")
    ask = await relay.accepted("a-link")
    relay.send("Audience", topic=ask.topic, pages=1)
    relay.send("PageMessage", topic=A_TOPIC, page=1, data="of no topic")
    relay.send("PageMessage", topic=ask.topic, page=77, data="Grüße \0 \"")
    event = await receiver.event("page.message")
    assert (event["topic"], event["data"]) == ("room", "Grüße \0 \""), event
    assert (await receiver.event("topic.occupied"))["topic"] == "room"
    await hub.api("POST", "/v1/kick", {"page": event["page"]}, status=204)
    await relay.expect("Kick", page=77)
