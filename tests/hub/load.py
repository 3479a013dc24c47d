#!/usr/bin/env python3
"""Measures what a publication costs the hub: messages of 100 bytes to one topic through the API, with so many relays on it,
first at a fixed rate, then as many as the hub takes (by Debian's `wrk`: 16 connections, each waits for its answer). The
relays are connections of this process, which read and count bytes alone. Asserts nothing about speed; each relay must have
got the last message.

    target/tools/hub/bin/python tests/hub/load.py [--relays N,N,...] [--seconds N] [--rate N] --hub PATH
"""
import argparse
import asyncio
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "conformance")]
sys.dont_write_bytecode = True
TICKS = os.sysconf("SC_CLK_TCK")
LAST = b"the last message of this run"
SCRIPT = """wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer %s"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"text":"%s"}'
"""


class Reader:
    """Reads what a relay's end gets, and looks for the last message alone."""

    def __init__(self, relay):
        self.relay, self.size, self.tail, self.last = relay, 0, b"", asyncio.Event()
        relay.task.cancel()
        self.tasks = [asyncio.ensure_future(self.read()), asyncio.ensure_future(self.ping())]

    async def read(self):
        while data := await self.relay.reader.read(1 << 16):
            self.size += len(data)
            self.tail = (self.tail + data)[-4096:]
            if LAST in self.tail:
                self.last.set()

    async def ping(self):
        while True:
            await asyncio.sleep(5)
            self.relay.send("Ping", nonce=1)

    def end(self):
        for task in self.tasks:
            task.cancel()


def processor_s(pid):
    """Seconds of processor time of a process so far, of the program and of the kernel for it."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def at_rate(hub, client, options):
    began, count = time.monotonic(), options.rate * options.seconds
    for n in range(count):
        status, answer = await client.message("room", {"text": "x" * 89})
        assert status == 200, answer
        await asyncio.sleep(max(0, began + (n + 1) / options.rate - time.monotonic()))
    return count


async def at_most(hub, script, options):
    command = ["wrk", "-t1", "-c16", f"-d{options.seconds}", "-s", str(script), f"http://127.0.0.1:{hub.port}/v1/topics/room/messages"]
    wrk = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said = (await wrk.communicate())[0].decode()
    assert wrk.returncode == 0 and "Non-2xx" not in said, said
    return int(re.search(r"(\d+) requests in", said).group(1))


async def measure(t, relays, options):
    import hub as hub_module
    hub = await t.hub(log={"level": "warn"}, limits={"relays": relays + 1})
    client, link = hub_module.Client(hub), await hub.link("room")
    readers = []
    for n in range(relays):
        relay = await t.relay_end(hub, f"gate-{n}")
        await relay.accepted(link)
        readers.append(Reader(relay))
    script = t.directory / "post.lua"
    script.write_text(SCRIPT % (hub.key, "x" * 89))
    for name, run in (("at a fixed rate", at_rate(hub, client, options)), ("at most", at_most(hub, script, options))):
        before, size, began = processor_s(hub.process.pid), sum(r.size for r in readers), time.monotonic()
        count = await run
        spent, taken = processor_s(hub.process.pid) - before, time.monotonic() - began
        size = sum(r.size for r in readers) - size
        print(f"{relays:4} relays, {name:15}: {count / taken:8.0f} publications/s, {1e6 * spent / count:7.1f} us of processor each, "
              f"{size / max(1, relays) / count:6.1f} bytes to each relay", flush=True)
    status, answer = await client.message("room", {"text": LAST.decode()})
    assert status == 200, answer
    for reader in readers:
        await asyncio.wait_for(reader.last.wait(), 60)
        reader.end()
    client.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--relays", default="0,1,10,100")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--hub", required=True)
    options = parser.parse_args()
    if not shutil.which("wrk"):
        parser.error("there is no wrk: apt install wrk")
    os.environ["SHARELINK_HUB"] = options.hub
    import hub

    async def run(relays):
        t = hub.Test("load")
        try:
            await measure(t, relays, options)
        finally:
            await t.close()
    for relays in map(int, options.relays.split(",")):
        asyncio.run(run(relays))


if __name__ == "__main__":
    main()
