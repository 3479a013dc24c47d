"""One emulated machine: starts it, gives it commands, and reads its serial lines.

Owns the QEMU process and its sockets. The trial's shell is on the virtual console (hvc0); `tty` and `second` are the
machine's serial lines, on which nothing is assumed. The guest has no network.
"""
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

END = "\x04done"
# Escape sequences of a shell or of systemd's own messages.
COLOURS = re.compile(rb"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-B0-2]|[=>78c])")


class Missing(Exception):
    """An expected output did not come."""


class Line:
    """One end of a serial line: a Unix socket of QEMU's. A thread reads it all the time: otherwise QEMU blocks."""

    def __init__(self, path, log, slack):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.log, self.slack, self.seen, self.ended = open(log, "ab"), slack, b"", False
        self.news = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while True:
            try:
                data = self.socket.recv(65536)
            except OSError:
                data = b""
            with self.news:
                self.log.write(data)
                self.log.flush()
                self.seen = COLOURS.sub(b"", self.seen + data)
                self.ended = not data
                self.news.notify_all()
            if not data:
                return

    def send(self, text):
        # A UART has a FIFO of 16 to 32 bytes; a person types more slowly than this.
        data = text.encode()
        for at in range(0, len(data), 16):
            self.socket.sendall(data[at:at + 16])
            time.sleep(0.002)

    def until(self, pattern, seconds=20):
        """Takes the output up to the pattern; returns what came before it, and the matched text."""
        limit = time.monotonic() + seconds * self.slack
        with self.news:
            while not (found := re.search(pattern.encode(), self.seen)):
                left = limit - time.monotonic()
                if left <= 0 or self.ended:
                    why = "the machine ended" if self.ended else f"not in {seconds * self.slack:.0f} s"
                    raise Missing(f"{pattern!r} did not come ({why}); the line's output was {self.seen[-2000:].decode(errors='replace')!r}")
                self.news.wait(left)
            before, self.seen = self.seen[:found.start()], self.seen[found.end():]
            return before.decode(errors="replace"), found.group().decode(errors="replace")

    def rest(self, seconds=1.0):
        """All output until the line is quiet for this long."""
        with self.news:
            while self.news.wait(seconds * self.slack) and not self.ended:
                pass
            text, self.seen = self.seen.decode(errors="replace"), b""
            return text


class Guest:
    def __init__(self, image, files, logs, memory_mb=1024):
        self.image, self.files, self.memory_mb = image, files, memory_mb
        self.logs = pathlib.Path(logs)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.kvm = not image.foreign and os.access("/dev/kvm", os.R_OK | os.W_OK)
        self.slack = 1 if self.kvm else 5
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="machine-", dir=os.environ.get("TMPDIR")))
        self.process = None

    def __enter__(self):
        machine, tty = self.image.machine, self.image.machine["tty"]
        lines = ["tty", "second", "shell"]
        command = [*self.image.qemu(), *machine["arguments"], "-smp", "2", "-m", str(self.memory_mb), "-nographic", "-nodefaults",
                   "-nic", "none", "-kernel", str(self.image.kernel), "-initrd", str(self.image.first),
                   "-append", f"console={tty} net.ifnames=0",
                   "-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        if self.kvm:
            command += ["-accel", "kvm", "-cpu", "host,arch-capabilities=off"]
        for name in lines:
            command += ["-chardev", f"socket,id={name},path={self.folder}/{name},server=on,wait=off"]
        command += ["-serial", "chardev:tty", *machine["second"], "-device", "virtconsole,chardev=shell"]
        disks = [(self.image.disk, "on"), (self.files, "on")]
        for number, (path, snapshot) in enumerate(disks):
            command += ["-drive", f"if=none,id=disk{number},format=raw,file={path},snapshot={snapshot}", "-device", f"virtio-blk-pci,drive=disk{number}"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=open(self.logs / "qemu.log", "wb"), stderr=subprocess.STDOUT,
                                        env={**os.environ, "TMPDIR": str(self.folder)})
        limit = time.monotonic() + 20
        for name in lines:
            while True:
                try:
                    setattr(self, name, Line(self.folder / name, self.logs / f"{name}.log", self.slack))
                    break
                except OSError:
                    if self.process.poll() is not None or time.monotonic() > limit:
                        raise Missing(f"QEMU: {(self.logs / 'qemu.log').read_text()}")
                    time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def boot(self):
        """Waits for the trial's shell, and turns off its echo and prompt."""
        self.shell.until(r"root@gateway:~# ", 90)
        self.shell.send("stty -echo -onlcr; PS1= PS2=; export TERM=dumb PAGER=cat MANPAGER=cat SYSTEMD_PAGER=cat SYSTEMD_COLORS=0 COLUMNS=200; "
                        "bind 'set enable-bracketed-paste off'; echo rea''dy\n")
        self.shell.until("ready\n")
        self.sh("systemctl is-system-running --wait", seconds=90, right=None)

    def reboot(self):
        self.shell.send("systemctl reboot\n")
        self.boot()

    def sh(self, script, seconds=30, right=0):
        """A command's output on both streams; its exit code must be `right` (None: any)."""
        self.shell.send("{ " + script + "\n} 2>&1; printf '\\004done %s\\n' $?\n")
        said, end = self.shell.until("\x04done [0-9]+\n", seconds)
        code = int(end.split()[1])
        if right is not None and code != right:
            raise Missing(f"{script!r} ended with {code}, not {right}: {said}")
        return said
