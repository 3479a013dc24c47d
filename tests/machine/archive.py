"""Debian's archive, as this machine's own apt is configured: its mirror and proxy are used here too.

Owns the queries to apt, and mmdebstrap's arguments. Names no host: only archives that apt is configured for are used, and
without one the error says what to add.
"""
import functools
import re
import subprocess

FIELDS = ("CREATED_BY", "ORIGIN", "REPO_URI", "CODENAME", "COMPONENT", "SOURCESENTRY")
REMEDY = "add one to /etc/apt/sources.list.d (any mirror will do) and run apt-get update"


class Archive:
    """`release` is the guest's release; `sources` are its lines of a sources.list, `backports` is the line of its backports."""

    def __init__(self, told):
        entries = [dict(zip(FIELDS, line.split("\t"))) for line in told.splitlines()]
        entries = [entry for entry in entries if entry["CREATED_BY"] == "Packages" and entry["ORIGIN"] == "Debian"]
        # Updates, security and backports are named after their release.
        whole = [entry for entry in entries if entry["COMPONENT"] == "main" and "-" not in entry["CODENAME"]]
        if not whole:
            raise SystemExit(f"tests/machine: this machine's apt knows no Debian archive; {REMEDY}")
        self.release = whole[0]["CODENAME"]
        own = [entry for entry in entries if entry["CODENAME"].split("-")[0] == self.release and not entry["CODENAME"].endswith("-backports")]
        self.sources = list(dict.fromkeys(source(entry, entry["CODENAME"]) for entry in own))
        self.backports = source(whole[0], f"{self.release}-backports")


@functools.cache
def of_this_machine():
    form = "\t".join(f"$({field})" for field in FIELDS)
    return Archive(asked("apt-get", "indextargets", "--format", form))


def proxies():
    """apt's own proxies, as options of another apt."""
    lines = asked("apt-config", "dump", "--format", "%f \"%v\"%n", "Acquire").splitlines()
    return [line for line in lines if re.match(r"Acquire::https?::Proxy\S* \".+\"$", line, re.IGNORECASE)]


def asked(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def source(entry, suite):
    key = keyring(entry["SOURCESENTRY"])
    return f"deb {f'[signed-by={key}] ' if key else ''}{entry['REPO_URI']} {suite} {entry['COMPONENT']}"


def keyring(place):
    """The key file that the stanza or line names, if any; `place` is PATH:NUMBER, counted from 1."""
    path, _, number = place.rpartition(":")
    try:
        text = open(path, errors="replace").read()
    except OSError:
        return None
    parts = re.split(r"\n\s*\n", text.strip()) if path.endswith(".sources") else text.splitlines()
    part = parts[int(number) - 1] if number.isdigit() and 0 < int(number) <= len(parts) else text
    found = re.search(r"(?:^|\[|\s)signed-by(?:\s*:\s*|=)(/[^\s\],]+)", part, re.IGNORECASE)
    return found and found.group(1)
