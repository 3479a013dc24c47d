"""The trial: what an operator does with the package on a box with a serial line, and the expected results.

Owns the steps and their expected results. It goes on after a failure; the exit code shows whether there was any.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import traceback

import guest as guests
import image as images

CONFIGURATION = "/etc/sharelinkd/sharelinkd.toml"
PROMPT = "sharelinkd> "
COMMANDS = ["help", "status", "pages", "topics", "uplink", "memory", "limits", "counters", "events", "version", "pages all", "log", "help log"]
# Sends requests for a while; then prints the numbers of tries, served and refused ones.
KNOCK = """
import socket, sys, time
tries = refused = served = 0
end = time.time() + float(sys.argv[1])
while time.time() < end:
    tries += 1
    try:
        with socket.create_connection(("127.0.0.1", 8080), 60) as s:
            s.sendall(b"GET /healthz HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            served += b"HTTP/1.1 " in s.recv(100)
    except ConnectionRefusedError:
        refused += 1
    except OSError:
        pass
    time.sleep(0.02)
print(f"tries {tries} served {served} refused {refused}")
"""
# One page: prints how it was closed, and that it has reconnected.
PAGE = """
import base64, os, socket, time
def page():
    s = socket.create_connection(("127.0.0.1", 8080), 60)
    key = base64.b64encode(os.urandom(16)).decode()
    s.sendall(f"GET /ws HTTP/1.1\\r\\nHost: x\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Key: {key}\\r\\n"
              f"Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Protocol: sharelink.v1\\r\\n\\r\\n".encode())
    got = b""
    while b"\\r\\n\\r\\n" not in got:
        got += s.recv(1)
    print(got.split(b"\\r\\n")[0].decode(), flush=True)
    text = b'{"type":"subscribe","id":1,"link":"link-of-the-trial"}'
    s.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    return s
s = page()
s.settimeout(300)
while True:
    head = s.recv(2)
    if len(head) < 2:
        print("cut off"); break
    data = s.recv(head[1]) if head[1] else b""
    if head[0] == 0x88:
        print("closed", int.from_bytes(data[:2], "big"), data[2:].decode(), flush=True)
        s.sendall(bytes([0x88, 0x82, 0, 0, 0, 0]) + data[:2]); break
s.close()
page()
print("back", flush=True)
"""


class Trial:
    def __init__(self, guest, deb, newer):
        self.guest, self.deb, self.newer, self.failures, self.steps = guest, deb, newer, [], 0
        self.tty, self.device = guest.tty, guest.image.machine["tty"]
        self.other = guest.image.machine["other"]

    def step(self, name, action):
        self.steps += 1
        try:
            said = action()
            print(f"ok    {name}" + (f": {said}" if said else ""), flush=True)
        except Exception as error:  # Any failure: the next step runs all the same.
            self.failures.append(name)
            where = next(frame for frame in reversed(traceback.extract_tb(error.__traceback__)) if frame.filename == __file__)
            print(f"WRONG {name} (line {where.lineno}: {where.line}): {error}", flush=True)

    def sh(self, script, seconds=60, right=0):
        return self.guest.sh(script, seconds, right).strip()

    def state(self, what, unit="sharelinkd"):
        return self.sh(f"systemctl show -P {what} {unit}")

    def active(self, unit):
        return self.sh(f"systemctl is-active {unit}", right=None) == "active"

    def prompt(self):
        return f"serial-getty@{self.device}.service"

    def log_in(self):
        self.tty.send("\n")
        self.tty.until("login: ", 30)
        self.tty.send("root\n")
        self.tty.until("# ", 30)

    def ask(self, line, command):
        line.send(command + "\r")
        line.until(re.escape(command) + "\r\n", 10)
        return line.until(PROMPT, 10)[0]

    def configure(self, section, text):
        """Inserts keys at the start of a section."""
        self.sh(f"sed -i '/^\\[{section}\\]/a {text}' {CONFIGURATION}")

    def restore(self):
        self.sh(f"cp /var/trial/configuration {CONFIGURATION}; systemctl reset-failed sharelinkd.service sharelinkd.socket; systemctl restart sharelinkd")

    # The steps, in order.

    def installed_at_the_login(self):
        self.log_in()
        self.tty.send(f"dpkg -i {self.deb}; echo ended''-$?\n")
        said, end = self.tty.until("ended-[0-9]+", 90)
        assert end == "ended-0", said
        assert "Still to configure" in said, said
        self.sh(f"mkdir -p /var/trial; cp {CONFIGURATION} /var/trial/configuration; dpkg -C | grep . && exit 1; true")

    def runs(self):
        assert self.active("sharelinkd") and self.active("sharelinkd.socket")
        assert self.state("Type") == "notify"
        status = self.state("StatusText")
        assert "pages" in status and "uplink" in status, status
        assert self.sh("curl -s http://127.0.0.1:8080/healthz") == "ok"
        return status

    def sandbox(self):
        said = self.sh("journalctl -b -u sharelinkd -o cat; journalctl -b -k -o cat | grep -E 'audit:.*type=1326' || true")
        assert not re.search(r"(?i)not permitted|type=1326|denied(?! \(os error 13\))", said), said
        assert not re.search(r"^\S*\d\d:\d\d:\d\d", said, re.M), f"times in the journal's lines: {said}"
        return self.sh("systemd-analyze security --no-pager sharelinkd | tail -1").split("service: ")[-1]

    def memory(self):
        return self.sh("grep -E 'VmRSS|RssAnon' /proc/$(systemctl show -P MainPID sharelinkd)/status | tr -s '\\t\\n ' ' '")

    def line_is_the_consoles_after_the_login(self):
        self.tty.send("exit\n")
        banner, _ = self.tty.until(PROMPT, 20)
        assert "board" in banner and "memory" in banner, banner
        assert not self.active(self.prompt())

    def console(self):
        for command in COMMANDS:
            said = self.ask(self.tty, command)
            assert said.strip() and "unknown command" not in said, (command, said)
            wide = [text for text in said.replace("\r", "").split("\n") if len(text) > 80]
            assert not wide, wide
        self.tty.send("\x00\xff\x1b[Zrubbish\x15version\r")
        self.tty.until(PROMPT, 10)
        return f"{len(COMMANDS)} commands"

    def booted_into_the_console(self):
        self.tty.rest(0.2)
        self.guest.reboot()
        assert self.active("sharelinkd") and not self.active(self.prompt())
        said, _ = self.tty.until(PROMPT, 20)
        assert "login:" not in said and "`help` lists the commands" in said, said
        assert "board" in self.ask(self.tty, "version")

    def inside(self):
        assert "health" in self.sh("sharelinkd status", right=1)
        assert self.sh("sharelinkd status --json", right=1).startswith("{")
        assert "uplink" in self.sh("sharelinkd console status")
        self.sh("useradd -G adm engineer; useradd stranger")
        assert "health" in self.sh("su engineer -s /bin/sh -c 'sharelinkd status'", right=1)
        self.sh("su stranger -s /bin/sh -c 'sharelinkd status'", right=2)

    def wrong_configuration(self):
        self.sh(f"echo 'nonsense = 1' >>{CONFIGURATION}; systemctl restart sharelinkd", right=1)
        said = self.sh("journalctl -b -u sharelinkd -n 12 -o cat")
        assert re.search(r"sharelinkd\.toml:\d+: unknown key", said), said
        assert self.state("ExecMainStatus") == "78" or "status=78/CONFIG" in said, said
        self.tty.until("login: ", 30)
        self.restore()
        self.tty.until(PROMPT, 20)
        return "told with its line; the login prompt came, and went again when it was mended"

    def wrong_reload(self):
        before = self.state("MainPID")
        self.sh(f"echo 'nonsense = 1' >>{CONFIGURATION}; systemctl reload sharelinkd", right=1)
        assert self.state("MainPID") == before and self.active("sharelinkd")
        self.sh(f"cp /var/trial/configuration {CONFIGURATION}; systemctl reload sharelinkd")
        assert self.state("MainPID") == before and self.active("sharelinkd")

    def secret_missing(self):
        self.configure("uplink", 'addresses = ["192.0.2.1:7400"]\\nplaintext = true\\nsecret_file = "secret"')
        self.sh("systemctl restart sharelinkd", right=1)
        said = self.sh("journalctl -b -u sharelinkd -n 12 -o cat")
        assert "secret" in said, said
        self.sh("umask 077; echo a-secret-of-the-trial-0123456789 >/etc/sharelinkd/secret; systemctl reset-failed sharelinkd.service sharelinkd.socket; systemctl restart sharelinkd")
        assert "192.0.2.1:7400" in self.sh("sharelinkd status", right=1)
        assert "a-secret" not in self.sh("journalctl -b -u sharelinkd -o cat")
        self.sh("rm /etc/sharelinkd/secret")
        self.restore()
        return next(line for line in said.splitlines() if "secret" in line)

    def tls(self):
        """The package's group, directory and socket; keys that the service can and can't read."""
        assert self.sh("stat -c '%a %U %G' /etc/sharelinkd/tls") == "750 root sharelinkd-tls"
        install = "install -m {} -g sharelinkd-tls /mnt/{}.pem /etc/sharelinkd/tls/chain.pem; install -m {} -g sharelinkd-tls /mnt/{}.key /etc/sharelinkd/tls/key.pem"
        self.sh(install.format("644", "one", "600", "one"))
        self.configure("tls", 'listen = "0.0.0.0:443"\\ncertificates = [{ certificate_file = "tls/chain.pem", key_file = "tls/key.pem" }]')
        self.sh("systemctl enable sharelinkd-tls.socket 2>&1; systemctl restart sharelinkd", right=1)
        said = self.sh("journalctl -b -u sharelinkd -n 12 -o cat")
        assert re.search(r"sharelinkd\.toml:\d+: \[tls\] certificates: key_file /etc/sharelinkd/tls/key.pem can't be read: Permission denied", said), said
        assert "chgrp sharelinkd-tls" in said, said
        assert "can't be read by the group sharelinkd-tls" in self.sh(f"sharelinkd check --config {CONFIGURATION}"), "root reads it, and is told that the service can't"
        self.sh(install.format("644", "one", "640", "one"))
        self.sh("systemctl reset-failed sharelinkd.service sharelinkd.socket sharelinkd-tls.socket; systemctl restart sharelinkd")
        assert self.active("sharelinkd-tls.socket") and self.active("sharelinkd")
        ask = "curl -sS --cacert /mnt/{}.pem --resolve one.example:443:127.0.0.1 https://one.example/healthz"
        assert self.sh(ask.format("one")) == "ok"
        assert self.sh("curl -s http://127.0.0.1:8080/healthz") == "ok"
        self.sh(install.format("644", "two", "640", "two") + "; systemctl restart sharelinkd")
        assert self.sh(ask.format("two")) == "ok", "the next relay has the next certificate"
        self.sh("systemctl disable --now sharelinkd-tls.socket 2>&1")
        self.restore()
        assert not self.active("sharelinkd-tls.socket") and self.active("sharelinkd")
        return next(line for line in said.splitlines() if "key.pem" in line)

    def second_line(self):
        self.configure("console", f'serial = "/dev/{self.other}"')
        self.sh("systemctl restart sharelinkd; sleep 1; systemctl start getty.target")
        self.guest.second.until(PROMPT, 20)
        assert "board" in self.ask(self.guest.second, "version")
        self.tty.until("login: ", 30)
        self.restore()
        self.tty.until(PROMPT, 20)
        return f"{self.other}, and the login prompt on {self.device}"

    def restart_refuses_nobody(self):
        self.sh(f"cat >/var/trial/knock.py <<'EOF'\n{KNOCK}\nEOF")
        self.tty.rest(0.2)
        said = self.sh("python3 /var/trial/knock.py 12 & sleep 2; systemctl restart sharelinkd; wait", 120)
        tries, served, refused = map(int, re.search(r"tries (\d+) served (\d+) refused (\d+)", said).groups())
        assert refused == 0 and served > tries // 2, said
        assert "login:" not in self.tty.rest(1), "a login prompt in a restart"
        return f"{tries} tries, {served} served, none refused"

    def watchdog(self):
        before = self.state("MainPID")
        self.sh(f"kill -STOP {before}; for i in $(seq 60); do sleep 1; case $(systemctl show -P MainPID sharelinkd) in {before} | 0) ;; *) break ;; esac; done; "
                "systemctl start sharelinkd", 120)
        assert self.active("sharelinkd") and self.state("MainPID") not in (before, "0")
        assert "watchdog" in self.sh("journalctl -b -u sharelinkd -o cat | grep -i watchdog | tail -1")

    def upgrade(self):
        self.configure("uplink", "linger_s = 31")
        self.sh(f"cat >/var/trial/page.py <<'EOF'\n{PAGE}\nEOF")
        self.sh("nohup python3 /var/trial/page.py >/var/trial/page.log 2>&1 & sleep 3; cat /var/trial/page.log")
        said = self.sh(f"python3 /var/trial/knock.py 25 & sleep 2; dpkg -i {self.newer}; wait", 180)
        tries, served, refused = map(int, re.search(r"tries (\d+) served (\d+) refused (\d+)", said).groups())
        assert refused == 0, said
        assert self.sh("dpkg-query -W -f '${Version}' sharelinkd") == "9.9.9-1"
        assert self.active("sharelinkd") and "linger_s = 31" in self.sh(f"cat {CONFIGURATION}")
        page = self.sh("for i in $(seq 30); do grep -q back /var/trial/page.log && break; sleep 1; done; cat /var/trial/page.log", 90)
        assert re.search(r"closed 1012 .*retry=", page) and page.endswith("back"), page
        return f"knocks: tries {tries} served {served} refused {refused}; page: {page.splitlines()[1:]}"

    def manual(self):
        said = re.sub(".\b", "", self.sh("man sharelinkd"))
        assert "SYNOPSIS" in said and "FILES" in said, said
        return f"{len(said.splitlines())} lines"

    def removed(self):
        self.sh("dpkg -r sharelinkd", 120)
        assert not self.active("sharelinkd") and not self.active("sharelinkd.socket")
        assert self.sh(f"ls {CONFIGURATION}") and self.sh("! curl -s http://127.0.0.1:8080/healthz") == ""
        self.tty.until("login: ", 30)

    def purged(self):
        self.sh("dpkg -P sharelinkd", 120)
        left = self.sh("find / -xdev -name '*sharelinkd*' -not -path '/proc/*' -not -path '/var/trial/*' -not -path '/var/cache/man/*'; ls -d /run/sharelinkd /var/lib/private/sharelinkd 2>/dev/null; systemctl list-units --all --plain --no-legend 'sharelinkd*'", right=None)
        assert not left, left


def certificate(name, folder):
    """A self-signed certificate for one.example, and its key."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "36500", "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=DNS:one.example", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"],
                   check=True, stderr=subprocess.DEVNULL)


