"""A hub with its own configuration, ports and process; what a back end and a relay do with it; and `Test`, which has both."""
import asyncio
import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import signal
import socket
import ssl
import time

import certificates
import harness
import websocket
import wire
from daemon import ROOT, Daemon, ends_with_us, toml
from harness import PORTS
from inbox import PATIENCE, SLACK, Mailbox, Mismatch

SECRET = "a secret of relays that nobody guesses"
SCOPES = ("publish", "read", "admin", "ingest")


def binary():
    named = os.environ.get("SHARELINK_HUB")
    candidates = [pathlib.Path(named)] if named else [ROOT / "target" / kind / "sharelink-hub" for kind in ("release", "debug")]
    for path in candidates:
        if path.exists():
            return str(path.resolve())
    raise SystemExit(f"no hub to test: {' or '.join(map(str, candidates))} is missing; build it, or name it by --hub")


def row(name, key, scopes=SCOPES, topics=""):
    """An entry of `[api] keys`."""
    return {"name": name, "hash": "sha256:" + hashlib.sha256(key.encode()).hexdigest(), "scopes": " ".join(scopes), "topics": topics}


class Hub(Daemon):
    """`port` is the API's, `uplink_port` that of the relays. `key` may do everything."""
    program = staticmethod(binary)

    def __init__(self, test, name, sections):
        self.key, self.uplink_port, self.answers = "slk_" + secrets.token_hex(20), PORTS.take(), {}
        port = PORTS.take()
        (test.directory / f"{name}.links").write_text(secrets.token_hex(32) + "\n")
        self.written = {
            "api": {"listen": f"127.0.0.1:{port}", "keys": [row("all", self.key)]},
            "uplink": {"listen": f"127.0.0.1:{self.uplink_port}", "secret": SECRET},
            "links": {"admission": "signed", "keys": [{"id": "1", "key_file": f"{name}.links"}]},
            "log": {"level": "info"},
        }
        for section, keys in sections.items():
            self.written.setdefault(section, {}).update(keys)
        super().__init__(test, name, port, {section: keys for section, keys in self.written.items() if keys})

    async def reload(self, **sections):
        """Writes other keys, and waits until they are taken."""
        for section, keys in sections.items():
            self.written.setdefault(section, {}).update(keys)
        before = self.told().count(b"READY=1")
        self.config.write_text(toml(self.written))
        self.signal(signal.SIGHUP)
        until = time.monotonic() + 10 * SLACK
        while self.told().count(b"READY=1") == before:
            if time.monotonic() > until:
                raise Mismatch(f"not reloaded: {self.log()[-800:]}")
            await asyncio.sleep(0.02)
        if "the configuration stays as it was" in self.log():
            raise Mismatch(f"the new configuration is wrong: {self.log()[-800:]}")

    @property
    def address(self):
        return f"127.0.0.1:{self.uplink_port}"

    def memory(self):
        """Resident bytes."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise Mismatch("no VmRSS")

    # --- what a back end does ---

    async def http(self, method, path, body=None, headers=None, key=None, timeout=30 * SLACK, source=None):
        """One request on a connection of its own. `body`: a value for JSON, or bytes."""
        fields = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", "Authorization": f"Bearer {key or self.key}"}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        if body is not None:
            fields["Content-Type"] = "application/json"
        if body is not None or method in ("POST", "PUT"):
            fields["Content-Length"] = str(len(data))
        fields.update(headers or {})
        head = "".join([f"{method} {path} HTTP/1.1\r\n"] + [f"{k}: {v}\r\n" for k, v in fields.items() if v is not None] + ["\r\n"])
        answer = await websocket.http(self.port, path, raw=head.encode() + data, timeout=timeout, source=source)
        if answer is None:
            raise Mismatch(f"{method} {path}: closed without an answer")
        return answer

    async def api(self, method, path, body=None, status=200, **options):
        """One request that must have this status. Returns what the answer says."""
        answer = await self.http(method, path, body, **options)
        if answer.status != status:
            raise Mismatch(f"{method} {path}: expected {status}, saw {answer!r}")
        return json.loads(answer.body) if answer.body else None

    async def message(self, topic, value, **options):
        return (await self.api("POST", f"/v1/topics/{topic}/messages", value, **options))["sequence"]

    async def state(self, topic, value, **options):
        return (await self.api("PUT", f"/v1/topics/{topic}/state", value, **options))["sequence"]

    async def epoch(self, topic):
        return int((await self.api("GET", f"/v1/topics/{topic}"))["epoch"])

    async def link(self, topic, **options):
        link = (await self.api("POST", "/v1/links", {"topic": topic, **options}))["link"]
        self.test.links.append(link)
        return link


class Client:
    """A connection of a back end that is kept."""

    def __init__(self, hub):
        self.hub, self.reader, self.writer = hub, None, None

    async def message(self, topic, value):
        """Returns the answer's status and document; raises `OSError` or `EOFError` if the connection breaks."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.hub.port)
        data = json.dumps(value).encode()
        head = (f"POST /v1/topics/{topic}/messages HTTP/1.1\r\nHost: 127.0.0.1:{self.hub.port}\r\nAuthorization: Bearer {self.hub.key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n")
        try:
            self.writer.write(head.encode() + data)
            status, headers = await websocket.read_head(self.reader)
            return status, json.loads(await self.reader.readexactly(int(headers["content-length"])))
        except (OSError, EOFError):
            self.close()
            raise

    def close(self):
        if self.writer:
            self.writer.transport.abort()
        self.reader = self.writer = None


