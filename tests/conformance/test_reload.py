"""SIGHUP: what takes effect at once, what needs a restart, and that the two are not mixed."""
import asyncio
import signal

import daemon as daemon_module
from harness import test
from inbox import SLACK, Mismatch

PLAIN = True


async def reload(daemon, told):
    """Waits until the log has `told` once more."""
    before = daemon.log().count(told)
    daemon.signal(signal.SIGHUP)
    for _ in range(int(100 * SLACK)):
        if daemon.log().count(told) > before:
            return
        await asyncio.sleep(0.05)
    raise Mismatch(f"no {told!r} in the log: {daemon.log()[-800:]}")


@test("a new address of the business server waits for a restart, and so does the secret that goes with it")
async def address_and_secret(t):
    business, other = await t.business(secret=b"the first one's"), await t.business(secret=b"the other one's")
    daemon = t.daemon([business.address], secret="the first one's")
    await daemon.start()
    up = await business.uplink()
    page = await t.joined(daemon, up, t.link())
    for changes in ({"secret": "the other one's"}, {"secret": ""}):
        daemon.sections["uplink"].update(addresses=[other.address], **changes)
        daemon.config.write_text(daemon_module.toml(daemon.sections))
        await reload(daemon, "addresses, and order, secret, plaintext and tls with them, changed: takes effect after a restart")
        up.drop()
        up = await business.uplink(timeout=20 * SLACK)  # the same proof to the same server as before
        await page.until("uplink", up=True)
    daemon.sections["uplink"].update(addresses=[business.address], secret="another for the same")
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    business.secret = b"another for the same"
    await reload(daemon, "configuration reloaded: uplink.secret changed")
    up.drop()
    await business.uplink(timeout=20 * SLACK)


@test("a reload names each key that changed, and apart from them those that are not in effect")
async def named(t):
    daemon, business, up = await t.relay()
    daemon.sections.setdefault("limits", {})["head_ms"] = 4321
    daemon.sections["log"] = {"level": "warn"}
    daemon.sections["uplink"]["order"] = "spread"
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await reload(daemon, "[limits] changed: takes effect after a restart")
    daemon.sections["log"] = {"level": "info"}
    daemon.sections["pages"]["drain_s"] = 7
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await reload(daemon, "configuration reloaded: log.level, pages.drain_s changed; not in effect: limits.head_ms, uplink.order")


@test("while the business server accepts two secrets, relays change from one to the other by a reload each, and no page is cut off")
async def rotation(t):
    business = await t.business(secret=b"the old one")
    relays = []
    for _ in range(2):
        daemon = t.daemon([business.address], secret="the old one")
        await daemon.start()
        relays.append((daemon, up := await business.uplink(), await t.joined(daemon, up, t.link())))
    business.others = [b"the new one"]
    for number, (daemon, up, page) in enumerate(relays):
        daemon.sections["uplink"]["secret"] = "the new one"
        daemon.config.write_text(daemon_module.toml(daemon.sections))
        await reload(daemon, "uplink.secret changed: takes effect with the next connection to the business server")
        await reload(daemon, "configuration reloaded: nothing changed")
        up.message(7, 1)
        await page.expect("message", sequence=1)  # by the connection that is up
        up.drop()
        relays[number] = daemon, await business.uplink(timeout=20 * SLACK), page
        await page.until("uplink", up=True)
    business.secret, business.others = b"the new one", []
    for daemon, up, page in relays:
        up.drop()
        await business.uplink(timeout=20 * SLACK)
        await page.until("uplink", up=True)
        assert "the new one" not in daemon.log() and "the old one" not in daemon.log()


@test("with order = \"spread\" another name is no other list of entries: only its order waits for a restart")
async def spread(t):
    first, second = await t.business(secret=b"s"), await t.business(secret=b"s")
    daemon = t.daemon([first.address, second.address], secret="s")
    daemon.sections["uplink"]["order"] = "spread"
    daemon.config.write_text(daemon_module.toml(daemon.sections))
    await daemon.start()
    for number in range(6):
        daemon.sections["uplink"]["name"] = f"box-{number}"
        daemon.config.write_text(daemon_module.toml(daemon.sections))
        await reload(daemon, "configuration reloaded")
    restarts = {line.split("] ", 1)[1] for line in daemon.log().splitlines() if "takes effect after a restart" in line}
    assert restarts == {"the order of [uplink] addresses changed: takes effect after a restart"}, restarts
