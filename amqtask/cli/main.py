"""The command tree and what all commands share: finding the app, showing errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from amqtask.cli.cancel import cancel_calls
from amqtask.cli.common import Command as _Command
from amqtask.cli.common import app_option as _app_option
from amqtask.cli.common import find as _find
from amqtask.cli.kinds import bounds, limit, seconds, seconds_or_none, size
from amqtask.cli.result import show_result
from amqtask.cli.topology import show_topology
from amqtask.cli.worker import start_worker
from amqtask.worker.forks import Template

_LEVELS = click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False)
_loglevel_option = click.option(
    "-l", "--loglevel", type=_LEVELS, help="How much to log (setting: loglevel)."
)
_health_port_option = click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    help="Answer /live and /ready over HTTP on this port (setting: health_port).",
)
_health_host_option = click.option(
    "--health-host",
    metavar="ADDRESS",
    help="Listen for them on this address only (setting: health_host).",
)


class _Tree(click.Group):
    """The commands, and groups that are imported when they are asked for: a worker need hold none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted([*super().list_commands(ctx), "joins", "schedule"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name; None when there is none."""
        if cmd_name == "schedule":
            from amqtask.cli.schedule import schedule

            return schedule
        if cmd_name == "joins":
            from amqtask.cli.joins import joins

            return joins
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Tree, context_settings={"help_option_names": ["-h", "--help"]})
@_app_option
@click.version_option(package_name="amqtask")
@click.pass_context
def cli(ctx: click.Context, where: str | None) -> None:
    """Tasks on RabbitMQ: confirmed, retried, never lost.

    \b
    1. Write tasks.py:
         from amqtask import App
         app = App("shop", broker="amqp://guest:guest@localhost/")
         @app.task(queue="email")
         def send(to: str) -> None: ...
    2. Start a worker:     amqtask worker --queues email
       with a broker:      amqtask dev
    3. Call it anywhere:   from tasks import send; send.delay("ada@example.com")

    Settings are arguments of App, AMQTASK_* variables (AMQTASK_BROKER, ...) or
    [tool.amqtask] in pyproject.toml.
    """  # noqa: D301 - click wants the character itself
    ctx.obj = where


@cli.command(cls=_Command)
@_app_option
@click.option(
    "-Q",
    "--queues",
    metavar="A,B:N",
    help="Queues to consume; all the app knows by default. One with a number, as in "
    "email:8,reports:2, has so many slots to itself in each process, so that a slow queue "
    "never takes those of a quick one.",
)
@click.option("--processes", type=click.IntRange(1), help="Child processes (setting: processes).")
@click.option(
    "--autoscale",
    type=bounds,
    metavar="MIN,MAX",
    help="Start with MIN processes, more up to MAX while all slots are busy and messages wait, "
    "fewer when they idle (setting: autoscale).",
)
@click.option(
    "--preload",
    type=click.Choice(["nothing", "amqtask", "app"], case_sensitive=False),
    help="What processes have imported when they are made, and share the memory of: amqtask, "
    "the app too, or nothing: each is a fresh Python (setting: preload).",
)
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1),
    help="Tasks at once in each process: so many threads for plain functions, and so many "
    "coroutines for async ones (setting: concurrency).",
)
@click.option(
    "--pool",
    type=click.Choice(["auto", "process"], case_sensitive=False),
    help="auto: plain tasks in threads, async ones on an event loop. process: each task in an "
    "isolated process that can be killed. A task's own pool= comes first (setting: pool).",
)
@click.option(
    "--process-slots",
    type=click.IntRange(1),
    help="Isolated processes at once in each process; as many as CPUs by default "
    "(setting: process_slots).",
)
@click.option(
    "--prefetch",
    type=click.IntRange(1, 65535),
    help="Messages held ready per queue and process; follows the pace by default.",
)
@click.option(
    "--time-limit",
    type=limit,
    metavar="SECONDS",
    help="End tasks that run longer, for certain, unless they or their call say otherwise "
    "(setting: time_limit).",
)
@click.option(
    "--soft-time-limit",
    type=limit,
    metavar="SECONDS",
    help="Raise SoftTimeLimitExceeded in tasks that run longer (setting: soft_time_limit).",
)
@click.option(
    "--max-tasks-per-child",
    type=click.IntRange(1),
    help="Replace a process after so many tasks (setting: max_tasks_per_child).",
)
@click.option(
    "--max-memory-per-child",
    type=size,
    metavar="SIZE",
    help="Replace a process that holds more memory, such as 300MB (setting: max_memory_per_child).",
)
@click.option(
    "--shutdown-timeout",
    type=seconds_or_none,
    metavar="SECONDS",
    help="Cancel what still runs so long after SIGTERM; by default a worker waits for as long "
    "as its tasks take (setting: shutdown_timeout).",
)
@click.option(
    "--deaf-timeout",
    type=seconds,
    metavar="SECONDS",
    help="Exit with 69 after so long without consuming every queue; 0 never does "
    "(setting: deaf_timeout).",
)
@_health_port_option
@_health_host_option
@_loglevel_option
@click.option(
    "-B",
    "--beat",
    is_flag=True,
    help="Also send calls when their schedules are due. As many workers as you like may do "
    "so: one of them leads.",
)
@click.option("-n", "--name", help="Name of this worker; the host's by default.")
@click.pass_context
def worker(ctx: click.Context, /, where: str | None, **given: Any) -> None:
    """Run tasks off queues.

    \b
    Signals:
      SIGTERM, Ctrl-C  finish what runs, give back the rest, exit with 0; a second
                       one cancels what runs, a third gives it back, a fourth kills
      SIGQUIT          give back what runs, and end at once
      SIGHUP           replace the processes one by one, with the code as it is now
      SIGUSR1          write the stack of each running task to the log

    \b
    Exit codes:
      0   stopped by a signal, and everything ended well
      1   could not start, or a process did not end well
      2   wrong words on the command line
      69  did not consume for --deaf-timeout seconds: start it again
    """  # noqa: D301 - click wants the character itself
    template = Template.fork()  # before any code of the app runs, which may start a thread
    sys.exit(start_worker(_find(ctx, where), template, **given))


@cli.command(cls=_Command)
@_app_option
@_health_port_option
@_health_host_option
@_loglevel_option
@click.option("-n", "--name", help="Name of this beat; host and process id by default.")
@click.pass_context
def beat(ctx: click.Context, /, where: str | None, **given: Any) -> None:
    """Send calls when their schedules are due.

    Start as many as you like: one of them leads, the others stand by, and each instant
    is fired by one. SIGTERM or Ctrl-C hands the lead over and exits with 0.
    """
    from amqtask.cli.beat import start_beat  # most workers run none

    sys.exit(start_beat(_find(ctx, where), **given))


@cli.command(cls=_Command)
@_app_option
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--terminate", is_flag=True, help="End also what runs and ignores its cancellation.")
@click.option(
    "--keep",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="How long workers remember it (setting: cancel_expires).",
)
@click.pass_context
def cancel(
    ctx: click.Context,
    /,
    where: str | None,
    ids: tuple[str, ...],
    terminate: bool,
    keep: float | None,
) -> None:
    """Have calls not run, and end those that do.

    They are dropped when they come up, also by workers that start later, and
    cancelled where they run. What has ended stays as it ended, and an unknown id
    is no error.
    """
    cancel_calls(_find(ctx, where), ids, terminate=terminate, keep=keep)


@cli.command(cls=_Command)
@_app_option
@click.option("-Q", "--queues", metavar="A,B", help="Only these queues.")
@click.pass_context
def topology(ctx: click.Context, /, where: str | None, queues: str | None) -> None:
    """Print what the app wants on the broker.

    Exchanges, queues, bindings and delay levels; nothing connects.
    """
    show_topology(_find(ctx, where), queues)


@cli.command(cls=_Command)
@_app_option
@click.argument("task_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@click.option("--timeout", type=float, help="Seconds to wait at most.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def result(ctx: click.Context, /, where: str | None, task_id: str, **given: Any) -> None:
    """Print what became of a call.

    It needs a result backend that stores. Exit code 0: it ended well; 1: it failed or
    was revoked; 3: it has not ended, or is unknown.
    """
    sys.exit(show_result(_find(ctx, where), task_id, **given))


@cli.command(cls=_Command)
@_app_option
@click.argument("id", metavar="ID")
@click.option("--once", is_flag=True, help="Show what is known now, and do not wait.")
@click.pass_context
def watch(ctx: click.Context, /, where: str | None, id: str, once: bool) -> None:
    """Show the calls of a workflow as a tree, until all have ended.

    ID is that of a run of a Workflow, of a saved group, or of a call, whose children are
    shown. It needs a result backend that stores. Exit code 0: all ended well; 1: some failed;
    3, with --once: some have not ended.
    """
    from amqtask.cli.live import watch_calls  # a worker need not hold rich

    sys.exit(watch_calls(_find(ctx, where), id, once=once))


@cli.command(cls=_Command)
@click.argument("where", metavar="FILE:WORKFLOW")
@click.option(
    "--format", "form", type=click.Choice(["mermaid", "dot"]), default="mermaid", show_default=True
)
def graph(where: str, form: str) -> None:
    """Print the drawing of a Workflow, or of a chain, group or chord.

    \b
      amqtask graph tasks.py:nightly
      amqtask graph shop.flows:nightly --format dot | dot -Tsvg > nightly.svg
    """  # noqa: D301 - click wants the character itself
    from amqtask.cli.graph import print_graph  # nor what only builds workflows

    print_graph(where, form)


@cli.command(cls=_Command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5672,
    show_default=True,
    help="0 takes any that is free.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder for durable queues and persistent messages; without it all is memory.",
)
@click.option("--unix-socket", type=click.Path(path_type=Path), help="A socket to listen on too.")
@click.option(
    "-l",
    "--loglevel",
    type=_LEVELS,
    default="info",
    help="How much to log.",
)
def broker(**given: Any) -> None:
    """Run a broker for development and tests; no RabbitMQ needed.

    Any AMQP 0-9-1 client can connect, as user guest with password guest. SIGTERM or
    Ctrl-C closes all connections and exits 0. In production run RabbitMQ.
    """
    from amqtask.cli.broker import run_broker  # a worker need not hold a broker in memory

    sys.exit(run_broker(**given))


@cli.command(cls=_Command)
@_app_option
@click.option("-Q", "--queues", metavar="A,B", help="Queues to consume; all by default.")
@click.option("--processes", type=click.IntRange(1), help="Child processes of the worker.")
@click.option("-c", "--concurrency", type=click.IntRange(1), help="Tasks at once in each process.")
@_loglevel_option
@click.option(
    "--broker", "url", metavar="URL", help="Use this broker. Else AMQTASK_BROKER, else its own."
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Start a broker of its own that keeps what it has in this folder.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Where its own broker listens; 5672 or, when that is taken, any other by default.",
)
@click.option(
    "--watch",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder to watch for changes; the current one by default.",
)
@click.option("--no-reload", is_flag=True, help="Watch nothing.")
@click.pass_context
def dev(
    ctx: click.Context,
    /,
    where: str | None,
    url: str | None,
    data: Path | None,
    port: int | None,
    watch: tuple[Path, ...],
    no_reload: bool,
    **worker: Any,
) -> None:
    """Run broker, worker and beat, and have code changes take effect.

    Worker and beat start anew when code changes. The broker is embedded, in memory, and whatever the app says it is used
    instead; --broker or AMQTASK_BROKER name another one, --data keeps what it
    has. Ctrl-C ends all.
    """
    from amqtask.cli.dev import Wishes, run_dev  # a worker need not hold a broker in memory

    own = data is not None or port is not None
    if url is not None and own:
        raise click.UsageError(
            "--data and --port are for a broker of its own, --broker for another"
        )
    named = url or (None if own else os.environ.get("AMQTASK_BROKER"))
    if not named or named.startswith("memory:"):  # this is the process whose memory it is
        named = None
    app = where or ctx.obj
    arguments = ["-A", app] if app else []
    arguments += ["worker", "--beat"]
    for name, value in worker.items():
        if value is not None:
            arguments += [f"--{name}", str(value)]
    folders = () if no_reload else watch or (Path(),)
    sys.exit(run_dev(Wishes(named, data, port, folders, arguments)))
