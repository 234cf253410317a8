"""``amqtask schedule``: what beats have before them, seen and changed while they run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args

import click
from rich.console import Console
from rich.table import Table

from amqtask.app import App
from amqtask.cli import outlook
from amqtask.cli.common import Command, app_option, find, span
from amqtask.clock import wall
from amqtask.errors import ConfigurationError
from amqtask.policy.entry import CatchUp, Overlap
from amqtask.schedules import ScheduleInfo

F = TypeVar("F", bound=Callable[..., Any])

_json_option = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")

#: What is said of an entry on the command line: option, field, help.
_FIELDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--args", {"metavar": "JSON", "help": "Positional arguments, as a JSON list."}),
    ("--kwargs", {"metavar": "JSON", "help": "Arguments by name, as a JSON object."}),
    ("--queue", {"help": "Queue of the calls, instead of the task's."}),
    ("--priority", {"type": click.IntRange(0, 255), "help": "Priority of the calls."}),
    ("--jitter", {"type": float, "help": "Seconds by which a fire is late at most."}),
    ("--start", {"metavar": "TIME", "help": "No instant before it: 2026-12-01T09:00:00+01:00."}),
    ("--end", {"metavar": "TIME", "help": "No instant after it."}),
    ("--expires", {"type": float, "help": "Seconds after which a call is not started."}),
    (
        "--overlap",
        {
            "type": click.Choice(get_args(Overlap)),
            "help": "What happens while the call before still runs.",
        },
    ),
    (
        "--catch-up",
        {
            "type": click.Choice(get_args(CatchUp)),
            "help": "What becomes of instants that passed while no beat ran.",
        },
    ),
    ("--window", {"type": float, "help": "Seconds that are looked back for them."}),
)


def _fields(command: F) -> F:
    for option, said in reversed(_FIELDS):
        command = click.option(option, **said)(command)
    return command


@click.group()
def schedule() -> None:
    """See and change what beats fire, while they run.

    Every command asks the beat that leads. Entries of the code can be
    paused, resumed and run; those added here can also be edited and removed.
    """


@schedule.command("list", cls=Command)
@app_option
@_json_option
@click.pass_context
def list_(ctx: click.Context, /, where: str | None, as_json: bool) -> None:
    """List the entries: their schedule, the last fire and the next."""
    with find(ctx, where) as app:
        rows = app.schedules.list()
    if as_json:
        click.echo(json.dumps([_document(row) for row in rows], indent=2, default=str))
    elif not rows:
        click.echo("no entries")
    else:
        Console().print(_table(rows))


@schedule.command(cls=Command)
@app_option
@click.argument("name")
@_json_option
@click.pass_context
def show(ctx: click.Context, /, where: str | None, name: str, as_json: bool) -> None:
    """Show all of one entry."""
    with find(ctx, where) as app:
        row = app.schedules.get(name)
    click.echo(json.dumps(_document(row), indent=2, default=str) if as_json else _text(row))


@schedule.command(cls=Command)
@app_option
@click.argument("name")
@click.argument("task")
@click.argument("when")
@_fields
@click.option("--paused", is_flag=True, help="Add it paused.")
@click.option("--replace", is_flag=True, help="Put it in place of one of that name.")
@click.pass_context
def add(
    ctx: click.Context,
    /,
    where: str | None,
    name: str,
    task: str,
    when: str,
    paused: bool,
    replace: bool,
    **given: Any,
) -> None:
    """Add an entry: NAME, the TASK it calls, and WHEN.

    \b
    WHEN is one of:
      "0 9 * * mon-fri"                a cron expression, in the app's time zone
      "CRON_TZ=Europe/Paris 0 9 * * *" one in a zone of its own
      @daily, @hourly, ...
      "every 5m", "every 1h30m"        an interval
      "once 2026-12-01T09:00:00+01:00" one instant
    """  # noqa: D301 - click wants the character itself
    own, call = _said(given)
    with find(ctx, where) as app:
        row = app.schedules.add(name, task, when, replace=replace, paused=paused, **own, **call)
    click.echo(f"{name} is added: {row.schedule}, next {_next(row)}")


@schedule.command(cls=Command)
@app_option
@click.argument("name")
@click.option("--task", help="Another task.")
@click.option("--when", help="Another schedule; as for add.")
@_fields
@click.option(
    "--unset", multiple=True, metavar="FIELD", help="Take a field back to its default; repeatable."
)
@click.pass_context
def edit(
    ctx: click.Context,
    /,
    where: str | None,
    name: str,
    task: str | None,
    when: str | None,
    unset: tuple[str, ...],
    **given: Any,
) -> None:
    """Change an entry that was added at run time."""
    own, call = _said(given)
    changes: dict[str, Any] = {**own, **{field.replace("-", "_"): None for field in unset}}
    if task is not None:
        changes["task"] = task
    if when is not None:
        changes["schedule"] = when
    with find(ctx, where) as app:
        if call:
            changes["options"] = {**app.schedules.get(name).plain.get("options", {}), **call}
        if not changes:
            raise click.UsageError("nothing is to be changed; see --help")
        row = app.schedules.edit(name, **changes)
    click.echo(f"{name} is changed: {row.schedule}, next {_next(row)}")


def _each(verb: str, text: str, does: Callable[[App, str], str]) -> None:
    @schedule.command(verb, cls=Command, help=text)
    @app_option
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @click.pass_context
    def command(ctx: click.Context, /, where: str | None, names: tuple[str, ...]) -> None:
        with find(ctx, where) as app:
            for name in dict.fromkeys(names):
                click.echo(does(app, name))


def _removed(app: App, name: str) -> str:
    app.schedules.remove(name)
    return f"{name} is removed"


def _paused(app: App, name: str) -> str:
    app.schedules.pause(name)
    return f"{name} is paused"


def _resumed(app: App, name: str) -> str:
    return f"{name} goes on, next {_next(app.schedules.resume(name))}"


def _run(app: App, name: str) -> str:
    return f"{name} is sent: {app.schedules.run_now(name)}"


_each("remove", "Remove entries that were added at run time.", _removed)
_each("pause", "Have the instants of entries pass without being fired.", _paused)
_each("resume", "Fire entries again; what passed meanwhile is not caught up.", _resumed)
_each("run-now", "Send the call of entries now, outside their schedules.", _run)


@schedule.command(cls=Command)
@app_option
@click.pass_context
def rewind(ctx: click.Context, /, where: str | None) -> None:
    """Have entries that are ahead of the clock begin now.

    For a clock that was wrong by a lot and is right again: until it has passed what was fired
    already, entries are silent.
    """
    with find(ctx, where) as app:
        names = app.schedules.rewind()
    click.echo("\n".join(names) if names else "no entry is ahead of the clock")


@schedule.command(cls=Command)
@app_option
@_json_option
@click.pass_context
def status(ctx: click.Context, /, where: str | None, as_json: bool) -> None:
    """Show which beat leads, and what it has done."""
    with find(ctx, where) as app:
        found = app.schedules.status()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    counts = ", ".join(f"{count} {word}" for word, count in found["counts"].items()) or "none yet"
    click.echo(f"leader   {found['leader']}")
    click.echo(f"entries  {found['entries']}, {found['dynamic']} of them added at run time")
    click.echo(f"fires    {counts}")
    click.echo(f"drift    {found['drift']:.3f} s, {found['most_drift']:.3f} s at most")
    click.echo(f"ticks    {found['most_tick'] * 1000:.0f} ms of processor time at most")


for _command in (outlook.next_, outlook.export, outlook.import_):
    schedule.add_command(_command)


# -- what was said, and what is shown -------------------------------------------


def _said(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of an entry, and the options of its calls, that were given."""
    own = {key: value for key, value in given.items() if value is not None}
    for key, kind, words in (("args", list, "a JSON list"), ("kwargs", dict, "a JSON object")):
        if key in own:
            own[key] = _parsed(f"--{key}", own[key], kind, words)
    call: dict[str, Any] = {key: own.pop(key) for key in ("queue", "priority") if key in own}
    return own, call


