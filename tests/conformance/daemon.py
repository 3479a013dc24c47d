"""One real daemon with its own configuration file, ports and process; stopped by its pid."""
import asyncio
import ctypes
import json
import os
import pathlib
import signal
import socket
import struct
import time

from inbox import SLACK, Mismatch

ROOT = pathlib.Path(__file__).resolve().parents[2]


def binary():
    named = os.environ.get("SHARELINKD")
    candidates = [pathlib.Path(named)] if named else [ROOT / "target" / kind / "sharelinkd" for kind in ("release", "debug")]
    for path in candidates:
        if path.exists():
            return str(path.resolve())
    raise SystemExit(f"no daemon to test: {' or '.join(map(str, candidates))} is missing; build it, or name it in SHARELINKD")


def ends_with_us(prctl=ctypes.CDLL(None).prctl):
    """Runs in the child before exec: a killed suite leaves no daemon behind that could hold another one's terminal."""
    prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def without_options(options, errno):
    """A pre-exec function for a daemon on a kernel without these TCP options: a seccomp filter makes setsockopt fail with
    this error."""
    def instruction(code, yes, no, value):
        return struct.pack("=HBBI", code, yes, no, value)

    number = {"x86_64": 54, "aarch64": 208, "armv7l": 294}[os.uname().machine]  # setsockopt
    load, is_equal, answer = 0x20, 0x15, 0x06
    found = [instruction(is_equal, len(options) - at, 0, option) for at, option in enumerate(options)]
    # The offsets of the call, its level and its option in struct seccomp_data.
    program = b"".join([
        instruction(load, 0, 0, 0), instruction(is_equal, 0, len(found) + 3, number),
        instruction(load, 0, 0, 24), instruction(is_equal, 0, len(found) + 1, socket.IPPROTO_TCP),
        instruction(load, 0, 0, 32), *found,
        instruction(answer, 0, 0, 0x7FFF0000), instruction(answer, 0, 0, 0x50000 | errno)])
    held = ctypes.create_string_buffer(program)
    filter = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(held)))
    prctl = ctypes.CDLL(None).prctl

    def before():
        ends_with_us()
        assert held and prctl(38, 1, 0, 0, 0) == 0 and prctl(22, 2, filter) == 0  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
    return before


class Ports:
    """Ports below the kernel's ephemeral range, each handed out once after a test bind. An abstract socket name, which the
    kernel frees with this process, reserves them against other suites on this machine."""

    def __init__(self):
        self.next, self.names = 20000 + os.getpid() * 37 % 10000, []

    def take(self):
        while True:
            self.next = 20000 + (self.next - 19999) % 12000
            name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    name.bind(f"\0sharelinkd tests port {self.next}")
                    probe.bind(("127.0.0.1", self.next))
                except OSError:
                    name.close()
                    continue
            self.names.append(name)
            return self.next


def toml(sections):
    out = []
    for section, keys in sections.items():
        out.append(f"[{section}]")
        out += [f"{key} = {value_of(value)}" for key, value in keys.items()]
    return "\n".join(out) + "\n"


def value_of(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {value_of(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_of, value)) + "]"
    return json.dumps(value)


class Daemon:
    """`port` is the pages' port: the one that speaks TLS, if the daemon does; `plain_port` then is the plain one."""
    program = staticmethod(binary)  # returns the path of what is run

    def __init__(self, test, name, port, sections=None, text=None, notify=True, plain_port=None):
        self.test, self.port, self.sections, self.notify = test, port, sections, notify
        self.plain_port = plain_port or port
        self.config = test.directory / f"{name}.toml"
        self.log_path = test.directory / f"{name}.log"
        self.config.write_text(text if text is not None else toml(sections))
        self.process, self.said, self.expected_end = None, b"", False
        self.environment, self.stderr, self.before = {}, None, ends_with_us

    async def spawn(self):
        environment = {k: v for k, v in os.environ.items() if k not in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "JOURNAL_STREAM")}
        environment.update(self.environment)
        if self.notify:
            path = self.config.with_suffix(".notify")
            if path.exists():
                path.unlink()
            self.said, self.notify_socket = b"", socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.notify_socket.bind(str(path))
            self.notify_socket.setblocking(False)
            environment["NOTIFY_SOCKET"] = str(path)
        with open(self.log_path, "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.program(), "run", "--config", str(self.config), stdin=asyncio.subprocess.DEVNULL, stdout=log,
                stderr=log if self.stderr is None else self.stderr, env=environment, preexec_fn=self.before)
        return self

    async def start(self, timeout=10 * SLACK):
        await self.spawn()
        until = time.monotonic() + timeout
        while not self.ready():
            if self.process.returncode is not None:
                raise Mismatch(f"the daemon exited with {self.process.returncode} before it was ready")
            if time.monotonic() > until:
                raise Mismatch(f"the daemon was not ready within {timeout:.0f} s")
            await asyncio.sleep(0.01)
        return self

    def ready(self):
        return b"READY=1" in self.told() if self.notify else "ready" in self.log()

    def signs(self):
        """The number of watchdog messages; they are sent if the environment has WATCHDOG_USEC."""
        return self.told().count(b"WATCHDOG=1")

    def told(self):
        """All notifications to the service manager."""
        try:
            while True:
                self.said += self.notify_socket.recv(4096) + b"\n"
        except BlockingIOError:
            return self.said

    async def logs(self, text, seconds=10):
        """Waits until the log has `text`: the daemon may act first and log then."""
        until = time.monotonic() + seconds * SLACK
        while text not in self.log():
            if time.monotonic() > until:
                raise Mismatch(f"no {text!r} in the log: {self.log()[-800:]}")
            await asyncio.sleep(0.05)

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def signal(self, number):
        self.process.send_signal(number)

    async def exit(self, timeout=20 * SLACK):
        self.expected_end = True
        try:
            return await asyncio.wait_for(self.process.wait(), timeout)
        except asyncio.TimeoutError:
            raise Mismatch(f"the daemon had not exited after {timeout:.0f} s") from None

    async def end(self):
        if self.process is None:
            return
        if self.process.returncode is None:
            self.expected_end = True
            self.process.kill()
            await self.process.wait()
        elif not self.expected_end:
            self.test.broken(f"the daemon ended by itself with {self.process.returncode}")
        if "panicked" in self.log():
            self.test.broken("the daemon panicked")