class Relay:
    """A relay's end of the uplink. It decodes strictly, answers pings, and does nothing else by itself."""

    def __init__(self, test, reader, writer, name):
        self.test, self.reader, self.writer, self.name = test, reader, writer, name
        self.frames, self.answers_pings, self.request, self.answered = Mailbox(f"relay {name}"), True, 0, set()
        self.checks_answers, self.extended = True, False
        self.nonces = (b"", b"")
        self.open, self.ended, self.reading, self.task = True, asyncio.Event(), asyncio.Event(), None
        self.reading.set()

    async def read(self):
        return wire.decode(wire.TO_RELAY_EXTENDED if self.extended else wire.TO_RELAY, await self.reader.readexactly(wire.length(await self.reader.readexactly(4))))

    async def shake_hands(self, secret=SECRET, version=wire.VERSION, extended=False):
        """Sends `Hello`, and checks the hub's own proof. `extended`: as a relay that knows extensions."""
        challenge, nonce = await self.read(), os.urandom(12) + wire.MARK if extended else os.urandom(16)
        self.extended, self.nonces = extended and challenge.nonce.endswith(wire.MARK), (challenge.nonce, nonce)
        assert (challenge.kind, challenge.version) == ("Challenge", 1), challenge
        secret = secret.encode()
        said = wire.proof(secret, b"sharelinkd relay", challenge.nonce, nonce)
        self.send("Hello", version=version, relay=self.name, nonce=nonce, proof=said)
        welcome = await self.read()
        assert (welcome.kind, welcome.version) == ("Welcome", 1), welcome
        assert welcome.proof == wire.proof(secret, b"sharelinkd business", nonce, challenge.nonce), "the hub's proof is wrong"
        self.task = asyncio.ensure_future(self.run())
        return self

    async def run(self):
        try:
            while True:
                await self.reading.wait()
                self.frame(await self.read())
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            pass
        except wire.WireError as error:
            self.test.broken(f"the hub sent a frame that does not decode: {error}")
        self.open = False
        self.ended.set()
        self.writer.close()

    def frame(self, frame):
        frame.at = time.monotonic()
        if frame.kind in ("Accept", "Deny") and self.checks_answers:
            if frame.request in self.answered or frame.request > self.request:
                self.test.broken(f"relay {self.name}: an answer to no request: {frame!r}")
            self.answered.add(frame.request)
        if frame.kind == "Ping" and self.answers_pings:
            self.send("Pong", nonce=frame.nonce)
        self.frames.put(frame)

    async def names(self, words):
        """Names its extensions; returns the hub's."""
        self.send("Features", words=words)
        return (await self.expect("Features")).words.split()

    def author(self, page):
        return wire.author(*self.nonces, page)

    def raw(self, data):
        self.writer.write(data)

    def send(self, kind, **fields):
        self.raw(wire.encode(wire.TO_BUSINESS_EXTENDED, kind, **fields))

    def subscribe(self, link, since=None, address="", origin=""):
        """`since`: (epoch, [state, messages, audio, video]). Returns the request's number."""
        self.request += 1
        self.send("Subscribe", request=self.request, link=link, since=since, address=address, origin=origin)
        return self.request

    async def accepted(self, link, since=None, timeout=PATIENCE, **page):
        return await self.expect("Accept", timeout, request=self.subscribe(link, since, **page))

    async def denied(self, link, timeout=PATIENCE, **page):
        return (await self.expect("Deny", timeout, request=self.subscribe(link, **page))).reason

    async def expect(self, kind, timeout=PATIENCE, **fields):
        """Takes the first such frame; others stay queued."""
        return await self.frames.take(lambda f: f.kind == kind and all(getattr(f, k) == v for k, v in fields.items()),
                                      f"{kind} {fields or ''}", timeout)

    async def barrier(self):
        """Returns when the hub has answered a ping: it has read everything before."""
        nonce = int.from_bytes(os.urandom(4), "little")
        self.send("Ping", nonce=nonce)
        await self.expect("Pong", nonce=nonce)

    async def messages(self, topic, last, timeout=PATIENCE):
        """The messages of a topic up to this sequence, as (sequence, data); raises if they don't increase."""
        seen = []
        while not seen or seen[-1][0] < last:
            frame = await self.expect("Publish", timeout, topic=topic, track="messages")
            if seen and frame.sequence <= seen[-1][0]:
                raise Mismatch(f"message {frame.sequence} behind {seen[-1][0]}")
            seen.append((frame.sequence, frame.data))
        return seen

    def seen(self, kind, **fields):
        return [f for _, f in self.frames.history if f.kind == kind and all(getattr(f, k) == v for k, v in fields.items())]

    async def none(self, kind, seconds=0.4, **fields):
        """No such frame is queued or arrives within `seconds`."""
        await asyncio.sleep(seconds)
        left = [f for f in self.frames.items if f.kind == kind and all(getattr(f, k) == v for k, v in fields.items())]
        if left:
            raise Mismatch(f"relay {self.name}: expected no {kind} {fields or ''}, saw {left!r}"[:2000])

    async def end(self, timeout=PATIENCE):
        try:
            async with asyncio.timeout(timeout):
                await self.ended.wait()
        except asyncio.TimeoutError:
            raise Mismatch(f"expected the hub to end the connection of relay {self.name} within {timeout:.1f} s") from None

    def drop(self):
        if self.task:
            self.task.cancel()
        self.open = False
        self.ended.set()
        self.writer.transport.abort()


