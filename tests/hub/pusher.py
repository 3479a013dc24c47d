#!/usr/bin/env python3
"""Publishes to a real hub with Pusher's server libraries (PyPI's and npm's `pusher`), which are unchanged.

- The examples in docs/api.md run as they are there (with the port of this hub), and the API has what they published.
- What the hub refuses, both libraries show with the hub's own words.
- A reload changes the secret without a gap.

    tests/hub/pusher.py [--hub PROGRAM]    builds the hub if none is named
    tests/hub/pusher.py --write            records what the libraries send into hub/testdata/pusher.json

No test records: the file is what those versions really sent, with their own signatures and times, for the tests of
hub/src/http/pusher.rs. The libraries are installed into target/tools.
"""

import argparse
import http.server
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request

import tools

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / "target/tools/pusher"
PYTHON = TOOLS / "python/bin/python3"
OUT = ROOT / "hub/testdata/pusher.json"
DOCUMENT = (ROOT / "docs/api.md").read_text()
VERSIONS = {"python": "3.3.4", "node": "5.3.4"}
# Far beyond what anything here takes, in seconds.
PATIENCE = 90

PYTHON_SENDS = """
import sys, pusher
client = pusher.Pusher(app_id="3", key="key", secret="s3cret", host="127.0.0.1", port=int(sys.argv[1]), ssl=False)
client.trigger("room-1", "greeting", {"text": "Grüße & mehr"})
client.trigger(["room-1", "app_room-2"], "plain", "not JSON")
client.trigger_batch([{"channel": "a", "name": "one", "data": {"n": 1}}, {"channel": "b", "name": "two", "data": "x"}])
"""

NODE_SENDS = """
const Pusher = require("pusher");
const pusher = new Pusher({ appId: "3", key: "key", secret: "s3cret", host: "127.0.0.1", port: process.argv[2], useTLS: false });
(async () => {
  await pusher.trigger("room-1", "greeting", { text: "Grüße & mehr" });
  await pusher.trigger(["room-1", "app_room-2"], "plain", "not JSON");
  await pusher.triggerBatch([{ channel: "a", name: "one", data: { n: 1 } }, { channel: "b", name: "two", data: "x" }]);
})();
"""

# Each prints what it got, as JSON: for each call the status, and what the library shows.
PYTHON_REFUSED = """
import json, os, sys, pusher
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus
port = int(sys.argv[1])
def client(app_id="1", secret=os.environ["PUSHER_SECRET"]):
    return pusher.Pusher(app_id=app_id, key="shop", secret=secret, host="127.0.0.1", port=port, ssl=False,
                         encryption_master_key_base64="A" * 43 + "=")
said = {}
for name, call in {
    "socket": lambda: client().trigger("quiet", "e", "1", "12.34"),
    "encrypted": lambda: client().trigger("private-encrypted-a", "e", "1"),
    "channel": lambda: client().trigger(["quiet", "a@b"], "e", "1"),
    "secret": lambda: client(secret="another").trigger("quiet", "e", "1"),
    "app": lambda: client(app_id="2").trigger("quiet", "e", "1"),
    "channels": lambda: client().channels_info(),
    "users": lambda: client().terminate_user_connections("7"),
    "large": lambda: client().trigger("quiet", "e", "x" * 9000),
    "ended": lambda: client().trigger(["quiet", "over"], "e", "1"),
    "batch": lambda: client().trigger_batch([{"channel": c, "name": "e", "data": "1"} for c in ("quiet", "over")]),
    "full": lambda: client().trigger(["room-7", "new-python"], "full", "python"),
}.items():
    try:
        call()
    except PusherBadRequest as error:
        said[name] = [400, str(error)]
    except PusherBadAuth as error:
        said[name] = [401, str(error)]
    except PusherBadStatus as error:
        status, _, text = str(error).partition(": ")
        said[name] = [int(status), text]
print(json.dumps(said))
"""

