"""``amqtask worker``: banner, logging, and the supervisor."""

from __future__ import annotations

import asyncio
import logging
import socket

import click

from amqtask.app import App
from amqtask.cli.topology import split_queues
from amqtask.discovery import locate
from amqtask.errors import ConfigurationError, near
from amqtask.settings import redact_url
from amqtask.worker.logs import set_up_logging
from amqtask.worker.supervisor import Supervisor, WorkerSpec

log = logging.getLogger(__name__)


def start_worker(
    app: App,
    *,
    queues: str | None,
    processes: int | None,
    concurrency: int | None,
    prefetch: int | None,
    loglevel: str | None,
    name: str | None,
) -> int:
    """Run a worker until a signal ends it; returns the exit code. None takes the setting."""
    if any(url.memory for url in app.transport.urls):
        raise ConfigurationError(
            "a worker cannot use the broker memory://: it is inside one process, and a worker "
            "has several",
            hint="`amqtask dev` runs broker and worker in one go; or start `amqtask broker`, and "
            "name it: AMQTASK_BROKER=amqp://127.0.0.1:5672/",
        )
    settings = app.settings
    names = split_queues(queues) if queues else list(app.queues)
    level = (loglevel or settings.loglevel).lower()
    spec = WorkerSpec(
        app=locate(app),
        queues=tuple(names),
        concurrency=concurrency or settings.concurrency,
        prefetch=prefetch or settings.prefetch,
        name=name or settings.worker_name or socket.gethostname(),
        loglevel=level,
    )
    set_up_logging(level)
    count = processes or settings.processes
    click.echo(banner(app, spec, count), err=True)
    for unknown in (queue for queue in names if queue not in app.queues):
        log.warning(
            "worker.new_queue queue=%r: the app does not list it%s; it is declared with the "
            "app's defaults",
            unknown,
            near(unknown, list(app.queues)),
        )

    async def run() -> int:
        return await Supervisor(app, spec, processes=count).run()

    return asyncio.run(run())


def banner(app: App, spec: WorkerSpec, processes: int) -> str:
    """Return what a worker shows when it starts; passwords are left out."""
    tasks = app.tasks.values()
    lines = [
        f"amqtask worker {spec.name}",
        f"  app       {spec.app} ({app.name})",
        f"  broker    {', '.join(redact_url(url) for url in app.settings.broker)}",
        f"  results   {redact_url(app.settings.backend) if app.settings.backend else 'off'}",
        f"  queues    {', '.join(spec.queues)}",
        f"  runs      {processes} process{'es' if processes > 1 else ''} x {spec.concurrency} tasks",
        f"  tasks     {len(tasks) or 'none: name their modules in the setting imports'}",
    ]
    lines += [f"    {task.name}{' (async)' if task.is_async else ''}" for task in tasks]
    return "\n".join(lines)
