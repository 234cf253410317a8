"""What one leader hands to the next, and how it stands in the queue.

    snapshot   all of it: the mark of each entry, the entries that were added at run time
    note       the marks that changed since, when all of it would be much to write each time

The queue holds one snapshot, and the notes that came after it; a small state is
written as a snapshot each time, so that there is one message and no more. Records
bear a number that counts up. Whoever takes over reads all there is, in the order
of the numbers: of two that contradict each other the later one counts, but nothing
takes a mark back, so that no instant is fired for a second time whatever order
records come in.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from amqtask.beat.plan import Mark
from amqtask.errors import AmqtaskError, MalformedMessage
from amqtask.message.compression import decompress
from amqtask.message.model import Message
from amqtask.message.serializers import JSON

#: ``type`` property of a record.
SNAPSHOT = "amqtask.beat.snapshot"
NOTE = "amqtask.beat.note"
#: Written into each record; one that is higher was written by a later amqtask.
VERSION = 1
#: Bytes over which a record is compressed.
_LARGE = 4096
#: Bytes that a record unpacks to at most.
_MOST = 256 * 1024 * 1024


class LaterVersion(MalformedMessage):
    """A record that a later amqtask wrote, and that this one would damage."""


@dataclass(frozen=True, slots=True)
class State:
    """All that beats know together.

    Attributes:
        seq: Number of the last record.
        marks: By the entry's name, what is known of its past.
        dynamic: By name, the entries that were added at run time, as `Entry.to_plain` has them.
    """

    seq: int = 0
    marks: Mapping[str, Mark] = field(default_factory=dict)
    dynamic: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """One message of the queue, read.

    Attributes:
        seq: Its number.
        marks: All of them in a snapshot, those that changed in a note.
        dynamic: All of them in a snapshot; None in a note.
    """

    seq: int
    marks: Mapping[str, Mark]
    dynamic: Mapping[str, Mapping[str, Any]] | None


def snapshot(state: State, plain: Mapping[str, Any] | None = None) -> Message:
    """Return the message that holds all of a state.

    Args:
        plain: The marks as `Mark.to_plain` has them, where somebody has that already.
    """
    if plain is None:
        plain = plain_marks(state.marks)
    entries = {name: dict(table) for name, table in state.dynamic.items()}
    return _message(
        SNAPSHOT,
        {
            "v": VERSION,
            "seq": state.seq,
            "marks": plain,
            # arguments may be dates and the like; marks never are, and there may be many
            "entries": orjson.Fragment(JSON.dumps(entries)),
        },
    )


def note(seq: int, plain: Mapping[str, Any]) -> Message:
    """Return the message that holds the marks that changed, as `plain_marks` gives them."""
    return _message(NOTE, {"v": VERSION, "seq": seq, "marks": plain})


def plain_marks(marks: Mapping[str, Mark]) -> dict[str, Any]:
    """Return marks as plain data."""
    return {name: mark.to_plain() for name, mark in marks.items()}


def read(message: Message) -> Record:
    """Return what a message holds.

    Raises:
        LaterVersion: A later amqtask wrote it.
        MalformedMessage: Nobody did, or somebody changed it.
    """
    body = message.body
    compression = message.headers.get("compression")
    if compression is not None:
        try:
            body = decompress(str(compression), body, _MOST)
        except AmqtaskError as error:
            raise MalformedMessage(f"it does not unpack: {error}") from error
    try:
        plain = JSON.loads(body)
    except (ValueError, AmqtaskError) as error:
        raise MalformedMessage(f"it is no JSON: {error}") from error
    match plain:
        case {"v": int(version)} if version > VERSION:
            raise LaterVersion(
                f"it has version {version}, this amqtask reads {VERSION} and below",
                hint="upgrade amqtask wherever a beat runs",
            )
        case {"v": int(), "seq": int(seq), "marks": dict(marks), **rest}:
            entries: Any = rest.get("entries")
            if entries is not None and not _tables(entries):
                raise MalformedMessage("its entries are no tables")
            read_marks = {name: Mark.from_plain(mark) for name, mark in marks.items()}
            return Record(seq, read_marks, entries)
    raise MalformedMessage("it lacks v, seq or marks")


def fold(records: Iterable[Record]) -> State | None:
    """Return the state that records make together; None when there is no record."""
    state: State | None = None
    for record in sorted(records, key=lambda record: record.seq):
        state = _over(state or State(), record)
    return state


def adopt(state: State, record: Record) -> State:
    """Return the state with what a record adds that comes from somebody else.

    It may be one that this state knows already, or that the queue lost: what is newer here
    stays, and what is not here at all is taken over from one that was further on.
    """
    marks = dict(state.marks)
    for name, mark in record.marks.items():
        known = marks.get(name)
        marks[name] = mark if known is None else _later(mark, known)
    dynamic = state.dynamic
    if record.seq > state.seq and record.dynamic is not None:
        dynamic = {**record.dynamic, **state.dynamic}
    return State(max(state.seq, record.seq), marks, dynamic)


def _over(state: State, record: Record) -> State:
    marks = dict(state.marks)
    for name, mark in record.marks.items():
        known = marks.get(name)
        marks[name] = mark if known is None else _later(known, mark)
    dynamic = state.dynamic if record.dynamic is None else record.dynamic
    return State(max(state.seq, record.seq), marks, dynamic)


def _later(before: Mark, after: Mark) -> Mark:
    """Return the mark that counts of two, of which the second one was written later."""
    if after.at >= before.at:
        return after
    return replace(after, at=before.at, fired=before.fired, fires=max(before.fires, after.fires))


def _tables(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, dict) for each in value.values())


def _message(kind: str, plain: dict[str, Any]) -> Message:
    body = orjson.dumps(plain)
    headers: dict[str, Any] = {}
    if len(body) > _LARGE:
        # the quickest level: 10,000 marks take 8 ms instead of 30, for a fifth more bytes
        headers["compression"], body = "application/x-gzip", zlib.compress(body, 1)
    return Message(
        body,
        headers,
        content_type="application/json",
        content_encoding="utf-8",
        type=kind,
    )
