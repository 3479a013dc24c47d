"""Dialling, the handshake, and keeping the uplink alive."""
import asyncio
import hashlib
import os
import signal
import time

import daemon as daemon_module
import wire
from harness import PORTS, test
from inbox import PATIENCE, SLACK, Mismatch

PLAIN = True


async def closed_by_relay(reader, timeout=PATIENCE):
    """What the relay sent before it closed."""
    try:
        return await asyncio.wait_for(reader.read(), timeout)
    except ConnectionError:
        return b""
    except asyncio.TimeoutError:
        raise Mismatch(f"expected the relay to close the connection within {timeout:.0f} s") from None


@test("with an empty secret both proofs are HMACs with an empty key")
async def empty_secret(t):
    daemon, business, up = await t.relay(secret="")
    page = await t.joined(daemon, up, t.link())
    assert page.topics


@test("with a secret the relay proves itself and believes the right proof")
async def secret(t):
    business = await t.business(secret="秘密 secret".encode())
    daemon = await t.daemon([business.address], secret="秘密 secret").start()
    up = await business.uplink()
    await t.joined(daemon, up, t.link())


@test("the secret may come from a file")
async def secret_file(t):
    with open(t.path("secret"), "w") as file:
        file.write("from a file")
    os.chmod(t.path("secret"), 0o600)
    business = await t.business(secret=b"from a file")
    await t.daemon([business.address], secret_file=t.path("secret")).start()
    await business.uplink()


async def by_hand(t, secret="s"):
    business = await t.business(secret=b"s")
    business.by_hand = True
    daemon = await t.daemon([business.address], secret=secret).start()
    reader, writer = await business.connections.next("the relay to dial", PATIENCE)
    return daemon, business, reader, writer


@test("the relay closes where the business server's proof is wrong")
async def wrong_proof(t):
    daemon, business, reader, writer = await by_hand(t)
    nonce, hello = await business.challenge(reader, writer)
    business.welcome(writer, nonce, hello, proof=bytes(32))
    assert await closed_by_relay(reader) == b"", "the relay went on"


@test("the relay closes where the business server proves another secret")
async def other_secret(t):
    daemon, business, reader, writer = await by_hand(t, secret="t")
    nonce, hello = await business.challenge(reader, writer)
    assert hello.proof == wire.proof(b"t", b"sharelinkd relay", nonce, hello.nonce)
    business.welcome(writer, nonce, hello)
    assert await closed_by_relay(reader) == b"", "the relay went on"


@test("a business server that leaves when it has the relay's proof: the log asks for the secrets, else for the port")
async def leaves(t):
    daemon, business, reader, writer = await by_hand(t)
    await business.challenge(reader, writer)  # and the relay's Hello
    writer.close()
    await daemon.logs("(is uplink.secret the same on both sides?)")
    reader, writer = await business.connections.take(lambda _: True, "a connection", 20 * SLACK)
    writer.write(b"SSH-2.0-OpenSSH")
    await daemon.logs("(is that the business server's port?)")


@test("the relay's own proof sent back to it is not believed")
async def reflected(t):
    daemon, business, reader, writer = await by_hand(t)
    nonce, hello = await business.challenge(reader, writer)
    business.welcome(writer, nonce, hello, proof=hello.proof)
    assert await closed_by_relay(reader) == b""


@test("the relay closes where the version of the challenge is wrong")
async def wrong_version(t):
    daemon, business, reader, writer = await by_hand(t)
    writer.write(wire.encode(wire.TO_RELAY, "Challenge", version=2, nonce=bytes(16)))
    await closed_by_relay(reader)


@test("the relay closes where the version of the welcome is wrong")
async def wrong_welcome(t):
    daemon, business, reader, writer = await by_hand(t)
    nonce, hello = await business.challenge(reader, writer)
    business.welcome(writer, nonce, hello, version=2)
    assert await closed_by_relay(reader) == b"", "the relay went on"


@test("after a failed handshake the relay tries again and serves")
async def tries_again(t):
    daemon, business, reader, writer = await by_hand(t)
    nonce, hello = await business.challenge(reader, writer)
    business.by_hand = False
    business.welcome(writer, nonce, hello, proof=bytes(32))
    up = await business.uplink()
    assert up.hello.nonce != hello.nonce, "a nonce was used twice"
    await t.joined(daemon, up, t.link())


@test("no request is sent before the welcome, and waiting ones are sent then")
async def waits_for_welcome(t):
    business = await t.business()
    business.gate.clear()
    daemon = await t.daemon([business.address]).start()
    page, link = await t.page(daemon), t.link()
    id = page.subscribe(link)
    await asyncio.sleep(0.3)
    business.gate.set()
    up = await business.uplink()
    # A relay may have denied it with a retry, or may have kept the page waiting.
    denied = [e for e in page.events.items if e["type"] == "denied"]
    if denied:
        assert "retry" in denied[0], denied
        page.events.items.clear()
        id = page.subscribe(link)
    up.accept(await up.expect("Subscribe", link=link))
    await page.until("subscribed", id=id)


