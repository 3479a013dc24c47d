#!/usr/bin/env python3
"""Writes the frozen vectors of what the relay sends to a page (subprotocol sharelink.v1): whole WebSocket frames.

Written from docs/protocol.md's page section and RFC 6455 section 5.2 alone. `make.py` writes the files beside it,
`make.py --check` only compares.
"""
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
HEAD = """# {title}
# If this fails, do not change the test: pages in the field read these bytes.
# Written by make.py; the format is described in README.md.
"""
U32, SEQUENCE_MAX = 2**32 - 1, 2**53 - 1


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


def frame(opcode, payload):
    """One unmasked frame with FIN set; the length in its shortest form."""
    if len(payload) < 126:
        return bytes([0x80 | opcode, len(payload)]) + payload
    if len(payload) < 65536:
        return bytes([0x80 | opcode, 126]) + struct.pack(">H", len(payload)) + payload
    return bytes([0x80 | opcode, 127]) + struct.pack(">Q", len(payload)) + payload


def string(text):
    """A JSON string; only what must be escaped is."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def text_case(name, fields, text):
    payload = text if isinstance(text, bytes) else text.encode()
    case = [("name", name)] + [(key, tokens(value.encode() if isinstance(value, str) else value)
                                if key in ("data", "reason") else value) for key, value in fields]
    if len(payload) < 200 and b"\n" not in payload:
        case.append(("text", payload.decode()))
    return case + [("payload", len(payload)), ("frame", tokens(frame(1, payload)))]


def state(name, topic, sequence, data, kind="state"):
    data = data.encode() if isinstance(data, str) else data
    return text_case(name, [("type", kind), ("topic", topic), ("sequence", sequence), ("data", data)],
                     b'{"type":"%s","topic":%d,"sequence":%d,"data":%s}' % (kind.encode(), topic, sequence, data))


def message(name, topic, sequence, data):
    return state(name, topic, sequence, data, "message")


def message_of(length, topic=7, sequence=42):
    """A message whose whole payload is `length` bytes."""
    fixed = len('{"type":"message","topic":%d,"sequence":%d,"data":""}' % (topic, sequence))
    return message(f"message, payload of {length} bytes", topic, sequence, '"' + "a" * (length - fixed) + '"')


def texts():
    yield text_case("subscribed", [("type", "subscribed"), ("id", 1), ("topic", 7), ("epoch", 7), ("page_messages", "true")],
                    '{"type":"subscribed","id":1,"topic":7,"epoch":"7","page_messages":true}')
    yield text_case("subscribed, numbers at their greatest",
                    [("type", "subscribed"), ("id", U32), ("topic", U32), ("epoch", 2**64 - 1), ("page_messages", "false")],
                    '{"type":"subscribed","id":4294967295,"topic":4294967295,"epoch":"18446744073709551615","page_messages":false}')
    yield text_case("denied", [("type", "denied"), ("id", 1), ("reason", "this link has expired")],
                    '{"type":"denied","id":1,"reason":"this link has expired"}')
    yield text_case("denied, with a retry",
                    [("type", "denied"), ("id", 1), ("reason", "the business server did not answer"), ("retry", "4.2")],
                    '{"type":"denied","id":1,"reason":"the business server did not answer","retry":4.2}')
    awkward = 'a "quoted" back\\slash, 你好 👍 </script>'
    yield text_case("denied, reason to be escaped", [("type", "denied"), ("id", 0), ("reason", awkward)],
                    '{"type":"denied","id":0,"reason":%s}' % string(awkward))
    yield text_case("denied, no reason", [("type", "denied"), ("id", 2), ("reason", "")], '{"type":"denied","id":2,"reason":""}')
    yield state("state", 7, 3, '{"title":"…"}')
    yield state("state, first", 0, 1, "null")
    yield message("message", 7, 42, '{"from":"…","text":"…"}')
    yield message("message, numbers at their greatest", U32, SEQUENCE_MAX, "1")
    yield message("message, data kept as it came", 7, 1, '  { "b" : 1.0e2 ,"a":"\\u4f60\\/", "a":[ ] }  ')
    yield message("message, data with line ends", 7, 1, "[\r\n\t1\n]")
    yield message("message, data is a string with escapes", 7, 1, '"\\"\\\\\\n👍"')
    for length in (125, 126, 127, 65535, 65536, 65537):
        yield message_of(length)
    for track in ("messages", "audio", "video"):
        yield text_case(f"gap, {track}", [("type", "gap"), ("topic", 7), ("track", track), ("from", 43), ("to", 57)],
                        '{"type":"gap","topic":7,"track":"%s","from":43,"to":57}' % track)
    yield text_case("gap of one", [("type", "gap"), ("topic", 7), ("track", "messages"), ("from", 1), ("to", 1)],
                    '{"type":"gap","topic":7,"track":"messages","from":1,"to":1}')
    yield text_case("gap, greatest", [("type", "gap"), ("topic", U32), ("track", "video"), ("from", 1), ("to", SEQUENCE_MAX)],
                    '{"type":"gap","topic":4294967295,"track":"video","from":1,"to":9007199254740991}')
    yield text_case("epoch", [("type", "epoch"), ("topic", 7), ("epoch", 8)], '{"type":"epoch","topic":7,"epoch":"8"}')
    yield text_case("epoch, greatest", [("type", "epoch"), ("topic", 7), ("epoch", 2**64 - 1)],
                    '{"type":"epoch","topic":7,"epoch":"18446744073709551615"}')
    yield text_case("end", [("type", "end"), ("topic", 7), ("reason", "the room closed")],
                    '{"type":"end","topic":7,"reason":"the room closed"}')
    yield text_case("end, reason to be escaped", [("type", "end"), ("topic", 7), ("reason", awkward)],
                    '{"type":"end","topic":7,"reason":%s}' % string(awkward))
    yield text_case("end, reason of 256 bytes", [("type", "end"), ("topic", 7), ("reason", "x" * 256)],
                    '{"type":"end","topic":7,"reason":"%s"}' % ("x" * 256))
    yield text_case("uplink down", [("type", "uplink"), ("up", "false")], '{"type":"uplink","up":false}')
    yield text_case("uplink up", [("type", "uplink"), ("up", "true")], '{"type":"uplink","up":true}')
    yield text_case("alive", [("type", "alive")], '{"type":"alive"}')
    yield text_case("error", [("type", "error"), ("reason", "unknown type")], '{"type":"error","reason":"unknown type"}')


def media_case(name, track, part, topic, sequence, data, mime=None):
    payload = bytes([{"audio": 2, "video": 3}[track], {"init": 1, "start": 2, "continue": 3}[part]])
    payload += struct.pack(">IQ", topic, sequence)
    case = [("name", name), ("track", track), ("part", part), ("topic", topic), ("sequence", sequence)]
    if part == "init":
        payload += bytes([len(mime)]) + mime.encode()
        case.append(("mime", tokens(mime.encode())))
    payload += data
    return case + [("data", tokens(data)), ("payload", len(payload)), ("frame", tokens(frame(2, payload)))]


def media():
    for track in ("audio", "video"):
        yield media_case(f"{track} init", track, "init", 7, 1, bytes.fromhex("1a45dfa3"), f"{track}/webm; codecs=opus")
        yield media_case(f"{track} start", track, "start", 7, 2, bytes.fromhex("1f43b675"))
        yield media_case(f"{track} continue", track, "continue", 7, 3, b"\0\1\2\xff")
    yield media_case("init, no MIME and no bytes", "video", "init", 0, 1, b"", "")
    yield media_case("init, MIME of 255 bytes", "video", "init", 7, 1, b"\1\2", "m" * 255)
    yield media_case("start, no bytes", "video", "start", 7, 2, b"")
    yield media_case("continue, numbers at their greatest", "video", "continue", U32, SEQUENCE_MAX, b"\1")
    yield media_case("continue, numbers big-endian", "audio", "continue", 0x01020304, 0x0005060708090A0B, b"\1")
    for length in (125, 126, 127, 65535, 65536, 65537):
        yield media_case(f"start, payload of {length} bytes", "video", "start", 7, 2, b"\xa5" * (length - 14))


def closes():
    for code, reason in [(1000, ""), (1001, ""), (1008, "be kind"), (1009, ""), (1012, "retry=4.2"), (1013, "retry=0.7"), (1008, "x" * 123)]:
        payload = struct.pack(">H", code) + reason.encode()
        yield [("name", f"close {code}" + (f" with {len(reason)} bytes" if reason else "")), ("code", code),
               ("reason", tokens(reason.encode())), ("frame", tokens(frame(8, payload)))]


def blocks(title, cases):
    seen, out = set(), [HEAD.format(title=title)]
    for case in cases:
        assert case[0][1] not in seen, f"two cases are called {case[0][1]}"
        seen.add(case[0][1])
        out.append("\n" + "".join(f"{key}: {value}".rstrip(" ") + "\n" for key, value in case))
    return "".join(out)


def main():
    files = {
        "text.txt": blocks("sharelink.v1, relay to page: text frames", texts()),
        "media.txt": blocks("sharelink.v1, relay to page: binary frames", media()),
        "close.txt": blocks("sharelink.v1, relay to page: close frames", closes()),
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
