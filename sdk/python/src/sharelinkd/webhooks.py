"""The hub's webhook: checks a call, and makes the answer to `subscribe`.

Signatures are those of Standard Webhooks: HMAC-SHA256 over id, time and body, in constant time.
Refuses a body that was parsed already, since its bytes are others by then. No error shows a secret.
Keeps nothing: the receiver skips events whose id it has seen.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from typing import Any, Iterable, List, Literal, Mapping, Optional, Sequence, Tuple, TypedDict, Union, cast

from . import check

# How far a call's time may be away, in seconds.
TOLERANCE_S = 300.0
TTL_S_MAX = 86_400


class WebhookError(Exception):
    """The call is not the hub's, or too old: answer 401."""

    status = 401


class Page(TypedDict):
    address: str
    origin: str


class SubscribeData(TypedDict):
    link: str
    """The secret part of the share link."""
    page: Optional[Page]
    """None where the hub asks about the link as a whole."""


class Subscribe(TypedDict):
    type: Literal["subscribe"]
    timestamp: str
    data: SubscribeData


class _PageMessage(TypedDict):
    id: str
    type: Literal["page.message"]
    topic: str
    page: str
    data: str


class PageMessage(_PageMessage, total=False):
    author: str
    """The page as an author: publish it with the message, and the page marks its own."""
    message_id: str
    """The page's own id of the message, the same where it sends it again."""


class TopicOccupied(TypedDict):
    id: str
    type: Literal["topic.occupied"]
    topic: str


class TopicVacated(TypedDict):
    id: str
    type: Literal["topic.vacated"]
    topic: str


class TopicAudience(TypedDict):
    id: str
    type: Literal["topic.audience"]
    topic: str
    pages: int


class StreamChange(TypedDict):
    id: str
    type: Literal["stream.started", "stream.ended"]
    topic: str
    track: Literal["audio", "video"]


Event = Union[PageMessage, TopicOccupied, TopicVacated, TopicAudience, StreamChange]


class _EventsData(TypedDict):
    events: List[Event]


class EventsData(_EventsData, total=False):
    dropped: int
    """How many were lost since the last batch that you took."""


class Events(TypedDict):
    type: Literal["events"]
    timestamp: str
    data: EventsData


Call = Union[Subscribe, Events]
Headers = Union[Mapping[str, str], Iterable[Tuple[bytes, bytes]]]


class _Accept(TypedDict):
    accept: Literal[True]
    topic: str


class Accept(_Accept, total=False):
    shared: bool
    ttl_s: int
    replay: int
    page_messages: bool


class Deny(TypedDict):
    accept: Literal[False]
    reason: str


def verify(
    secrets: Union[str, Sequence[str]],
    headers: Headers,
    body: Union[bytes, bytearray, memoryview, str],
    *,
    tolerance: float = TOLERANCE_S,
    now: Optional[float] = None,
) -> Call:
    """Checks a call of the hub, and returns it. Raises WebhookError if it isn't the hub's: answer 401.

    `headers` are those of the request, a WSGI environment, or ASGI's pairs. `body` is the bytes as
    they came. Of several secrets any may have signed it.
    """
    keys = [_decoded(secret) for secret in ([secrets] if isinstance(secrets, str) or secrets is None else secrets)]
    if not keys:
        raise ValueError("webhooks.verify: there is no secret")
    data = _raw(body)
    found = _headers(headers)
    call_id, timestamp, signatures = (
        _header(found, name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    )
    _demand_recent(timestamp, time.time() if now is None else now, tolerance)
    signed = f"{call_id}.{timestamp}.".encode("utf-8", "surrogateescape") + data
    is_valid = False
    for key in keys:
        expected = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
        for given in signatures.split(" "):
            # All are compared.
            is_valid |= hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected)
    if not is_valid:
        why = "is the secret that of the hub's secret_files, and the body as it came?"
        raise WebhookError(f"no signature matches: {why}")
    try:
        call = json.loads(data)
    except ValueError:
        call = None
    if not isinstance(call, dict) or not isinstance(call.get("type"), str):
        raise WebhookError("the signature is right, and the body is no call of a hub")
    return cast(Call, call)


def accept(
    topic: str,
    *,
    shared: Optional[bool] = None,
    ttl: Optional[int] = None,
    replay: Optional[int] = None,
    page_messages: Optional[bool] = None,
) -> Accept:
    """The answer to `subscribe` that lets the viewer in; send it as JSON. `ttl`: seconds."""
    fields = {
        "accept": True,
        "topic": check.topic(topic),
        "shared": check.flag("shared", shared),
        "ttl_s": check.ttl(ttl, TTL_S_MAX),
        "replay": check.whole("replay", replay, 0, 65_535),
        "page_messages": check.flag("page_messages", page_messages),
    }
    return cast(Accept, {name: value for name, value in fields.items() if value is not None})


def deny(reason: str = "this link is not valid") -> Deny:
    """The answer to `subscribe` that shows the viewer the reason."""
    return {"accept": False, "reason": check.reason(reason) or ""}


def _decoded(secret: Any) -> bytes:
    make = "give the text of the file that `sharelink-hub secret --webhook` made: whsec_ and base64"
    if not isinstance(secret, str) or not secret:
        raise TypeError(f"webhooks.verify: the secret is {check.kind(secret)}; {make}")
    text = secret.strip()
    text = text[len("whsec_") :] if text.startswith("whsec_") else text
    try:
        key = base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError(f"webhooks.verify: the secret can't be read; {make}")
    return key


def _raw(body: Any) -> bytes:
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise TypeError(
        f"webhooks.verify: the body is {check.kind(body)}, and must be the bytes as they came, before they are "
        "parsed: Flask's request.get_data(), Django's request.body"
    )


def _headers(headers: Any) -> "dict[str, str]":
    pairs = headers.items() if hasattr(headers, "items") else headers
    found: "dict[str, str]" = {}
    for name, value in pairs:
        if isinstance(name, bytes):
            name = name.decode("latin-1")
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        if isinstance(name, str) and isinstance(value, str):
            # WSGI writes HTTP_WEBHOOK_ID.
            plain = re.sub("^http_", "", name.lower()).replace("_", "-")
            found.setdefault(plain, value)
    return found


def _header(headers: "dict[str, str]", name: str) -> str:
    value = headers.get(name)
    if not value:
        raise WebhookError(f"there is no header {name}: this is no call of a hub")
    return value


def _demand_recent(timestamp: str, now: float, tolerance: float) -> None:
    if not re.fullmatch("[0-9]{1,12}", timestamp):
        raise WebhookError("webhook-timestamp is no time in seconds")
    age = round(now - int(timestamp))
    if abs(age) > tolerance:
        how = "old" if age > 0 else "ahead"
        raise WebhookError(f"the call is {abs(age)} s {how}, and may be {tolerance:g}: set the clocks of both machines")
