#!/usr/bin/env python3
"""Writes the frozen vectors of the uplink protocol, version 1, byte for byte the same each time.

Written from docs/protocol.md's table alone, with a postcard encoder of its own; it knows nothing of the Rust code,
so that the two check each other. `make.py` writes the files beside it, `make.py --check` only compares.
Once a version has been released its files are never edited: a change of the protocol is a new directory.
"""
import hashlib
import hmac
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
HEAD = """# {title}
# If this fails, do not change the test: the program is wrong, or it needs uplink version 2.
# Written by make.py; the format is described in README.md.
"""
U32, U64, SEQUENCE_MAX, FRAME_MAX = 2**32 - 1, 2**64 - 1, 2**53 - 1, 1114112


# --- postcard, by hand -------------------------------------------------------------------------------------------

def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def octets(value):
    value = value.encode() if isinstance(value, str) else value
    return varint(len(value)) + value


def boolean(value):
    return b"\1" if value else b"\0"


TRACKS = {"state": 0, "messages": 1, "audio": 2, "video": 3}


def since_bytes(since):
    if since is None:
        return b"\0"
    epoch, following = since
    return b"\1" + varint(epoch) + b"".join(varint(n) for n in following)


def part_bytes(part, mime):
    return {"whole": b"\0", "init": b"\1" + octets(mime or ""), "start": b"\2", "continue": b"\3"}[part]


# --- the text that stands for a value -----------------------------------------------------------------------------

def fnv1a64(data):
    state = 0xCBF29CE484222325
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 & U64
    return state


def long_form(data):
    return "#%d:%016x" % (len(data), fnv1a64(data))


def quoted(value):
    data = value.encode() if isinstance(value, str) else value
    if len(data) > 64:
        return long_form(data)
    return '"' + "".join(chr(b) if 0x20 <= b <= 0x7E and b not in b'"\\' else "\\x%02x" % b for b in data) + '"'


def hexed(data):
    return long_form(data) if len(data) > 64 else data.hex()


def flag(value):
    return "true" if value else "false"


def tokens(data):
    """Hex; a run of 64 equal bytes or more is written HH*COUNT."""
    out, plain, at = [], bytearray(), 0
    while at < len(data):
        end = at + 1
        while end < len(data) and data[end] == data[at]:
            end += 1
        if end - at >= 64:
            if plain:
                out.append(plain.hex())
                plain = bytearray()
            out.append("%02x*%d" % (data[at], end - at))
        else:
            plain += data[at:end]
        at = end
    if plain:
        out.append(plain.hex())
    return " ".join(out)


def framed(payload):
    return struct.pack("<I", len(payload)) + payload


# --- each frame: its bytes and its text ---------------------------------------------------------------------------

def hello(version, relay, nonce, proof):
    return (b"\0" + varint(version) + octets(relay) + nonce + proof,
            f"Hello version={version} relay={quoted(relay)} nonce={nonce.hex()} proof={proof.hex()}")


def subscribe(request, link, since, address, origin):
    shown = "none" if since is None else "%d/%s" % (since[0], ",".join(map(str, since[1])))
    return (b"\1" + varint(request) + octets(link) + since_bytes(since) + octets(address) + octets(origin),
            f"Subscribe request={request} link={quoted(link)} since={shown} address={quoted(address)} origin={quoted(origin)}")


def unsubscribe(topic):
    return b"\2" + varint(topic), f"Unsubscribe topic={topic}"


def audience(topic, pages):
    return b"\3" + varint(topic) + varint(pages), f"Audience topic={topic} pages={pages}"


def page_message(topic, page, data):
    return (b"\4" + varint(topic) + varint(page) + octets(data),
            f"PageMessage topic={topic} page={page} data={quoted(data)}")


def relay_ping(nonce):
    return b"\5" + varint(nonce), f"Ping nonce={nonce}"


