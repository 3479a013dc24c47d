"""Calls of the hub's HTTP API: one request, and its retries.

Owns the key, the times, the back-off, and one kept connection for each thread. A write has one
idempotency key over all its attempts, so that sending it again does it once. Tried again are
connections that fail or break, timeouts, 408, 429, and 5xx but 501, 505 and 507 (which stay until
somebody mends something). Follows no redirects, and uses no proxy of the environment. Doesn't know
the routes.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import selectors
import socket
import ssl
import threading
import time
import weakref
from email.utils import parsedate_to_datetime
from typing import Any, Callable, Mapping, Optional, Tuple, cast
from urllib.parse import urlsplit

from .answers import Problem
from .errors import Failure, HubError

# Back-off: from this to that, doubled each time, in seconds.
BACKOFF_S = 0.25
BACKOFF_S_MAX = 8.0
# A connection that was idle for longer is not used again, in seconds: the hub closes it after 75.
IDLE_S_MAX = 30.0
# Answers that say nothing was done.
UNDONE = ("busy", "too_many_requests", "too_many_connections", "too_slow")


class Secret:
    """A text that no repr shows."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> str:
        raise TypeError("a key is not pickled; make a Hub in each process")

    def reveal(self) -> str:
        return self._text


class Kept:
    """A thread's connection."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self.process = os.getpid()
        self.used = time.monotonic()

    def __del__(self) -> None:
        self.connection.close()


class Calls:
    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float,
        deadline: float,
        retries: int,
        ssl_context: Optional[ssl.SSLContext],
    ) -> None:
        parts = urlsplit(url)
        self.url, self._base = url, parts.path
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = None
        if parts.scheme == "https":
            self._tls = ssl_context or ssl.create_default_context()
        self._key = Secret(key)
        self.timeout, self._deadline, self._retries = timeout, deadline, retries
        self._own = threading.local()
        self._lock = threading.Lock()
        self._all: "weakref.WeakSet[Kept]" = weakref.WeakSet()

    def call(
        self,
        method: str,
        path: str,
        body: Optional[bytes] = None,
        *,
        headers: Optional[Mapping[str, str]] = None,
        idempotency_key: Optional[str] = None,
        is_key_inside: bool = False,
        is_read: bool = False,
        is_partial: Optional[Callable[[Any], bool]] = None,
        timeout: Optional[float] = None,
    ) -> Any:
        """Makes a call, again where that may help. Returns the answer's JSON, or None without a body.

        `is_read`: it changes nothing. `is_partial` says of an answer whether the same call may do
        more. `is_key_inside`: the idempotency key is in the body.
        """
        until = time.monotonic() + self._deadline
        is_unknown, attempts = False, 0
        # What an attempt has done, if the others can't finish it.
        partial: Optional[Tuple[Any]] = None
        fields = {"Accept": "application/json", **(headers or {})}
        if body is not None:
            fields["Content-Type"] = "application/json"
        if idempotency_key and not is_key_inside:
            fields["Idempotency-Key"] = idempotency_key
        while True:
            attempts += 1
            left = until - time.monotonic()
            value, failure = self._attempt(method, path, body, fields, max(min(timeout or self.timeout, left), 0.001))
            is_unknown = is_unknown or bool(failure and failure.is_unknown and not is_read)
            wait = _backoff(attempts, failure.retry_after if failure else None)
            is_over = attempts > self._retries or time.monotonic() + wait >= until
            if failure is None:
                if is_over or not (is_partial and is_partial(value)):
                    return value
                partial = (value,)
            elif is_over or not failure.is_transient:
                if partial:
                    return partial[0]
                call = f"{method} {path}"
                raise HubError(
                    call, failure, attempts=attempts, is_unknown=is_unknown, idempotency_key=idempotency_key
                ) from failure.cause
            time.sleep(wait)

    def close(self) -> None:
        """Closes the kept connections of all threads; the next call opens another."""
        with self._lock:
            kept = list(self._all)
        for one in kept:
            if one.process == os.getpid():
                one.connection.close()

    def _attempt(
        self, method: str, path: str, body: Optional[bytes], headers: Mapping[str, str], timeout: float
    ) -> Tuple[Any, Optional[Failure]]:
        until = time.monotonic() + timeout
        kept = self._kept()
        connection, is_whole = kept.connection, False
        try:
            if connection.sock is None:
                connection.timeout = timeout
                failure = self._connect(connection)
                if failure:
                    return None, failure
            self._send(connection, method, path, body, headers, until)
            response = connection.getresponse()
            data = _read(connection, response, until)
            is_whole = True
            return _received(response, data)
        except socket.timeout as error:
            detail = f"{self.url} gave no answer within {timeout:.2f} s".replace(".00 s", " s")
            return None, Failure("timeout", detail, True, True, cause=error)
        except (OSError, http.client.HTTPException) as error:
            detail = f"the connection to {self.url} broke before the answer ({_shown(error)})"
            return None, Failure("connection_lost", detail, True, True, cause=error)
        finally:
            kept.used = time.monotonic()
            if not is_whole:
                connection.close()

    def _kept(self) -> Kept:
        """This thread's connection, which is open, or opened by the caller."""
        kept: Optional[Kept] = getattr(self._own, "kept", None)
        if kept is None or kept.process != os.getpid():
            connection: http.client.HTTPConnection
            if self._tls:
                connection = http.client.HTTPSConnection(self._host, self._port, context=self._tls)
            else:
                connection = http.client.HTTPConnection(self._host, self._port)
            kept = self._own.kept = Kept(connection)
            with self._lock:
                self._all.add(kept)
        elif time.monotonic() - kept.used > IDLE_S_MAX or _is_over(kept.connection):
            kept.connection.close()
        return kept

    def _connect(self, connection: http.client.HTTPConnection) -> Optional[Failure]:
        try:
            connection.connect()
            return None
        except ssl.SSLError as error:
            detail = f"the TLS handshake with {self.url} failed ({_shown(error)}); for a private CA give ssl_context"
            # A connection that broke meanwhile may do better next time.
            is_broken = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
            return Failure("tls", detail, is_broken, False, cause=error)
        except OSError as error:
            where = f"can't connect to {self.url} ({_shown(error)})"
            detail = f"{where}: does the hub run there, and is its [api] listen this address?"
            return Failure("unreachable", detail, True, False, cause=error)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Optional[bytes],
        headers: Mapping[str, str],
        until: float,
    ) -> None:
        _limit(connection, until)
        connection.putrequest(method, self._base + path, skip_accept_encoding=True)
        # Not in `headers`: what reports errors may show the variables of frames.
        connection.putheader("Authorization", f"Bearer {self._key.reveal()}")
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None or method in ("POST", "PUT"):
            connection.putheader("Content-Length", str(len(body or b"")))
        connection.endheaders(body)
        _limit(connection, until)


