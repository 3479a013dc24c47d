"""The console: on a pty as on a serial line, over its Unix socket, and by `sharelinkd console` and `status`."""
import asyncio
import json
import os
import pathlib
import pty
import re
import signal
import stat
import string
import termios
import time
import tty

import daemon as daemon_module
import lag
from harness import test
from inbox import SLACK, Mismatch
from test_faults import Room, crowd, processor_s
from websocket import http

PLAIN = True
PROMPT = b"sharelinkd> "
UP = re.compile(r"^state +up\r?$", re.M)


class Line:
    """A serial line; the relay opens the other end by a fixed name. It is raw from the start, since a user-mode emulator
    can't set it, or as in `modes`."""

    def __init__(self, name, modes=None):
        self.name, self.seen, self.far, self.modes = pathlib.Path(name), b"", None, modes
        self.plug()

    def plug(self):
        self.far, near = pty.openpty()
        if self.modes is None:
            tty.setraw(near)
        else:
            termios.tcsetattr(near, termios.TCSANOW, self.modes(termios.tcgetattr(near)))
        os.set_blocking(self.far, False)
        self.near = near
        if self.name.is_symlink():
            self.name.unlink()
        self.name.symlink_to(os.ttyname(near))

    def hold(self):
        """An unopened pty slave reads as hung up, so it is held open until the relay has it."""
        if self.near is not None:
            os.close(self.near)
            self.near = None

    def pull(self):
        """Removes the device and its name, as with a USB adapter; its number may be reused at once."""
        self.hold()
        self.name.unlink()
        os.close(self.far)

    def take(self):
        try:
            while data := os.read(self.far, 65536):
                self.seen += data
        except (BlockingIOError, OSError):
            pass
        return self.seen

    async def until(self, wanted, timeout=10 * SLACK):
        began = time.monotonic()
        while wanted not in self.take():
            if time.monotonic() - began > timeout:
                raise Mismatch(f"the line did not print {wanted!r}; it printed {self.seen[-1500:]!r}")
            await asyncio.sleep(0.01)
        before, _, self.seen = self.seen.partition(wanted)
        return before.decode()

    async def type(self, keys):
        for at in range(0, len(keys), 256):
            while True:
                try:
                    os.write(self.far, keys[at:at + 256])
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.01)

    async def ask(self, command, timeout=10 * SLACK):
        await self.type(command.encode() + b"\r")
        await self.until(command.encode() + b"\r\n", timeout)
        return await self.until(PROMPT, timeout)


async def program(*words, keys=None):
    process = await asyncio.create_subprocess_exec(daemon_module.binary(), *words, stdin=asyncio.subprocess.PIPE if keys else asyncio.subprocess.DEVNULL,
                                                   stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(keys), 20 * SLACK)
    return process.returncode, out.decode(), err.decode()


async def boxed(t, control=False, **changes):
    """A relay with a console on a line and on a socket."""
    place = len(t.daemons)
    line, socket = Line(t.path(f"line{place}")), t.path(f"console{place}.sock")
    room, business = Room(), await t.business()
    business.auto = room.admit
    console = {"serial": str(line.name), "socket": socket, "control": control}
    daemon = await t.daemon([business.address], console=console, **changes).start()
    await business.uplink()
    line.banner = (await line.until(PROMPT)).replace("\r", "")
    line.hold()
    return line, socket, room, business, daemon


@test("the line is greeted at boot with version, board, addresses and memory sum; noise of any kind is survived; the arrows fetch commands")
async def greeted(t):
    line, socket, room, business, daemon = await boxed(t)
    code, output, _ = await program("console", "--socket", socket, "version")
    assert code == 0 and re.fullmatch(r"sharelinkd \S+  board \S+  \S+\n", output), output
    assert output in line.banner and f"pages at   127.0.0.1:{daemon.port}\n" in line.banner, line.banner
    assert f"uplink to  {business.address}\n" in line.banner, line.banner
    assert re.search(r"^memory     at most \S+ MiB of \S+ MiB: process \S+ MiB, kernel \S+ MiB$", line.banner, re.M), line.banner
    assert (await line.ask("version")).replace("\r", "") == output
    assert "[E1]" in await line.ask("stauts")
    for _ in range(20):
        await line.type(bytes(t.random.randrange(256) for _ in range(500)))
    await asyncio.sleep(0.3)
    await line.type(b"\x18\x03")
    await line.until(b"^C\r\n" + PROMPT)
    assert (await line.ask("version")).replace("\r", "") == output
    await line.type(b"\x1b[A")
    await line.until(b"version")
    await line.type(b"\x15uplunk\x7f\x7f\x7fink\r")
    assert UP.search(await line.until(PROMPT))
    assert (await http(daemon.port, "/healthz")).status == 200
    await line.type(b"status\xff pages\r")
    assert "[E9] noise in that line" in await line.until(PROMPT)
    daemon.signal(signal.SIGTERM)
    await line.until(b"\r\nsharelinkd has ended\r\n")
    assert await daemon.exit() == 0