def relay_pong(nonce):
    return b"\6" + varint(nonce), f"Pong nonce={nonce}"


def challenge(version, nonce):
    return b"\0" + varint(version) + nonce, f"Challenge version={version} nonce={nonce.hex()}"


def welcome(version, proof):
    return b"\1" + varint(version) + proof, f"Welcome version={version} proof={proof.hex()}"


def accept(request, topic, epoch, shared, ttl_s, page_messages, replay):
    return (b"\2" + varint(request) + varint(topic) + varint(epoch)
            + boolean(shared) + varint(ttl_s) + boolean(page_messages) + varint(replay),
            f"Accept request={request} topic={topic} epoch={epoch} shared={flag(shared)} ttl_s={ttl_s}"
            f" page_messages={flag(page_messages)} replay={replay}")


def deny(request, reason):
    return b"\3" + varint(request) + octets(reason), f"Deny request={request} reason={quoted(reason)}"


def publish(topic, track, sequence, part, data, mime=None):
    shown = part if mime is None else f"{part} mime={quoted(mime)}"
    return (b"\4" + varint(topic) + varint(TRACKS[track]) + varint(sequence) + part_bytes(part, mime) + octets(data),
            f"Publish topic={topic} track={track} sequence={sequence} part={shown} data={hexed(data)}")


def revoke(link, reason):
    return b"\5" + octets(link) + octets(reason), f"Revoke link={quoted(link)} reason={quoted(reason)}"


def end(topic, reason):
    return b"\6" + varint(topic) + octets(reason), f"End topic={topic} reason={quoted(reason)}"


def business_ping(nonce):
    return b"\7" + varint(nonce), f"Ping nonce={nonce}"


def business_pong(nonce):
    return b"\x08" + varint(nonce), f"Pong nonce={nonce}"


def kick(page, reason):
    return b"\x09" + varint(page) + octets(reason), f"Kick page={page} reason={quoted(reason)}"


# --- the cases ----------------------------------------------------------------------------------------------------

NONCE_A, NONCE_B = bytes(range(16)), bytes(range(0xF0, 0x100))
PROOF_A, PROOF_B = bytes(range(32)), bytes(range(0xE0, 0x100))
U16_EDGES = [0, 1, 127, 128, 16383, 16384, 65535]
U32_EDGES = [0, 1, 127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**28 - 1, 2**28, U32]
U64_EDGES = U32_EDGES + [2**32, 2**35 - 1, 2**35, 2**42, 2**49, SEQUENCE_MAX, 2**53, 2**56, 2**63 - 1, 2**63, U64]
SEQUENCE_EDGES = [1, 127, 128, 16383, 16384, 2**21, 2**28, U32, 2**32, 2**49, SEQUENCE_MAX]
CHINESE, THUMB = "你好，世界", "👍"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"


