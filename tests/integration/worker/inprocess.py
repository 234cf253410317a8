"""A worker inside the test's process, on a loop and a thread of its own, and a way past our client.

The tests are plain functions: what they call blocks, and the worker goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, TypeVar

import pika
from pika.adapters.blocking_connection import BlockingChannel

from amqtask import App
from amqtask.worker.node import Node
from tests.helpers import TIMEOUT, eventually

T = TypeVar("T")


class Worker:
    """A `Node` on its own event loop in a daemon thread.

    Args:
        app: Whose tasks run.
        queues: What it consumes; the app's default queue when empty.
        said: Keywords for `Node`.
    """

    def __init__(self, app: App, *queues: str, **said: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.node = Node(app, queues, **{"name": "test-worker", **said})

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = TIMEOUT) -> T:
        """Run a coroutine on the worker's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def start(self) -> Worker:
        """Start it and wait until it consumes."""
        self.run(self.node.start())
        eventually(lambda: self.node.ready, message="the worker did not consume")
        return self

    def begin_to_stop(self) -> None:
        """Start a warm stop without waiting for its end."""
        self._stopping = asyncio.run_coroutine_threadsafe(self.node.stop(), self._loop)

    def stopped(self) -> bool:
        """Whether the warm stop that was begun has ended."""
        return self._stopping.done()

    def stop(self) -> None:
        """Stop warm, as often as one likes, and end the loop."""
        self._end(self.node.stop())

    def stop_now(self) -> None:
        """Stop quickly and end the loop."""
        self._end(self.node.stop_now())

    @property
    def held(self) -> int:
        """Deliveries that the worker has neither acked nor given back."""
        intake = self.node._intake
        assert intake is not None
        return sum(c._lease.outstanding for c in intake.consumers if c._lease is not None)

    def _end(self, coroutine: Coroutine[Any, Any, None]) -> None:
        if self._loop.is_closed():
            coroutine.close()
            return
        try:
            self.run(coroutine)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(TIMEOUT)
            self._loop.close()


class Line:
    """pika's blocking client: sends what ours would not, and looks into queues."""

    def __init__(self, channel: BlockingChannel) -> None:
        self.channel = channel
        channel.confirm_delivery()

    def send(
        self,
        queue: str,
        body: Any,
        headers: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> None:
        """Publish to a queue; a body that is no bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        said = {"content_type": "application/json", "content_encoding": "utf-8", **properties}
        self.channel.basic_publish(
            "",
            queue,
            data,
            pika.BasicProperties(headers=dict(headers or {}), delivery_mode=2, **said),
            mandatory=True,
        )

    def call(self, queue: str, task: str, *args: Any, **headers: Any) -> None:
        """Publish a task message as small as Celery takes it."""
        self.send(queue, [args, {}, {}], {"task": task, "id": "id", **headers})

    def size(self, queue: str) -> int:
        """Return how many messages are ready in a queue."""
        declared = self.channel.queue_declare(queue, passive=True)
        return int(declared.method.message_count)

    def take(self, queue: str, *, timeout: float = TIMEOUT) -> tuple[pika.BasicProperties, bytes]:
        """Wait for the next message of a queue, and take it out."""

        def get() -> tuple[pika.BasicProperties, bytes] | None:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                return None
            assert properties is not None
            assert body is not None
            return properties, body

        found = eventually(get, timeout=timeout, message=f"no message came to queue {queue!r}")
        assert found is not None
        return found


@contextlib.contextmanager
def line_to(url: str) -> Iterator[Line]:
    """Connect pika's blocking client; it beats no heart, as tests use it now and then only."""
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 0
    with contextlib.closing(pika.BlockingConnection(parameters)) as connection:
        yield Line(connection.channel())