@test("the line is set to 8 bits, one stop bit, no flow control, the speed of the configuration, and raw, however it was before")
async def raw(t):
    def cooked(modes):
        modes[0] |= termios.IXON | termios.ICRNL | termios.ISTRIP
        modes[2] |= termios.CSTOPB | termios.CRTSCTS
        modes[4] = modes[5] = termios.B9600
        return modes
    line = Line(t.path("line"), modes=cooked)
    before = termios.tcgetattr(line.near)
    # A pty has no parity and always 8 bits: the kernel resets these settings.
    assert before[2] & termios.CSTOPB and before[2] & termios.CRTSCTS and before[3] & termios.ICANON and before[4] == termios.B9600, before
    daemon = await t.daemon(["127.0.0.1:1"], console={"serial": str(line.name), "speed": 57600}).start()
    await line.until(PROMPT)
    iflag, oflag, cflag, lflag, ispeed, ospeed, _ = termios.tcgetattr(line.near)
    line.hold()
    for name in ("IXON", "IXOFF", "ICRNL", "INLCR", "IGNCR", "ISTRIP", "BRKINT", "PARMRK"):
        assert not iflag & getattr(termios, name), f"{name} is set"
    for name in ("ICANON", "ECHO", "ISIG", "IEXTEN"):
        assert not lflag & getattr(termios, name), f"{name} is set"
    assert not oflag & termios.OPOST, "OPOST is set"
    assert cflag & termios.CSIZE == termios.CS8 and not cflag & (termios.CSTOPB | termios.PARENB | termios.CRTSCTS), f"{cflag:o}"
    assert cflag & termios.CLOCAL and cflag & termios.CREAD, f"{cflag:o}"
    assert ispeed == ospeed == termios.B57600, (ispeed, ospeed)
    await line.type(b"\x03")  # an ordinary key: the other end of the line has no signals
    await line.until(b"^C\r\n" + PROMPT)
    assert "sharelinkd " in await line.ask("version")


@test("every command's answer fits 80 columns of plain text, with pages and topics there", waits=True)
async def fits(t):
    line, socket, room, business, daemon = await boxed(t, control=True)
    link = t.link()
    await crowd(t, daemon, room, link, 20)
    listed = re.findall(r"^(\w+) ", await line.ask("help"), re.M)
    assert {"status", "pages", "topics", "uplink", "memory", "limits", "counters", "events", "log", "version"} <= set(listed), listed
    said = ""
    for command in [c for c in listed if c not in ("watch", "close", "end", "drain", "json", "quit")] + [
            "pages all", "pages slow", "pages #3", "topics 7", "help close"]:
        said += await line.ask(command)
    assert all(len(row) <= 80 and row.isascii() and row.isprintable() for row in said.replace("\r", "").split("\n")), said
    assert "[E" not in said, said
    assert re.search(r"pages +20 ", said) and "#19.0" in said and "20 pages" in said, said
    assert link[:4] + ".." in said and link[:5] not in said, "a link's secret part is shown"


