"""The drawing of the fires to come."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

from rich.console import Console

from amqtask.beat.coming import outlook
from amqtask.cli.timeline import columns, draw
from amqtask.policy.entry import Entry
from amqtask.policy.schedule import cron, every

# clocks go back in the night
NOW = datetime(2026, 10, 24, 13, 3, tzinfo=UTC)
ENTRIES = [
    (Entry("nightly", cron("0 3 * * *", tz="Europe/Paris"), "t"), False),
    (Entry("poll", every(300), "t", origin="dynamic"), False),
    (Entry("tick", every(1), "t"), False),
    (Entry("hourly", cron("30 * * * *"), "t"), True),
    (Entry("yearly", cron("@yearly"), "t"), False),
]


def drawn(span: timedelta, width: int = 78, **said: bool) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, **said)  # type: ignore[arg-type]
    count = columns(width, ["nightly"])
    console.print(draw(outlook(ENTRIES, NOW, NOW + span, columns=count), "Europe/Paris"))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_day() -> None:
    """Code and added entries are told apart by a word too; times are those of the zone."""
    assert drawn(timedelta(hours=24)) == [
        "entry         18:00      00:00        06:00            from   next",
        "tick     ++++++++++++++++++++++++++++++++++++++++++++  code   15:03:01",
        "poll     76767676776767676767767676767677676767676776  added  15:05",
        "nightly  ·······················●····················  code   Sun 25 Oct 03:00",
        "hourly   --------------------------------------------  code   paused",
        "from Sat 24 Oct 15:03 to Sun 25 Oct 14:03 Europe/Paris; ● one fire, 2 to 9 so",
        "many, + 10 or more; - paused; 1 that do not",
    ]


def test_a_quarter_of_an_hour() -> None:
    """The axis goes as fine as there is room."""
    lines = drawn(timedelta(minutes=15))
    assert lines[0].split() == ["entry", "15:05", "15:10", "15:15", "from", "next"]


def test_a_year() -> None:
    """And as coarse as it has to."""
    lines = drawn(timedelta(days=365), width=200)
    assert lines[0].split()[1:5] == ["Nov", "2026", "Dec", "2026"]
    assert any(line.startswith("yearly") and line.count("●") == 1 for line in lines)


def test_nothing_comes() -> None:
    """One line says so."""
    file = io.StringIO()
    Console(file=file, width=100).print(
        draw(outlook([], NOW, NOW + timedelta(hours=1), columns=5), "UTC")
    )
    assert file.getvalue() == "no fire from Sat 24 Oct 13:03 to Sat 24 Oct 14:03 UTC\n"


def test_origins_have_colours() -> None:
    """Cyan for code, magenta for what was added."""
    text = "\n".join(drawn(timedelta(hours=1), force_terminal=True))
    assert "\x1b[36mtick" in text
    assert "\x1b[35mpoll" in text


def test_the_marks_fill_the_line() -> None:
    """As many as fit beside the names, within reason."""
    assert columns(80, ["nightly"]) == 46
    assert columns(80, ["x" * 100]) == 21
    assert columns(20, []) == 12
    assert columns(1000, ["a"]) == 120
