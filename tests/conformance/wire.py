"""The uplink's frames (docs/protocol.md, "Uplink, version 1") as plain Python values, encoded and decoded strictly.

One table holds both directions; variants are numbered in the order written. A frame is a `Frame`: its kind and its
fields as attributes. `since` is None or (epoch, [state, messages, audio, video]); `part` is ("whole" | "init" | "start" | "continue").
"""
import hashlib
import hmac
import struct

VERSION = 1
FRAME_MAX = 1_114_112
SEQUENCE_MAX = 2**53 - 1
TRACKS = ["state", "messages", "audio", "video"]
PARTS = ["whole", "init", "start", "continue"]

TO_BUSINESS = [
    ("Hello", [("version", "u16"), ("relay", "str256"), ("nonce", "raw16"), ("proof", "raw32")]),
    ("Subscribe", [("request", "u32"), ("link", "str128"), ("since", "since"), ("address", "str"), ("origin", "str")]),
    ("Unsubscribe", [("topic", "u32")]),
    ("Audience", [("topic", "u32"), ("pages", "u32")]),
    ("PageMessage", [("topic", "u32"), ("page", "u32"), ("data", "str512")]),
    ("Ping", [("nonce", "u32")]),
    ("Pong", [("nonce", "u32")]),
]
TO_RELAY = [
    ("Challenge", [("version", "u16"), ("nonce", "raw16")]),
    ("Welcome", [("version", "u16"), ("proof", "raw32")]),
    ("Accept", [("request", "u32"), ("topic", "u32"), ("epoch", "u64"),
                ("shared", "bool"), ("ttl_s", "u32"), ("page_messages", "bool"), ("replay", "u16")]),
    ("Deny", [("request", "u32"), ("reason", "str256")]),
    ("Publish", [("topic", "u32"), ("track", "track"), ("sequence", "u64"), ("part", "part"), ("data", "bytes")]),
    ("Revoke", [("link", "str128"), ("reason", "str256")]),
    ("End", [("topic", "u32"), ("reason", "str256")]),
    ("Ping", [("nonce", "u32")]),
    ("Pong", [("nonce", "u32")]),
    ("Kick", [("page", "u32"), ("reason", "str256")]),
]
# With the frames of extensions, which go only where both sides named them.
MARK = b"+ext"
TO_BUSINESS_EXTENDED = TO_BUSINESS + [
    ("Features", [("words", "str256")]),
    ("Send", [("topic", "u32"), ("page", "u32"), ("id", "raw16"), ("data", "str512")]),
]
TO_RELAY_EXTENDED = TO_RELAY + [
    ("Features", [("words", "str256")]),
    ("Away", [("within_s", "u32")]),
    ("Sent", [("page", "u32"), ("id", "raw16")]),
]


class WireError(Exception):
    """A frame that the protocol does not allow. `args[0]` is the error class in the vectors."""


class Frame:
    def __init__(self, kind, **fields):
        self.kind = kind
        self.__dict__.update(fields)

    def __repr__(self):
        return " ".join([self.kind] + [f"{k}={v!r}" for k, v in self.__dict__.items() if k not in ("kind", "at")])

    def __eq__(self, other):
        return repr(self) == repr(other)


def proof(secret, who, first, second):
    """`who` is b"sharelinkd relay" (challenge nonce, hello nonce) or b"sharelinkd business" (hello nonce, challenge nonce)."""
    return hmac.new(secret, who + first + second, hashlib.sha256).digest()


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def octets(value):
    value = value.encode() if isinstance(value, str) else bytes(value)
    return varint(len(value)) + value


def put(kind, value, fields):
    if kind in ("u16", "u32", "u64"):
        return varint(value)
    if kind == "bool":
        return bytes([value])
    if kind.startswith("raw"):
        return bytes(value)
    if kind == "since":
        return b"\0" if value is None else b"\1" + b"".join(map(varint, [value[0], *value[1]]))
    if kind == "track":
        return varint(TRACKS.index(value))
    if kind == "part":
        return varint(PARTS.index(value)) + (octets(fields.get("mime") or "") if value == "init" else b"")
    return octets(value)


def encode(table, kind, **fields):
    """The frame with its length prefix. Unchecked, so that tests can send invalid frames."""
    index = [name for name, _ in table].index(kind)
    payload = varint(index) + b"".join(put(k, fields[name], fields) for name, k in table[index][1])
    return framed(payload)


def framed(payload):
    return struct.pack("<I", len(payload)) + payload


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise WireError("truncated")
        self.at += count
        return self.data[self.at - count:self.at]

    def varint(self, bits):
        value = 0
        for index in range((bits + 6) // 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if value >> bits:
                    raise WireError("varint")
                return value
        raise WireError("varint")

    def octets(self):
        return bytes(self.take(self.varint(64)))

    def text(self, size_max=None):
        try:
            text = self.octets()
            text.decode("utf-8", "strict")
        except UnicodeDecodeError:
            raise WireError("utf8") from None
        if size_max is not None and len(text) > size_max:
            raise WireError("limit")
        return text.decode()

    def get(self, kind, fields):
        if kind in ("u16", "u32", "u64"):
            return self.varint(int(kind[1:]))
        if kind == "bool":
            value = self.take(1)[0]
            if value > 1:
                raise WireError("bool")
            return value == 1
        if kind.startswith("raw"):
            return bytes(self.take(int(kind[3:])))
        if kind == "since":
            tag = self.take(1)[0]
            if tag > 1:
                raise WireError("option")
            return (self.varint(64), [self.varint(64) for _ in range(4)]) if tag else None
        if kind in ("track", "part"):
            names = TRACKS if kind == "track" else PARTS
            index = self.varint(32)
            if index >= len(names):
                raise WireError("variant")
            if names[index] == "init":
                fields["mime"] = self.text()
            return names[index]
        if kind == "bytes":
            return self.octets()
        return self.text(int(kind[3:]) if kind != "str" else None)


def decode(table, payload):
    """A complete payload, without the length prefix."""
    reader, fields = Reader(payload), {}
    index = reader.varint(32)
    if index >= len(table):
        raise WireError("variant")
    kind, shape = table[index]
    for name, k in shape:
        fields[name] = reader.get(k, fields)
    if reader.at != len(payload):
        raise WireError("leftover")
    frame = Frame(kind, **fields)
    if kind == "Publish":
        if (frame.part == "whole") != (frame.track in ("state", "messages")):
            raise WireError("part")
        if not 1 <= frame.sequence <= SEQUENCE_MAX:
            raise WireError("sequence")
    return frame


def length(head):
    (size,) = struct.unpack("<I", head)
    if not 1 <= size <= FRAME_MAX:
        raise WireError("length")
    return size


def author(challenge, hello, page):
    """A page as an author, as `subscribed` names it."""
    return hashlib.sha256(b"sharelinkd author" + challenge + hello + struct.pack("<I", page)).digest()[:8].hex()