@test("a thousand pages watch, one engineer looks: the list is whole, the pages don't notice", timeout=180, crowded=True)
async def recorded(t):
    line, socket, room, business, daemon = await boxed(t)
    viewers = await crowd(t, daemon, room, t.link())
    session = line.banner
    for command in ("status", "pages", "pages slow", "pages all", "pages #999", "topics", "topics 7", "uplink", "memory", "counters", "events"):
        asked = asyncio.ensure_future(line.ask(command, 30 * SLACK))
        while not asked.done():
            room.say()
            began = time.monotonic()
            await viewers[0].reached(room.count, 5 * SLACK)
            assert time.monotonic() - began < 2 * SLACK + lag.lost(began)
            await asyncio.sleep(0.05)
        session += f"sharelinkd> {command}\n" + asked.result().replace("\r", "")
        if command == "pages all":
            rows = re.findall(r"^#(\d+)\.\d+ ", asked.result(), re.M)
            assert sorted(map(int, rows)) == list(range(1000)), f"{len(rows)} rows"
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(b"@pages all")
    writer.write_eof()
    await asyncio.sleep(0.5)
    output = (await asyncio.wait_for(reader.read(), 20 * SLACK)).decode()
    assert len(re.findall(r"^#\d+\.\d+ ", output, re.M)) == 1000 and output.endswith("1000 pages\n"), output[-200:]
    await line.type(b"watch\r")
    for _ in range(20):
        room.say()
        await asyncio.sleep(0.22)
    await line.type(b"q")
    watched = (await line.until(PROMPT)).replace("\r", "")
    assert len(re.findall(r"^up +1000 ", watched, re.M)) >= 2, watched
    session += "sharelinkd> " + watched
    record = pathlib.Path(daemon_module.binary()).parent.parent / "console-session.txt"
    record.write_text(session)
    for viewer in viewers:
        await viewer.reached(room.count, 20 * SLACK)
        assert not viewer.gaps and not viewer.returns


def errors(t, number):
    """A configuration with this many errors, whose messages all differ, not only by their numbers."""
    return "".join(f"[{''.join(t.random.choices(string.ascii_lowercase, k=40))}]\n" for _ in range(number))


@test("a blocked line delays nothing else; unsolicited output is dropped with a count, and all log lines are shown or counted", waits=True)
async def stuck(t):
    line, socket, room, business, daemon = await boxed(t)
    viewers = await crowd(t, daemon, room, t.link(), 5)
    await line.type(b"log tail\r")
    await line.until(b"any key stops it\r\n")
    logged, before, began = len(daemon.log().splitlines()), processor_s(daemon), time.monotonic()
    daemon.config.write_text(daemon.config.read_text() + errors(t, 50))
    while len(daemon.log()) < 60_000 and time.monotonic() - began < 60:
        daemon.signal(signal.SIGHUP)
        daemon.ready()  # reads its notifications, as a service manager does
        room.say()
        await viewers[0].reached(room.count, 5 * SLACK)
        await asyncio.sleep(0.3)
    used = (processor_s(daemon) - before) / (time.monotonic() - began)
    assert used < 0.5, f"the relay spins on a stuck line: {used:.0%}"
    assert (await http(daemon.port, "/healthz")).status == 200
    said = await line.until(b"[E6] ", 20 * SLACK)
    dropped = int((await line.until(b" lines were dropped")).split()[0])
    await line.type(b"q")
    said += await line.until(PROMPT)
    more = re.findall(r"\[E6\] (\d+) lines were dropped", said)
    shown = len(re.findall(r"^(?:ERROR|WARN |INFO ) ", said, re.M))
    dropped += sum(map(int, more))
    logged = len(daemon.log().splitlines()) - logged
    assert dropped > 0 and shown + dropped == logged, f"{shown} shown, {dropped} dropped, {logged} logged"


@test("a line that vanishes is taken up again when it returns", waits=True)
async def vanishes(t):
    line, socket, room, business, daemon = await boxed(t)
    before = processor_s(daemon)
    line.pull()
    began = time.monotonic()
    while "reopened" not in daemon.log():
        assert time.monotonic() - began < 10 * SLACK, daemon.log()[-500:]
        await asyncio.sleep(0.05)
    await asyncio.sleep(3)
    assert processor_s(daemon) - before < 1, "the relay spins where its line is gone"
    line.seen = b""
    line.plug()
    await line.until(PROMPT, 10 * SLACK)
    line.hold()
    assert UP.search(await line.ask("uplink"))
    # Without a console the pages' port keeps serving.
    assert daemon.log().count("for the console: ") <= 1
    assert (await http(daemon.port, "/healthz")).status == 200


