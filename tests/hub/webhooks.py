#!/usr/bin/env python3
"""Checks the hub's webhooks with the libraries that receivers use.

A Rust test writes down what a receiver gets (`SHARELINK_WEBHOOK_DUMP`). Then:
- PyPI's `standardwebhooks` verifies it with either secret, and nothing that was changed;
- the receivers in docs/webhooks.md, Python and Node, get the same calls by HTTP and answer as the document says.

    tests/hub/webhooks.py [--dump FILE]

Without a dump it runs the Rust test. The libraries are installed into target/tools.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import tools

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / "target/tools/webhooks"
DOCUMENT = (ROOT / "docs/webhooks.md").read_text()
PYTHON = TOOLS / "python/bin/python3"


def dump():
    path = TOOLS / "dump.json"
    path.unlink(missing_ok=True)
    command = ["cargo", "test", "-q", "-p", "sharelink-hub", "a_receiver_gets_questions_and_events"]
    environment = {**os.environ, "SHARELINK_WEBHOOK_DUMP": str(path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(done.stdout)
    return path


VERIFY = """
import json, sys
from standardwebhooks import Webhook, WebhookVerificationError

dump = json.load(open(sys.argv[1]))
for call in dump["calls"]:
    for secret in dump["secrets"]:
        assert Webhook(secret).verify(call["body"], call["headers"]) == json.loads(call["body"])
    headers = call["headers"]
    other = {**headers, "webhook-id": headers["webhook-id"] + "1"}
    later = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}
    secret = dump["secrets"][0]
    stranger = "whsec_" + "A" * 43 + "="
    for secret, body, headers in [
        (secret, call["body"] + " ", headers), (secret, call["body"], other), (secret, call["body"], later),
        (stranger, call["body"], headers),
    ]:
        try:
            Webhook(secret).verify(body, headers)
        except WebhookVerificationError:
            continue
        raise SystemExit("something that was changed has verified")
"""


def example(language):
    found = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return next(block for block in found if "standardwebhooks" in block)


def post(port, call, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {name: value for name, value in call["headers"].items() if name not in ("host", "content-length")}
    connection.request("POST", "/", (body or call["body"]).encode(), headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def wait_for(port, server):
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"the example ended with {server.returncode}")
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the example does not listen")


def free_port():
    """The examples take a number. Held by a bound socket until they take it over with SO_REUSEADDR."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held, held.getsockname()[1]


def receiver(command, cwd, dump):
    held, port = free_port()
    environment = {**os.environ, "WEBHOOK_SECRET": dump["secrets"][1], "PORT": str(port)}
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    server = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, encoding="utf-8")
    try:
        wait_for(port, server)
        subscribe, events = dump["calls"]
        status, body = post(port, subscribe)
        answer = json.loads(body)
        assert status == 200 and answer == {"accept": True, "topic": "room-7", "page_messages": True}, answer
        for _ in range(2):
            status, _body = post(port, events)
            assert 200 <= status < 300, status
        for call in dump["calls"]:
            status, _body = post(port, call, call["body"].replace("room", "moor").replace("a-link", "b-link"))
            assert status == 401, status
    finally:
        held.close()
        server.terminate()
        said, _ = server.communicate()
    assert said.count("Grüße") == 1, f"an event that comes twice counts once: {said!r}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dump", type=pathlib.Path)
    path = arguments.parse_args().dump
    tools.install(TOOLS, ["standardwebhooks==1.1.0"], "python", ["standardwebhooks@1.1.1"])
    path = path or dump()
    subprocess.run([PYTHON, "-c", VERIFY, path], check=True)
    print("standardwebhooks verifies both calls with both secrets, and nothing that was changed")

    said = json.loads(path.read_text())
    (TOOLS / "receiver.py").write_text(example("python"))
    (TOOLS / "node/receiver.js").write_text(example("js"))
    node = shutil.which("node") or sys.exit("install node")
    receiver([PYTHON, TOOLS / "receiver.py"], TOOLS, said)
    print("the receiver in Python answers as the document says")
    receiver([node, TOOLS / "node/receiver.js"], TOOLS / "node", said)
    print("the receiver in Node answers as the document says")


if __name__ == "__main__":
    main()