@test("each configured address is tried in turn")
async def failover(t):
    business = await t.business()
    daemon = await t.daemon([f"127.0.0.1:{PORTS.take()}", f"127.0.0.1:{PORTS.take()}", business.address]).start()
    await t.joined(daemon, await business.uplink(), t.link())


@test("where one address is lost the next one is tried")
async def failover_later(t):
    first, second = await t.business(), await t.business()
    daemon = await t.daemon([first.address, second.address]).start()
    up, link = await first.uplink(), t.link()
    page = await t.joined(daemon, up, link)
    first.stop()
    up = await second.uplink()
    up.accept(await up.expect("Subscribe", link=link))
    await page.until("uplink", up=True)


@test("the transport may be a Unix socket")
async def unix(t):
    business = await t.business(unix=t.path("business.sock"), secret=b"x")
    daemon = await t.daemon([business.address], secret="x").start()
    up = await business.uplink()
    page = await t.joined(daemon, up, t.link())
    up.message(7, 1)
    await page.expect("message", sequence=1)


@test("a Ping is answered by a Pong with its nonce")
async def pong(t):
    daemon, business, up = await t.relay()
    for nonce in (0, 1, 127, 128, 2**32 - 1):
        up.send("Ping", nonce=nonce)
        await up.expect("Pong", nonce=nonce)


@test("the relay pings after 10 s without a frame", waits=True)
async def ping(t):
    daemon, business, up = await t.relay()
    quiet_since = time.monotonic()
    await up.barrier()
    await up.expect("Ping", timeout=15 * SLACK)
    assert time.monotonic() - quiet_since > 9, "the ping came too early"
    await up.expect("Ping", timeout=15 * SLACK)
    assert up.open


@test("no frame for 30 s is a dead uplink; an uplink that answers pings lives", waits=36)
async def dead(t):
    daemon, business, up = await t.relay()
    living_daemon, living_business, living = await t.relay()
    page = await t.joined(daemon, up, t.link())
    quiet_since = time.monotonic()
    await up.barrier()
    up.answers_pings = False
    await up.end(timeout=38 * SLACK)
    took = time.monotonic() - quiet_since
    assert took > 27, f"given up after {took:.1f} s"
    await page.until("uplink", up=False)
    await business.uplink()
    await asyncio.sleep(max(0, 36 - (time.monotonic() - quiet_since)))
    assert living.open, "an uplink that answered its pings was given up"


@test("dead_after_s = 2: pinged first, dead after two seconds; a reload with 4 holds for the connection that is up")
async def dead_soon(t):
    daemon, business, up = await t.relay(dead_after_s=2)
    await up.expect("Ping")
    silent_since = time.monotonic()
    await up.barrier()
    up.answers_pings = False
    await up.end(timeout=10 * SLACK)
    assert time.monotonic() - silent_since > 2
    await daemon.logs("timed out: nothing received from it for 2 s")
    up = await business.uplink()
    daemon.sections["uplink"].update(dead_after_s=4)
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    daemon.signal(signal.SIGHUP)
    await daemon.logs("configuration reloaded")
    up.answers_pings = False
    await up.end(timeout=20 * SLACK)
    await daemon.logs("timed out: nothing received from it for 4 s")


@test("order = \"spread\" ranks the entries by a hash of the relay's name, however they are listed")
async def spread(t):
    businesses = [await t.business() for _ in range(3)]

    def rank(name):
        return sorted(businesses, key=lambda one: hashlib.sha256(f"{name}\0{one.address}".encode()).digest(), reverse=True)

    for number in range(6):
        name = f"box-{number}"
        first, second, _ = rank(name)
        daemon = await t.daemon(t.random.sample([one.address for one in businesses], 3), name=name, order="spread").start()
        up = await first.uplink()
        assert up.hello.relay == name
        if number == 0:
            first.stop()
            assert (await second.uplink()).hello.relay == name
            await first.start()
        await daemon.end()


@test("an entry may be a name: localhost needs no consent and no name server")
async def localhost(t):
    business = await t.business()
    daemon = await t.daemon([f"localhost:{business.port}"]).start()
    await t.joined(daemon, await business.uplink(), t.link())


@test("a name that does not resolve is a condition, and the other entries are tried", waits=25)
async def unresolved(t):
    business = await t.business()
    daemon = t.daemon(["business.invalid:7400", business.address], plaintext=True, secret="s")
    business.secret = b"s"
    daemon.sections["console"] = {"socket": t.path("console.sock")}
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await daemon.start()
    await t.joined(daemon, await business.uplink(timeout=30 * SLACK), t.link())
    await daemon.logs("the business server at business.invalid:7400: its name does not resolve: ")
    status = await asyncio.create_subprocess_exec(
        daemon_module.binary(), "status", "--socket", t.path("console.sock"), stdout=asyncio.subprocess.PIPE)
    said = (await status.communicate())[0].decode()
    assert "[U2] business.invalid:7400 does not resolve: " in said and status.returncode == 1, said


@test("the relay keeps dialling while nothing listens", waits=True)
async def keeps_trying(t):
    business = await t.business()
    business.stop()
    daemon = await t.daemon([business.address]).start()
    await asyncio.sleep(1.5)
    await business.start()
    await t.joined(daemon, await business.uplink(timeout=20 * SLACK), t.link())
