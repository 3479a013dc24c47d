#!/usr/bin/env python3
"""Runs the public Autobahn|Testsuite against a WebSocket echo and judges its report: autobahn.py ws://HOST:PORT/PATH

The suite is Python 2.7 code. It is installed into a virtualenv under target/ once and kept. Without Python 2.7, or if
the suite can't be downloaded, this prints that the suite WAS NOT RUN and exits with 0; any other failure exits with 1.
`cargo test --test echo` provides the echo: the daemon's own page connection."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUITE = "autobahntestsuite==25.10.1"
MAKER = "virtualenv<20.22"  # the last that supports Python 2.7
GROUPS = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
CASES = 301
TIMEOUT_S = 240

# Invalid UTF-8 is detected when the frame is complete, not at the invalid byte.
NON_STRICT = {"6.4.3", "6.4.4"}
# A close frame behind 256 KiB that are still being sent; close codes without a defined verdict.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


def python27():
    """A working Python 2.7, or None."""
    named = [os.environ.get("PYTHON27"), shutil.which("python2.7"), shutil.which("python2")]
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    for candidate in [n for n in named if n] + sorted(map(str, pyenv.glob("2.7*/bin/python2.7")), reverse=True):
        try:
            said = subprocess.run([candidate, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        except OSError:
            continue
        if said.stdout.strip() == "(2, 7)":
            return candidate
    return None


def run(*command):
    """Runs a step of the installation, with retries: most of them are downloads."""
    for pause_s in (5, 20, None):
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode == 0:
            return
        if pause_s is not None:
            time.sleep(pause_s)
    raise NotInstalled(f"{done.stdout[-3000:]}\nautobahn: {' '.join(map(str, command))} ended with {done.returncode}")


class NotInstalled(Exception):
    """The suite is not installed and can't be downloaded."""


def suite(python):
    """The suite's program; installs its virtualenv if it is missing."""
    home = ROOT / "target" / "autobahn" / SUITE.replace("==", "-")
    ready = home / "ready"
    if not ready.exists():
        print(f"autobahn: installing {SUITE} into {home.relative_to(ROOT)}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        run(sys.executable, "-m", "venv", home / "maker")
        run(home / "maker" / "bin" / "pip", "install", "-q", MAKER)
        run(home / "maker" / "bin" / "virtualenv", "-q", "-p", python, home / "suite")
        run(home / "suite" / "bin" / "pip", "install", "-q", SUITE)
        ready.touch()
    return home / "suite" / "bin" / "wstest"


def was_not_run(why, remedy):
    line = "!" * 100
    print(f"{line}\nautobahn: THE PUBLIC CONFORMANCE SUITE (Autobahn|Testsuite) WAS NOT RUN: {why}.\nautobahn: {remedy}.\n{line}", flush=True)
    return 0


def report(program, url, folder):
    """The suite's report by case number."""
    specification = {
        "outdir": f"{folder}/found",
        "servers": [{"agent": "sharelinkd", "url": url, "protocols": ["sharelink.v1"]}],
        "cases": GROUPS, "exclude-cases": [], "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(specification))
    command = [program, "-m", "fuzzingclient", "-s", folder / "spec.json"]
    with open(folder / "log", "wb") as log:
        try:
            done = subprocess.run(list(map(str, command)), stdout=log, stderr=log, cwd=folder, timeout=TIMEOUT_S)
            ended = f"ended with {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"had not ended after {TIMEOUT_S} s"
    index = folder / "found" / "index.json"
    found = json.loads(index.read_text()).get("sharelinkd") if index.exists() else None
    if not found:
        sys.exit((folder / "log").read_text(errors="replace")[-3000:] + f"\nautobahn: the suite {ended} and left no report")
    return found


def fault(case, found):
    """Why a case fails, or None."""
    behavior, closing = found["behavior"], found["behaviorClose"]
    allowed = {"OK"} | ({"NON-STRICT"} if case in NON_STRICT else set()) | ({"INFORMATIONAL"} if case in INFORMATIONAL else set())
    if behavior not in allowed:
        return f"behaviour {behavior}"
    if closing != "OK" and not (closing == "INFORMATIONAL" and case in INFORMATIONAL):
        return f"closing {closing}"
    return None


def main(url):
    python = python27()
    if python is None:
        return was_not_run("it needs a Python 2.7, and none is here", "pyenv install 2.7.18 brings one; PYTHON27=PATH names one")
    try:
        program = suite(python)
    except NotInstalled as error:
        print(error)
        return was_not_run(f"{SUITE} can't be installed", "it needs PyPI once; target/autobahn then has it")
    with tempfile.TemporaryDirectory(prefix="autobahn") as folder:
        cases = report(program, url, pathlib.Path(folder))
    order = sorted(cases, key=lambda case: [int(part) for part in case.split(".")])
    counts, faults = {}, []
    for case in order:
        found = cases[case]
        counts[found["behavior"]] = counts.get(found["behavior"], 0) + 1
        wrong = fault(case, found)
        if wrong or found["behavior"] != "OK":
            print(f"{'FAIL' if wrong else 'ok  '} autobahn {case}: {wrong or found['behavior'].lower() + ', as is known'};"
                  f" close code {found['remoteCloseCode']}")
        if wrong:
            faults.append(case)
    if len(cases) != CASES:
        faults.append("the number of cases")
        print(f"FAIL autobahn: {len(cases)} cases were run, {CASES} were to be")
    told = ", ".join(f"{count} {behavior}" for behavior, count in sorted(counts.items(), key=lambda item: -item[1]))
    print(f"autobahn: {len(cases)} cases: {told}; {len(faults)} not as they should be", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
