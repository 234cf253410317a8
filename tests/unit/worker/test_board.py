"""The run board: what is noted can be read by others, and when the writer is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from amqtask.worker.board import Board, BoardEntry


def test_what_runs_is_read_by_another_process():
    """Id, task and times of each slot that is in use; a process that died has left them."""
    board = Board.create(4)
    code = (
        "import os, sys; from amqtask.worker.board import Board\n"
        "board = Board.attach(int(sys.argv[1]))\n"
        "first, second = board.take(), board.take()\n"
        "board.begin(first, 'A', 't.one', None)\n"
        "board.begin(second, 'B', 't.two', 4e9)\n"
        "board.end(first)\n"
        "board.begin(board.take(), 'C', 't.three', None)\n"
        "os.kill(os.getpid(), 9)"
    )
    before = time.time()
    subprocess.run(
        [sys.executable, "-c", code, str(board.fileno())], pass_fds=[board.fileno()], check=False
    )
    entries = board.entries()
    assert [(each.id, each.task, each.deadline) for each in entries] == [
        ("B", "t.two", 4e9),
        ("C", "t.three", None),
    ]
    assert all(before <= each.started <= time.time() for each in entries)
    board.close()


def test_more_than_there_are_slots():
    """What finds no slot is not noted; a slot that is free again is used again."""
    board = Board.create(2)
    slots = [board.take(), board.take()]
    assert sorted(slots, key=str) == [0, 1]
    assert board.take() is None
    board.begin(1, "A", "t", None)
    board.end(1)
    assert board.take() == 1
    assert board.entries() == []
    board.close()


def test_long_names_are_cut():
    """An id of 255 bytes fits; a longer task name is cut, and spoils nothing beside it."""
    board = Board.create(2)
    board.begin(0, "i" * 255, "t" * 400, None)
    board.begin(1, "ü", "ü" * 300, 2.0)
    first, second = board.entries()
    assert first.id == "i" * 255
    assert first.task == "t" * 199
    assert second == BoardEntry("ü", second.task, second.started, 2.0)
    board.close()


def test_a_board_is_not_inherited_by_accident():
    """Only who names its descriptor gets it."""
    board = Board.create(1)
    assert not os.get_inheritable(board.fileno())
    board.close()
