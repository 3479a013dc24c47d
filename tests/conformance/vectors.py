"""Reads the frozen vectors."""
from daemon import ROOT

VECTORS = ROOT / "tests" / "vectors" / "uplink-v1"


def octets(tokens):
    out = b""
    for token in tokens.split():
        value, _, count = token.partition("*")
        out += bytes.fromhex(value) * int(count or 1)
    return out


def cases(name, folder=VECTORS):
    for block in (folder / name).read_text().split("\n\n"):
        case = dict(line.partition(":")[::2] for line in block.splitlines() if line and not line.startswith("#"))
        if case:
            yield {key: value[1:] for key, value in case.items()}