def to_business():
    yield "hello", hello(1, "box-1", NONCE_A, PROOF_A)
    yield "hello, relay empty", hello(1, "", NONCE_B, PROOF_B)
    yield "hello, relay not ASCII", hello(1, "网关-1", NONCE_A, PROOF_B)
    yield "hello, relay of 256 bytes", hello(1, "r" * 256, NONCE_A, PROOF_A)
    yield "hello, all bits set", hello(1, "r", b"\xff" * 16, b"\xff" * 32)
    for n in U16_EDGES:
        yield f"hello, version {n}", hello(n, "box", NONCE_A, PROOF_A)
    yield "subscribe, no since", subscribe(1, "demo", None, "203.0.113.7", "https://share.example")
    yield "subscribe, since", subscribe(2, "demo", (7, (4, 43, 0, 0)), "2001:db8::7", "https://share.example:8443")
    yield "subscribe, page unknown", subscribe(3, "demo", None, "", "")
    yield "subscribe, since of a cold link", subscribe(4, "demo", (7, (0, 1, 0, 0)), "127.0.0.1", "")
    yield "subscribe, since all zero", subscribe(5, "demo", (0, (0, 0, 0, 0)), "", "")
    yield "subscribe, since at the varint edges", subscribe(6, "demo", (127, (127, 128, 16383, 16384)), "", "")
    yield "subscribe, since at its greatest", subscribe(7, "demo", (U64, (2**53,) * 4), "", "")
    for n in U64_EDGES:
        yield f"subscribe, epoch {n}", subscribe(8, "demo", (n, (1, 1, 1, 1)), "", "")
    for n in U32_EDGES:
        yield f"subscribe, request {n}", subscribe(n, "demo", None, "", "")
    yield "subscribe, link of 1 byte", subscribe(9, "~", None, "", "")
    yield "subscribe, link of every byte allowed", subscribe(10, ALPHABET, None, "", "")
    yield "subscribe, link of 127 bytes", subscribe(11, "l" * 127, None, "", "")
    yield "subscribe, link of 128 bytes", subscribe(12, "l" * 128, (1, (1, 2, 3, 4)), "198.51.100.4", "null")
    for n in U32_EDGES:
        yield f"unsubscribe, topic {n}", unsubscribe(n)
    yield "audience", audience(7, 3)
    yield "audience, nobody", audience(7, 0)
    for n in U32_EDGES:
        yield f"audience, pages {n}", audience(U32, n)
    yield "page message", page_message(7, 1, "hello")
    yield "page message, empty", page_message(0, 0, "")
    yield "page message, not ASCII", page_message(7, 300, THUMB)
    yield "page message, quotes and control bytes", page_message(7, 2, 'a"b\\c\n\0')
    yield "page message, 127 bytes", page_message(7, 3, "m" * 127)
    yield "page message, 128 bytes", page_message(7, 3, "m" * 128)
    yield "page message, 512 bytes", page_message(U32, U32, "m" * 512)
    yield "page message, 512 bytes of emoji", page_message(7, 4, THUMB * 128)
    for n in U32_EDGES:
        yield f"ping {n}", relay_ping(n)
        yield f"pong {n}", relay_pong(n)


