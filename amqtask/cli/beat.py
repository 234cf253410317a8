"""``amqtask beat``: banner, logging, one beat, and the health port."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import click

from amqtask.app import App
from amqtask.beat.runner import BeatRunner
from amqtask.errors import ConfigurationError
from amqtask.monitor import HealthServer
from amqtask.settings import Settings, redact_url
from amqtask.topology.beating import beat_queue_name
from amqtask.worker.logs import set_up_logging
from amqtask.worker.notify import Notifier


def start_beat(app: App, *, name: str | None, **given: Any) -> int:
    """Run a beat until a signal ends it; returns the exit code.

    Args:
        app: Whose schedule it fires.
        name: The beat's name; None takes host and process id.
        given: Settings that were said as options; None was not said.
    """
    refuse_memory(app)
    settings = replace(
        app.settings, **{key: value for key, value in given.items() if value is not None}
    )
    set_up_logging(settings.loglevel)
    click.echo(banner(app, settings), err=True)
    return asyncio.run(_run(app, settings, name))


def refuse_memory(app: App) -> None:
    """Raise ConfigurationError when the app's broker is inside another process."""
    if any(url.memory for url in app.transport.urls):
        raise ConfigurationError(
            "a beat cannot use the broker memory://: it is inside one process, and workers are "
            "in others",
            hint="`amqtask dev` runs broker, worker and beat in one go; or start `amqtask broker`, "
            "and name it: AMQTASK_BROKER=amqp://127.0.0.1:5672/",
        )


async def _run(app: App, settings: Settings, name: str | None) -> int:
    runner = BeatRunner(app, name=name, notifier=Notifier())
    try:
        if settings.health_port is None:
            return await runner.run()
        health = HealthServer(runner.status, settings.health_host, settings.health_port)
        await health.start()
        try:
            return await runner.run()
        finally:
            await health.stop()
    finally:
        await asyncio.to_thread(app.close)


def banner(app: App, settings: Settings) -> str:
    """Return what a beat shows when it starts; passwords are left out."""
    lines = [
        f"amqtask beat {app.name}",
        f"  broker    {', '.join(redact_url(url) for url in settings.broker)}",
        f"  state     {beat_queue_name(app.settings, app.name)}",
        f"  entries   {len(app.entries) or 'none in code'}",
    ]
    lines += [f"    {entry.name}  {entry.schedule}  {entry.task}" for entry in app.entries][:20]
    if len(app.entries) > 20:
        lines.append(f"    and {len(app.entries) - 20} more")
    return "\n".join(lines)
