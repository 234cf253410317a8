"""When a child beats: each second while there is something to tell, else now and then."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from amqtask.worker import rounds
from amqtask.worker.board import Board
from amqtask.worker.child import Child
from amqtask.worker.lines import BEAT, IDLE_BEAT
from tests.unit.worker.children import SPEC


@pytest.fixture
async def child():
    board = Board.create(1)
    sock, _ = pair = socket.socketpair()
    made = Child(SPEC, board, sock)
    made._node = cast(Any, SimpleNamespace(running=0, waiting=0, finished=0, ready=True))
    yield made
    board.close()
    for each in pair:
        each.close()


def _beats(child: Child, seconds: int, start: float = 0.0) -> list[float]:
    times = [start + BEAT * number for number in range(seconds)]
    return [now for now in times if child._has_news(now)]


async def test_an_idle_child_beats_now_and_then(child: Child):
    """Often enough not to be taken for silent, nor for one that was and is heard again."""
    assert _beats(child, 10) == [0.0, 3.0, 6.0, 9.0]
    assert min(rounds.SILENT, rounds.OVERDUE, rounds.ROUND + rounds.LATE) > IDLE_BEAT


@pytest.mark.parametrize("news", [{"running": 1}, {"waiting": 1}, {"ready": False}])
async def test_a_child_with_something_to_do_beats_each_second(child: Child, news):
    """So does one that does not consume."""
    _beats(child, 2)
    vars(child._node).update(news)
    assert _beats(child, 4, start=2.0) == [2.0, 3.0, 4.0, 5.0]


async def test_what_has_changed_is_told_at_once(child: Child):
    """A quick task has come and gone between two beats."""
    assert _beats(child, 2) == [0.0]
    cast(Any, child._node).finished = 1
    assert _beats(child, 3, start=2.0) == [2.0]


async def test_a_loop_that_owes_an_answer(child: Child):
    """It is told each second for how long, from when it was first asked, until it answers."""
    assert child._blocked() == 0.0
    child._ask_loop()
    first = child._asked_loop
    assert _beats(child, 3) == [0.0, 1.0, 2.0]
    child._ask_loop()
    assert child._asked_loop == first
    assert child._blocked() > 0.0
    await asyncio.sleep(0)
    assert child._blocked() == 0.0
