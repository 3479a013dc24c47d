#!/usr/bin/env python3
"""Runs the programs of docs/api.md in PHP, Go and Java, where their tools are installed. No part of tests/sdk/run.

    tests/sdk/world.py --hub target/debug/sharelink-hub python3 tests/sdk/languages.py

The gate drops the connection of the first attempt, which has published, and refuses the second: each program prints the
place of the one message. A refusal that stays ends it after one attempt.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GATE = os.environ["GATE_URL"]
COMMANDS = {
    "php": ("say.php", ["php", "say.php"]),
    "go": ("say.go", ["go", "run", "say.go"]),
    "java": ("Publish.java", ["java", "Publish.java"]),
}


def control(method, plan=None):
    request = urllib.request.Request(f"{GATE}/gate", data=None if plan is None else json.dumps(plan).encode(), method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["seen"]


def run(command, folder, key):
    environment = {**os.environ, "HUB": GATE, "KEY": key}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def main():
    text = (ROOT / "docs/api.md").read_text()
    for language, (name, command) in COMMANDS.items():
        [code] = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
        if not shutil.which(command[0]):
            print(f"{language}: not here")
            continue
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, name).write_text(code)
            control("PUT", [{"do": "drop"}, {"do": "refuse", "status": 429}])
            done = run(command, folder, os.environ["HUB_KEY"])
            seen = control("GET")
            assert done.returncode == 0, done.stderr
            assert (len(seen), len({it["key"] for it in seen})) == (3, 1), seen
            request = urllib.request.Request(f"{os.environ['HUB_URL']}/v1/topics/app%2Froom-7", headers={"Authorization": f"Bearer {os.environ['HUB_KEY']}"})
            with urllib.request.urlopen(request) as answer:
                assert json.load(answer)["messages"]["next"] == int(done.stdout) + 1, done.stdout
            control("PUT", [])
            done = run(command, folder, "slk_wrong")
            assert done.returncode != 0 and "the key is not known here" in done.stderr + done.stdout, done
            assert len(control("GET")) == 1
        print(f"{language}: published once")


if __name__ == "__main__":
    main()
