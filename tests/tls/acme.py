#!/usr/bin/env python3
"""Gets certificates by the recipes of docs/tls.md: certbot and lego, with their commands and the package's hook as they are, from
pebble, Let's Encrypt's test server, which fetches the challenges from a relay of the release build. Each renews once; the running
relay takes the new certificate. Needs root, openssl and Debian's certbot, lego and pebble."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "target" / "release" / "sharelinkd"
NAME = "live.example.org"
TOOLS = ("certbot", "lego", "pebble", "pebble-challtestsrv", "openssl")


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def command(section, first):
    """The command of a recipe that begins with these words."""
    text = (ROOT / "docs" / "tls.md").read_text().split(f"### {section}\n")[1].split("\n### ")[0].replace("\\\n", "")
    found = [line for line in text.splitlines() if line.startswith(first)]
    assert len(found) == 1, f"docs/tls.md has {len(found)} commands that begin with {first!r} in {section!r}"
    return found[0]


class Box:
    """A directory with what the recipes have in /var/lib/acme, /etc/sharelinkd and /usr/lib/sharelinkd."""

    def __init__(self, directory):
        self.directory = directory
        self.ports = dict(zip(("plain", "tls", "directory", "management", "dns", "control"), free_ports(6)))
        (directory / "acme" / ".well-known" / "acme-challenge").mkdir(parents=True)
        (directory / "tls").mkdir()
        hook = (ROOT / "systemd" / "acme-deploy").read_text()
        for old, new in (("/etc/sharelinkd/tls", directory / "tls"), ("group=sharelinkd-tls", "group=root")):
            assert old in hook, old
            hook = hook.replace(old, str(new))
        (directory / "acme-deploy").write_text(hook)
        (directory / "acme-deploy").chmod(0o755)
        self.started = []

    def start(self, *words, **environment):
        log = open(self.directory / "log", "ab")
        self.started.append(subprocess.Popen([str(word) for word in words], stdout=log, stderr=log, env={**os.environ, **environment}))
        return self.started[-1]

    def end(self):
        for process in reversed(self.started):
            process.terminate()
            process.wait(30)

    def said(self):
        return (self.directory / "log").read_text()[-3000:]

    def authority(self):
        """Pebble, and a name server that says 127.0.0.1 to everything."""
        own = self.directory / "pebble"
        own.mkdir()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                        "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", own / "key.pem", "-out", own / "cert.pem"],
                       check=True, capture_output=True)
        at = {key: f"127.0.0.1:{port}" for key, port in self.ports.items()}
        (own / "config.json").write_text(json.dumps({"pebble": {
            "listenAddress": at["directory"], "managementListenAddress": at["management"], "certificate": str(own / "cert.pem"),
            "privateKey": str(own / "key.pem"), "httpPort": self.ports["plain"], "tlsPort": self.ports["tls"]}}))
        self.start("pebble-challtestsrv", "-dns01", at["dns"], "-management", at["control"], "-http01", "", "-https01", "", "-tlsalpn01", "",
                   "-defaultIPv6", "")
        self.start("pebble", "-config", own / "config.json", "-dnsserver", at["dns"], PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0")
        for key in ("directory", "control"):
            self.answers(self.ports[key])

    def answers(self, port):
        for _ in range(200):
            try:
                return socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"nothing answers at {port}: {self.said()}")

    def configure(self, has_certificate):
        tls = f'challenge_directory = "{self.directory}/acme/.well-known/acme-challenge"\n'
        if has_certificate:
            pair = f'certificate_file = "{self.directory}/tls/fullchain.pem", key_file = "{self.directory}/tls/privkey.pem"'
            tls += f'listen = "127.0.0.1:{self.ports["tls"]}"\ncertificates = [{{ {pair} }}]\n'
        (self.directory / "sharelinkd.toml").write_text(
            f'[pages]\nlisten = "127.0.0.1:{self.ports["plain"]}"\nurl = "https://{NAME}"\n[tls]\n{tls}')

    def relay(self):
        relay = self.start(BINARY, "run", "--config", self.directory / "sharelinkd.toml")
        self.answers(self.ports["plain"])
        return relay

    def run(self, words):
        """Runs a command of the document, with this box's paths and authority."""
        for old, new in (("/var/lib/acme", "acme"), ("/usr/lib/sharelinkd/acme-deploy", "acme-deploy"), ("/var/lib/lego", "lego")):
            words = words.replace(old, str(self.directory / new))
        trust = str(self.directory / "pebble" / "cert.pem")
        done = subprocess.run(["/bin/sh", "-euc", words], capture_output=True, text=True, cwd=self.directory,
                              env={**os.environ, "REQUESTS_CA_BUNDLE": trust, "LEGO_CA_CERTIFICATES": trust})
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}{self.said()}"
        return done.stdout + done.stderr

    def served(self):
        """The hash of the certificate that a page gets."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.ports["tls"])) as plain, context.wrap_socket(plain, server_hostname=NAME) as page:
            return hashlib.sha256(page.getpeercert(binary_form=True)).hexdigest()

    def deployed(self):
        pair = [self.directory / "tls" / name for name in ("fullchain.pem", "privkey.pem")]
        assert all(path.stat().st_mode & 0o777 == 0o640 for path in pair), [oct(path.stat().st_mode) for path in pair]
        chain = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", pair[0].read_text(), re.S)
        assert len(chain) > 1, "the chain has no intermediate certificate"
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain[0])).hexdigest()


def certbot(box):
    own = " ".join(f"--{key}-dir {box.directory}/letsencrypt/{key}" for key in ("config", "work", "logs"))
    server = f"--server https://localhost:{box.ports['directory']}/dir --non-interactive {own}"
    first = command("A public name, with certbot", "certbot certonly")
    yield f"{first} {server}"
    # What the timer runs, but now.
    yield f"certbot renew {own} --force-renewal --no-random-sleep-on-renew"


def lego(box):
    lines = [command("A public name, with lego", words) for words in ('options="--path', 'options="$options')]
    lines.append(f'options="$options --server https://localhost:{box.ports["directory"]}/dir"')
    yield "\n".join([*lines, command("A public name, with lego", "lego $options run")])
    renew = command("A public name, with lego", "ExecStart=/usr/bin/lego $options renew").removeprefix("ExecStart=/usr/bin/")
    # What the timer runs, but now.
    yield "\n".join([*lines, f"{renew} --days 9999 --no-random-sleep"])


def tried(client):
    with tempfile.TemporaryDirectory(prefix="sl") as folder:
        box = Box(pathlib.Path(folder))
        try:
            box.authority()
            box.configure(has_certificate=False)
            relay = box.relay()
            first, renewal = client(box)
            box.run(first)
            issued = box.deployed()
            box.configure(has_certificate=True)
            checked = subprocess.run([BINARY, "check", "--config", box.directory / "sharelinkd.toml"], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stdout + checked.stderr
            notes = [line for line in checked.stdout.splitlines() if "note:" in line and "[tls]" in line]
            assert not notes, notes
            relay.terminate()
            relay.wait(30)
            relay = box.relay()
            assert box.served() == issued, "the relay does not serve the certificate that was issued"
            box.run(renewal)
            renewed = box.deployed()
            assert renewed != issued, "nothing was renewed"
            until = time.monotonic() + 90
            while box.served() != renewed:
                assert time.monotonic() < until, f"the relay did not take the new certificate: {box.said()}"
                time.sleep(0.5)
        finally:
            box.end()


def main():
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing or os.geteuid():
        raise SystemExit(f"tests/tls/acme.py: needs root and {', '.join(missing) or 'nothing else'}: apt-get install certbot lego pebble openssl")
    signal.signal(signal.SIGTERM, lambda *_: exit(1))
    for client in (certbot, lego):
        tried(client)
        print(f"ok   {client.__name__}: a certificate by the recipe of docs/tls.md, served, renewed, and taken by the running relay", flush=True)


if __name__ == "__main__":
    main()
