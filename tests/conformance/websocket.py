"""A minimal HTTP and WebSocket client (RFC 6455): strict on input, and able to send invalid output."""
import asyncio
import base64
import hashlib
import os
import struct

import tls

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self):
        return f"HTTP {self.status} {self.headers} {self.body[:200]!r}"


class Refused(Exception):
    """The upgrade was not answered with 101. `response` is None if the connection was closed without an answer."""

    def __init__(self, response):
        super().__init__(repr(response))
        self.response = response


async def read_head(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines[1:-2]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(lines[0].split()[1]), headers


async def http(port, target, method="GET", headers=None, host="127.0.0.1", raw=None, source=None, timeout=10):
    """One request on one connection, read until the relay closes it. None: closed without an answer."""
    reader, writer = await tls.open_connection(host, port, local_addr=(source, 0) if source else None)
    try:
        fields = {"Host": f"127.0.0.1:{port}", **({"Connection": "close"} if port in tls.LINES else {}), **(headers or {})}
        request = raw if raw is not None else "".join(
            [f"{method} {target} HTTP/1.1\r\n"] + [f"{k}: {v}\r\n" for k, v in fields.items()] + ["\r\n"]).encode()
        writer.write(request)
        # Not wait_for: before Python 3.12 it swallows a cancellation that coincides with the
        # answer, and a flood goes on.
        async with asyncio.timeout(timeout):
            return await read_response(reader)
    except (ConnectionError, asyncio.IncompleteReadError):
        return None
    finally:
        writer.close()


async def read_response(reader):
    status, headers = await read_head(reader)
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
        if "connection" not in headers:  # it stays open
            return Response(status, headers, body)
        try:
            rest = await reader.read()
        except ConnectionError:  # closed with unread bytes of ours
            rest = b""
        assert not rest, f"bytes after the response's end: {rest[:80]!r}"
    else:
        body = await reader.read()
    return Response(status, headers, body)


def upgrade_headers(port, key, origin=None, extra=None):
    fields = [("Host", f"127.0.0.1:{port}"), ("Connection", "Upgrade"), ("Upgrade", "websocket"),
              ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", key), ("Sec-WebSocket-Protocol", "sharelink.v1")]
    if origin is not None:
        fields.append(("Origin", origin))
    for name, value in (extra or []):
        fields = [f for f in fields if f[0].lower() != name.lower() or name.lower() == "x-forwarded-for"]
        if value is not None:
            fields.append((name, value))
    return fields


async def connect(port, origin=None, extra=None, source=None, target="/ws", timeout=10, opener=tls.open_connection,
                  behind_head=b""):
    """Upgrades and returns (reader, writer, response headers); raises Refused. `extra`: (name, value) pairs that replace or, by None, remove.
    `behind_head`: frames that don't wait for the answer."""
    reader, writer = await opener("127.0.0.1", port, limit=2**16, local_addr=(source, 0) if source else None)
    try:
        key = base64.b64encode(os.urandom(16)).decode()
        fields = upgrade_headers(port, key, origin, extra)
        writer.write(f"GET {target} HTTP/1.1\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in fields) + b"\r\n" + behind_head)
        try:
            status, headers = await asyncio.wait_for(read_head(reader), timeout)
        except (ConnectionError, asyncio.IncompleteReadError):
            raise Refused(None) from None
        if status != 101:
            raise Refused(Response(status, headers, b""))
        accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        assert headers.get("sec-websocket-accept") == accept, headers
        assert headers.get("upgrade", "").lower() == "websocket" and "upgrade" in headers.get("connection", "").lower(), headers
        assert headers.get("sec-websocket-protocol") == "sharelink.v1", f"no subprotocol in {headers}"
        return reader, writer, headers
    except BaseException:
        writer.close()
        raise


def frame(opcode, payload=b"", fin=True, masked=True, rsv=0):
    payload = payload.encode() if isinstance(payload, str) else payload
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if len(payload) < 126:
        head += bytes([mask_bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([mask_bit | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([mask_bit | 127]) + struct.pack(">Q", len(payload))
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(b ^ mask[i & 3] for i, b in enumerate(payload))


async def read_frame(reader):
    """One frame: (opcode, payload). The relay sends unfragmented, unmasked frames with lengths in their shortest form."""
    first, second = await reader.readexactly(2)
    assert first & 0x80, f"a fragment (0x{first:02x}) where each publication is one frame"
    assert not first & 0x70, f"reserved bits in 0x{first:02x}"
    assert not second & 0x80, "a masked frame from the server"
    size = second
    if second == 126:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        assert size >= 126, f"length {size} not in its shortest form"
    elif second == 127:
        (size,) = struct.unpack(">Q", await reader.readexactly(8))
        assert size >= 65536, f"length {size} not in its shortest form"
    opcode = first & 0x0F
    assert opcode in (TEXT, BINARY, CLOSE, PING, PONG), f"opcode {opcode}"
    assert opcode < 8 or size < 126, "a control frame beyond 125 bytes"
    return opcode, await reader.readexactly(size)