def _parsed(option: str, text: str, kind: type, words: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} is {text!r}: {error}", hint=f"give {words}") from None
    if not isinstance(value, kind):
        raise ConfigurationError(f"{option} is {text!r}", hint=f"give {words}")
    return value


def _document(row: ScheduleInfo) -> dict[str, Any]:
    return {
        "name": row.name,
        "origin": row.origin,
        "schedule": row.schedule,
        "task": row.task,
        "paused": row.paused,
        "next": None if row.next is None else row.next.isoformat(),
        "last": None if row.last is None else row.last.isoformat(),
        "fires": row.fires,
        "error": row.error,
        "entry": dict(row.plain),
    }


def _table(rows: Sequence[ScheduleInfo]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for word in ("entry", "from", "schedule", "task", "last", "next"):
        table.add_column(word, overflow="fold")
    for row in sorted(rows, key=lambda row: (row.next is None, row.next, row.name)):
        style = "red" if row.error else "dim" if row.paused else None
        last = "never" if row.last is None else _ago(row.last.timestamp())
        cells = (row.name, row.origin, row.schedule, row.task, last, _next(row))
        table.add_row(*cells, style=style)
    return table


def _text(row: ScheduleInfo) -> str:
    lines = {
        "from": "code" if row.origin == "code" else "added at run time",
        "schedule": row.schedule,
        "task": row.task,
        "next": _next(row),
        "last": "never" if row.last is None else row.last.isoformat(),
        "fires": row.fires,
    }
    lines |= {key: value for key, value in row.plain.items() if key not in ("schedule", "task")}
    return "\n".join([row.name, *(f"  {word:<10}{value}" for word, value in lines.items())])


def _next(row: ScheduleInfo) -> str:
    if row.error is not None:
        return f"cannot be used: {row.error}"
    if row.paused:
        return "paused"
    if row.next is None:
        return "never again"
    return f"in {span(max(0.0, row.next.timestamp() - wall()))}"


def _ago(instant: float) -> str:
    return f"{span(max(0.0, wall() - instant))} ago"