def _limit(connection: http.client.HTTPConnection, until: float) -> None:
    if connection.sock is not None:
        left = until - time.monotonic()
        if left <= 0:
            raise socket.timeout("the time is over")
        connection.sock.settimeout(left)


def _read(connection: http.client.HTTPConnection, response: http.client.HTTPResponse, until: float) -> bytes:
    parts = []
    while True:
        _limit(connection, until)
        part = response.read(1 << 14)
        if not part:
            break
        parts.append(part)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    response.close()
    return b"".join(parts)


def _is_over(connection: http.client.HTTPConnection) -> bool:
    """Whether the other end has closed an idle connection: then there is something to read."""
    if connection.sock is None:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(connection.sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def _received(response: http.client.HTTPResponse, data: bytes) -> Tuple[Any, Optional[Failure]]:
    status, value, is_json = response.status, None, True
    if data:
        try:
            value = json.loads(data)
        except ValueError:
            is_json = False
    if 200 <= status < 300 and is_json:
        return value, None
    failure = Failure(
        "not_the_hub",
        "this is no answer of a hub: does url lead to its API, and what says a proxy in between?",
        is_transient=status in (408, 429) or (status >= 500 and status not in (501, 505, 507)),
        is_unknown=status >= 500 and status != 507,
        status=status,
        retry_after=_seconds(response.headers.get("Retry-After")),
        request_id=response.headers.get("X-Request-Id"),
    )
    if 300 <= status < 400:
        failure.detail = "this is a redirect, and the hub makes none: give as url what it leads to"
    elif isinstance(value, dict) and isinstance(value.get("code"), str) and isinstance(value.get("detail"), str):
        failure.code, failure.detail, failure.problem = value["code"], value["detail"], cast(Problem, value)
        failure.is_unknown = failure.is_unknown and failure.code not in UNDONE
    return None, failure


def _seconds(text: Optional[str]) -> Optional[float]:
    """`Retry-After` in seconds: a number, or a date."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _backoff(attempts: int, retry_after: Optional[float]) -> float:
    """Seconds to wait before the next attempt: random, so that callers don't come back together."""
    wait = random.random() * min(BACKOFF_S * 2.0 ** (attempts - 1), BACKOFF_S_MAX)
    return wait + (retry_after or 0.0)


def _shown(error: BaseException) -> str:
    return str(error) or type(error).__name__
