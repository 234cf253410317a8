"""Options of `amqtask worker`: each is documented, and each setting that is named exists."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import click

from amqtask.cli.main import cli
from amqtask.settings import Settings

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "workers.md"


def options() -> list[click.Option]:
    command = cli.commands["worker"]
    return [each for each in command.params if isinstance(each, click.Option)]


def test_every_option_is_in_the_guide():
    """By its long name."""
    text = GUIDE.read_text()
    names = [max(option.opts, key=len) for option in options()]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_option_has_help():
    """A user who reads only --help succeeds."""
    assert [option.name for option in options() if not option.help] == []


def test_settings_that_are_named_exist():
    """``(setting: x)`` sends nobody astray."""
    known = {item.name for item in fields(Settings)}
    named = {
        name
        for option in options()
        for name in re.findall(r"\(setting: (\w+)\)", option.help or "")
    }
    assert named
    assert named <= known
