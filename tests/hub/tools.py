#!/usr/bin/env python3
"""Installs what others have written for the tests, in fixed versions, below target/tools.

Each folder has a stamp, which is written last: what was interrupted, is of other versions or of another Python, or was
copied from another place, is made anew.

    tests/hub/tools.py FOLDER PIN...    a virtual environment in this folder
"""

import json
import pathlib
import shutil
import subprocess
import sys
import venv


def install(folder, pins, place=".", npm=()):
    """PyPI's packages into a virtual environment at `folder`/`place`, npm's into `folder`/node."""
    stamp = folder / "installed.json"
    wanted = json.dumps({"place": str(folder.resolve()), "python": sys.version, "pins": [*pins], "npm": [*npm]})
    if stamp.exists() and stamp.read_text() == wanted:
        return
    # First, so that a removal which is interrupted is noticed too.
    stamp.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder / place, with_pip=True)
    pip = [folder / place / "bin/python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *pins], check=True)
    if npm:
        (folder / "node").mkdir()
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *npm]
        subprocess.run(command, cwd=folder / "node", check=True)
    stamp.write_text(wanted)


if __name__ == "__main__":
    install(pathlib.Path(sys.argv[1]), sys.argv[2:])