def to_relay():
    yield "challenge", challenge(1, NONCE_A)
    yield "challenge, all bits set", challenge(1, b"\xff" * 16)
    for n in U16_EDGES:
        yield f"challenge, version {n}", challenge(n, NONCE_B)
    yield "welcome", welcome(1, PROOF_A)
    for n in U16_EDGES:
        yield f"welcome, version {n}", welcome(n, PROOF_B)
    yield "accept, shared", accept(1, 7, 7, True, 300, True, 50)
    yield "accept, not shared", accept(2, 7, 7, False, 0, False, 0)
    yield "accept, shared without page messages", accept(3, 7, 7, True, 60, False, 1)
    yield "accept, not shared with page messages", accept(4, 7, 7, False, 60, True, 1)
    yield "accept, all zero", accept(0, 0, 0, False, 0, False, 0)
    yield "accept, all at their greatest", accept(U32, U32, U64, True, U32, True, 65535)
    for n in U32_EDGES:
        yield f"accept, request {n}", accept(n, 1, 1, True, 1, False, 1)
        yield f"accept, topic {n}", accept(1, n, 1, True, 1, False, 1)
        yield f"accept, ttl {n}", accept(1, 1, 1, True, n, False, 1)
    for n in U64_EDGES:
        yield f"accept, epoch {n}", accept(1, 1, n, True, 1, False, 1)
    for n in U16_EDGES:
        yield f"accept, replay {n}", accept(1, 1, 1, True, 1, False, n)
    yield "deny", deny(1, "this link has expired")
    yield "deny, no reason", deny(U32, "")
    yield "deny, not ASCII", deny(128, CHINESE)
    yield "deny, reason of 256 bytes", deny(1, "x" * 256)
    yield "state", publish(7, "state", 3, "whole", '{"title":"房间"}'.encode())
    yield "message", publish(7, "messages", 42, "whole", b'{"from":"a","text":"b"}')
    yield "message, data empty (it decodes; that it is no JSON is the relay's to see)", publish(7, "messages", 1, "whole", b"")
    yield "message, data not UTF-8 (it decodes; that it is no JSON is the relay's to see)", publish(7, "messages", 1, "whole", b"\xff\xfe")
    for track in ("audio", "video"):
        yield f"{track} init", publish(7, track, 1, "init", bytes.fromhex("1a45dfa3"), f'{track}/webm; codecs="vp8, opus"')
        yield f"{track} start", publish(7, track, 2, "start", bytes.fromhex("1f43b675"))
        yield f"{track} continue", publish(7, track, 3, "continue", b"\0\1\2\xff")
        yield f"{track} init, empty", publish(7, track, 1, "init", b"", "")
        yield f"{track} start, empty", publish(7, track, 2, "start", b"")
        yield f"{track} continue, empty", publish(7, track, 3, "continue", b"")
    yield "init, MIME of 127 bytes", publish(7, "video", 1, "init", b"\1", "m" * 127)
    yield "init, MIME of 128 bytes", publish(7, "video", 1, "init", b"\1", "m" * 128)
    yield "init, MIME of 255 bytes", publish(7, "audio", 1, "init", b"\1", "m" * 255)
    for n in U32_EDGES:
        yield f"publish, topic {n}", publish(n, "messages", 1, "whole", b"1")
    for n in SEQUENCE_EDGES:
        yield f"publish, sequence {n}", publish(7, "messages", n, "whole", b"1")
    for n in (1, 127, 128, 16383, 16384, 65535, 65536, 1048576):
        yield f"publish, data of {n} bytes", publish(7, "video", 2, "start", b"\xa5" * n)
    yield "revoke", revoke("demo", "the host left")
    yield "revoke, no reason", revoke("demo", "")
    yield "revoke, link of 128 bytes, reason of 256", revoke("l" * 128, "x" * 256)
    yield "end", end(7, "the room closed")
    yield "end, no reason", end(0, "")
    yield "end, not ASCII", end(U32, CHINESE)
    yield "end, reason of 256 bytes", end(7, "x" * 256)
    for n in U32_EDGES:
        yield f"ping {n}", business_ping(n)
        yield f"pong {n}", business_pong(n)
        yield f"kick, page {n}", kick(n, "be kind")
    yield "kick, no reason", kick(1, "")
    yield "kick, reason of 256 bytes", kick(1, "x" * 256)


# postcard decodes a varint that is longer than it need be, as long as it fits its type; it never writes one.
def to_relay_lax():
    yield "ping, nonce 0 in two bytes", b"\7\x80\0", "Ping nonce=0"
    yield "ping, nonce 1 in five bytes", b"\7\x81\x80\x80\x80\0", "Ping nonce=1"
    yield "ping, variant in two bytes", b"\x87\0\5", "Ping nonce=5"
    yield "end, reason's length in two bytes", b"\6\7\x82\0ok", 'End topic=7 reason="ok"'
    yield ("accept, epoch 1 in ten bytes", b"\2\1\7" + b"\x81" + b"\x80" * 8 + b"\0" + b"\1\1\0\1",
           "Accept request=1 topic=7 epoch=1 shared=true ttl_s=1 page_messages=false replay=1")


def to_business_lax():
    yield "ping, nonce 0 in two bytes", b"\5\x80\0", "Ping nonce=0"
    yield "audience, pages 1 in five bytes", b"\3\7\x81\x80\x80\x80\0", "Audience topic=7 pages=1"


