"""What the demo does to the broker itself: look whether it answers, look at the dead, clean up."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

from amqtask import App, BrokerUnreachable
from amqtask.topology.plan import DeclareExchange, DeclareQueue


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message in a dead-letter queue, and why it is there."""

    task_id: str
    task: str
    reason: str
    exception: str
    attempts: int


@contextmanager
def connected(app: App, timeout: float = 5.0) -> Iterator[BlockingChannel]:
    """Give a channel on the first broker URL that answers.

    Raises:
        BrokerUnreachable: None does.
    """
    # the error below says it all, in one line
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    errors = []
    for url in app.transport.urls:
        parameters = url.parameters(name="amqtask demo", heartbeat=30, timeout=timeout)
        try:
            connection = pika.BlockingConnection(parameters)
        except (OSError, pika.exceptions.AMQPError) as error:
            errors.append(f"{url}: {_why(error)}")
            continue
        with contextlib.closing(connection):
            yield connection.channel()
        return
    raise BrokerUnreachable(
        f"no broker answers: {'; '.join(errors)}",
        hint="start it, or correct AMQTASK_BROKER, or unset it: the demo then brings its own",
    )


def _why(error: Exception) -> str:
    # pika wraps the operating system's error in two of its own that say nothing
    while inner := next(
        (each for each in (*error.args, *vars(error).values()) if isinstance(each, Exception)), None
    ):
        error = inner
    return str(error) or type(error).__name__


def waiting(channel: BlockingChannel, queue: str) -> int:
    """Return how many messages a queue holds that nobody has taken."""
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def dead_letters(channel: BlockingChannel, queue: str) -> list[DeadLetter]:
    """Return what is in a dead-letter queue, and leave it there."""
    found = []
    for _ in range(waiting(channel, queue)):
        _, properties, _ = channel.basic_get(queue)
        if properties is None:
            break
        headers = properties.headers or {}
        found.append(
            DeadLetter(
                str(headers.get("id")),
                str(headers.get("task")),
                str(headers.get("amqtask-reason")),
                str(headers.get("amqtask-exception")),
                int(headers.get("amqtask-attempts") or 0),
            )
        )
    # closing the channel gives back what was only looked at
    return found


def remove(channel: BlockingChannel, app: App, run: str) -> None:
    """Delete the exchanges and queues of this run, and nothing else."""
    for step in reversed(app.topology().steps):
        if isinstance(step, DeclareQueue) and step.name.startswith(run):
            channel.queue_delete(step.name)
        elif isinstance(step, DeclareExchange) and step.name.startswith(run):
            channel.exchange_delete(step.name)
