#!/usr/bin/env python3
"""Measures the time from publishing to a page, by API, hub and relay, beside that of the uplink alone (a business server in
this process and the relay). Both in one run, message by message in turn. Asserts nothing.

    target/tools/hub/bin/python tests/hub/latency.py [--pages N] [--messages N] --hub PATH --relay PATH
"""
import argparse
import asyncio
import os
import pathlib
import statistics
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "conformance")]
sys.dont_write_bytecode = True


async def sides(t, pages):
    """The two ways: for each a function that publishes, and the pages that get it."""
    from hub import Client
    hub = await t.hub()
    box, link, client = await t.box(hub), await hub.link("room"), Client(hub)
    by_hub = []
    for _ in range(pages):
        by_hub.append(await t.page(box))
        await by_hub[-1].join(link)
    relay, business, up = await t.relay(auto=lambda up, ask: up.accept(ask))
    alone = []
    for _ in range(pages):
        alone.append(await t.page(relay))
        await alone[-1].join("link")

    async def by_api(n):
        status, answer = await client.message("room", {"n": n, "text": "x" * 100})
        assert status == 200, answer

    async def by_uplink(n):
        up.message(7, n, data=b'{"n":%d,"text":"%s"}' % (n, b"x" * 100))
    return [("API, hub and relay", by_api, by_hub), ("relay alone", by_uplink, alone)]


async def measure(t, options):
    ways = await sides(t, options.pages)
    taken = {name: [] for name, _, _ in ways}
    answered = []
    for n in range(1, options.messages + 1):
        for name, publish, pages in ways:
            began = time.monotonic()
            await publish(n)
            if name.startswith("API"):
                answered.append(time.monotonic() - began)
            for page in pages:
                topic = next(iter(page.topics))
                await page.reached(topic, "message", n, 30)
            taken[name] += [next(at for at, e in reversed(page.events.history) if e.get("sequence") == n) - began for page in pages]
            await asyncio.sleep(0.005)
    for name, times in [*taken.items(), ("(the API's answer)", answered)]:
        cuts = statistics.quantiles((1000 * s for s in times), n=100)
        print(f"{name:20} p50 {cuts[49]:6.2f} ms   p95 {cuts[94]:6.2f} ms   p99 {cuts[98]:6.2f} ms   {len(times)} values", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--hub", required=True)
    parser.add_argument("--relay", required=True)
    options = parser.parse_args()
    os.environ |= {"SHARELINK_HUB": options.hub, "SHARELINKD": options.relay}
    import harness
    import hub

    async def run():
        t = hub.Test("latency")
        try:
            await measure(t, options)
        finally:
            await t.close()
    assert harness.Test is hub.Test
    asyncio.run(run())


if __name__ == "__main__":
    main()
