"""A hub and its topics: one method for each route of docs/api.md.

Owns the paths, and what is sent to each. Each write gets an idempotency key here if the caller
gives none. Answers come as the API gives them. Doesn't send picture and sound: encoders do.
"""

from __future__ import annotations

import json
import ssl
import uuid
from types import TracebackType
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Type, Union, cast
from urllib.parse import quote, urlencode

from . import check
from .answers import (
    Fleet,
    Health,
    Link,
    Messages,
    Operation,
    Published,
    Result,
    Revoked,
    State,
    Token,
    TopicInfo,
    Topics,
)
from .calls import Calls
from .errors import HubError

# The hub knows an idempotency key for 5 minutes: all attempts are over before. In seconds.
DEADLINE_S_MAX = 240.0
RETRIES_MAX = 20
# The hub gives a batch 30 s.
MANY_TIMEOUT_S = 40.0
TOPICS_MAX = 100
OPERATIONS_MAX = 1000
# Behind a batch's key, each operation's has a dot and its number.
KEY_SIZE_MAX = 124
# How often `update_state` reads again when others set the state in between.
UPDATES_MAX = 10
# Stands for what was not given, where None is a value.
MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()


class Hub:
    """A hub's API. All threads may use it. Wrong arguments raise TypeError or ValueError.

    `timeout` is for one attempt (`publish` and `batch` get at least 40), `deadline` for a call with
    all its attempts, at most 240; both in seconds. `retries` are the attempts after the first.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 15.0,
        deadline: float = 60.0,
        retries: int = 4,
        ssl_context: Optional[ssl.SSLContext] = None,
    ) -> None:
        count = check.whole("retries", retries, 0, RETRIES_MAX)
        self._calls = Calls(
            check.url(url),
            check.key(key),
            timeout=check.seconds("timeout", timeout, DEADLINE_S_MAX),
            deadline=check.seconds("deadline", deadline, DEADLINE_S_MAX),
            retries=count or 0,
            ssl_context=ssl_context,
        )

    @property
    def url(self) -> str:
        return self._calls.url

    def __repr__(self) -> str:
        return f"Hub({self.url!r}, key=...)"

    def __enter__(self) -> "Hub":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the kept connections. A call after it opens another."""
        self._calls.close()

    def topic(self, name: str) -> "Topic":
        """A topic; nothing is sent. 1 to 64 of the characters A-Z a-z 0-9 - _ . ~ : /"""
        return Topic(self._calls, check.topic(name))

    def topics(
        self, *, below: Optional[str] = None, cursor: Optional[str] = None, limit: Optional[int] = None
    ) -> Topics:
        """Lists topics by name."""
        if below is not None:
            check.topic(below)
        query = _query(below=below, cursor=cursor, limit=check.whole("limit", limit, 1, 1000))
        return cast(Topics, self._calls.call("GET", f"/v1/topics{query}", is_read=True))

    def publish(
        self,
        topics: Sequence[str],
        *,
        message: Any = MISSING,
        state: Any = MISSING,
        idempotency_key: Optional[str] = None,
    ) -> List[Result]:
        """One message or one state to at most 100 topics: a result for each, in the same order."""
        if isinstance(topics, (str, bytes)):
            raise TypeError("publish: topics is a list of names, and not one name")
        names = [check.topic(name) for name in topics]
        if not 1 <= len(names) <= TOPICS_MAX:
            raise ValueError(f"publish: topics has 1 to {TOPICS_MAX} names")
        if len(set(names)) != len(names):
            raise ValueError("publish: topics has a name twice")
        if (message is MISSING) == (state is MISSING):
            raise TypeError("publish: give either message or state")
        track, value = ("message", message) if state is MISSING else ("state", state)
        body = b'{"topics":%b,"%b":%b}' % (json.dumps(names).encode(), track.encode(), check.json(value))
        answer = self._calls.call(
            "POST",
            "/v1/publish",
            body,
            idempotency_key=check.idempotency_key(idempotency_key) or str(uuid.uuid4()),
            is_partial=lambda said: any(result["status"] in (429, 503) for result in said["results"]),
            timeout=max(self._calls.timeout, MANY_TIMEOUT_S),
        )
        return cast(List[Result], answer["results"])

    def batch(self, operations: Sequence[Operation], *, idempotency_key: Optional[str] = None) -> List[Result]:
        """At most 1000 operations: a result for each, in the same order. Look at each status.

        Messages and states without a key of their own get one of `idempotency_key` (random if left
        out) and their number.
        """
        key = check.idempotency_key(idempotency_key, KEY_SIZE_MAX) or str(uuid.uuid4())
        if not 1 <= len(operations) <= OPERATIONS_MAX:
            raise ValueError(f"batch: operations is a list of 1 to {OPERATIONS_MAX}")
        texts = []
        for index, operation in enumerate(operations):
            fields: Dict[str, Any] = dict(operation)
            if not isinstance(fields.get("op"), str):
                raise TypeError(f"batch: operation {index} has no op")
            check.topic(fields.get("topic"))
            if fields["op"] in ("message", "state") and fields.get("idempotency_key") is None:
                fields["idempotency_key"] = f"{key}.{index}"
            texts.append(check.json(fields))
        answer = self._calls.call(
            "POST",
            "/v1/batch",
            b'{"operations":[%b]}' % b",".join(texts),
            idempotency_key=key,
            is_key_inside=True,
            timeout=max(self._calls.timeout, MANY_TIMEOUT_S),
        )
        return cast(List[Result], answer["results"])

    def revoke(
        self,
        *,
        link: Optional[str] = None,
        token: Optional[str] = None,
        reason: Optional[str] = None,
        ttl: Optional[int] = None,
    ) -> Revoked:
        """Revokes a link or a token. `ttl`: for a link that isn't signed, in seconds."""
        if (link is None) == (token is None):
            raise TypeError("revoke: give either link or token")
        if token is not None and not (isinstance(token, str) and token.startswith("slt_")):
            raise ValueError("revoke: token must be one of ingest_token(), which begins with slt_")
        named = {"token": token} if link is None else {"link": check.link(link)}
        body = _json(**named, reason=check.reason(reason), ttl_s=check.ttl(ttl))
        return cast(Revoked, self._calls.call("POST", "/v1/revoke", body))

    def kick(self, page: str, reason: Optional[str] = None) -> None:
        """Closes one page, whose id webhooks have."""
        self._calls.call("POST", "/v1/kick", _json(page=check.page(page), reason=check.reason(reason)))

    def fleet(self) -> Fleet:
        """The relays of this hub, and its engine."""
        return cast(Fleet, self._calls.call("GET", "/v1/fleet", is_read=True))

    def health(self) -> Health:
        """Whether the hub works."""
        return cast(Health, self._calls.call("GET", "/healthz", is_read=True))


