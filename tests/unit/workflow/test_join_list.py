"""The list of chords that wait for long: the newest note of each that has a queue."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from amqtask.errors import PublishError
from amqtask.message.model import Message
from amqtask.transport import Publication
from amqtask.transport.taking import Count, Gone
from amqtask.workflow.alarm import OpenJoin, Waiting
from amqtask.workflow.join_list import JoinList

LIST = "shop.joins"
BODY = {"task": "t.body", "options": {"task_id": "b"}, "chord_size": 3}


class Hold:
    """A queue that was taken."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self.dropped: list[Message] = []
        self.free = False

    def drop(self, messages: Iterable[Message]) -> None:
        self.dropped += messages

    async def let_go(self) -> None:
        self.free = True


class Desk:
    """Queues by their names, and the list."""

    def __init__(self, hold: Hold | None, **counts: int) -> None:
        self._hold = hold
        self._counts = counts

    async def take(self, queue: str) -> Hold:
        assert queue == LIST
        if self._hold is None:
            raise Gone
        return self._hold

    async def count(self, queue: str) -> Count:
        if queue not in self._counts:
            raise Gone
        return Count(self._counts[queue], 0)


def _notes(*groups: str) -> list[Message]:
    """Return the notes of these chords, each due a second after the one before."""
    sent: list[Message] = []

    async def publish(publication: Publication) -> None:
        sent.append(publication.message)

    async def add() -> None:
        for n, group_id in enumerate(groups):
            await JoinList(LIST, publish).add(Waiting(group_id, 3, BODY, 1000.0), 60.0 + n)

    asyncio.run(add())
    return sent


def _read(desk: Any) -> list[OpenJoin]:
    async def publish(publication: Publication) -> None:
        raise AssertionError("nothing is noted here")

    return asyncio.run(JoinList(LIST, publish).read(desk, str))


def test_the_newest_note_of_each_chord_that_has_a_queue_is_shown() -> None:
    """All others are taken out: nobody does that when a chord ends."""
    notes = _notes("a", "b", "a")
    hold = Hold(notes)
    (row,) = _read(Desk(hold, a=3))
    assert (row.id, row.kept, row.came, row.task, row.body_id) == ("a", "broker", 2, "t.body", "b")
    assert row.due == notes[2].headers["x-amqtask-due"]
    assert [id(each) for each in hold.dropped] == [id(notes[0]), id(notes[1])]
    assert hold.free


def test_what_stands_for_the_alarm_and_what_came_twice_are_no_members() -> None:
    """While its alarm is on its way a queue may be empty."""
    assert [row.came for row in _read(Desk(Hold(_notes("a", "b")), a=0, b=9))] == [0, 3]


def test_a_note_that_cannot_be_read_is_taken_out(caplog: pytest.LogCaptureFixture) -> None:
    """And named in the log."""
    hold = Hold([Message(b"[]", message_id="a")])
    assert _read(Desk(hold, a=3)) == []
    assert hold.dropped == hold.messages
    assert "chord.note_malformed group=a" in caplog.text


def test_without_a_list_no_chord_has_waited_for_long() -> None:
    """The first note makes it."""
    assert _read(Desk(None)) == []


def test_a_chord_that_cannot_be_noted_waits_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """Its alarm is set; only the list lacks it."""

    async def publish(publication: Publication) -> None:
        raise PublishError("refused")

    asyncio.run(JoinList(LIST, publish).add(Waiting("a", 3, BODY, 1000.0), 60.0))
    assert "chord.not_listed group=a error='refused'" in caplog.text


def test_a_note_goes_a_day_after_its_chord_was_to_be_given_up() -> None:
    """At most: RabbitMQ takes no longer time to live."""
    (note,) = _notes("a")
    assert note.expiration == str((24 * 3600 + 60) * 1000)
