"""What all commands share: finding the app, showing errors and time spans."""

from __future__ import annotations

import sys
from typing import Any

import click

from amqtask.app import App
from amqtask.discovery import find_app
from amqtask.errors import AmqtaskError


class Command(click.Command):
    """A command whose amqtask errors end in one line and a hint, not in a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; an error of amqtask ends the program with exit code 1."""
        try:
            return super().invoke(ctx)
        except AmqtaskError as error:
            click.echo(f"amqtask: {error}", err=True)
            if error.hint:
                click.echo(f"  {error.hint}", err=True)
            sys.exit(1)


app_option = click.option(
    "-A",
    "--app",
    "where",
    metavar="MODULE[:ATTR]",
    help="Where the App is. Else AMQTASK_APP, [tool.amqtask] app in pyproject.toml, "
    "or an App in tasks.py or app.py of this folder.",
)


def find(ctx: click.Context, where: str | None) -> App:
    """Return the app that a command is about."""
    return find_app(where or ctx.obj)


def span(seconds: float) -> str:
    """Return a time span as people say it: its largest two units."""
    left = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