def newer(deb, folder):
    """The same package with a later version, for the upgrade."""
    tree = pathlib.Path(folder) / "tree"
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 9.9.9-1", control.read_text(), flags=re.M))
    out = pathlib.Path(folder) / "newer.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, out], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return out


def main(arch, deb, work):
    image = images.Image(arch, work).make()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(deb, f"{folder}/sharelinkd.deb")
        newer(deb, folder)
        for name in ("one", "two"):
            certificate(name, folder)
        files = image.files(folder, f"files-{arch}")
    with guests.Guest(image, files, pathlib.Path(work) / f"logs-{arch}") as guest:
        guest.boot()
        print(f"-- {guest.sh('uname -srm').strip()}, {guest.sh('systemctl --version | head -1').strip()}, {'KVM' if guest.kvm else 'emulated'}", flush=True)
        trial = Trial(guest, "/mnt/sharelinkd.deb", "/mnt/newer.deb")
        for name, action in [
            ("installed by dpkg, typed at the login on the console's own line", trial.installed_at_the_login),
            ("runs, says READY and its status", trial.runs),
            ("the sandbox denies it nothing that it needs", trial.sandbox),
            ("memory at rest", trial.memory),
            ("when the login ends, the line is the console's", trial.line_is_the_consoles_after_the_login),
            ("the console answers on the serial line", trial.console),
            ("status and console over the socket, by who asks", trial.inside),
            ("a restart refuses no connection", trial.restart_refuses_nobody),
            ("a wrong configuration", trial.wrong_configuration),
            ("a reload, wrong and right", trial.wrong_reload),
            ("a secret that is missing, and one that is there", trial.secret_missing),
            ("TLS on the socket of systemd, with a key that the service may read", trial.tls),
            ("the console on another line", trial.second_line),
            ("the watchdog ends a stuck relay", trial.watchdog),
            ("after a reboot the line is the console's from the start", trial.booted_into_the_console),
            ("an upgrade", trial.upgrade),
            ("the manual page", trial.manual),
            ("removed, the login prompt is back", trial.removed),
            ("purged, nothing is left", trial.purged),
        ]:
            trial.step(name, action)
    print(f"{trial.steps} steps, {len(trial.failures)} wrong")
    return 1 if trial.failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
