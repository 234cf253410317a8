"""The command line. `main` is kept light: it is what every worker process starts with."""

from __future__ import annotations


def main() -> None:
    """Run the ``amqtask`` command."""
    from amqtask.cli.main import cli  # click is loaded only when the command line is

    cli(prog_name="amqtask")
