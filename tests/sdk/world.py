#!/usr/bin/env python3
"""A development hub, and a gate before it that loses, delays and refuses requests, for one command.

    tests/sdk/world.py --hub PROGRAM [--covers docs/openapi.yaml] COMMAND ...

With `--covers`, the command fails unless it has called each route of the document by the gate, but for picture
and sound, which encoders send.

The command finds HUB_URL, HUB_KEY, SHARE_URL, GATE_URL and CLOSED_URL (nothing listens there) in its environment.

By the gate, each request reaches the hub, unless there is a plan. `PUT /gate` takes a list: what to do with each of the
next requests, and forgets what was recorded. `GET /gate` returns the requests since then, with the seconds at which
they came.

    {"do": "drop"}                      the hub gets it, and the connection is closed without an answer
    {"do": "refuse", "status": 503}     the hub doesn't get it; "headers" and "body" are those of the answer
    {"do": "spoil", "status": 503}      the hub gets it, and the answer is another
    {"do": "hang"}                      the hub gets it, and there is no answer until the caller closes
    {"do": "cut"}                       the answer ends in its middle
    {"do": "close"}                     the connection is closed behind the answer, which doesn't say so
    {"do": "pass"}                      as if there was no plan
"""
import argparse
import http.client
import http.server
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

# Far beyond what anything here takes, in seconds.
PATIENCE = 120


class Gate(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub, plan, seen, lock = None, [], [], threading.Lock()

    def attend(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/gate":
            return self.control(body)
        fields = {name.lower(): value for name, value in self.headers.items()}
        with self.lock:
            self.seen.append({
                "method": self.command, "path": self.path, "key": fields.get("idempotency-key"), "body": body.decode(),
                "at": time.monotonic(), "port": self.client_address[1]})
            step = self.plan.pop(0) if self.plan else {"do": "pass"}
        what = step["do"]
        if what == "refuse":
            return self.say(step["status"], step.get("headers", {}), step.get("body", "").encode())
        status, headers, answer = self.forward(body)
        if what == "spoil":
            return self.say(step["status"], step.get("headers", {}), step.get("body", "").encode())
        if what == "hang":
            self.connection.settimeout(PATIENCE)
            self.connection.recv(1)
            self.close_connection = True
        elif what == "drop":
            self.close_connection = True
        elif what == "cut":
            self.say(status, headers, answer[: len(answer) // 2], len(answer))
            self.close_connection = True
        else:
            self.say(status, headers, answer)
            self.close_connection = what == "close"

    do_GET = do_POST = do_PUT = do_DELETE = attend

    def control(self, body):
        with self.lock:
            if self.command == "PUT":
                self.plan[:], self.seen[:] = json.loads(body), []
            answer = json.dumps({"seen": self.seen, "left": len(self.plan)}).encode()
        self.say(200, {"Content-Type": "application/json"}, answer)

    def forward(self, body):
        connection = http.client.HTTPConnection(self.hub, timeout=PATIENCE)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in ("content-length", "connection")}
        data = answer.read()
        connection.close()
        return answer.status, kept, data

    def say(self, status, headers, body, size=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # Callers close connections while they hang.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def missing(document):
    """The routes of the document that nobody has called."""
    path, left = None, []
    for line in document.splitlines():
        if line.startswith("  /"):
            path = line.strip().rstrip(":")
        elif line in ("components:", ""):
            path = None
        elif path and not path.endswith(("/media", "/metrics")) and re.fullmatch("    (get|post|put|delete):", line):
            method, pattern = line.strip().rstrip(":").upper(), re.sub("{[a-z]+}", "[^/]+", path)
            if not any(it["method"] == method and re.fullmatch(pattern, it["path"].split("?")[0]) for it in Gate.seen):
                left.append(f"{method} {path}")
    return left


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hub", required=True)
    parser.add_argument("--covers", type=pathlib.Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = [options.hub, "dev", "--json", "--port", "0", "--api-port", "0"]
    hub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        place = json.loads(hub.stdout.readline())
        Gate.hub = urllib.parse.urlsplit(place["api"]).netloc
        server = Server(("127.0.0.1", 0), Gate)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # Bound and not listening: connections are refused, and nobody else gets the port.
        closed = socket.socket()
        closed.bind(("127.0.0.1", 0))
        environment = {
            **os.environ, "CLOSED_URL": f"http://127.0.0.1:{closed.getsockname()[1]}", "HUB_URL": place["api"], "HUB_KEY": place["key"], "SHARE_URL": place["share"],
            "GATE_URL": f"http://127.0.0.1:{server.server_address[1]}"}
        status = subprocess.run(options.command, env=environment).returncode
        left = missing(options.covers.read_text()) if options.covers and not status else []
        if left:
            print(f"the library was not seen to call {', '.join(left)}", file=sys.stderr)
        return status or bool(left)
    finally:
        hub.terminate()
        hub.wait()


if __name__ == "__main__":
    sys.exit(main())
