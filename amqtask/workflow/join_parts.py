"""What the parts of a chord say, and what they come to: pure decisions, the same for every join.

A part is kept as JSON: ``[1, id, state, result]``, which is Celery's, and where no Celery worker
reads it, in addition ``index, extra, task``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from amqtask.errors import ChordError, MalformedMessage, TaskRevoked
from amqtask.message.results import encode_exception
from amqtask.message.serializers import JSON
from amqtask.message.text import show
from amqtask.records import record
from amqtask.workflow.ports import Part

SUCCESS = "SUCCESS"
#: Missing members that an error names at most.
_NAMED = 10


@record(frozen=True, slots=True)
class Kept:
    """A part as it is kept.

    Attributes:
        id: Id of the member's call.
        state: ``SUCCESS``, ``FAILURE`` or ``REVOKED``.
        result: The value, or the encoded exception.
        index: Place in the header; None for a member that was added on the way.
        extra: Members that this one has added.
        task: Its task, for texts; empty where a Celery worker kept it.
    """

    id: str
    state: str
    result: Any
    index: int | None = None
    extra: int = 0
    task: str = ""

    @property
    def ok(self) -> bool:
        """Whether the member returned a value."""
        return self.state == SUCCESS


def keep(part: Part) -> Kept:
    """Return what is kept of a part."""
    if part.error is None:
        return Kept(part.id, SUCCESS, part.value, part.index, part.extra, part.task)
    state = "REVOKED" if isinstance(part.error, TaskRevoked) else "FAILURE"
    error = encode_exception(part.error)
    return Kept(part.id, state, error, part.index, part.extra, part.task)


def dump(kept: Kept, *, as_celery: bool = False) -> bytes:
    """Return a part as JSON.

    Args:
        as_celery: Only what Celery's workers expect.

    Raises:
        EncodeError: The value does not serialise.
    """
    said: list[Any] = [1, kept.id, kept.state, kept.result]
    if not as_celery:
        said += [kept.index, kept.extra, kept.task]
    return JSON.dumps(said)


def load(data: bytes) -> Kept:
    """Return the part that `dump`, or a Celery worker, wrote.

    Raises:
        MalformedMessage: It is none.
    """
    return read(JSON.loads(data))


def read(said: Any) -> Kept:
    """Return the part that a decoded document says; raises as `load`."""
    if not isinstance(said, list) or len(said) not in (4, 7):
        raise MalformedMessage(f"the part of a chord is {show(said)}, not a list of 4 or 7")
    _, id_, state, result, *more = said
    if not isinstance(id_, str) or not isinstance(state, str):
        raise MalformedMessage(f"the part of a chord is {show(said)}, without id and state")
    index, extra, task = more or (None, 0, "")
    return Kept(id_, state, result, index, int(extra or 0), str(task or ""))


@dataclass(frozen=True, slots=True)
class Gathered:
    """What the parts of one chord come to.

    Attributes:
        parts: One of each member, in the order of the header; those added on the way last.
        missing: Places in the header of which nothing is known.
        awaited: Members added on the way of which nothing is known.
    """

    parts: Sequence[Kept]
    missing: Sequence[int] = ()
    awaited: int = 0

    @property
    def complete(self) -> bool:
        """Whether every member has ended."""
        return not self.missing and self.awaited <= 0

    @property
    def failed(self) -> Kept | None:
        """The first member that failed."""
        return next((part for part in self.parts if not part.ok), None)

    @property
    def values(self) -> list[Any]:
        """What the members returned, in order."""
        return [part.result for part in self.parts]


def gather(parts: Iterable[Kept], size: int) -> Gathered:
    """Put parts in order, without what came twice.

    A member may have ended more than once: redelivered, or sent back from the
    dead-letter queue. A value counts for more than a failure, and the first of two
    values for more than the second.
    """
    placed: dict[int, Kept] = {}
    late: dict[str, Kept] = {}
    for part in parts:
        if part.index is None:
            _prefer(late, part.id, part)
        else:
            _prefer(placed, part.index, part)
    ordered = [placed[index] for index in sorted(placed)] + list(late.values())
    missing = [index for index in range(size) if index not in placed]
    return Gathered(ordered, missing, sum(part.extra for part in ordered) - len(late))


def _prefer(known: dict[Any, Kept], key: object, part: Kept) -> None:
    before = known.get(key)
    if before is None or (part.ok and not before.ok):
        known[key] = part


def nested(gathered: Gathered, members: Any) -> Gathered:
    """Return parts in the groups that a Celery client has put them in.

    Args:
        members: ``[[id, parent], nodes]`` as Celery keeps a group; None for one without groups.

    A part that is in none of them comes after the others.
    """
    if not isinstance(members, list) or len(members) != 2 or not isinstance(members[1], list):
        return gathered
    left = {part.id: part for part in gathered.parts}
    parts = [Kept("", SUCCESS, _nested(node, left)) for node in members[1]]
    return Gathered([*parts, *left.values()])


def _nested(node: Any, left: dict[str, Kept]) -> Any:
    (id_, _), nodes = node
    if nodes is not None:
        return [_nested(each, left) for each in nodes]
    part = left.pop(id_, None)
    return None if part is None else part.result


def failure(group_id: str, part: Kept) -> ChordError:
    """Return why a chord's body does not run, naming the member."""
    where = "added on the way" if part.index is None else f"{part.index}"
    task = f"task {part.task!r}, " if part.task else ""
    verb = "was cancelled or expired" if part.state == "REVOKED" else "failed"
    return ChordError(
        f"member {where} of chord {group_id} ({task}id {part.id}) {verb}: {_said(part.result)}"
    )


def abandoned(group_id: str, gathered: Gathered, why: str) -> ChordError:
    """Return why a chord's body is given up.

    Args:
        why: As in "by hand".
    """
    missing = [str(index) for index in gathered.missing]
    names = ", ".join(missing[:_NAMED]) + (" and more" if len(missing) > _NAMED else "")
    noun = "member" if len(missing) == 1 else "members"
    what = f"{noun} {names}" if missing else f"{gathered.awaited} added on the way"
    came = len(gathered.parts)
    return ChordError(
        f"chord {group_id} was given up {why}: {came} of "
        f"{came + len(missing) + max(0, gathered.awaited)} parts came, none yet of {what}",
        hint="members are counted from 0; look for them in the dead-letter queues; join_expires says "
        "how long a chord waits",
    )


def gone(group_id: str) -> ChordError:
    """Return why a chord cannot be joined whose state nobody has any more."""
    return ChordError(
        f"chord {group_id} cannot be joined: its store has lost what it knew of it",
        hint="join_expires says how long it is kept; a store that evicts keys loses chords too",
    )


def _said(result: Any) -> str:
    if not isinstance(result, dict):
        return show(result)
    args = result.get("exc_message")
    args = args if isinstance(args, list | tuple) else [args]
    text = str(args[0]) if len(args) == 1 else ", ".join(map(repr, args))
    return f"{result.get('exc_type')}: {text}" if text else str(result.get("exc_type"))
