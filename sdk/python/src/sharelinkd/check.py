"""Checks of arguments, before anything is sent: each error says what is right.

Keys, links and tokens are secrets: no error shows them. The hub checks everything again; limits of
its configuration are known there alone.
"""

from __future__ import annotations

import json as _json
import re
from typing import Any, Optional
from urllib.parse import urlsplit

SEQUENCE_MAX = 2**53 - 1
TTL_S_MAX = 315_360_000
# A longer publication no hub takes, in bytes; its configuration may say less.
JSON_SIZE_MAX = 1 << 20
REASON_SIZE_MAX = 256


def url(value: Any) -> str:
    """The hub's URL without a slash at its end."""
    example = 'as "https://hub.example:8090"'
    if not isinstance(value, str):
        raise TypeError(f"Hub: url is {kind(value)}; give the API's, {example}")
    if not re.match("https?://", value, re.IGNORECASE):
        raise ValueError(f"Hub: url must begin with http:// or https://, {example}")
    try:
        parts = urlsplit(value)
        port, host = parts.port, parts.hostname
    except ValueError:
        host, port = None, None
    if not host or re.search(r"[^!-~]", value):
        raise ValueError(f"Hub: url can't be read; give the API's, {example}")
    if parts.username or parts.password:
        raise ValueError("Hub: url has a user or password; give the key as the argument key")
    if parts.query or parts.fragment:
        raise ValueError(f'Hub: url has a "?" or "#"; leave it out, {example}')
    path = parts.path.rstrip("/")
    if path.endswith("/v1"):
        raise ValueError("Hub: url ends with /v1; leave that out")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme.lower()}://{shown}{'' if port is None else f':{port}'}{path}"


def key(value: Any) -> str:
    """An API key."""
    make = "make one by `sharelink-hub key`"
    if value is None or value == "":
        raise ValueError(f"Hub: key is {kind(value)}; {make}. Is the environment variable set?")
    if not isinstance(value, str):
        raise TypeError(f"Hub: key is {kind(value)}, and must be a string; {make}")
    if not re.fullmatch("[!-~]+", value):
        raise ValueError("Hub: key has a space, a line end or other characters that keys haven't; strip what was read")
    for prefix, what in (
        ("slt_", "a token for picture and sound, and this needs an API key"),
        ("whsec_", "a webhook's secret, and this needs an API key"),
        ("sha256:", "the hash in the hub's configuration, and this needs the key itself"),
    ):
        if value.startswith(prefix):
            raise ValueError(f"Hub: key is {what}; {make}")
    return value


def topic(value: Any) -> str:
    """A topic's name."""
    rule = "a topic's name has 1 to 64 of the characters A-Z a-z 0-9 - _ . ~ : /, and this is"
    if not isinstance(value, str):
        raise TypeError(f"{rule} {kind(value)}")
    if not re.fullmatch("[A-Za-z0-9._~:/-]{1,64}", value):
        raise ValueError(f"{rule} {value[:80]!r}")
    if value in (".", ".."):
        raise ValueError(f"the topic {value!r} can't be reached by a URL, where it is a step; choose another")
    return value


def whole(name: str, value: Any, low: int, high: int) -> Optional[int]:
    """A whole number within bounds, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {kind(value)}, and must be a whole number")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, and must be from {low} to {high}")
    return value


def ttl(value: Any, high: int = TTL_S_MAX) -> Optional[int]:
    """A time to live in seconds, or None."""
    return whole("ttl (in seconds)", value, 1, high)


def seconds(name: str, value: Any, high: float) -> float:
    """A time above zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {kind(value)}, and must be a number of seconds")
    if not 0 < value <= high:
        raise ValueError(f"{name} must be a number of seconds above 0, at most {high:g}")
    return float(value)


def flag(name: str, value: Any) -> Optional[bool]:
    """True, False or None."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{name} is {kind(value)}, and must be True or False")
    return value


def reason(value: Any) -> Optional[str]:
    """What viewers are told, or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"the reason is {kind(value)}, and must be a string")
    size = len(value.encode("utf-8", "surrogatepass"))
    if not 1 <= size <= REASON_SIZE_MAX:
        raise ValueError(f"the reason has {size} bytes, and must have 1 to {REASON_SIZE_MAX}")
    return value


def text(name: str, value: Any) -> str:
    """A text that is there."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} must be a string that is not empty")
    return value


def idempotency_key(value: Any, size_max: int = 128) -> Optional[str]:
    """The caller's own idempotency key, or None."""
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > size_max or not re.fullmatch("[!-~]+", value):
        raise ValueError(f"idempotency_key has 1 to {size_max} visible ASCII characters, without spaces")
    return value


def json(value: Any) -> bytes:
    """What is published, as JSON."""
    try:
        data = _json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        why = "it has half a surrogate pair" if isinstance(error, UnicodeError) else str(error)
        what = TypeError if isinstance(error, TypeError) else ValueError
        raise what(f"this is no JSON value, so it can't be published: {why}") from None
    if len(data) > JSON_SIZE_MAX:
        raise ValueError(f"a publication has at most {JSON_SIZE_MAX} bytes of JSON, and this one has {len(data)}")
    return data


def link(value: Any) -> str:
    """A share link: the part of the URL behind /s/."""
    if not isinstance(value, str) or not re.fullmatch("[A-Za-z0-9._~-]{1,128}", value):
        raise ValueError("link must be the part of the share URL behind /s/: 1 to 128 of A-Z a-z 0-9 - _ . ~")
    return value


def page(value: Any) -> str:
    """A page's id, as webhooks have it."""
    if not isinstance(value, str) or not re.fullmatch("[0-9]+[.][0-9]+@.+", value):
        raise ValueError('page must be the id that webhooks have for a page, as "1.41@hall"')
    return value


def kind(value: Any) -> str:
    """What a value is, without showing it."""
    if value is None:
        return "None"
    return "empty" if value == "" else f"of the type {type(value).__name__}"
