"""What the API answers, and the operations of a batch: dictionaries with the names of docs/api.md.

Keys that the API leaves out are in classes with `total=False`. Checked by type checkers alone.
"""

from __future__ import annotations

from typing import Any, List, Literal, Optional, TypedDict, Union


class Problem(TypedDict, total=False):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    sequence: int
    """With `state_changed`, the newest state's sequence."""
    reason: str
    """With `topic_ended`, what viewers were told."""


class _Place(TypedDict):
    epoch: str
    """Changes when a topic's sequences begin anew."""
    sequence: int


class Published(_Place, total=False):
    repeated: bool
    """It had been published before, under the same idempotency key."""
    durable: bool


class Message(TypedDict):
    sequence: int
    data: Any


class Messages(TypedDict):
    epoch: str
    messages: List[Message]
    next: int
    """The `since` of the next list."""


class State(_Place):
    data: Any


class Listed(TypedDict):
    topic: str
    ended: bool


class Topics(TypedDict):
    topics: List[Listed]
    cursor: Optional[str]
    """The `cursor` of the next list; None at the end."""


class Span(TypedDict):
    """The messages that are kept, from `first` up to and without `next`."""

    first: int
    next: int


class Live(TypedDict):
    audio: bool
    video: bool


class StateView(TypedDict):
    sequence: int
    data: Any


class RelayAudience(TypedDict):
    relay: str
    pages: int


class Audience(TypedDict):
    pages: int
    relays: List[RelayAudience]


class TopicInfo(TypedDict):
    topic: str
    epoch: str
    ended: Optional[str]
    """The reason, if it has ended."""
    messages: Span
    live: Live
    state: Optional[StateView]
    audience: Audience


class _Result(TypedDict):
    status: int
    """As the operation's own route would answer: 200, 204, or what is wrong."""


class Result(_Result, total=False):
    topic: str
    """Of `publish` alone."""
    epoch: str
    sequence: int
    repeated: bool
    problem: Problem


class Revoked(TypedDict):
    ttl_s: int
    """How long it is denied, in seconds."""


class Link(TypedDict):
    link: str
    """The secret part."""
    url: Optional[str]
    """The share page; None if the configuration doesn't say where the pages are."""
    end: Optional[int]
    """Seconds since 1970; None: never."""


class Token(TypedDict):
    token: str
    end: int
    """Seconds since 1970."""


class Relay(TypedDict):
    name: str
    connection: int
    up_s: int
    pages: int
    topics: int


class Engine(TypedDict):
    kind: str
    up: bool


class Fleet(TypedDict):
    relays: List[Relay]
    topics: int
    engine: Engine


class Health(TypedDict):
    status: str


class _MessageOperation(TypedDict):
    op: Literal["message"]
    topic: str
    data: Any


class MessageOperation(_MessageOperation, total=False):
    idempotency_key: str


class _StateOperation(TypedDict):
    op: Literal["state"]
    topic: str
    data: Any


class StateOperation(_StateOperation, total=False):
    idempotency_key: str
    if_match: int


class RemoveOperation(TypedDict):
    op: Literal["remove"]
    topic: str
    sequence: int


class _EndOperation(TypedDict):
    op: Literal["end"]
    topic: str


class EndOperation(_EndOperation, total=False):
    reason: str


class OpenOperation(TypedDict):
    op: Literal["open"]
    topic: str


Operation = Union[MessageOperation, StateOperation, RemoveOperation, EndOperation, OpenOperation]