NODE_REFUSED = """
const Pusher = require("pusher");
const client = (more) => new Pusher({ appId: "1", key: "shop", secret: process.env.PUSHER_SECRET, host: "127.0.0.1",
  port: process.argv[2], useTLS: false, encryptionMasterKeyBase64: "A".repeat(43) + "=", ...more });
const calls = {
  socket: () => client().trigger("quiet", "e", "1", { socket_id: "12.34" }),
  info: () => client().trigger("quiet", "e", "1", { info: "user_count" }),
  encrypted: () => client().trigger("private-encrypted-a", "e", "1"),
  channel: () => client().trigger(["quiet", "a@b"], "e", "1"),
  user: () => client().sendToUser("7", "e", "1"),
  secret: () => client({ secret: "another" }).trigger("quiet", "e", "1"),
  app: () => client({ appId: "2" }).trigger("quiet", "e", "1"),
  channels: () => client().get({ path: "/channels" }),
  users: () => client().terminateUserConnections("7"),
  large: () => client().trigger("quiet", "e", "x".repeat(9000)),
  ended: () => client().trigger(["quiet", "over"], "e", "1"),
  batch: () => client().triggerBatch(["quiet", "over"].map((channel) => ({ channel, name: "e", data: "1" }))),
  full: () => client().trigger(["room-7", "new-node"], "full", "node"),
};
(async () => {
  const said = {};
  for (const [name, call] of Object.entries(calls)) {
    try { await call(); } catch (error) { said[name] = [error.status, error.body]; }
  }
  console.log(JSON.stringify(said));
})();
"""

# The status of each refusal, and words in what the library shows.
REFUSED = {
    "socket": (400, "socket_id"),
    "info": (400, "GET /v1/topics/{topic}"),
    "encrypted": (400, "encrypted channels need keys"),
    "channel": (400, "can't be a topic"),
    "user": (400, "users are not known here"),
    "secret": (401, "auth_signature"),
    "app": (404, "no app with this app_id"),
    "channels": (404, "/batch_events are here"),
    "users": (404, "/batch_events are here"),
    "large": (413, "at most 8192 are possible"),
    "ended": (409, 'nothing was published: "over": the topic has ended'),
    "batch": (409, 'nothing was published: "over": the topic has ended'),
    "full": (507, "published: the first 1 of 2, in the order of the request; then"),
}


class Recorder(http.server.BaseHTTPRequestHandler):
    requests = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        path, _, query = self.path.partition("?")
        self.requests.append({"path": path, "query": query, "body": body})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


