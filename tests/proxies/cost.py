#!/usr/bin/env python3
"""What TLS costs in the relay and in nginx in front of it: tests/proxies/cost.py [ROUNDS]

One relay of the release build serves the same pages of `sharelinkd bench` directly and through nginx with the recipe of
docs/proxies.md, in turn. Prints the processor time of each delivery, that of nginx included, and the memory of an idle
page: medians of ROUNDS (5), and the ratio of each pair. Takes about 20 s for each round. Needs nginx and openssl."""
import json
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import run

BINARY = run.ROOT / "target" / "release" / "sharelinkd"
DELIVERY, MEMORY = "processor for each delivery, us", "user memory for each page, B"


def configure(directory, plain, secure, business):
    (directory / "relay.toml").write_text(
        f'[pages]\nlisten = "127.0.0.1:{plain}"\ntrusted_proxies = ["127.0.0.1"]\n'
        f'[tls]\nlisten = "127.0.0.1:{secure}"\n'
        f'certificates = [{{ certificate_file = "{directory}/relay.crt", key_file = "{directory}/relay.key" }}]\n'
        f'[uplink]\naddresses = ["127.0.0.1:{business}"]\n[log]\nlevel = "warn"\n')
    text = run.replaced(run.recipe("nginx"), ("listen 443", "listen 127.0.0.1:%d" % run.PORTS.take()),
                        ("127.0.0.1:8080", f"127.0.0.1:{plain}"), ("/etc/ssl", str(directory)))
    paths = "".join(f"{key}_temp_path {directory}/{key};\n" for key in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (directory / "nginx").write_text(
        f"daemon off;\nmaster_process off;\npid {directory}/pid;\nworker_rlimit_nofile 20000;\n"
        f"events {{ worker_connections 8000; }}\nhttp {{\n{paths}{text}}}\n")
    return int(text.split("listen 127.0.0.1:")[1].split()[0])


def answers(port, process):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert process.poll() is None, "nginx ended"
            time.sleep(0.05)
    raise AssertionError("nginx does not answer")


def measured(directory, port, business, commands, *options):
    """Figures of `sharelinkd bench`, with these programs started for it alone."""
    started = []
    try:
        with open(directory / "log", "ab") as log:
            for command in commands[1:]:
                started.append(subprocess.Popen(command, stderr=log))
                answers(port, started[-1])
            # Once the bench listens: the relay would come back late. The bench wants its number.
            started.append(subprocess.Popen(["/bin/sh", "-c", 'sleep 1; exec "$@"', "-", *commands[0]], stderr=log))
        command = [BINARY, "bench", "--tls", "--json", "--relay", f"127.0.0.1:{port}", "--business", f"127.0.0.1:{business}",
                   "--process", ",".join(str(process.pid) for process in started), *options]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + (directory / "log").read_text()[-2000:]
        return json.loads(done.stdout)["relay"]
    finally:
        for process in started:
            process.terminate()
            process.wait(30)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    plain, secure, business = (run.PORTS.take() for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="sl") as folder:
        directory = pathlib.Path(folder)
        run.certificate(directory)
        proxied = configure(directory, plain, secure, business)
        relay = [BINARY, "run", "--config", directory / "relay.toml"]
        nginx = ["/usr/sbin/nginx", "-c", directory / "nginx", "-p", directory, "-e", directory / "nginx.log"]
        for title, key, options in (
            ("one in flight, 200 B, us a delivery", DELIVERY, ["--seconds", "3"]),
            ("four in flight, 200 B, us a delivery", DELIVERY, ["--under-way", "4", "--seconds", "3"]),
            ("an idle page, B", MEMORY, ["--mode", "idle", "--pages", "2000"]),
        ):
            pairs = [(measured(directory, secure, business, [relay], *options)[key],
                      measured(directory, proxied, business, [relay, nginx], *options)[key]) for _ in range(rounds)]
            own, both = (statistics.median(values) for values in zip(*pairs))
            ratios = sorted(own / both for own, both in pairs)
            print(f"{title}: relay {own:.2f}, nginx and relay {both:.2f}, ratio {statistics.median(ratios):.2f} "
                  f"({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    main()
