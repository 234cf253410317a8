"""The texts of --help."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from amqtask.cli.main import cli


@pytest.mark.parametrize("words", [[], ["schedule"]], ids=["amqtask", "amqtask schedule"])
def test_a_command_is_told_in_one_line(words: list[str]) -> None:
    """Click cuts what is too long for a terminal of 80 columns, with an ellipsis."""
    shown = CliRunner().invoke(cli, [*words, "--help"], terminal_width=80).output
    commands = shown.partition("\nCommands:\n")[2].splitlines()
    assert len(commands) > 5
    assert [line for line in commands if line.endswith("...")] == []