class Hub:
    """A hub on free ports, with one API key and the app that docs/hub.md shows."""

    def __init__(self, program):
        self.program = program
        self.folder = TOOLS / "hub"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.secrets = [self.made("secret").strip() for _ in range(2)]
        for number, secret in enumerate(self.secrets, 1):
            path = self.folder / f"pusher.{number}"
            path.write_text(secret + "\n")
            path.chmod(0o600)
        made = self.made("key", "--name", "test", "--scopes", "publish read admin").splitlines()
        self.key = next(line for line in made if line.startswith("slk_"))
        self.row = made[-1]
        self.configure('"pusher.1"')
        command = [program, "run", "--config", self.folder / "hub.toml"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8")
        self.lines = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()

    def made(self, *words):
        return subprocess.run([self.program, *words], check=True, capture_output=True, text=True).stdout

    def configure(self, secret_file):
        (self.folder / "hub.toml").write_text(
            f'[api]\nlisten = "127.0.0.1:0"\nkeys = [\n{self.row}\n]\n[uplink]\nlisten = "127.0.0.1:0"\n'
            f'[pusher]\napp_id = "1"\nkey = "shop"\nsecret_file = {secret_file}\n'
            # Room for those of the examples and the one that ends.
            "[limits]\njson_kib = 8\ntopics = 3\n"
        )

    def listen(self):
        for line in self.process.stderr:
            self.lines.put(line)
        self.lines.put("")

    def line(self, words):
        said = []
        while True:
            line = self.lines.get(timeout=PATIENCE)
            said.append(line)
            if words in line:
                return line
            if not line:
                raise SystemExit(f"the hub ended without {words!r}:\n{''.join(said)}")

    def wait_ready(self):
        self.port = re.search(r"the API is at 127\.0\.0\.1:(\d+)", self.line("ready: "))[1]

    def reload(self, secret_file):
        self.configure(secret_file)
        self.process.send_signal(signal.SIGHUP)
        self.line("reloaded: pusher.secret_file changed")

    def call(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        request.add_header("Authorization", f"Bearer {self.key}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or "null")

    def messages(self, topic):
        return [message["data"] for message in self.call("GET", f"/v1/topics/{topic}/messages")["messages"]]

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)


def run(language, program, port, secret=""):
    """Runs a program with the library; returns what it prints."""
    path = TOOLS / ("send.py" if language == "python" else "node/send.js")
    path.write_text(program)
    command = [PYTHON if language == "python" else shutil.which("node") or sys.exit("install node"), path, str(port)]
    environment = {**os.environ, "PUSHER_SECRET": secret, "NO_PROXY": "127.0.0.1", "PYTHONUTF8": "1"}
    done = subprocess.run(command, cwd=path.parent, env=environment, timeout=PATIENCE, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def example(language):
    tag = {"python": "python", "node": "js"}[language]
    found = re.findall(rf"```{tag}\n(.*?)```", DOCUMENT, re.DOTALL)
    return next(block for block in found if "usher" in block)


def record():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    run("python", PYTHON_SENDS, server.server_address[1])
    run("node", NODE_SENDS, server.server_address[1])
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(Recorder.requests, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(Recorder.requests)} requests")


def check_examples(hub):
    first = {"event": "order", "data": {"text": "Order 4711 has left."}}
    second = [{"event": "order", "data": {"text": "Order 4712 has left."}}, {"event": "closing", "data": "at noon"}]
    for count, language in enumerate(("python", "node"), 1):
        program = example(language)
        assert program.count("8090") == 1, "the example has no port that the test can replace"
        run(language, program.replace("8090", hub.port), hub.port, hub.secrets[0])
        assert hub.messages("room-7") == [first, *second] * count, hub.messages("room-7")
        assert hub.messages("room-8") == [first] * count, hub.messages("room-8")
        print(f"{language}: the example of docs/api.md publishes what the document says")


def check_refusals(hub):
    hub.call("POST", "/v1/topics/over/messages", 1)
    hub.call("DELETE", "/v1/topics/over", {})
    for language, program in {"python": PYTHON_REFUSED, "node": NODE_REFUSED}.items():
        before = hub.messages("room-7")
        said = json.loads(run(language, program, hub.port, hub.secrets[0]))
        expected = set(REFUSED) - ({"info", "user"} if language == "python" else set())
        assert set(said) == expected, f"{language}: not refused: {expected - set(said)}"
        for name, (status, text) in said.items():
            assert status == REFUSED[name][0] and REFUSED[name][1] in text, f"{language}: {name}: {status} {text}"
            assert not any(secret in text for secret in hub.secrets), f"{language}: {name} shows a secret"
        # What the answer says of a request that came half through.
        assert hub.messages("room-7") == [*before, {"event": "full", "data": language}]
        topics = [row["topic"] for row in hub.call("GET", "/v1/topics")["topics"]]
        assert topics == ["over", "room-7", "room-8"], topics
        print(f"{language}: shows the hub's own words for {len(said)} refusals")


def check_reload(hub):
    # The examples' clients, which make one call and say nothing where it fails.
    clients = {language: example(language).replace("8090", hub.port) for language in ("python", "node")}
    calls = {
        "python": clients["python"].split("client.trigger")[0]
        + 'try: client.trigger("room-8", "e", "1")\nexcept pusher.errors.PusherBadAuth: pass\n',
        "node": clients["node"].split("(async")[0]
        + 'pusher.trigger("room-8", "e", "1").catch((error) => process.exit(error.status === 401 ? 0 : 1));\n',
    }
    old, new = hub.secrets
    for secret_file, works in (('["pusher.2", "pusher.1"]', (old, new)), ('"pusher.2"', (new,))):
        hub.reload(secret_file)
        for secret in hub.secrets:
            for language, program in calls.items():
                before = len(hub.messages("room-8"))
                run(language, program, hub.port, secret)
                came = len(hub.messages("room-8")) - before
                assert came == int(secret in works), f"{language}: {came} came with {secret_file}"
    print("both: the secret changes by a reload, without a gap")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--hub", type=pathlib.Path)
    arguments.add_argument("--write", action="store_true")
    options = arguments.parse_args()
    tools.install(TOOLS, [f"pusher=={VERSIONS['python']}"], "python", [f"pusher@{VERSIONS['node']}"])
    if options.write:
        return record()
    if not options.hub:
        subprocess.run(["cargo", "build", "--quiet", "--package", "sharelink-hub"], cwd=ROOT, check=True)
    hub = Hub((options.hub or ROOT / "target/debug/sharelink-hub").resolve())
    try:
        hub.wait_ready()
        check_examples(hub)
        check_refusals(hub)
        check_reload(hub)
    finally:
        hub.end()


if __name__ == "__main__":
    main()
