#!/usr/bin/env python3
"""Checks the metrics with Prometheus's promtool: the alert rules and their tests, the dashboards' expressions, and scrapes of
a live relay and a live hub. Needs Debian's package prometheus and a release build."""
import asyncio
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
HUB = ROOT / "target" / "release" / "sharelink-hub"
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


def scraped_hub():
    """Hub and relay on free ports, as a new user starts them."""
    hub = subprocess.Popen([HUB, "dev", "--port", "0", "--api-port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        place = json.loads(hub.stdout.readline())
        request = urllib.request.Request(place["api"] + "/metrics", headers={"Authorization": "Bearer " + place["key"]})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
    finally:
        hub.terminate()
        hub.wait(60)
    assert b"\nsharelink_hub_relays 1\n" in text, text.decode()
    promtool("check", "metrics", given=text)


def main():
    found = []
    for alerts, dashboard, least in (("alerts.yml", "grafana.json", 50), ("hub-alerts.yml", "hub-grafana.json", 20)):
        promtool("check", "rules", ROOT / "docs" / alerts)
        promtool("test", "rules", ROOT / "tests" / "metrics" / alerts)
        its = list(expressions(json.loads((ROOT / "docs" / dashboard).read_text())))
        assert len(its) >= least, f"{dashboard}: only {len(its)} expressions were found"
        found += its
    scraped_hub()
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as rules:
        json.dump({"groups": [{"name": "dashboard", "rules": [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(found)]}]}, rules)
        rules.flush()
        promtool("check", "rules", rules.name)
    fault, logs = asyncio.run(harness.run("metrics", scraped, 60))
    if fault:
        sys.exit(f"{fault}\n{logs}")
    print(f"promtool: alert rules, their tests, {len(found)} expressions of the dashboards and live scrapes of relay and hub are in order")


main()
