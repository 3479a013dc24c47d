#!/usr/bin/env python3
"""Runs the conformance suite against a real daemon. See README.md."""
import argparse
import asyncio
import importlib
import os
import pathlib
import resource
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True

import daemon as daemon_module  # noqa: E402
import harness  # noqa: E402
import tls  # noqa: E402

WAITING_MAX = 12  # concurrent waiting tests: more of them would start in the same second and delay each other


async def main(options, folder=HERE):
    """Runs the tests of a folder, which is on the path of modules."""
    for path in sorted(folder.glob("test_*.py")):
        importlib.import_module(path.stem)
    words, kind = options.k.lower().split("|"), "tls" if options.tls else "plain"
    chosen = [t[:-1] for t in harness.TESTS if any(word in t[0].lower() for word in words) and kind in t[-1]]
    if not chosen:
        print(f"no test of this kind has {options.k!r} in its name", file=sys.stderr)
        return 1
    if options.tls:
        harness.AUTHORITY = tls.Authority()
    over = ", over TLS" if options.tls else ""
    print(f"{len(chosen)} tests against {daemon_module.binary()}{over}, CONFORMANCE_SEED={harness.SEED}", flush=True)
    turns, waiting, crowded, failed = asyncio.Semaphore(options.jobs), asyncio.Semaphore(WAITING_MAX), asyncio.Semaphore(1), []

    async def one(name, function, waits, timeout, crowds):
        async with crowded if crowds else waiting if waits else turns:
            started = time.monotonic()
            fault, logs = await harness.run(name, function, timeout)
        taken = f" ({time.monotonic() - started:.1f} s)" if options.v else ""
        print(f"{'ok  ' if fault is None else 'FAIL'} {name}{taken}", flush=True)
        if fault is not None:
            failed.append(name)
            print("     " + fault.replace("\n", "\n     "), flush=True)
            print("     " + logs.rstrip().replace("\n", "\n     "), flush=True)

    # The longest first, to shorten the whole run.
    await asyncio.gather(*(one(*t) for t in sorted(chosen, key=lambda t: -t[2])))
    for name in failed:
        print(f"failed: {name}")
    print(f"{len(chosen) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", default="", metavar="SUBSTRING", help="only the tests whose name contains it, or one of several with | between")
    parser.add_argument("--tls", action="store_true", help="pages connect by TLS; without tests to which that makes no difference, with those of TLS itself")
    parser.add_argument("-v", action="store_true", help="show how long each test took")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 2) + 4, help="tests at once, those apart that only wait")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
    sys.exit(asyncio.run(main(parser.parse_args())))
