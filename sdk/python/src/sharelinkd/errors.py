"""What a call raises when the hub refuses it, or doesn't answer.

Owns the error's text: which call, what is wrong, how to mend it, and whether it may have taken
effect. It never has the key. Wrong arguments are TypeError and ValueError, before anything is sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Optional

from .answers import Problem


@dataclass
class Failure:
    """Why one attempt failed."""

    code: str
    detail: str
    is_transient: bool
    is_unknown: bool
    status: Optional[int] = None
    retry_after: Optional[float] = None
    request_id: Optional[str] = None
    problem: Optional[Problem] = None
    cause: Optional[BaseException] = None


class HubError(Exception):
    """The hub refuses a call, or doesn't answer.

    `code` is the API's word for it (docs/api.md, "Errors"), or `unreachable`, `connection_lost`,
    `timeout`, `tls`, `not_the_hub`. `status` is None if there was no answer. `is_unknown`: it may
    have taken effect. The same call with `idempotency_key` does it once, within 5 minutes.
    """

    def __init__(
        self,
        call: str,
        failure: Failure,
        *,
        attempts: int = 1,
        is_unknown: bool = False,
        idempotency_key: Optional[str] = None,
    ) -> None:
        self.status = failure.status
        self.code = failure.code
        self.detail = failure.detail
        self.retry_after = failure.retry_after
        self.request_id = failure.request_id
        self.problem = failure.problem
        self.idempotency_key = idempotency_key
        self.is_unknown = is_unknown
        self.attempts = attempts
        what = failure.code if failure.status is None else f"{failure.status} {failure.code}"
        tries = f" ({attempts} attempts)" if attempts > 1 else ""
        text = f"{call}: {what}: {failure.detail}{tries}"
        super().__init__(text + (_unknown(idempotency_key) if is_unknown else ""))

    def __reduce__(self) -> "tuple[object, ...]":
        # Exceptions are copied with their text alone; queues of jobs pickle them.
        return _restored, (str(self), self.__dict__)


def _restored(text: str, fields: "dict[str, object]") -> HubError:
    error = HubError.__new__(HubError)
    Exception.__init__(error, text)
    error.__dict__.update(fields)
    return error


def _unknown(key: Optional[str]) -> str:
    again = "call again, which does no harm where it did"
    if key:
        again = f"the same call with the idempotency key {json.dumps(key)}, within 5 minutes, does it once"
    return f". It is not known whether it took effect: {again}"