def common_faults(ping, variants):
    yield "length 0", struct.pack("<I", 0), "error: length"
    yield f"length {FRAME_MAX + 1}", struct.pack("<I", FRAME_MAX + 1), "error: length"
    yield "length of all ones", b"\xff" * 4, "error: length"
    for n in (variants, 127, 128, U32):
        yield f"variant {n}", framed(varint(n) + b"\0" * 8), "error: variant"
    yield "variant beyond u32", framed(b"\xff\xff\xff\xff\x1f\0"), "error: varint"
    yield "variant's varint without an end", framed(b"\x80"), "error: truncated"
    yield "ping without its nonce", framed(ping), "error: truncated"
    yield "ping, nonce cut in its varint", framed(ping + b"\x80"), "error: truncated"
    yield "ping, nonce beyond u32 in five bytes", framed(ping + b"\xff\xff\xff\xff\x10"), "error: varint"
    yield "ping, nonce in six bytes", framed(ping + b"\x80\x80\x80\x80\x80\0"), "error: varint"
    yield "ping, one byte left over", framed(ping + b"\1\0"), "error: leftover"
    yield "ping, a second ping left over", framed(ping + b"\1" + ping + b"\2"), "error: leftover"


def to_relay_invalid():
    yield from common_faults(b"\7", 10)
    for name, (payload, _) in [("challenge", challenge(1, NONCE_A)), ("welcome", welcome(1, PROOF_A)),
                               ("accept", accept(1, 7, 7, True, 300, True, 50)), ("deny", deny(1, "no")),
                               ("publish", publish(7, "messages", 42, "whole", b"{}")), ("revoke", revoke("demo", "no")),
                               ("init", publish(7, "video", 1, "init", b"\1", "video/mp4")),
                               ("end", end(7, "no")), ("kick", kick(7, "no")), ("pong", business_pong(300))]:
        yield f"{name}, last byte missing", framed(payload[:-1]), "error: truncated"
        yield f"{name}, only the variant", framed(payload[:1]), "error: truncated"
        yield f"{name}, a byte left over", framed(payload + b"\0"), "error: leftover"
    yield "challenge, version beyond u16", framed(b"\0\x80\x80\x04" + NONCE_A), "error: varint"
    yield "challenge, version in four bytes", framed(b"\0\x81\x80\x80\0" + NONCE_A), "error: varint"
    yield "accept, replay beyond u16", framed(b"\2\1\7\7\1\1\0\xff\xff\x07"), "error: varint"
    yield "accept, epoch in eleven bytes", framed(b"\2\1\7" + b"\x80" * 10 + b"\0" + b"\1\1\0\1"), "error: varint"
    yield "accept, epoch beyond u64 in ten bytes", framed(b"\2\1\7" + b"\xff" * 9 + b"\2" + b"\1\1\0\1"), "error: varint"
    yield "accept, shared is 2", framed(b"\2\1\7\7\2\1\0\1"), "error: bool"
    yield "accept, shared is 255", framed(b"\2\1\7\7\xff\1\0\1"), "error: bool"
    yield "accept, page_messages is 2", framed(b"\2\1\7\7\1\1\2\1"), "error: bool"
    yield "deny, reason longer than the frame", framed(b"\3\1\x7fno"), "error: truncated"
    yield "deny, reason of 2^32-1 bytes claimed", framed(b"\3\1\xff\xff\xff\xff\x0fno"), "error: truncated|limit"
    yield "deny, reason of 2^64-1 bytes claimed", framed(b"\3\1" + b"\xff" * 9 + b"\1no"), "error: truncated|limit|varint"
    yield "deny, reason not UTF-8", framed(b"\3\1\2\xc3\x28"), "error: utf8"
    yield "deny, reason cut in a character", framed(b"\3\1\2\xe4\xbd"), "error: utf8"
    yield "deny, reason with a surrogate", framed(b"\3\1\3\xed\xa0\x80"), "error: utf8"
    yield "deny, reason with an over-long form", framed(b"\3\1\2\xc0\xaf"), "error: utf8"
    yield "deny, reason of 257 bytes", framed(deny(1, "x" * 257)[0]), "error: limit"
    yield "revoke, link of 129 bytes", framed(revoke("l" * 129, "")[0]), "error: limit"
    yield "revoke, link not UTF-8", framed(b"\5\1\xff\0"), "error: utf8"
    yield "revoke, reason of 257 bytes", framed(revoke("l", "x" * 257)[0]), "error: limit"
    yield "end, reason of 257 bytes", framed(end(7, "x" * 257)[0]), "error: limit"
    yield "end, reason not UTF-8", framed(b"\6\7\1\x80"), "error: utf8"
    yield "kick, reason of 257 bytes", framed(kick(7, "x" * 257)[0]), "error: limit"
    yield "kick, reason not UTF-8", framed(b"\x09\7\1\xf8"), "error: utf8"
    yield "publish, track 4", framed(b"\4\7\4\1\0\x02{}"), "error: variant"
    yield "publish, track 128", framed(b"\4\7\x80\1\1\0\x02{}"), "error: variant"
    yield "publish, part 4", framed(b"\4\7\1\1\4\x02{}"), "error: variant"
    yield "publish, data longer than the frame", framed(b"\4\7\1\1\0\x03{}"), "error: truncated"
    yield "init, MIME not UTF-8", framed(b"\4\7\3\1\1\1\xff\0"), "error: utf8"
    for track in ("state", "messages"):
        for part in ("init", "start", "continue"):
            mime = "video/mp4" if part == "init" else None
            yield f"{track} with part {part}", framed(publish(7, track, 1, part, b"{}", mime)[0]), "error: part"
    for track in ("audio", "video"):
        yield f"{track} with part whole", framed(publish(7, track, 1, "whole", b"{}")[0]), "error: part"
    yield "publish, sequence 0", framed(publish(7, "messages", 0, "whole", b"{}")[0]), "error: sequence"
    yield "publish, sequence 2^53", framed(publish(7, "messages", 2**53, "whole", b"{}")[0]), "error: sequence"
    yield "publish, sequence 2^64-1", framed(publish(7, "video", U64, "start", b"")[0]), "error: sequence"
    yield "init, MIME of 256 bytes", framed(publish(7, "video", 1, "init", b"\1", "m" * 256)[0]), "drop: mime"
    yield "publish, data of 1 MiB and a byte", framed(publish(7, "video", 2, "start", b"\xa5" * 1048577)[0]), "drop: data"
    longest = publish(7, "video", 2, "start", b"\xa5" * (FRAME_MAX - 8))[0]
    assert len(longest) == FRAME_MAX, len(longest)
    yield "publish, the longest frame there is", framed(longest), "drop: data"


