"""``amqtask topology``: what the app wants on the broker."""

from __future__ import annotations

from collections.abc import Container

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


def split_slots(text: str, known: Container[str]) -> dict[str, int | None]:
    """Return the queues in ``"email:8, reports"``, each with its slots or None.

    Args:
        text: What was said.
        known: Queues of the app: a name that ends like slots is taken whole if it is one of them.

    Raises:
        click.UsageError: There is no queue, or one with no slots.
    """
    found: dict[str, int | None] = {}
    for word in split_queues(text):
        name, colon, number = (part.strip() for part in word.rpartition(":"))
        if word in known or not (colon and number.lstrip("-").isdigit()):
            found[word] = None
            continue
        if not name or int(number) < 1:
            raise click.UsageError(
                f"--queues {word!r}: accepted: names, each with its slots if it is to have some "
                "of its own, like email:8,reports"
            )
        found[name] = int(number)
    return found
