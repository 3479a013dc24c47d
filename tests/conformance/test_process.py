"""The process: ready, drain, reload, and invalid configurations."""
import asyncio
import errno
import re
import signal
import time

import daemon as daemon_module
import websocket
from harness import PORTS, test
from inbox import SLACK, Mismatch
from websocket import http

PLAIN = True


@test("ready means that the pages' port accepts: READY=1 where NOTIFY_SOCKET is set")
async def notified(t):
    daemon = await t.daemon(["127.0.0.1:1"]).start()
    assert b"READY=1" in daemon.said
    assert (await http(daemon.port, "/healthz")).status == 200


@test("ready means that the pages' port accepts: else one log line that contains `ready`")
async def logged(t):
    daemon = await t.daemon(["127.0.0.1:1"], notify=False).start()
    assert (await http(daemon.port, "/healthz")).status == 200


@test("SIGTERM drains: every page gets 1012 with its own retry=<decimal seconds>, and the daemon exits 0", waits=True, plain=False)
async def drains(t):
    daemon, business, up = await t.relay()
    link = t.link()
    pages = [await t.joined(daemon, up, link)]
    for _ in range(15):
        pages.append(await t.page(daemon))
        await pages[-1].join(link)
    daemon.expected_end = True
    daemon.signal(signal.SIGTERM)
    seen = []
    while daemon.process.returncode is None and len(seen) < 200:
        try:
            response = await http(daemon.port, "/healthz", timeout=2)
            seen.append(response.status if response else None)
        except (OSError, asyncio.TimeoutError):
            seen.append("refused")
        await asyncio.sleep(0.02)
    retries = set()
    for page in pages:
        event = await page.gone(timeout=20 * SLACK)
        assert event.get("code") == 1012, event
        match = re.fullmatch(r"retry=(\d+(?:\.\d+)?)", event["reason"])
        assert match, event
        retries.add(float(match.group(1)))
    assert len(retries) > 1, f"not jittered: {retries}"
    assert await daemon.exit() == 0
    after_503 = seen[seen.index(503):] if 503 in seen else []
    assert 200 not in after_503, f"healthy again while draining: {seen}"


@test("while it drains, new pages are refused and a second SIGTERM does no harm", waits=True, plain=False)
async def drains_twice(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link())
    daemon.expected_end = True
    daemon.signal(signal.SIGTERM)
    await page.gone(timeout=20 * SLACK)
    try:
        late = await t.page(daemon)
        assert (await late.gone()).get("code") in (1001, 1012, None)
    except websocket.Refused as refused:
        assert refused.response is None or refused.response.status == 503 and "retry-after" in refused.response.headers, refused
    except OSError:
        pass
    if daemon.process.returncode is None:
        daemon.signal(signal.SIGTERM)
    code = await daemon.exit()
    assert code == 0, f"exit {code}"


async def reload(daemon, text, told):
    """Changes the configuration to `text`, reloads, and waits for the result in the log."""
    before, until = daemon.log().count(told), time.monotonic() + 10 * SLACK
    daemon.config.write_text(text)
    daemon.signal(signal.SIGHUP)
    while daemon.log().count(told) == before:
        if time.monotonic() > until:
            raise Mismatch(f"no {told!r} in the log: {daemon.log()[-800:]}")
        await asyncio.sleep(0.02)


@test("SIGHUP reloads and keeps the pages, and so does one with a configuration that is wrong", plain=False)
async def reloads(t):
    daemon, business, up = await t.relay()
    link = t.link()
    page = await t.joined(daemon, up, link)
    await reload(daemon, daemon.config.read_text(), "configuration reloaded")
    up.message(7, 1)
    await page.expect("message", sequence=1)
    await reload(daemon, "[pages\nlisten = 1\n", "the configuration stays as it was")
    up.message(7, 2)
    await page.expect("message", sequence=2)
    await (await t.page(daemon)).join(link)


@test("SIGHUP with a configuration that is wrong in one place takes nothing of it, one that is right takes effect, and the pages stay", plain=False)
async def reloads_whole(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link())
    good = daemon.config.read_text()
    wanted = good.replace("https://share.example", "https://new.example").replace('level = "info"', 'level = "debug"')
    assert wanted != good

    await reload(daemon, wanted + "nonsense = 1\n", "the configuration stays as it was")
    assert daemon.config.name + ":" in daemon.log(), "the error names no line"
    assert not await t.comes_from(daemon, "https://new.example") and await t.comes_from(daemon, "https://share.example")
    await reload(daemon, wanted, "configuration reloaded")
    assert await t.comes_from(daemon, "https://new.example") and not await t.comes_from(daemon, "https://share.example")
    up.message(7, 1)
    await page.expect("message", sequence=1)