@test("a line that is missing at the start is used when it appears; a device that is no serial line is logged once, and costs nothing", waits=True)
async def absent(t):
    for what, reason in (("/dev/null", "it is not a serial line"), ("file", "is not a character device"), ("nowhere", "No such file")):
        device = pathlib.Path(what if what.startswith("/") else t.path(what))
        if what == "file":
            device.write_text("somebody's")
        daemon = await t.daemon(["127.0.0.1:1"], console={"serial": str(device)}).start()
        before = processor_s(daemon)
        await asyncio.sleep(4.5)
        assert reason in daemon.log() and daemon.log().count("for the console: ") == 1, daemon.log()
        assert processor_s(daemon) - before < 0.3, "the relay spins where its line is no line"
    assert pathlib.Path(t.path("file")).read_text() == "somebody's"
    line = Line(device)
    await line.until(PROMPT)
    line.hold()
    assert "[U1]" in await line.ask("status")


@test("the console's socket takes the place of a dead relay's alone: a file is left as it is")
async def somebody_s(t):
    path = pathlib.Path(t.path("console.sock"))
    path.write_text("somebody's")
    daemon = await t.daemon(["127.0.0.1:1"], console={"socket": str(path)}).spawn()
    assert await daemon.exit() == 1 and "check console.socket" in daemon.log(), daemon.log()
    assert path.read_text() == "somebody's"


@test("the socket is for its owner and group only; four engineers at once, a fifth is refused with a reason; a program has a place of its own; a freed place is used again", waits=True)
async def places(t):
    line, socket, room, business, daemon = await boxed(t)
    assert stat.S_IMODE(os.stat(socket).st_mode) == 0o660
    inside = []
    for _ in range(4):
        reader, writer = await asyncio.open_unix_connection(socket)
        await asyncio.wait_for(reader.readuntil(PROMPT), 5 * SLACK)
        inside.append((reader, writer))
    reader, writer = await asyncio.open_unix_connection(socket)
    assert b"[E7]" in await asyncio.wait_for(reader.read(), 5 * SLACK)
    # A monitoring program is still answered, and can't keep its place.
    code, output, _ = await program("status", "--socket", socket)
    assert code == 0 and "health      healthy" in output, output
    kept, holds = await asyncio.open_unix_connection(socket)
    holds.write(b"@")
    await asyncio.wait_for(kept.read(), 15 * SLACK)
    inside[0][1].write(b"\x04")
    await asyncio.wait_for(inside[0][0].read(), 5 * SLACK)
    until = time.monotonic() + 10 * SLACK
    while True:  # it is free shortly after its user saw the end
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            await asyncio.wait_for(reader.readuntil(PROMPT), 5 * SLACK)
            break
        except asyncio.IncompleteReadError as output:
            assert b"[E7]" in output.partial and time.monotonic() < until, output.partial
            await asyncio.sleep(0.05)


@test("without control the console only looks; with it pages are closed, topics ended, the level set, the configuration read again, the relay drained")
async def controls(t):
    line, socket, room, business, daemon = await boxed(t)
    for command in ("close #0", "end 7", "drain", "reload"):
        assert "[E4]" in await line.ask(command), command
    line, socket, room, business, daemon = await boxed(t, control=True)
    link = t.link()
    first, second = await t.page(daemon), await t.page(daemon)
    await first.join(link)
    await second.join(link)
    assert "is being closed" in await line.ask("close #0")
    gone = await first.gone()
    assert gone["code"] == 1008 and "console" in gone["reason"], gone
    while "[E3] no page #0" not in await line.ask("pages #0"):
        await asyncio.sleep(0.05)
    assert "[E3]" in await line.ask("close #0") and "[E3]" in await line.ask("end 8")
    assert "pages notified: 1" in await line.ask("end 7")
    await second.until("end", topic=7)
    await room.uplink.expect("Unsubscribe", topic=7)
    assert "log level debug" in await line.ask("log debug") and "log level debug" in await line.ask("log")
    text = daemon.config.read_text()
    daemon.config.write_text(text + "\n[nonsense]\n")
    assert "[E8]" in await line.ask("reload")
    daemon.config.write_text(text)
    assert "configuration reloaded" in await line.ask("reload")
    assert "log level info" in await line.ask("log")
    for done in ("close #0", "end 7", "log debug", "reload"):
        await daemon.logs(f"at the console: {done}")
    daemon.expected_end = True
    await line.type(b"drain\r")
    assert (await second.gone())["code"] == 1012
    assert await daemon.exit() == 0
    assert not os.path.exists(socket), "the socket is left behind"