def to_business_invalid():
    yield from common_faults(b"\5", 7)
    for name, (payload, _) in [("hello", hello(1, "box-1", NONCE_A, PROOF_A)),
                               ("subscribe", subscribe(1, "demo", (7, (4, 43, 0, 0)), "127.0.0.1", "null")),
                               ("unsubscribe", unsubscribe(300)), ("audience", audience(7, 3)),
                               ("page message", page_message(7, 1, "hi")), ("pong", relay_pong(300))]:
        yield f"{name}, last byte missing", framed(payload[:-1]), "error: truncated"
        yield f"{name}, only the variant", framed(payload[:1]), "error: truncated"
        yield f"{name}, a byte left over", framed(payload + b"\0"), "error: leftover"
    yield "hello, version beyond u16", framed(b"\0\x80\x80\x04\0" + NONCE_A + PROOF_A), "error: varint"
    yield "hello, relay of 257 bytes", framed(hello(1, "r" * 257, NONCE_A, PROOF_A)[0]), "error: limit"
    yield "hello, relay not UTF-8", framed(b"\0\1\1\xff" + NONCE_A + PROOF_A), "error: utf8"
    yield "subscribe, since tag 2", framed(b"\1\1\x04demo\2\7\1\1\1\1\0\0"), "error: option"
    yield "subscribe, since tag 255", framed(b"\1\1\x04demo\xff\0\0"), "error: option"
    yield "subscribe, since with three nexts and nothing after", framed(b"\1\1\x04demo\1\7\1\1\1"), "error: truncated"
    yield "subscribe, link of 129 bytes", framed(subscribe(1, "l" * 129, None, "", "")[0]), "error: limit"
    yield "subscribe, link not UTF-8", framed(b"\1\1\1\xff\0\0\0"), "error: utf8"
    yield "subscribe, origin not UTF-8", framed(b"\1\1\1l\0\0\1\xff"), "error: utf8"
    yield "page message, 513 bytes", framed(page_message(7, 1, "m" * 513)[0]), "error: limit"
    yield "page message, not UTF-8", framed(b"\4\7\1\1\x80"), "error: utf8"
    yield "audience, pages beyond u32", framed(b"\3\7\xff\xff\xff\xff\x10"), "error: varint"


