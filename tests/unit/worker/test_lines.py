"""The protocol between supervisor and child: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.worker.lines import MOST, Beat, pack, unpack
from amqtask.worker.spec import WorkerSpec

FIELDS = st.dictionaries(
    st.text(), st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text()))
)


@given(FIELDS)
def test_what_is_said_is_heard(fields):
    """Any fields come out as they went in, on exactly one line."""
    line = pack(**fields)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert unpack(line) == fields


@pytest.mark.parametrize("line", [b"", b"\n", b"stop\n", b"[]\n", b"1\n", b'{"do":\n', b"\xff\n"])
def test_rubbish_is_a_value_error(line: bytes):
    """Whatever is no object raises one error, which the reader expects."""
    with pytest.raises(ValueError):  # noqa: PT011 - json says it in its own words
        unpack(line)


def test_a_beat_survives_the_line():
    """Every field of a beat is told."""
    beat = Beat(3, 4, 5, 6, 0.25, 1.5, ("queue 'q': gone",))
    assert Beat.read(unpack(pack(event="beat", **asdict(beat)))) == beat


def test_a_beat_of_another_version():
    """What is missing counts as nothing, what is unknown is left out."""
    assert Beat.read({"event": "beat", "running": 2, "mood": "good"}) == Beat(running=2)


def spec(*queues: tuple[str, int | None], **said) -> WorkerSpec:
    fields = {"concurrency": 16, "prefetch": None, "name": "w", "loglevel": "info", **said}
    return WorkerSpec(app="tasks:app", queues=queues, **fields)


def test_a_spec_survives_the_line():
    """A child gets what the supervisor has, but for the environment, which it has already."""
    given_ = spec(("email", 8), ("reports", None), environ={"A": "b"}, path=("/x",))
    line = given_.line(board=7)
    assert len(line) < MOST
    fields = json.loads(line)
    assert fields.pop("board") == 7
    read = WorkerSpec.read(fields)
    assert read.environ == {}
    assert (read.queues, read.names, read.path) == (given_.queues, ("email", "reports"), ("/x",))


def test_slots_of_a_process():
    """Queues with a number have so many of their own; the others share the concurrency."""
    assert spec(("a", None), ("b", None)).slots == 16
    assert spec(("a", 8), ("b", None)).slots == 24
    assert spec(("a", 8), ("b", 2)).slots == 10
    assert spec(("a", 8), ("b", 2)).board_slots >= 20
    assert spec(("a", 8), ("b", None), process_slots=3).runners == 11