class Test(harness.Test):
    def __init__(self, name):
        super().__init__(name)
        self.relays, self.commands = [], []

    async def hub(self, **sections):
        hub = Hub(self, f"hub{len(self.daemons)}", sections)
        self.daemons.append(hub)
        return await hub.start()

    async def dial(self, hub, name="gate", receive_buffer=None, **tls):
        """A connection to the hub's uplink, before its handshake."""
        if receive_buffer:
            raw = socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", hub.uplink_port))
            reader, writer = await asyncio.open_connection(sock=raw, limit=4096)
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", hub.uplink_port, **tls)
        relay = Relay(self, reader, writer, name)
        self.relays.append(relay)
        return relay

    async def relay_end(self, hub, name="gate", secret=SECRET, words=None, **options):
        """`words`: the extensions that it names, if it knows any."""
        relay = await (await self.dial(hub, name, **options)).shake_hands(secret, extended=words is not None)
        if words is not None:
            await relay.names(words)
        return relay

    async def box(self, hub, **changes):
        """A real relay whose business server is this hub."""
        daemon = self.daemon([hub.address], **{"name": f"box{len(self.daemons)}", "secret": SECRET, **changes})
        return await daemon.start()

    async def close(self):
        for relay in self.relays:
            relay.drop()
        for command in self.commands:
            await command.end()
        for daemon in self.daemons:
            log = daemon.log()
            for secret in {SECRET, getattr(daemon, "key", SECRET)}:
                if secret in log:
                    self.broken("the log shows a secret")
        await super().close()

    async def command(self, line, **environment):
        """A command line that runs beside the test."""
        command = Command(self.directory / f"command{len(self.commands)}.log", line)
        self.commands.append(command)
        return await command.start(environment)

    def logs(self):
        return "\n".join([super().logs(), *(f"--- {c.line}\n{c.said()[-3000:]}" for c in self.commands)])


class Command:
    """A command line, in a session of its own: all processes of a pipe can be ended."""

    def __init__(self, log, line):
        self.log, self.line, self.process = log, line, None

    async def start(self, environment):
        with open(self.log, "wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                "bash", "-o", "pipefail", "-c", self.line, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **environment}, start_new_session=True, preexec_fn=ends_with_us)
        return self

    def said(self):
        return self.log.read_text(errors="replace").replace("\r", "\n")

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def child(self, name):
        """The process of this name in a pipe."""
        pids = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next(int(pid) for pid in pids if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == name)

    async def says(self, text, timeout=30 * SLACK):
        until = time.monotonic() + timeout
        while text not in self.said():
            if time.monotonic() > until:
                raise Mismatch(f"no {text!r} from {self.line}: {self.said()[-800:]}")
            await asyncio.sleep(0.05)

    async def exit(self, timeout=30 * SLACK):
        try:
            async with asyncio.timeout(timeout):
                return await self.process.wait()
        except asyncio.TimeoutError:
            raise Mismatch(f"not over after {timeout:.0f} s: {self.line}: {self.said()[-800:]}") from None

    async def end(self):
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # all are gone
            self.signal(signal.SIGKILL)
        await self.process.wait()


def client_tls():
    context = ssl.create_default_context(cafile=certificates.certificates()["ca.pem"])
    return {"ssl": context, "server_hostname": "business.example"}


harness.Test = Test
