"""Outcomes on their way from a runner to its node.

The runner decides what follows, as only it has the exception itself; the node
makes it safe. Values travel as the result serializer writes them, exceptions
as results carry them, with their texts beside: nothing that a runner sends is
ever unpickled, and what is logged and parked reads as if it had run in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from amqtask.errors import EncodeError, MalformedMessage, RemoteError
from amqtask.message import encode_exception
from amqtask.message.republish import exception_text
from amqtask.message.serializers import JSON
from amqtask.message.text import brief, cut
from amqtask.worker.outcome import (
    Again,
    Done,
    Failed,
    Ignored,
    Outcome,
    Replaced,
    Returned,
)

_TEXT = 20_000


@dataclass(frozen=True, slots=True)
class Unserialisable:
    """It ended with a value that the result serializer cannot write."""

    error: str
    hint: str | None


class CarriedError(RemoteError):
    """An exception of a runner; looks in logs and dead letters like the one it stands for."""

    def __init__(self, text: str, shown: str, record: Mapping[str, Any]) -> None:
        message = record.get("exc_message")
        super().__init__(
            text,
            exc_type=str(record.get("exc_type")),
            exc_module=record.get("exc_module"),
            exc_args=message if isinstance(message, list) else (),
        )
        self._shown = shown

    def __repr__(self) -> str:
        return self._shown


@dataclass(frozen=True, slots=True)
class Carried:
    """What a runner tells of a call that ended.

    Attributes:
        memory: Bytes of memory that the runner has.
        children: Calls that its code sent, as results name them.
        added: Members that it adds to its chord.
    """

    outcome: Outcome | Unserialisable
    memory: int
    children: Sequence[Any] = ()
    added: Sequence[dict[str, Any]] = ()


def pack(
    outcome: Outcome,
    *,
    wanted: bool,
    memory: int,
    children: Sequence[Any] = (),
    added: Sequence[dict[str, Any]] = (),
) -> bytes:
    """Return an outcome as bytes; see `Carried`.

    Args:
        wanted: False leaves a value out, as nobody asks for it.
        added: Counts for a call that ended with a value.
    """
    document: dict[str, Any] = {"memory": memory, "children": children if wanted else ()}
    match outcome:
        case Done(value):
            try:
                more = {"added": added} if added else {}
                return JSON.dumps({**document, **more, "done": value if wanted else None})
            except EncodeError as error:
                document["unserialisable"] = [str(_named(value, error)), error.hint]
        case Again(delay, eta, retries, error):
            document["again"] = [delay, eta.timestamp(), retries, _packed(error)]
        case Failed(error, reason, traceback):
            document["failed"] = [_packed(error), reason, traceback]
        case Ignored():
            document["ignored"] = True
        case Replaced(signature):
            try:
                return JSON.dumps({**document, "replaced": signature})
            except EncodeError as error:  # an argument of one of its steps
                document["failed"] = [_packed(error), "unsendable", None]
        case Returned():
            document["returned"] = True
        case _:
            raise AssertionError(f"a runner does not end a task with {outcome!r}")
    return JSON.dumps(document)


def unpack(data: bytes) -> Carried:
    """Return what `pack` was given.

    Raises:
        ValueError: It is no outcome.
    """
    try:
        document = JSON.loads(data)
        return Carried(
            _outcome(document),
            int(document["memory"]),
            list(document["children"]),
            list(document.get("added", ())),
        )
    except (MalformedMessage, LookupError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"a runner sent what is no outcome: {error!r}") from error


def _outcome(document: dict[str, Any]) -> Outcome | Unserialisable:
    match document:
        case {"done": value}:
            return Done(value)
        case {"unserialisable": [str(error), hint]}:
            return Unserialisable(error, hint)
        case {"again": [delay, eta, retries, error]}:
            cause = None if error is None else _unpacked(error)
            return Again(float(delay), datetime.fromtimestamp(eta, UTC), int(retries), cause)
        case {"failed": [error, str(reason), traceback]}:
            return Failed(_unpacked(error), reason, traceback)
        case {"ignored": True}:
            return Ignored()
        case {"replaced": dict(signature)}:
            return Replaced(signature)
        case {"returned": True}:
            return Returned()
    raise ValueError(f"a runner sent an outcome of {sorted(document)}")


def _named(value: Any, error: EncodeError) -> EncodeError:
    """Return the error as it would be had the value been encoded as the result it is."""
    try:
        JSON.dumps(value)
    except EncodeError as inner:
        return EncodeError(f"cannot encode the result: {inner}", hint=inner.hint)
    return error


def _packed(error: BaseException | None) -> list[Any] | None:
    if error is None:
        return None
    text = cut(exception_text(error), _TEXT)
    return [text, brief(error, _TEXT), encode_exception(error)]


def _unpacked(carried: list[Any]) -> CarriedError:
    text, shown, record = carried
    return CarriedError(str(text), str(shown), dict(record))
