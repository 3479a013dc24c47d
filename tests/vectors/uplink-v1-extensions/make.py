#!/usr/bin/env python3
"""Writes the frozen vectors of the uplink's extensions: frames that go only where both sides named them.

Written from docs/protocol.md, with the encoder of the vectors of version 1 beside it. `make.py` writes the files beside it,
`make.py --check` only compares. An extension that has been released is never changed: a new one has a new word.
"""
import hashlib
import importlib.util
import pathlib
import sys

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("version1", HERE.parent / "uplink-v1" / "make.py")
version1 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(version1)
varint, octets, quoted, framed = version1.varint, version1.octets, version1.quoted, version1.framed


def features(variant, words):
    return bytes([variant]) + octets(words), f"Features words={quoted(words)}"


def away(within_s):
    return b"\x0b" + varint(within_s), f"Away within_s={within_s}"


def send(topic, page, identity, data):
    return (b"\x08" + varint(topic) + varint(page) + identity + octets(data),
            f"Send topic={topic} page={page} id={identity.hex()} data={quoted(data)}")


def sent(page, identity):
    return b"\x0c" + varint(page) + identity, f"Sent page={page} id={identity.hex()}"


IDS = [bytes(16), bytes(range(16)), b"\xff" * 16]
WORDS = [("one word", "away"), ("two words", "receipts away"), ("none", ""), ("words that nobody knows", "x-later  y"),
         ("not ASCII", "\u79d8"), ("the longest", "w" * 256)]


def faults(variant):
    yield "features, only the variant", framed(bytes([variant])), "error: truncated"
    yield "features, last byte missing", framed(features(variant, "away")[0][:-1]), "error: truncated"
    yield "features, a byte left over", framed(features(variant, "away")[0] + b"\0"), "error: leftover"
    yield "features, 257 bytes", framed(features(variant, "w" * 257)[0]), "error: limit"
    yield "features, not UTF-8", framed(bytes([variant]) + b"\1\xff"), "error: utf8"


def to_relay():
    for name, words in WORDS:
        yield f"features, {name}", features(10, words)
    for within_s in (0, 1, 5, 127, 128, version1.U32):
        yield f"away {within_s}", away(within_s)
    for page in (0, 1, 127, 128, version1.U32):
        for identity in IDS:
            yield f"sent {page} {identity.hex()}", sent(page, identity)


def to_relay_invalid():
    yield from faults(10)
    yield "away, only the variant", framed(b"\x0b"), "error: truncated"
    yield "away, beyond u32", framed(b"\x0b\xff\xff\xff\xff\x1f"), "error: varint"
    yield "away, a byte left over", framed(away(5)[0] + b"\0"), "error: leftover"
    yield "sent, only the variant", framed(b"\x0c"), "error: truncated"
    yield "sent, last byte missing", framed(sent(7, IDS[1])[0][:-1]), "error: truncated"
    yield "sent, a byte left over", framed(sent(7, IDS[1])[0] + b"\0"), "error: leftover"
    yield "sent, page beyond u32", framed(b"\x0c\xff\xff\xff\xff\x1f" + IDS[1]), "error: varint"
    yield "variant 13", framed(b"\x0d" + bytes(8)), "error: variant"


def to_business():
    for name, words in WORDS:
        yield f"features, {name}", features(7, words)
    for name, data in [("a word", "hello"), ("nothing", ""), ("not ASCII", "\U0001f44d"), ("the longest", "s" * 512)]:
        for identity in IDS:
            yield f"send, {name}, {identity.hex()}", send(7, 300, identity, data)
    yield "send, the largest numbers", send(version1.U32, version1.U32, IDS[2], "hello")


def to_business_invalid():
    yield from faults(7)
    yield "send, only the variant", framed(b"\x08"), "error: truncated"
    yield "send, half an id", framed(b"\x08\x07\x03" + IDS[1][:8]), "error: truncated"
    yield "send, last byte missing", framed(send(7, 3, IDS[1], "hello")[0][:-1]), "error: truncated"
    yield "send, a byte left over", framed(send(7, 3, IDS[1], "hello")[0] + b"\0"), "error: leftover"
    yield "send, 513 bytes", framed(send(7, 3, IDS[1], "s" * 513)[0]), "error: limit"
    yield "send, not UTF-8", framed(b"\x08\x07\x03" + IDS[1] + b"\1\xff"), "error: utf8"
    yield "variant 9", framed(b"\x09" + bytes(8)), "error: variant"


def authors():
    for challenge in IDS:
        for page in (0, 1, 300, version1.U32):
            hello = challenge[::-1]
            hashed = hashlib.sha256(b"sharelinkd author" + challenge + hello + page.to_bytes(4, "little")).digest()
            yield [("name", f"page {page} of {challenge.hex()}"), ("challenge_nonce", challenge.hex()),
                   ("hello_nonce", hello.hex()), ("page", page), ("author", hashed[:8].hex())]


def main():
    blocks, valid, invalid = version1.blocks, version1.valid, version1.invalid
    files = {
        "authors.txt": blocks("Uplink extensions: pages as authors", authors()),
        "to-business.txt": blocks("Uplink extensions, relay to business server: frames that are right", valid(to_business(), [])),
        "to-relay.txt": blocks("Uplink extensions, business server to relay: frames that are right", valid(to_relay(), [])),
        "to-business-invalid.txt": blocks("Uplink extensions, relay to business server: frames that must be refused",
                                          invalid(to_business_invalid())),
        "to-relay-invalid.txt": blocks("Uplink extensions, business server to relay: frames that must be refused",
                                       invalid(to_relay_invalid())),
    }
    stale = [name for name, content in files.items()
             if not (HERE / name).exists() or (HERE / name).read_bytes() != content.encode()]
    if "--check" not in sys.argv:
        for name, content in files.items():
            (HERE / name).write_bytes(content.encode())
    print(f"{len(files)} files, " + ("differ: " + ", ".join(stale) if stale else "as they were"))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
