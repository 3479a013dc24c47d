"""TLS on the uplink: whom the relay trusts, whom the business server trusts, and the words for everything else."""
import asyncio
import pathlib
import re
import ssl

import certificates as pki
import daemon as daemon_module
from harness import test
from inbox import SLACK
from test_reload import reload

PLAIN = True  # the pages are not what this is about


async def tls(t, certificate, clients=None, secret=b"s", **keys):
    """A business server with this certificate, and a daemon that isn't started, with these keys in [uplink.tls]."""
    made = pki.certificates()
    business = await t.business(secret=secret, tls=made.server(certificate, clients))
    daemon = t.daemon([business.address], secret=secret.decode())
    daemon.sections["uplink.tls"] = keys
    daemon.sections["console"] = {"socket": t.path(f"console{len(t.daemons)}.sock")}
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    return made, business, daemon


async def console(daemon, *words):
    process = await asyncio.create_subprocess_exec(
        daemon_module.binary(), "console", "--socket", daemon.sections["console"]["socket"], *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    return (await process.communicate())[0].decode()


def files(made, ca="ca", name="business.example", own="box"):
    return {"ca_file": made[f"{ca}.pem"], "name": name, "certificate_file": made[f"{own}.pem"], "key_file": made[f"{own}.key"]}


@test("both sides prove themselves by certificates of a private CA; the console shows both keys as openssl prints them")
async def mutual(t):
    made, business, daemon = await tls(t, "business", "ca", **files(pki.certificates()))
    await daemon.start()
    up = await business.uplink()
    page = await t.joined(daemon, up, t.link())
    up.state(7, 1, '"' + "x" * 900_000 + '"')
    up.message(7, *range(1, 400))
    await page.until("message", sequence=399)
    shown = await console(daemon, "uplink")
    assert f"our key    {made.pin('box')}\n" in shown and f"its key    {made.pin('business')}\n" in shown, shown
    assert re.search(r"^TLS +TLS13_AES_256_GCM_SHA384$", shown, re.M), shown
    await daemon.logs(f"its key is {made.pin('business')}")


@test("a pin is enough for a certificate that nobody vouches for; beyond the machine neither needs plaintext = true")
async def pinned(t):
    made, business, daemon = await tls(t, "alone", pin=pki.certificates().pin("alone", "-c"))
    await daemon.start()
    await t.joined(daemon, await business.uplink(), t.link())
    check = t.daemon(["10.0.0.9:7400", "business.example:7400"], secret="s" * 16)
    for keys in ({"pin": made.pin("alone")}, {"ca_file": made["ca.pem"], "name": "business.example"}):
        check.sections["uplink.tls"] = keys
        check.config.write_text(daemon_module.toml(check.sections))
        process = await asyncio.create_subprocess_exec(
            daemon_module.binary(), "check", "--config", str(check.config), stdout=asyncio.subprocess.PIPE)
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0 and "plaintext = false" in said, said


async def refused(t, certificate, words, clients=None, **keys):
    made, business, daemon = await tls(t, certificate, clients, **keys)
    await daemon.start()
    await daemon.logs(words)
    shown = " ".join((await console(daemon, "uplink")).split())
    assert words[:60] in shown and "[U1]" in shown, shown
    assert not business.uplinks.items, "the relay has said hello to a server that it does not trust"


@test("a wrong CA, another name, another key, an expired certificate, a server without TLS: each has its words in log and console")
async def errors(t):
    made = pki.certificates()
    ca, name = {"ca_file": made["ca.pem"]}, {"name": "business.example"}
    await refused(t, "stranger", "TLS failed: its certificate is not from a CA in uplink.tls.ca_file", **ca, **name)
    await refused(t, "elsewhere", "TLS failed: its certificate is for elsewhere.example, and business.example is expected", **ca, **name)
    pin = made.pin("business")
    await refused(t, "business", f"TLS failed: its key has the pin {pin}, which is not in uplink.tls.pin", pin=made.pin("alone"))
    await refused(t, "business", f"TLS failed: its key has the pin {pin}", **ca, **name, pin=made.pin("alone"))
    await refused(t, "stranger", "TLS failed: its certificate is not from a CA", **ca, **name, pin=made.pin("stranger"))
    await refused(t, "old", "TLS failed: its certificate expired on Mon, 02 Mar 2020", **ca, **name)
    business = await t.business(secret=b"s", tls=False)
    daemon = t.daemon([business.address], secret="s")
    daemon.sections["uplink.tls"] = {"pin": pin}
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await daemon.start()
    await daemon.logs("TLS failed: it does not speak TLS (is it configured there?)")


@test("a first entry whose certificate has expired is not returned to, and the log says why; a name that nobody needs any more is no condition", waits=60)
async def not_returned(t):
    made = pki.certificates()
    first = await t.business(secret=b"s", tls=made.server("old"))
    second = await t.business(secret=b"s", tls=made.server("business"))
    daemon = t.daemon([first.address, "business.invalid:7400", second.address], secret="s")
    daemon.sections["uplink.tls"] = {"ca_file": made["ca.pem"], "name": "business.example"}
    daemon.sections["console"] = {"socket": t.path("console.sock")}
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await daemon.start()
    await daemon.logs("the business server at business.invalid:7400: its name does not resolve: ", 40)
    await t.joined(daemon, await second.uplink(timeout=40 * SLACK), t.link())
    status = await console(daemon, "status")
    assert "[U" not in status, status
    await daemon.logs(f"the business server at {first.address} can't be returned to: TLS failed: its certificate expired on", 60)
    assert not first.uplinks.items, "the relay has said hello to a server that it does not trust"


@test("a business server that demands the relay's certificate: without one, or with a stranger's, the log says so")
async def client_refused(t):
    made = pki.certificates()
    keys = {"ca_file": made["ca.pem"], "name": "business.example"}
    # asyncio closes without the alert. With one the log is clearer: src/daemon/tls/client.rs.
    await refused(t, "business", "it closed the connection (does it demand a certificate of the relay, which has none?)", "ca", **keys)
    await refused(t, "business", "it closed the connection (does it trust the CA of the relay's certificate?)", "other", **files(made))


@test("renewed files count from the next dial, other keys after a reload; a reload with files that can't be used changes nothing")
async def renewed(t):
    made, business, daemon = await tls(t, "business", "ca", **files(pki.certificates()))
    own = {key: t.path(key) for key in ("certificate_file", "key_file")}

    def install(name):
        for key, path in own.items():
            pathlib.Path(path).write_text(pathlib.Path(made[f"{name}.{'pem' if key[0] == 'c' else 'key'}"]).read_text())
    install("box")
    daemon.sections["uplink.tls"].update(own)
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await daemon.start()
    up = await business.uplink()
    assert up.writer.get_extra_info("peercert")["subject"] == ((("commonName", "box"),),)
    made.issue("box2", "ca", "extendedKeyUsage=clientAuth")
    install("box2")
    up.drop()
    up = await business.uplink(timeout=20 * SLACK)
    assert up.writer.get_extra_info("peercert")["subject"] == ((("commonName", "box2"),),)
    daemon.sections["uplink.tls"]["pin"] = made.pin("alone")
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await reload(daemon, "configuration reloaded")
    await up.barrier()
    up.drop()
    await daemon.logs("which is not in uplink.tls.pin")
    daemon.sections["uplink.tls"].update(pin=made.pin("business"), ca_file=made["ca.key"])
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await reload(daemon, "the configuration stays as it was: 1 error(s) in the new one")
    assert "ca.key has no certificate" in daemon.log()
    daemon.sections["uplink.tls"].update(ca_file=made["ca.pem"])
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await reload(daemon, "configuration reloaded")
    await t.joined(daemon, await business.uplink(timeout=40 * SLACK), t.link())


@test("a clock that was never set: a certificate that begins later is accepted, an old one is not, and a condition says so")
async def clock_floor(t):
    made = pki.certificates()
    keys = {"ca_file": made["ca.pem"], "name": "business.example"}
    for certificate, is_good in (("new", True), ("business", True), ("old", False)):
        _, business, daemon = await tls(t, certificate, **keys)
        daemon.environment = pki.fake_clock("@1970-01-01 00:01:00")
        await daemon.start()
        if is_good:
            await t.joined(daemon, await business.uplink(), t.link())
        else:
            await daemon.logs("TLS failed: its certificate expired on Mon, 02 Mar 2020")
        shown = await console(daemon, "uplink")
        assert "[U3] the clock was never set" in shown, shown
    # With a clock that is right.
    _, business, daemon = await tls(t, "new", **keys)
    await daemon.start()
    await daemon.logs("TLS failed: its certificate begins on Sun, 01 Jan 2090")
    assert "[U3]" not in await console(daemon, "uplink")


@test("the manual's ten lines of openssl make a CA, a business server's certificate and a relay's that work together")
async def manual(t):
    text = (daemon_module.ROOT / "docs" / "tls.md").read_text().split("\n## Uplink\n")[1]
    lines = text.split("```sh\n")[1].split("```")[0]
    process = await asyncio.create_subprocess_exec("sh", "-ec", lines, cwd=t.directory, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(t.path("business.pem"), t.path("business.key"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(t.path("ca.pem"))
    business = await t.business(secret=b"s", tls=context)
    daemon = t.daemon([business.address], secret="s")
    keys = text.split("[uplink.tls]\n")[1].split("```")[0].replace("#name", "name").replace('"tls/', '"')
    daemon.config.write_text(daemon_module.toml({**daemon.sections, "uplink.tls": {}}).replace("[uplink.tls]", "[uplink.tls]\n" + keys))
    await daemon.start()
    await t.joined(daemon, await business.uplink(), t.link())


@test("a certificate's name is the entry's where none is configured; a large frame that drips as TLS records is a sign of life")
async def names_and_drips(t):
    made = pki.certificates()
    made.issue("local", "ca", "subjectAltName=DNS:localhost")
    business = await t.business(secret=b"s", tls=made.server("local"))
    daemon = t.daemon([f"localhost:{business.port}"], secret="s", dead_after_s=2)
    daemon.sections["uplink.tls"] = {"ca_file": made["ca.pem"]}
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await daemon.start()
    up = await business.uplink()
    page = await t.joined(daemon, up, t.link())
    up.answers_pings = False  # nothing may come between the pieces
    # One frame in pieces, for longer than the uplink may be silent.
    import wire
    frame = wire.encode(wire.TO_RELAY, "Publish", topic=7, track="messages", sequence=1, part="whole", mime=None, data=b'"' + b"x" * 600 + b'"')
    for at in range(0, len(frame), 100):
        up.raw(frame[at:at + 100])
        await asyncio.sleep(0.6)
    await page.until("message", sequence=1)
    assert up.open


@test("a handshake of TLS that drips is given up in time, and the relay serves on at the next entry", waits=25)
async def drips(t):
    async def drip(reader, writer):
        try:
            hello = await reader.read(1000)
            assert hello[:1] == b"\x16", "no ClientHello"
            writer.write(b"\x16\x03\x03\x40\x00")
            while True:
                writer.write(b"\x02")
                await writer.drain()
                await asyncio.sleep(0.3)
        except (ConnectionError, OSError, asyncio.CancelledError):
            writer.close()
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    made, business, daemon = await tls(t, "business", pin=pki.certificates().pin("business"))
    daemon.sections["uplink"]["addresses"] = [address, business.address]
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await daemon.start()
    await t.joined(daemon, await business.uplink(timeout=40 * SLACK), t.link())
    await daemon.logs("no complete frame received from it for 20 s, only bytes")
    server.close()
