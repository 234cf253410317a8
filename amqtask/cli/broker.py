"""``amqtask broker``: the embedded broker as a program."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

import click

from amqtask.broker import Broker
from amqtask.worker.logs import set_up_logging

log = logging.getLogger(__name__)


def run_broker(
    *, host: str, port: int, data: Path | None, unix_socket: Path | None, loglevel: str
) -> int:
    """Run a broker until a signal ends it; returns the exit code."""
    set_up_logging(loglevel)
    asyncio.run(_serve(Broker(data=data, vhosts_on_demand=True), host, port, unix_socket))
    return 0


async def _serve(broker: Broker, host: str, port: int, unix_socket: Path | None) -> None:
    # before it listens, so that a signal never finds it half started
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await broker.start(host, port, None if unix_socket is None else str(unix_socket))
    click.echo(banner(broker, unix_socket), err=True)
    try:
        await ended.wait()
        log.info("broker.stopping connections=%d: they are closed", len(broker.connections))
    finally:
        await broker.stop()


def banner(broker: Broker, unix_socket: Path | None = None) -> str:
    """Return what a broker shows when it listens."""
    kept = "nothing: all is memory, and gone when it stops (--data keeps it)"
    if broker.data is not None:
        kept = f"durable queues and persistent messages, in {broker.data}"
    lines = [
        f"amqtask broker {broker.version}",
        f"  url       {broker.url}",
        f"  keeps     {kept}",
        "  vhosts    made when somebody connects to one",
        "  use       development, tests, one machine; in production run RabbitMQ",
    ]
    if unix_socket is not None:
        lines.insert(2, f"  socket    {unix_socket}")
    return "\n".join(lines)