async def refuses(t, text, line=None, named=()):
    daemon = t.daemon(text=text)
    await daemon.spawn()
    code = await daemon.exit()
    if code != 78:
        raise Mismatch(f"exit {code}, not 78, for the configuration:\n{text}")
    log = daemon.log()
    if daemon.config.name not in log:
        raise Mismatch(f"the message does not name the file: {log!r}")
    if line is not None and not re.search(rf"(?<!\d){line}(?!\d)", log.replace(str(daemon.config), "")):
        raise Mismatch(f"the message does not name line {line}: {log!r} for\n{text}")
    for name in named:
        if name not in log:
            raise Mismatch(f"the message does not name {name!r}: {log!r}")


GOOD = '[pages]\nlisten = "127.0.0.1:%d"\n[uplink]\naddresses = ["127.0.0.1:1"]\n'


@test("a configuration that is wrong: exit 78, naming file and line")
async def wrong(t):
    await refuses(t, '[pages]\nlisten = "127.0.0.1:1"\nlisten = "127.0.0.1:2"\n', 3)
    await refuses(t, "[pages]\nlisten = \n", 2)
    await refuses(t, GOOD % 1 + "\n\nlingers_s = 3\n", 7, ["lingers_s"])
    await refuses(t, GOOD % 1 + 'linger_s = "long"\n', 5)
    await refuses(t, GOOD % 1 + "linger_s = -1\n", 5)
    await refuses(t, GOOD % 1 + '[paged]\nx = 1\n', 5, ["paged"])
    await refuses(t, '[pages]\nlisten = "somewhere"\n[uplink]\naddresses = ["127.0.0.1:1"]\n', 2)
    await refuses(t, '[pages]\nlisten = "127.0.0.1:1"\ntrusted_proxies = ["10.0.0.0/33"]\n[uplink]\naddresses = ["127.0.0.1:1"]\n', 3)
    await refuses(t, GOOD % 1 + '[log]\nlevel = "chatty"\n', 6)


@test("[limits] may lower a board's limits and never raise them")
async def raised(t):
    await refuses(t, GOOD % 1 + "[limits]\npages = 2000000000\n", 6)


@test("an empty secret is refused unless every address is loopback or a Unix socket")
async def empty_secret(t):
    await refuses(t, '[pages]\nlisten = "127.0.0.1:1"\n[uplink]\naddresses = ["192.0.2.1:7400"]\nplaintext = true\n')
    await refuses(t, '[pages]\nlisten = "127.0.0.1:1"\n[uplink]\naddresses = ["127.0.0.1:7400", "192.0.2.1:7400"]\nplaintext = true\nsecret = ""\n')


@test("TCP beyond loopback needs plaintext = true")
async def plaintext(t):
    await refuses(t, '[pages]\nlisten = "127.0.0.1:1"\n[uplink]\naddresses = ["192.0.2.1:7400"]\nsecret = "s"\n')
    await t.daemon(["192.0.2.1:7400"], secret="s", plaintext=True).start()


@test("a configuration file that is not there: exit 78")
async def missing(t):
    daemon = t.daemon(["127.0.0.1:1"])
    daemon.config.unlink()
    await daemon.spawn()
    assert await daemon.exit() == 78
    assert daemon.config.name in daemon.log()


@test("every key of the contract is taken, and the defaults serve")
async def all_keys(t):
    text = f"""[pages]
listen = "127.0.0.1:%d"
origins = ["https://share.example"]
trusted_proxies = []
require_origin = false
[uplink]
addresses = ["127.0.0.1:7400", "unix:{t.path('b.sock')}"]
secret = ""
plaintext = false
linger_s = 30
[console]
serial = "off"
socket = "off"
[metrics]
listen = "off"
[limits]
pages = 10
topics = 2
pages_per_address = 0
[log]
level = "info"
"""
    daemon = t.daemon(text="")
    daemon.config.write_text(text % daemon.port)
    await daemon.start()
    assert (await http(daemon.port, "/healthz")).status == 200
    least = t.daemon(text="")
    least.config.write_text(GOOD % least.port)
    await least.start()
    assert (await http(least.port, "/healthz")).status == 200