def handshakes():
    for name, secret, asked, greeted in [
            ("empty secret", b"", NONCE_A, NONCE_B),
            ("short secret", b"secret", NONCE_A, NONCE_B),
            ("nonces all zero", b"secret", bytes(16), bytes(16)),
            ("nonces swapped", b"secret", NONCE_B, NONCE_A),
            ("secret not ASCII", "秘密".encode(), NONCE_A, NONCE_B),
            ("secret of one hash block", b"k" * 64, NONCE_A, NONCE_B),
            ("secret longer than a hash block", b"k" * 65, NONCE_A, NONCE_B),
            ("secret of 200 bytes", bytes(range(200)), b"\xff" * 16, NONCE_A)]:
        relay = hmac.new(secret, b"sharelinkd relay" + asked + greeted, hashlib.sha256).digest()
        business = hmac.new(secret, b"sharelinkd business" + greeted + asked, hashlib.sha256).digest()
        yield [("name", name), ("secret", tokens(secret)), ("challenge_nonce", asked.hex()), ("hello_nonce", greeted.hex()),
               ("hello_proof", relay.hex()), ("welcome_proof", business.hex())]


def blocks(title, cases):
    seen, out = set(), [HEAD.format(title=title)]
    for case in cases:
        assert case[0][1] not in seen, f"two cases are called {case[0][1]}"
        seen.add(case[0][1])
        out.append("\n" + "".join(f"{key}: {value}".rstrip() + "\n" for key, value in case))
    return "".join(out)


def valid(cases, lax):
    for name, (payload, text) in cases:
        yield [("name", name), ("hex", tokens(framed(payload))), ("is", text)]
    for name, payload, text in lax:
        yield [("name", f"lax: {name}"), ("hex", tokens(framed(payload))), ("is", text), ("only", "decode")]


def invalid(cases):
    for name, data, verdict in cases:
        yield [("name", name), ("hex", tokens(data)), tuple(verdict.split(": "))]


def main():
    files = {
        "to-business.txt": blocks("Uplink version 1, relay to business server: frames that are right",
                                  valid(to_business(), to_business_lax())),
        "to-relay.txt": blocks("Uplink version 1, business server to relay: frames that are right",
                               valid(to_relay(), to_relay_lax())),
        "to-business-invalid.txt": blocks("Uplink version 1, relay to business server: frames that must be refused",
                                          invalid(to_business_invalid())),
        "to-relay-invalid.txt": blocks("Uplink version 1, business server to relay: frames that must be refused",
                                       invalid(to_relay_invalid())),
        "handshake.txt": blocks("Uplink version 1: the proofs of the handshake", handshakes()),
    }
    stale = [name for name, text in files.items()
             if not (HERE / name).exists() or (HERE / name).read_bytes() != text.encode()]
    if "--check" not in sys.argv:
        for name, text in files.items():
            (HERE / name).write_bytes(text.encode())
    print(f"{len(files)} files, " + ("differ: " + ", ".join(stale) if stale else "as they were"))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
