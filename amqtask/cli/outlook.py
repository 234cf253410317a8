"""``amqtask schedule next``, ``export`` and ``import``: entries seen ahead, and as files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import IO, Any

import click
from rich.console import Console

from amqtask.app import App
from amqtask.beat.coming import Outlook, outlook
from amqtask.beat.toml import dump_entries, load_entries
from amqtask.cli.common import Command, app_option, find
from amqtask.cli.timeline import columns, draw
from amqtask.clock import wall
from amqtask.entries import check
from amqtask.errors import ConfigurationError
from amqtask.policy.entry import Entry
from amqtask.policy.schedule import every


def _span(ctx: click.Context, param: click.Parameter, value: str) -> timedelta:
    try:
        return every(value).interval
    except ConfigurationError:
        raise click.BadParameter(
            f"{value!r} is no length of time; write 24h, 7d or 1h30m"
        ) from None


_code_option = click.option(
    "--code", is_flag=True, help="Only what the code declares; no beat is asked."
)


@click.command("next", cls=Command)
@app_option
@click.argument("span", default="24h", callback=_span)
@_code_option
@click.option("--rows", type=click.IntRange(1), default=50, help="Entries shown at most.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def next_(
    ctx: click.Context,
    /,
    where: str | None,
    span: timedelta,
    code: bool,
    rows: int,
    as_json: bool,
) -> None:
    """Draw the fires of the next SPAN: 24h, 7d, 90m."""
    now = datetime.fromtimestamp(wall(), UTC)
    with find(ctx, where) as app:
        found = list(_known(app, code))
        console = Console()
        count = columns(console.width, (entry.name for entry, _ in found))
        coming = outlook(found, now, now + span, columns=count, most=rows)
        if as_json:
            click.echo(json.dumps(_document(coming), indent=2))
        else:
            console.print(draw(coming, app.settings.timezone))


@click.command(cls=Command)
@app_option
@click.argument("file", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@click.option("--all", "all_", is_flag=True, help="Those of the code too.")
@_code_option
@click.pass_context
def export(ctx: click.Context, /, where: str | None, file: IO[str], all_: bool, code: bool) -> None:
    """Write the entries that were added at run time to FILE, as TOML."""
    with find(ctx, where) as app:
        found = [
            replace(entry, paused=paused)
            for entry, paused in _known(app, code)
            if all_ or code or entry.origin == "dynamic"
        ]
    file.write(dump_entries(sorted(found, key=lambda entry: entry.name)))


@click.command("import", cls=Command)
@app_option
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--replace", is_flag=True, help="Put them in place of those of the same names.")
@click.pass_context
def import_(ctx: click.Context, /, where: str | None, file: IO[str], replace: bool) -> None:
    """Add the entries in FILE, as export writes them: all, or none."""
    with find(ctx, where) as app:
        found = load_entries(file.read(), tz=app.settings.timezone, where=file.name)
        for entry in found:
            check(app, entry)
        if found:
            app.schedules.put({entry.name: entry.to_plain() for entry in found}, replace=replace)
    click.echo(f"{len(found)} {'entry' if len(found) == 1 else 'entries'} added")


def _known(app: App, code: bool) -> Iterator[tuple[Entry, bool]]:
    """Return entries, each with whether it is paused; says which cannot be used here."""
    if code:
        yield from ((entry, entry.paused) for entry in app.entries)
        return
    for row in app.schedules.list():
        # what code declares is known here as it is, whatever its kind of schedule
        entry = app.entries.get(row.name) if row.origin == "code" else None
        try:
            yield entry or row.entry(app.settings.timezone), row.paused
        except ConfigurationError as error:
            click.echo(f"amqtask: left out: {error}", err=True)


def _document(coming: Outlook) -> dict[str, Any]:
    return {
        "since": coming.since.isoformat(),
        "until": coming.until.isoformat(),
        "hidden": coming.hidden,
        "quiet": coming.quiet,
        "entries": [
            {
                "name": row.entry.name,
                "origin": row.entry.origin,
                "schedule": str(row.entry.schedule),
                "task": row.entry.task,
                "paused": row.paused,
                "next": None if row.next is None else row.next.isoformat(),
                "counts": list(row.counts),
            }
            for row in coming.rows
        ],
    }
