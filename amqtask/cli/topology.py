"""``amqtask topology``: what the app wants on the broker."""

from __future__ import annotations

import click

from amqtask.app import App
from amqtask.topology.plan import render


def show_topology(app: App, queues: str | None) -> None:
    """Print the plan of an app, or of some of its queues."""
    click.echo(render(app.topology(split_queues(queues) if queues else None)))


def split_queues(text: str) -> list[str]:
    """Return the names in ``"email, reports"``.

    Raises:
        click.UsageError: There is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise click.UsageError(f"--queues {text!r} names no queue")
    return list(dict.fromkeys(names))
