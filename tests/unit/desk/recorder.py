"""An app whose messages stay here: kept for the test, and confirmed or failed as it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqtask import App, Queue
from amqtask.errors import AmqtaskError
from amqtask.transport import Publication


class Recorder:
    """Stands in for the way to the broker.

    Attributes:
        sent: Every publication, in order.
        answer: Gives the outcome of a publication; None confirms it.
        hold: True keeps publications without an outcome, for `release`.
    """

    def __init__(self) -> None:
        self.sent: list[Publication] = []
        self.answer: Callable[[Publication], AmqtaskError | None] = lambda _: None
        self.hold = False
        self._held: list[Publication] = []

    def publish(self, publication: Publication) -> None:
        self.sent.append(publication)
        self._held.append(publication)
        if not self.hold:
            self.release()

    def release(self) -> None:
        held, self._held = self._held, []
        for publication in held:
            publication.finish(self.answer(publication))

    def publish_and_wait(self, publication: Publication, timeout: float) -> None:
        assert timeout > 0
        self.publish(publication)
        if publication.error is not None:
            raise publication.error

    async def publish_and_await(self, publication: Publication) -> None:
        self.publish(publication)
        if publication.error is not None:
            raise publication.error

    @property
    def last(self) -> Publication:
        return self.sent[-1]


class NoReplies:
    """A reply queue that is there."""

    name = "replies"

    async def ready(self, _: object = None) -> None: ...


def make_app(*queues: str | Queue, **settings: Any) -> tuple[App, Recorder]:
    """Return an app that is not connected to anything, and what it sends."""
    app = App("desk", queues=queues, environ={}, **settings)
    recorder = Recorder()
    for name in ("publish", "publish_and_wait", "publish_and_await"):
        setattr(app.transport, name, getattr(recorder, name))
    vars(app.transport)["open_replies"] = lambda **_: NoReplies()
    return app, recorder
