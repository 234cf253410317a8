"""``amqtask worker``: banner, logging, the supervisor, and the health port."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import click

from amqtask.app import App
from amqtask.cli.kinds import NONE
from amqtask.cli.topology import split_slots
from amqtask.discovery import locate
from amqtask.errors import ConfigurationError, near
from amqtask.settings import ENV_PREFIX, Settings, redact_url
from amqtask.worker.forks import Forks, Template
from amqtask.worker.logs import set_up_logging
from amqtask.worker.notify import Notifier
from amqtask.worker.scaling import Scaler
from amqtask.worker.spec import WorkerSpec
from amqtask.worker.supervisor import Supervisor

log = logging.getLogger(__name__)

#: Settings that each process, and what it starts, takes from its environment.
_BY_ENVIRONMENT = ("time_limit", "soft_time_limit")


def start_worker(
    app: App,
    template: Template | None,
    *,
    queues: str | None,
    name: str | None,
    beat: bool = False,
    **given: Any,
) -> int:
    """Run a worker until a signal ends it; returns the exit code.

    Args:
        app: Whose tasks run.
        template: To copy processes from, made before the app was imported.
        queues: What was said of queues; None takes all the app knows.
        name: The worker's name; None takes the setting, else the host's.
        beat: Whether it runs a beat besides.
        given: Settings that were said as options; None was not said, `NONE` says none.
    """
    if any(url.memory for url in app.transport.urls):
        raise ConfigurationError(
            "a worker cannot use the broker memory://: it is inside one process, and a worker "
            "has several",
            hint="`amqtask dev` runs broker and worker in one go; or start `amqtask broker`, and "
            "name it: AMQTASK_BROKER=amqp://127.0.0.1:5672/",
        )
    said = {key: value for key, value in given.items() if value is not None}
    said = {key: None if value == NONE else value for key, value in said.items()}
    settings = replace(app.settings, **said)
    spec = make_spec(app, settings, split_slots(queues, app.queues) if queues else {}, name)
    spec = replace(spec, environ=_environ(said))
    set_up_logging(spec.loglevel)
    click.echo(banner(app, spec, settings), err=True)
    for unknown in (queue for queue in spec.names if queue not in app.queues):
        log.warning(
            "worker.new_queue queue=%r: the app does not list it%s; it is declared with the "
            "app's defaults",
            unknown,
            near(unknown, list(app.queues)),
        )
    return asyncio.run(_run(app, spec, settings, _preload(settings.preload, template), beat))


def _preload(what: str, template: Template | None) -> Template | None:
    """Return the template that is wanted; the one there is knows nothing of the app."""
    if what == "amqtask":
        return template
    if template is not None:
        template.close()
    if what == "nothing":
        return None
    made = Template.fork()
    if made is None:
        log.warning(
            "worker.not_preloaded: the app cannot be shared by processes, as it started a thread "
            "while it was imported, or the system is not Linux; they import it one by one"
        )
    return made


async def _run(
    app: App, spec: WorkerSpec, settings: Settings, template: Template | None, beat: bool
) -> int:
    least, most = settings.autoscale or (settings.processes, settings.processes)
    starter = Forks(
        template,
        app=spec.app if settings.preload == "app" else None,
        most=most + beat if least == most and spec.keeps_processes else None,
    )
    supervisor = Supervisor(
        app,
        spec,
        processes=min(most, max(least, settings.processes)),
        beat=beat,
        scaler=Scaler(least, most, idle=settings.autoscale_idle) if settings.autoscale else None,
        deaf_timeout=settings.deaf_timeout,
        notifier=Notifier(),
        starter=starter,
    )
    async with AsyncExitStack() as stack:
        if settings.health_port is not None:
            from amqtask.monitor import HealthServer  # a worker that nobody probes need not hold it

            health = HealthServer(supervisor.status, settings.health_host, settings.health_port)
            await health.start()
            stack.push_async_callback(health.stop)
        return await supervisor.run()


def make_spec(
    app: App, settings: Settings, queues: Mapping[str, int | None], name: str | None
) -> WorkerSpec:
    """Return what each child is given."""
    return WorkerSpec(
        app=locate(app),
        queues=tuple(queues.items()) or tuple((queue, None) for queue in app.queues),
        concurrency=settings.concurrency,
        prefetch=settings.prefetch,
        name=name or settings.worker_name or socket.gethostname(),
        loglevel=settings.loglevel,
        pool=settings.pool,
        process_slots=settings.process_slots,
        max_tasks_per_child=settings.max_tasks_per_child,
        max_memory_per_child=settings.max_memory_per_child,
        shutdown_timeout=settings.shutdown_timeout,
        cleanup_timeout=settings.cleanup_timeout,
    )


def _environ(said: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{ENV_PREFIX}{key.upper()}": str(said[key]).lower()
        for key in _BY_ENVIRONMENT
        if key in said
    }


def banner(app: App, spec: WorkerSpec, settings: Settings) -> str:
    """Return what a worker shows when it starts; passwords are left out."""
    tasks = app.tasks.values()
    lines = [
        f"amqtask worker {spec.name}",
        f"  app       {spec.app} ({app.name})",
        f"  broker    {', '.join(redact_url(url) for url in settings.broker)}",
        f"  results   {redact_url(settings.backend) if settings.backend else 'off'}",
        f"  queues    {', '.join(_with_slots(*queue) for queue in spec.queues)}",
        f"  runs      {_processes(settings)} x {_tasks(spec)}",
        *(f"  {word:<9} {text}" for word, text in _extras(settings).items()),
        f"  tasks     {len(tasks) or 'none: name their modules in the setting imports'}",
    ]
    lines += [f"    {task.name}{' (async)' if task.is_async else ''}" for task in tasks]
    return "\n".join(lines)


def _with_slots(name: str, slots: int | None) -> str:
    return name if slots is None else f"{name} ({slots} slots of its own)"


def _processes(settings: Settings) -> str:
    if settings.autoscale:
        return "{} to {} processes".format(*settings.autoscale)
    return f"{settings.processes} process{'es' if settings.processes > 1 else ''}"


def _tasks(spec: WorkerSpec) -> str:
    if spec.pool == "process":
        return f"{spec.runners} tasks, each in a process of its own"
    return f"{spec.slots} tasks"


def _extras(settings: Settings) -> dict[str, str]:
    """Return the lines for what is not as it is by default."""
    limits = {
        "hard": settings.time_limit,
        "soft": settings.soft_time_limit,
    }
    replaced = {
        "after {} tasks": settings.max_tasks_per_child,
        "above {} MiB": settings.max_memory_per_child and settings.max_memory_per_child >> 20,
    }
    extras = {
        "limits": ", ".join(f"{word} {value:g} s" for word, value in limits.items() if value),
        "recycles": " or ".join(
            text.format(value) for text, value in replaced.items() if value is not None
        ),
        "shutdown": ""
        if settings.shutdown_timeout is None
        else f"after {settings.shutdown_timeout:g} s tasks are cancelled",
        "health": ""
        if settings.health_port is None
        else f"http://{settings.health_host}:{settings.health_port}/live and /ready",
    }
    return {word: text for word, text in extras.items() if text}