@test("the link is never printed beyond its first four bytes, at any log level, nor is the secret")
async def secrets(t):
    known = 0
    for level in ("debug", "trace"):
        business = await t.business(secret=b"Zq-very-secret-Zq")
        daemon = t.daemon([business.address], secret="Zq-very-secret-Zq", linger_s=1)
        daemon.sections["log"]["level"] = level
        daemon.config.write_text(daemon_module.toml(daemon.sections))
        await daemon.spawn()
        for _ in range(100):
            if daemon.ready() or daemon.process.returncode is not None:
                break
            await asyncio.sleep(0.05)
        if daemon.process.returncode == 78:
            daemon.expected_end = True  # a level unknown to this relay
            continue
        known += 1
        up, link, denied, revoked, shown = await business.uplink(), t.link(), t.link(), t.link(), t.link()
        page = await t.joined(daemon, up, link, ttl_s=1)
        other = await t.page(daemon)
        other.subscribe(denied)
        up.deny(await up.expect("Subscribe", link=denied), "no")
        third = await t.joined(daemon, up, revoked)
        up.send("Revoke", link=revoked, reason="x")
        await third.expect("end")
        await http(daemon.port, f"/s/{shown}")
        third.text('{"type":"subscribe","id":"x","link":"%s"' % t.link())
        up.deny(await up.expect("Subscribe", link=link), "over")
        await page.expect("end")
        up.raw(b"\5\0\0\0\5" + b"\x04" + b"\xff\xff\xff")
        await up.end()
        await asyncio.sleep(0.3)
        assert "Zq-very-secret-Zq" not in daemon.log() and business.secret.hex() not in daemon.log(), "the secret is in the log"
    assert known, "the relay knows no level below info"


@test("under the journal each line of the log has its priority and no time of its own")
async def journal(t):
    business = await t.business()
    business.stop()
    daemon = t.daemon([business.address], log={"level": "debug"})
    daemon.environment["JOURNAL_STREAM"] = "8:1"
    await daemon.start()
    good = daemon.config.read_text()
    await reload(daemon, good + "nonsense = 1\n", "the configuration stays as it was")
    await reload(daemon, good, "configuration reloaded")
    await business.start()
    page = await t.joined(daemon, await business.uplink(), t.link())
    for _ in range(3):
        page.text("garbage")
    assert (await page.gone())["code"] == 1008
    daemon.signal(signal.SIGTERM)
    assert await daemon.exit() == 0
    lines = daemon.log().splitlines()
    strange = [line for line in lines if not re.match(r"<[3467]>[^ <0-9]", line) or re.search(r"\d\d:\d\d:\d\d", line)]
    assert lines and not strange, strange
    for priority, told in ((3, "the configuration stays as it was"), (4, "the next try is in"), (6, "ready: "), (6, "draining: ")):
        assert any(line.startswith(f"<{priority}>") and told in line for line in lines), f"no <{priority}> with {told!r}: {lines}"


@test("a kernel that lacks an option of TCP is served with, and a line names the option")
async def old_kernel(t):
    lowat, timeout, defer = options = (25, "TCP_NOTSENT_LOWAT"), (18, "TCP_USER_TIMEOUT"), (9, "TCP_DEFER_ACCEPT")
    for lacking, error in (([lowat], errno.ENOPROTOOPT), ([timeout], errno.EOPNOTSUPP), ([defer], errno.ENOSYS), (options, errno.ENOPROTOOPT)):
        business = await t.business()
        daemon, second = t.daemon([business.address]), PORTS.take()
        daemon.sections["pages"]["listen"] = [f"127.0.0.1:{daemon.port}", f"127.0.0.1:{second}"]
        daemon.config.write_text(daemon_module.toml(daemon.sections))
        daemon.before = daemon_module.without_options([option for option, _ in lacking], error)
        await daemon.start()
        await t.joined(daemon, await business.uplink(), t.link())
        for option, name in options:
            warned = [line for line in daemon.log().splitlines() if f"no {name} (" in line]
            assert len(warned) == ((option, name) in lacking) and all("WARN" in line for line in warned), daemon.log()
    refused = t.daemon(["127.0.0.1:1"])
    refused.before = daemon_module.without_options([25], errno.EINVAL)
    await refused.spawn()
    assert await refused.exit() == 1 and "check pages.listen" in refused.log(), refused.log()
