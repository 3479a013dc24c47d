#!/usr/bin/env python3
"""Checks the metrics with Prometheus's promtool: the alert rules and their tests, the dashboard's expressions, and a scrape
of a live relay. Needs Debian's package prometheus and a release build."""
import asyncio
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "conformance"))
sys.dont_write_bytecode = True

import harness  # noqa: E402
from websocket import http  # noqa: E402


def promtool(*words, given=None):
    done = subprocess.run(["promtool", *map(str, words)], input=given, capture_output=True)
    said = (done.stdout + done.stderr).decode()
    if done.returncode != 0 or (given is not None and said.strip()):
        sys.exit(f"promtool {' '.join(map(str, words))} ended with {done.returncode}:\n{said}")


def expressions(value):
    """Every expression of the dashboard, with Grafana's variables substituted."""
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from expressions(item)


async def scraped(t):
    port = harness.PORTS.take()
    daemon, business, uplink = await t.relay(metrics={"listen": f"127.0.0.1:{port}"})
    page = await t.joined(daemon, uplink, t.link())
    uplink.message(7, 1, 2, 3)
    await page.reached(7, "message", 3)
    answer = await http(port, "/metrics")
    promtool("check", "metrics", given=answer.body)


def main():
    promtool("check", "rules", ROOT / "docs" / "alerts.yml")
    promtool("test", "rules", ROOT / "tests" / "metrics" / "alerts.yml")
    found = list(expressions(json.loads((ROOT / "docs" / "grafana.json").read_text())))
    assert len(found) > 50, f"only {len(found)} expressions were found"
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as rules:
        json.dump({"groups": [{"name": "dashboard", "rules": [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(found)]}]}, rules)
        rules.flush()
        promtool("check", "rules", rules.name)
    fault, logs = asyncio.run(harness.run("metrics", scraped, 60))
    if fault:
        sys.exit(f"{fault}\n{logs}")
    print(f"promtool: alert rules, their tests, {len(found)} expressions of the dashboard and a live scrape are in order")


main()
