#!/usr/bin/env python3
"""Runs the tests of this folder against a real hub and real relays, with the tools of tests/conformance. See README.md."""
import argparse
import asyncio
import os
import pathlib
import resource
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", default="", metavar="SUBSTRING", help="only the tests whose name contains it, or one of several with | between")
    parser.add_argument("-v", action="store_true", help="show how long each test took")
    parser.add_argument("--hub", metavar="PATH", help="the hub; by default that of target/release or target/debug")
    parser.add_argument("--relay", metavar="PATH", help="the relay, found in the same way")
    parser.add_argument("--jobs", type=int, default=(os.cpu_count() or 2) + 2, help="tests at once, those apart that only wait")
    options = parser.parse_args()
    options.tls = False
    if options.hub:
        os.environ["SHARELINK_HUB"] = options.hub
    if options.relay:
        os.environ["SHARELINKD"] = options.relay
    import hub
    import run
    print(f"the hub is {hub.binary()}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
    return asyncio.run(run.main(options, HERE))


if __name__ == "__main__":
    sys.exit(main())