@test("`sharelinkd status` tells healthy, degraded and down by its exit code, to people and to scripts")
async def status(t):
    line, socket, room, business, daemon = await boxed(t)
    code, output, _ = await program("status", "--socket", socket)
    assert code == 0 and "health      healthy" in output, output
    code, output, _ = await program("status", "--json", "--socket", socket)
    assert code == 0 and json.loads(output)["uplink"]["up"] is True, output
    business.stop()
    for _ in range(100):
        code, output, _ = await program("status", "--json", "--socket", socket)
        if code == 1:
            break
        await asyncio.sleep(0.1)
    value = json.loads(output)
    assert code == 1 and value["health"] == "degraded" and value["conditions"][0]["code"] == "U1", output
    code, output, _ = await program("status", "--socket", socket)
    assert code == 1 and "[U1]" in output, output
    daemon.expected_end = True
    daemon.process.kill()
    await daemon.process.wait()
    code, output, complaint = await program("status", "--socket", socket)
    assert code == 2 and "start it" in complaint, (code, output, complaint)
    code, output, _ = await program("status", "--json", "--socket", socket)
    assert code == 2 and json.loads(output)["health"] == "down"
    # A stale socket is replaced; one in use is not.
    await daemon.start()
    code, output, _ = await program("console", "--socket", socket, "version")
    assert code == 0, output
    other = await t.daemon([business.address], console={"socket": socket}).spawn()
    assert await other.exit() == 1 and "another relay listens there" in other.log()
    code, output, complaint = await program("console", "--socket", t.path("nowhere.sock"))
    assert code == 69 and "is the relay running" in complaint


@test("`sharelinkd console` carries a terminal to the socket and to a serial line, and gives it back as it was")
async def terminal(t):
    line, socket, room, business, daemon = await boxed(t)
    code, output, _ = await program("console", "--socket", socket, keys=b"version\nuplink\n")
    assert code == 0 and "board" in output and UP.search(output), output
    # A cable between a laptop and the box: two ptys with a copying loop between them.
    cable = Line(t.path("laptop"))
    carrying = asyncio.ensure_future(carry(cable.far, line.far))
    over_cable = ["--serial", str(cable.name), "--speed", "115200"]
    code, output, _ = await program("console", *over_cable, keys=b"version\ruplink\r")
    assert code == 0 and "board" in output and UP.search(output), output
    for words in (["--socket", socket], over_cable):
        screen = await Screen.at("console", *words)
        await screen.type(b"\rversion\r")
        await screen.until(b"version\r\nsharelinkd ")
        await screen.until(PROMPT)
        await screen.type(b"\x1d")
        assert await screen.left() == 0
    carrying.cancel()


@test("`sharelinkd console` gives the terminal back when a signal ends it, when the relay goes away, and when the line does")
async def given_back(t):
    line, socket, room, business, daemon = await boxed(t)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        screen = await Screen.at("console", "--socket", socket)
        await screen.until(PROMPT)
        screen.process.send_signal(number)
        assert await screen.left() == 128 + number
    cable = Line(t.path("laptop"))
    on_cable = await Screen.at("console", "--serial", str(cable.name))
    cable.pull()
    assert await on_cable.left() == 74
    screen = await Screen.at("console", "--socket", socket)
    await screen.until(PROMPT)
    daemon.expected_end = True
    daemon.process.kill()
    await screen.until(b"closed by the relay")
    assert await screen.left() == 0


class Screen(Line):
    """A terminal that runs the program."""

    def __init__(self):
        self.far, self.near = pty.openpty()
        self.seen = b""
        os.set_blocking(self.far, False)
        self.before = termios.tcgetattr(self.near)

    @classmethod
    async def at(cls, *words):
        screen = cls()
        screen.process = await asyncio.create_subprocess_exec(daemon_module.binary(), *words, stdin=screen.near, stdout=screen.near, stderr=screen.near)
        await screen.until(b"Ctrl-] leaves\r\n")
        return screen

    async def left(self):
        code = await asyncio.wait_for(self.process.wait(), 5 * SLACK)
        assert termios.tcgetattr(self.near) == self.before, "the terminal is not as it was"
        self.hold()
        os.close(self.far)
        return code


async def carry(one, other):
    while True:
        for source, sink in ((one, other), (other, one)):
            try:
                os.write(sink, os.read(source, 1024))
            except OSError:
                pass
        await asyncio.sleep(0.005)
