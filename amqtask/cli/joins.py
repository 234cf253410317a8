"""``amqtask joins``: the chords that wait for members, seen and given up."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from amqtask.cli.common import Command, app_option, find, span
from amqtask.clock import wall
from amqtask.workflow.alarm import OpenJoin
from amqtask.workflow.open_joins import OpenJoins

_json_option = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
#: Exit code for a chord that is not open, as of a call that is unknown.
_UNKNOWN = 3


@click.group()
def joins() -> None:
    """See the chords that wait for members, and give them up.

    A chord is known by the id of its header's group: result.parent.id of what
    delay() returns. One that nobody completes is given up by itself after
    join_expires.
    """


@joins.command("list", cls=Command)
@app_option
@click.option(
    "--limit", type=click.IntRange(1), default=1000, show_default=True, help="Show so many at most."
)
@_json_option
@click.pass_context
def list_(ctx: click.Context, /, where: str | None, limit: int, as_json: bool) -> None:
    """List the chords that wait, the first to be given up first.

    Those that RabbitMQ joins are listed once they have waited for five minutes, those of a
    result backend at once. Memcached cannot list its own.
    """
    with find(ctx, where) as app:
        rows = OpenJoins(app).list(limit)
    if as_json:
        click.echo(json.dumps([_document(row) for row in rows], indent=2))
    elif not rows:
        click.echo("no chord waits")
    else:
        Console().print(_table(rows))


@joins.command(cls=Command)
@app_option
@click.argument("id", metavar="ID")
@_json_option
@click.pass_context
def show(ctx: click.Context, /, where: str | None, id: str, as_json: bool) -> None:
    """Show one chord, however long it has waited.

    Exit code 3: none of that id is open.
    """
    with find(ctx, where) as app:
        row = OpenJoins(app).find(id)
    if row is None:
        _say_unknown(id)
        sys.exit(_UNKNOWN)
    click.echo(json.dumps(_document(row), indent=2) if as_json else _text(row))


@joins.command("give-up", cls=Command)
@app_option
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.pass_context
def give_up(ctx: click.Context, /, where: str | None, ids: tuple[str, ...]) -> None:
    """Have chords given up now: their bodies fail with a ChordError, their errbacks are sent.

    A worker does it, as soon as it gets to the request. What is joined before that stays
    joined. Exit code 3: one of them is not open; the others are given up.
    """
    unknown = False
    with find(ctx, where) as app:
        open_joins = OpenJoins(app)
        for id_ in dict.fromkeys(ids):
            row = open_joins.find(id_)
            if row is None:
                _say_unknown(id_)
                unknown = True
                continue
            open_joins.give_up(row.waiting)
            click.echo(f"{id_} will be given up: {row.came} of {row.waiting.size} parts came")
    sys.exit(_UNKNOWN if unknown else 0)


def _say_unknown(id_: str) -> None:
    click.echo(f"amqtask: no chord {id_} is open: it has ended, or is unknown here", err=True)


def _document(row: OpenJoin) -> dict[str, Any]:
    return {
        "id": row.id,
        "kept": row.kept,
        "members": row.waiting.size,
        "came": row.came,
        "missing": None if row.missing is None else list(row.missing),
        "opened": _moment(row.waiting.opened),
        "given_up": _moment(row.due),
        "body": {"task": row.task, "id": row.body_id},
    }


def _table(rows: Sequence[OpenJoin]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("chord", no_wrap=True)  # to be copied
    for word in ("kept by", "parts", "age", "given up", "body"):
        table.add_column(word, overflow="fold")
    for row in rows:
        parts = f"{row.came} of {row.waiting.size}"
        table.add_row(row.id, row.kept, parts, _age(row), _due(row), row.task)
    return table


def _text(row: OpenJoin) -> str:
    lines = {
        "kept by": row.kept,
        "parts": f"{row.came} of {row.waiting.size}",
        "age": _age(row),
        "given up": _due(row),
        "body": f"{row.task} (id {row.body_id})" if row.body_id else row.task,
    }
    if row.missing is not None:
        lines["missing"] = ", ".join(map(str, row.missing)) or "none"
    return "\n".join([row.id, *(f"  {word:<10}{value}" for word, value in lines.items())])


def _age(row: OpenJoin) -> str:
    return span(max(0.0, wall() - row.waiting.opened))


def _due(row: OpenJoin) -> str:
    left = row.due - wall()
    return f"in {span(left)}" if left > 0 else "any moment"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
