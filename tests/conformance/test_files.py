"""An operator's files in every possible state; the JSON that pages and states may send; signals without a meaning.

At start and at `check` a bad file is exit 78 and one line that says what, where and how to mend it; at a reload it
changes nothing, and nothing waits for a pipe."""
import asyncio
import os
import signal
import socket
import time

import daemon as daemon_module
from harness import test
from inbox import SLACK, Mismatch
from websocket import http

PLAIN = True
SECRET = "a secret that is long enough"


async def checked(path, timeout=20 * SLACK):
    """(exit code, output) of `check`, which must exit."""
    process = await asyncio.create_subprocess_exec(
        daemon_module.binary(), "check", "--config", str(path), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, preexec_fn=daemon_module.ends_with_us)
    try:
        out, _ = await asyncio.wait_for(process.communicate(), timeout)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        raise Mismatch(f"`check` of {path} did not end") from None
    return process.returncode, out.decode()


async def is_told(daemon, what, before=0):
    until = time.monotonic() + 20 * SLACK
    while daemon.log().count(what) <= before:
        if time.monotonic() > until:
            raise Mismatch(f"no {what!r} in the log: {daemon.log()[-1500:]}")
        if daemon.process.returncode is not None:
            raise Mismatch(f"the daemon ended with {daemon.process.returncode}: {daemon.log()[-1500:]}")
        await asyncio.sleep(0.02)


def put(path, how):
    """Makes `path` what `how` says: bytes, or a kind of file."""
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)
    if isinstance(how, bytes):
        with open(path, "wb") as file:
            file.write(how)
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "directory":
        os.mkdir(path)
    elif how == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif how == "locked":
        put(path, b"x")
        os.chmod(path, 0)
    elif how != "nothing":
        os.symlink(how, path)


# Unsuitable files: the kind, the message, and its remedy.
NO_FILES = [
    ("pipe", "a pipe", "regular file"),
    ("directory", "a directory", "regular file"),
    ("socket", "a socket", "regular file"),
    ("/dev/zero", "a device", "regular file"),
    ("/dev/null", "a device", "regular file"),
    ("nowhere", "a link to nowhere, which does not exist", "name a file"),
    ("nothing", "No such file", "name a file"),
    (b"x" * 100_000, "more than", "shorten"),
    (b"\xff\xfex\0\n\0", "is UTF-16", "as UTF-8"),
    (b"\xfe\xff\0x\0\n", "is UTF-16", "as UTF-8"),
    (b"x\0\n\0", "NUL", "as UTF-8"),
    (b"x\xff\n", "not UTF-8", "as UTF-8"),
    *([("locked", "Permission denied", "read permission")] if os.geteuid() else []),
]
NO_SECRETS = [
    (b"", "is empty", "on one line"),
    (b"\xef\xbb\xbf\r\n", "is empty", "on one line"),
    (b" \t \n", "only white space", "on one line"),
    (b"one\ntwo\n", "several lines", "on one line"),
    (b"a\rb\n", "control characters", "on one line"),
]


@test("a configuration that is no file of text: exit 78 at start and at check, in one line, and nothing is waited for")
async def no_configuration(t):
    path = t.path("odd.toml")
    for how, what, remedy in NO_FILES:
        put(path, how)
        code, said = await checked(path)
        first, *rest = said.splitlines()
        assert code == 78 and len(rest) == 1, (how, code, said)
        assert first.startswith(str(path)) and what in first and "; " in first and remedy in first.split("; ", 1)[1], (how, said)
        daemon = t.daemon(["127.0.0.1:1"])
        daemon.config = type(daemon.config)(path)
        await daemon.spawn()
        code = await daemon.exit()
        assert code == 78 and what in daemon.log(), (how, code, daemon.log())


@test("a secret file that is no line of text: exit 78, in one line that names the key and its line")
async def no_secret(t):
    path, config = t.path("odd-secret"), t.path("with-secret.toml")
    with open(config, "w") as file:
        file.write('[uplink]\nsecret_file = "odd-secret"\n')
    for how, what, remedy in [*NO_FILES, *NO_SECRETS]:
        put(path, how)
        code, said = await checked(config)
        first, *rest = said.splitlines()
        assert code == 78 and len(rest) == 1, (how, code, said)
        assert first.startswith(f'{config}:2: [uplink] secret_file "odd-secret" '), (how, said)
        assert what in first and remedy in first.rsplit("; ", 1)[1], (how, said)


