"""``amqtask cancel``: have calls not run."""

from __future__ import annotations

from collections.abc import Sequence

import click

from amqtask.app import App


def cancel_calls(app: App, ids: Sequence[str], *, terminate: bool, keep: float | None) -> None:
    """Put calls on record as cancelled, and say so."""
    with app:
        app.cancel(ids, terminate=terminate, keep=keep)
    seconds = app.settings.cancel_expires if keep is None else keep
    for id_ in dict.fromkeys(ids):
        click.echo(f"{id_} is on record as cancelled for {seconds:g} s")
