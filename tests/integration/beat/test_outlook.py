"""``amqtask schedule next``, ``export`` and ``import``, with a beat that knows the entries."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from amqtask import App, cron, every
from amqtask.cli import outlook
from amqtask.cli.main import cli
from tests.integration.beat.conftest import Beating, MakeApp

Run = Callable[..., Result]


def declare(app: App) -> None:
    app.schedule("coded", "note", cron("* * * * *"), args=["coded"])


@pytest.fixture
def run(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on another app with the same code."""

    def other(ctx: Any, where: str | None) -> App:
        app = make_app()
        declare(app)
        return app

    monkeypatch.setattr(outlook, "find", other)

    def run_it(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["schedule", *arguments], catch_exceptions=False)

    return run_it


@pytest.fixture
def led(app: App, beating: Beating) -> App:
    """An app whose beat leads, with an entry of the code and one that was added."""
    declare(app)
    beating(app)
    app.schedules.add(
        "added", "note", every(hours=1), args=[Decimal("0.5"), None, date(2026, 1, 2)]
    )
    return app


def test_next_shows_both_kinds(led: App, run: Run) -> None:
    """What code declares, and what was added."""
    found = run("next", "2h", "--json")
    assert found.exit_code == 0
    document = json.loads(found.stdout)
    assert {each["name"]: each["origin"] for each in document["entries"]} == {
        "coded": "code",
        "added": "dynamic",
    }
    counts = {each["name"]: sum(each["counts"]) for each in document["entries"]}
    assert counts == {"coded": 120, "added": 2}
    lines = {line.split()[0]: line.split() for line in run("next").stdout.splitlines()}
    assert lines["coded"][2] == "code"
    assert lines["added"][2] == "added"


def test_next_shows_what_is_paused(led: App, run: Run) -> None:
    """As the beat has it, whatever the code says."""
    led.schedules.pause("coded")
    found = json.loads(run("next", "2h", "--json").stdout)
    assert [(each["name"], each["paused"]) for each in found["entries"]] == [
        ("added", False),
        ("coded", True),
    ]


def test_next_of_the_code_asks_no_beat(run: Run) -> None:
    """There is none here."""
    found = json.loads(run("next", "--code", "--json").stdout)
    assert [each["name"] for each in found["entries"]] == ["coded"]


def test_no_length_of_time(run: Run) -> None:
    """A usage error."""
    found = run("next", "tomorrow")
    assert found.exit_code == 2
    assert "'tomorrow' is no length of time; write 24h, 7d or 1h30m" in found.output


def test_export_and_import(led: App, run: Run, tmp_path: Path) -> None:
    """What was added comes back as it was, arguments of all types included."""
    file = tmp_path / "entries.toml"
    led.schedules.pause("added")
    before = led.schedules.get("added").plain
    assert run("export", str(file)).exit_code == 0
    assert '[entries.added]\nschedule = { every = 3600 }\ntask = "note"\n' in file.read_text()
    assert "coded" not in file.read_text()

    led.schedules.remove("added")
    found = run("import", str(file))
    assert found.output == "1 entry added\n"
    after = led.schedules.get("added")
    assert after.paused
    assert after.plain == {**before, "paused": True}
    assert after.plain["args"] == [Decimal("0.5"), None, date(2026, 1, 2)]


def test_import_adds_all_or_none(led: App, run: Run, tmp_path: Path) -> None:
    """One that is there already keeps the others out, unless it is to be replaced."""
    file = tmp_path / "entries.toml"
    file.write_text(
        "[entries.new]\ntask = 'note'\nschedule = 60\n"
        "[entries.added]\ntask = 'note'\nschedule = 'every 2h'\n"
    )
    found = run("import", str(file))
    assert found.exit_code == 1
    assert "there is an entry 'added' already" in found.output
    assert {each.name for each in led.schedules.list()} == {"coded", "added"}
    assert run("import", "--replace", str(file)).output == "2 entries added\n"
    assert led.schedules.get("added").schedule == "every 2h"


def test_import_of_what_is_wrong(led: App, run: Run, tmp_path: Path) -> None:
    """The file and the entry are named, and nothing is asked of a beat."""
    file = tmp_path / "entries.toml"
    file.write_text("[entries.new]\ntask = 'note'\nschedule = '0 25 * * *'\n")
    found = run("import", str(file))
    assert found.exit_code == 1
    assert (
        "entry 'new': cron expression '0 25 * * *': hour '25' is not from 0 to 23" in found.output
    )
    file.write_text("[entries.coded]\ntask = 'note'\nschedule = 60\n")
    assert "entry 'coded' is declared in code" in run("import", str(file)).output


def test_export_of_the_code(run: Run) -> None:
    """To carry entries from code to run time, without a beat."""
    assert run("export", "--code").stdout == (
        '[entries.coded]\nschedule = { cron = "* * * * *", tz = "UTC" }\n'
        'task = "note"\nargs = ["coded"]\n'
    )


def test_the_time_is_the_clock_s(led: App, run: Run) -> None:
    """What is drawn begins now."""
    before = datetime.now(UTC)
    since = datetime.fromisoformat(json.loads(run("next", "--json").stdout)["since"])
    assert before <= since <= datetime.now(UTC)