@test("a byte order mark and a line end of the secret's file are the editor's, not the secret's")
async def marked_secret(t):
    for around in ("%s", "%s\n", "%s\r\n", "\ufeff%s\r\n", "\ufeff%s"):
        business = await t.business(secret=SECRET.encode())
        with open(t.path("secret"), "w", newline="") as file:
            file.write(around % SECRET)
        daemon = t.daemon([business.address])
        daemon.sections["uplink"].pop("secret", None)
        daemon.sections["uplink"]["secret_file"] = str(t.path("secret"))
        daemon.config.write_text("\ufeff" + daemon_module.toml(daemon.sections).replace("\n", "\r\n"))
        await daemon.start()
        await business.uplink()


@test("SIGHUP with a file of nothing, or what is no file of text, changes nothing and says so; a comment alone means all defaults")
async def reload_of_nothing(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link())
    good = daemon.config.read_bytes()
    refused, kept = "the configuration stays as it was", 0
    for how in (b"", b" \r\n\t\n", b"\xef\xbb\xbf", b"[pages]\n", b"[pages]\r\n\n [uplink]\r\n", *(how for how, *_ in NO_FILES)):
        put(daemon.config, how)
        daemon.signal(signal.SIGHUP)
        await is_told(daemon, refused, kept)
        kept += 1
        assert await t.comes_from(daemon, "https://share.example"), how
    assert daemon.log().count("is empty, but the running") == 5 and "to use only defaults" in daemon.log(), daemon.log()
    up.message(7, 1)
    await page.expect("message", sequence=1)
    put(daemon.config, good)
    daemon.signal(signal.SIGHUP)
    await is_told(daemon, "configuration reloaded")
    put(daemon.config, b"# all defaults\n")
    daemon.signal(signal.SIGHUP)
    await is_told(daemon, "configuration reloaded", 1)
    assert not await t.comes_from(daemon, "https://share.example")
    put(daemon.config, b"")
    daemon.signal(signal.SIGHUP)
    await is_told(daemon, refused, kept)  # it was not started on the default port


@test("origins as apps, files and extensions send them are taken where they are listed, and only there")
async def odd_origins(t):
    odd = ["file://", "null", "app://", "capacitor://localhost", "tauri://localhost", "https://[::1]:8443",
           "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb", "safari-web-extension://E8F1D8F4-3A0C-4D6F-9B0E-0C6F7E2A5B11"]
    listed = await t.daemon(["127.0.0.1:1"], pages={"origins": odd}).start()
    unlisted = await t.daemon(["127.0.0.1:1"]).start()
    for origin in odd:
        assert await t.comes_from(listed, origin), origin
        assert not await t.comes_from(unlisted, origin), origin


@test("an empty configuration at start is all defaults, as check says")
async def empty_at_start(t):
    put(t.path("empty.toml"), b"")
    code, said = await checked(t.path("empty.toml"))
    assert code == 0 and 'listen = ["127.0.0.1:8080"]' in said, said


@test("signals that mean nothing here are ignored with a line in the log, while it serves and while it drains")
async def signals(t):
    daemon, business, up = await t.relay()
    page = await t.joined(daemon, up, t.link())
    for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGXCPU", "SIGXFSZ"):
        daemon.signal(getattr(signal, name))
        await is_told(daemon, f"{name} is ignored: SIGHUP reloads the configuration, SIGTERM drains and exits")
    for name in ("SIGPIPE", "SIGWINCH", "SIGCHLD", "SIGURG", "SIGCONT"):
        daemon.signal(getattr(signal, name))
    daemon.signal(signal.SIGTSTP)
    daemon.signal(signal.SIGCONT)
    up.message(7, 1)
    await page.expect("message", sequence=1)
    daemon.expected_end = True
    daemon.signal(signal.SIGTERM)
    await is_told(daemon, "draining: ")
    for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGHUP", "SIGTERM", "SIGINT"):
        if daemon.process.returncode is None:
            daemon.signal(getattr(signal, name))
    assert await daemon.exit() == 0


@test("an address that can't work is refused with its remedy, by check as at start")
async def addresses(t):
    path = t.directory / "address.toml"
    for key, address, remedy in [
        ("addresses", "[fe80::1]:7400", '"[fe80::1%eth0]:7400"'),
        ("addresses", "[fe80::1%0]:7400", '"[fe80::1%eth0]:7400"'),
        ("addresses", "[fe80::1%25eth1]:7400", '"[fe80::1%eth1]:7400"'),
        ("addresses", "0.0.0.0:7400", "business server's address"),
        ("addresses", "[::]:7400", "business server's address"),
        ("addresses", "224.0.0.1:7400", "one machine's address"),
        ("addresses", "255.255.255.255:7400", "one machine's address"),
        ("addresses", "192.0.2.1:0", "write the port"),
        ("listen", "[fe80::1]:8080", '"[fe80::1%2]:8080"'),
        ("listen", "[fe80::1%eth0]:8080", '"[::]:8080"'),
        ("listen", "[ff02::1]:8080", "one machine's address"),
    ]:
        section = "uplink" if key == "addresses" else "pages"
        path.write_text(f'[{section}]\n{key} = ["{address}"]\n' + ('plaintext = true\nsecret = "s"\n' if key == "addresses" else ""))
        code, said = await checked(path)
        assert code == 78 and f"{path}:2: " in said and remedy in said, (address, code, said)