class Topic:
    """A topic of a hub, from `hub.topic(name)`."""

    def __init__(self, calls: Calls, name: str) -> None:
        self._calls = calls
        self._path = f"/v1/topics/{quote(name, safe='')}"
        self.name = name

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"

    def say(
        self,
        text: str,
        *,
        from_: Optional[str] = None,
        avatar: Optional[str] = None,
        author: Optional[str] = None,
        idempotency_key: Optional[str] = None,
        durable: bool = False,
    ) -> Published:
        """Publishes a message that the ready-made share page shows. `author` is that of the event
        `page.message` from which it is: the page marks it as its own."""
        fields = {"text": check.text("text", text), "from": from_, "avatar": avatar, "author": author}
        value = {name: field for name, field in fields.items() if field is not None}
        return self.message(value, idempotency_key=idempotency_key, durable=durable)

    def message(self, value: Any, *, idempotency_key: Optional[str] = None, durable: bool = False) -> Published:
        """Publishes a message: any JSON value. `durable` asks that a replica of the engine has it."""
        query = "?durable=1" if check.flag("durable", durable) else ""
        key = check.idempotency_key(idempotency_key) or str(uuid.uuid4())
        path = f"{self._path}/messages{query}"
        return cast(Published, self._calls.call("POST", path, check.json(value), idempotency_key=key))

    def messages(self, *, since: Optional[int] = None, limit: Optional[int] = None) -> Messages:
        """Lists the messages that are kept, oldest first."""
        query = _query(
            since=check.whole("since", since, 0, check.SEQUENCE_MAX), limit=check.whole("limit", limit, 1, 1000)
        )
        return cast(Messages, self._calls.call("GET", f"{self._path}/messages{query}", is_read=True))

    def take_down(self, sequence: int) -> Optional[Published]:
        """Takes a message down. None if the topic has ended: then nobody is told."""
        number = check.whole("sequence", sequence, 1, check.SEQUENCE_MAX)
        if number is None:
            raise TypeError("take_down: give the message's sequence")
        return cast(Optional[Published], self._calls.call("DELETE", f"{self._path}/messages/{number}"))

    def set_state(
        self, value: Any, *, if_match: Optional[int] = None, idempotency_key: Optional[str] = None
    ) -> Published:
        """Sets the state, as a whole.

        With `if_match`, the sequence of the state that was read (0: none yet), it raises
        `state_changed` if another one was set in between.
        """
        sequence = check.whole("if_match", if_match, 0, check.SEQUENCE_MAX)
        key = check.idempotency_key(idempotency_key) or str(uuid.uuid4())
        headers = {} if sequence is None else {"If-Match": f'"{sequence}"'}
        path = f"{self._path}/state"
        return cast(Published, self._calls.call("PUT", path, check.json(value), headers=headers, idempotency_key=key))

    def state(self) -> Optional[State]:
        """The newest state; None if there is none."""
        try:
            return cast(State, self._calls.call("GET", f"{self._path}/state", is_read=True))
        except HubError as error:
            if error.code == "not_found":
                return None
            raise

    def update_state(self, change: Union[Mapping[str, Any], Callable[[Any], Any]]) -> Published:
        """Changes fields of the state and keeps the others; None removes one.

        Or a function makes the new state of the old one (None: none yet). Read and set again where
        others set it in between.
        """
        if not isinstance(change, Mapping) and not callable(change):
            raise TypeError(
                f"update_state: give a mapping of the fields to change, or a function; this is {check.kind(change)}"
            )
        updates = 0
        while True:
            updates += 1
            old = self.state()
            data = old["data"] if old else None
            value = _merged(data, change) if isinstance(change, Mapping) else change(data)
            try:
                return self.set_state(value, if_match=old["sequence"] if old else 0)
            except HubError as error:
                if error.code != "state_changed" or updates >= UPDATES_MAX:
                    raise

    def info(self) -> TopicInfo:
        """The topic's history, state and audience."""
        return cast(TopicInfo, self._calls.call("GET", self._path, is_read=True))

    def end(self, reason: Optional[str] = None) -> None:
        """Ends the topic; its pages are told the reason."""
        said = check.reason(reason)
        self._calls.call("DELETE", self._path, None if said is None else _json(reason=said))

    def open(self) -> None:
        """Opens an ended topic again."""
        self._calls.call("POST", f"{self._path}/open")

    def link(
        self,
        *,
        ttl: Optional[int] = None,
        shared: Optional[bool] = None,
        page_messages: Optional[bool] = None,
        replay: Optional[int] = None,
    ) -> Link:
        """Makes a share link. It is a secret of those who may watch: don't log it."""
        body = _json(
            topic=self.name,
            ttl_s=check.ttl(ttl),
            shared=check.flag("shared", shared),
            page_messages=check.flag("page_messages", page_messages),
            replay=check.whole("replay", replay, 0, 65_535),
        )
        return cast(Link, self._calls.call("POST", "/v1/links", body))

    def ingest_token(self, *, ttl: Optional[int] = None) -> Token:
        """Makes a token for an encoder that sends picture and sound to this topic."""
        return cast(Token, self._calls.call("POST", f"{self._path}/ingest-tokens", _json(ttl_s=check.ttl(ttl))))


def _merged(old: Any, patch: Any) -> Any:
    """A state with other fields (JSON merge patch, RFC 7396): None removes one."""
    if not isinstance(patch, Mapping):
        return patch
    fields = dict(old) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = _merged(fields.get(name), value)
    return fields


def _json(**fields: Any) -> bytes:
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def _query(**parameters: Any) -> str:
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""
