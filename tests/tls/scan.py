#!/usr/bin/env python3
"""Runs testssl.sh against a relay, with the CA that its certificate is of: scan.py [--all]

Prints each finding above the severity LOW and fails if there is one; with --all, each that is not OK or INFO. The program
is the Debian package testssl.sh; it asks no other host than the relay."""
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
import tls  # noqa: E402

HSTS_S = 63_072_000
QUIET = {"OK", "INFO", "LOW", "DEBUG", "WARN"}  # WARN: what the scanner itself could not do
# Of a private CA, which has no revocation lists.
OF_THE_CA = {"cert_revocation"}


async def main(shows_all):
    harness.AUTHORITY = tls.Authority()
    t = harness.Test("scan")
    certificates = [harness.AUTHORITY.issue([tls.NAME], days=90)]
    daemon = await t.daemon(["127.0.0.1:1"], tls={"hsts_s": HSTS_S, "certificates": certificates}).start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = pathlib.Path(folder) / "report.json"
            scan = ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--nodns", "min", "--ip", "127.0.0.1", "--add-ca", harness.AUTHORITY.file,
                    "--jsonfile", str(report), f"{tls.NAME}:{daemon.port}"]
            process = await asyncio.create_subprocess_exec(*scan, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said = (await process.communicate())[0].decode(errors="replace")
            if not report.exists():
                sys.exit(f"{said[-3000:]}\nscan: testssl.sh left no report")
            findings = json.loads(report.read_text())
    finally:
        await t.close()
    counts = {}
    for finding in findings:
        counts[finding["severity"]] = counts.get(finding["severity"], 0) + 1
    above = [f for f in findings if f["severity"] not in QUIET and f["id"].split(" ")[0] not in OF_THE_CA]
    shown = [f for f in findings if f["severity"] not in ("OK", "INFO")] if shows_all else above
    for finding in shown:
        print(f"{finding['severity']:8} {finding['id']}: {finding['finding']}")
    told = ", ".join(f"{count} {severity}" for severity, count in sorted(counts.items()))
    print(f"scan: {len(findings)} findings: {told}; {len(above)} above LOW")
    return 1 if above or t.faults else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main("--all" in sys.argv[1:])))