@test("an interface that a link-local address names is looked for at each dial")
async def zones(t):
    daemon = await t.daemon(["[fe80::1%nowhere0]:7400"], secret=SECRET, plaintext=True).start()
    await is_told(daemon, "the business server at [fe80::1%nowhere0]:7400: it can't be reached: there is no interface nowhere0; the next try is in", 1)
    # Loopback has no link-local addresses: it is enough that the kernel got an interface and did
    # not reject it as invalid.
    daemon = await t.daemon(["[fe80::1%lo]:7400"], secret=SECRET, plaintext=True).start()
    await is_told(daemon, "the business server at [fe80::1%lo]:7400: ")
    assert "nvalid argument" not in daemon.log() and "no interface" not in daemon.log(), daemon.log()


@test("a page's JSON: names however they are written, whole numbers however they are written, and unknown members of any kind", plain=False)
async def page_json(t):
    daemon, business, up = await t.relay()
    page, link = await t.page(daemon), t.link()
    page.pending[0] = None
    page.text('{"x":"\\ud83d","\\u0074ype":"subscr\\u0069be","id":9,"\\udc00":[1e400],"id":-0.0,"link":"%s"}' % link)
    up.accept(await up.expect("Subscribe", link=link), topic=7, page_messages=True)
    assert (await page.expect("subscribed", topic=7))["id"] == 0
    deep = "[" * 256 + "]" * 256
    for topic, written, said in [
        ("7.0", '"\\ud83d"', "\ufffd"), ("7e0", '"a\\ude00b"', "a\ufffdb"), ("70e-1", '"\\ud83d\\ude00"', "\U0001f600"),
        ("7", '"x","y":1e400,"z":%s' % deep, "x"), ("7", '1,"data":"last"', "last"),
    ]:
        page.text('{"type":"send","topic":%s,"data":%s}' % (topic, written))
        assert (await up.expect("PageMessage", topic=7)).data == said, written
    for topic in ("7.5", "-1", "4294967296", "1e400", '"7"', "null"):
        other = await t.page(daemon)
        other.text('{"type":"unsubscribe","topic":%s}' % topic)
        assert "unsubscribe needs topic" in (await other.expect("error"))["reason"], topic


@test("the card of a link's preview loses no more than the field that can't be shown")
async def card(t):
    daemon, business, up = await t.relay()
    await t.joined(daemon, up, link := t.link())
    sequence = 0
    for state, has, lacks in [
        ('{"title":"a\\ud83d","description":"d"}', ['og:title" content="a\ufffd"', 'og:description" content="d"'], []),
        ('{"\\ud83d":1,"title":"T","x":1e400}', ['og:title" content="T"'], []),
        ('{"title":1e400,"description":"d"}', ['og:description" content="d"'], ["og:title"]),
        ('{"title":" \\t\\u2028","description":"d\\u0000e\\u202e"}', ['og:description" content="d e"'], ["og:title"]),
        ('{"title":"x","title":"T","y":%s}' % ("[" * 255 + "]" * 255), ['og:title" content="T"'], []),
    ]:
        sequence += 1
        up.state(7, sequence, state)
        await up.barrier()
        body = (await http(daemon.port, f"/s/{link}")).body.decode()
        assert all(words in body for words in has) and not any(words in body for words in lacks), (state, body[:1500])


@test("reasons of the business server reach a page as they were, whatever characters they have", plain=False)
async def reasons(t):
    daemon, business, up = await t.relay()
    for reason in ("\u2028\u2029", "\u202eabc", "\0\x1f\x7f\x85", '</script>"\\', "\u0301", " ", "\U0001f600\ufffd"):
        page, link = await t.page(daemon), t.link()
        page.subscribe(link)
        await up.deny_link(link, reason)
        assert (await page.expect("denied"))["reason"] == reason
        joined = await t.joined(daemon, up, t.link(), topic=8)
        up.send("End", topic=8, reason=reason)
        assert (await joined.expect("end"))["reason"] == reason
