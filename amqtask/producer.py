"""Sends an app's calls, and gives the handles of what becomes of them.

A call, prepared by its `Sender`, goes one of three ways: to what stands in for the
broker, into the pipeline that is open here, or to the broker with a wait for its confirm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from amqtask import process
from amqtask.backends import Backend, DirectBackend
from amqtask.cancel import Cancels
from amqtask.context import _current
from amqtask.errors import PipelineError
from amqtask.options import Options
from amqtask.pipeline import Pipeline, active_pipeline
from amqtask.result import AsyncResult
from amqtask.send import Outgoing, Sender
from amqtask.topology.entities import Queue
from amqtask.topology.routing import Router
from amqtask.transport import Transport
from amqtask.waiting import no_waiting_in_tasks

if TYPE_CHECKING:
    from amqtask.settings import Settings
    from amqtask.task import Task

Checked = tuple["Task[..., Any]", Sequence[Any], Mapping[str, Any]]


class StandIn(Protocol):
    """Takes an app's calls in place of a broker: how tests run them where they are made."""

    def deliver(self, outgoing: Outgoing) -> None:
        """Take a call; blocks as sending does."""

    async def adeliver(self, outgoing: Outgoing) -> None:
        """Take a call made on an event loop."""


class Producer:
    """Sends calls, and gives their handles.

    Args:
        name: The app's, by which handles find back to it.
        queues: The queues that calls are routed to, as they are when `renew` is called.
        backend: Where outcomes come back, or None.
        cancels: What handles cancel their call by.

    Attributes:
        direct: Where replies to `call` come back, which never go to a store.
        stand_in: What takes calls in place of the broker, in tests.
        on_sent: Called with every call that was sent, in the thread that sent it.

    Threads: safe from any thread, any event loop, and after a fork.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        transport: Transport,
        queues: Mapping[str, Queue],
        backend: Backend | None,
        cancels: Cancels,
    ) -> None:
        self._name = name
        self._settings = settings
        self._transport = transport
        self._queues = queues
        self._backend = backend
        self._cancels = cancels
        self.direct: Backend = DirectBackend(transport, settings)
        self._lock = process.Lock()
        self._made: tuple[Sender, Sender] | None = None
        self.stand_in: StandIn | None = None
        self.on_sent: list[Callable[[Outgoing], object]] = []

    # -- what messages are made by ---------------------------------------------------

    @property
    def backend(self) -> Backend | None:
        """Where outcomes come back, or None."""
        return self._backend

    @backend.setter
    def backend(self, backend: Backend | None) -> None:
        self._backend = backend
        self.renew()

    @property
    def sender(self) -> Sender:
        """Builds messages whose results go to the backend."""
        return self._senders()[0]

    def renew(self) -> None:
        """Have calls from now on routed by the queues and the backend that there are now."""
        with self._lock:
            self._made = None

    def _senders(self) -> tuple[Sender, Sender]:
        """Return what builds messages whose results go to the backend, and to `call`."""
        made = self._made
        if made is None:
            with self._lock:  # or a `renew` meanwhile would be overwritten
                made = self._made
                if made is None:
                    router = Router(self._settings, self._queues)
                    made = self._made = (
                        Sender(self._settings, router, self._backend),
                        Sender(self._settings, router, self.direct),
                    )
        return made

    # -- calls -----------------------------------------------------------------------

    def send(self, checked: Checked, said: Options) -> AsyncResult[Any]:
        """Send a call of a task; see `Sendable.delay`."""
        task, args, kwargs = checked
        return self.deliver(self.sender.prepare(task.name, args, kwargs, said, task))

    async def asend(self, checked: Checked, said: Options) -> AsyncResult[Any]:
        """Send a call of a task; as `send`, awaited."""
        task, args, kwargs = checked
        return await self.adeliver(self.sender.prepare(task.name, args, kwargs, said, task))

    def deliver(self, outgoing: Outgoing) -> AsyncResult[Any]:
        """Publish a call, tell of it, and return its handle."""
        self.publish(outgoing)
        return self._sent(outgoing, self._backend)

    async def adeliver(self, outgoing: Outgoing) -> AsyncResult[Any]:
        """Publish a call, tell of it, and return its handle; as `deliver`, awaited."""
        await self.apublish(outgoing)
        return self._sent(outgoing, self._backend)

    def call(self, checked: Checked, said: Options) -> Any:
        """Send a call, wait for its reply and return the value; see `Sendable.call`."""
        timeout = no_waiting_in_tasks(said.call_timeout or self._settings.call_timeout)
        outgoing = self._prepare_call(checked, said)
        if self.stand_in is not None:
            self.stand_in.deliver(outgoing)
        else:  # never into a pipeline: it would wait for what the pipeline holds back
            for publication in outgoing.publications:
                self._transport.publish_and_wait(publication, self._settings.publish_timeout)
        return self._sent(outgoing, self.direct).get(timeout)

    async def acall(self, checked: Checked, said: Options) -> Any:
        """Send a call, await its reply and return the value; as `call`."""
        timeout = no_waiting_in_tasks(said.call_timeout or self._settings.call_timeout)
        outgoing = self._prepare_call(checked, said)
        if self.stand_in is not None:
            await self.stand_in.adeliver(outgoing)
        else:
            for publication in outgoing.publications:
                await self._transport.publish_and_await(publication)
        return await self._sent(outgoing, self.direct).aget(timeout)

    def _prepare_call(self, checked: Checked, said: Options) -> Outgoing:
        task, args, kwargs = checked
        wanted = replace(said, ignore_result=False)  # the caller waits, whatever the task says
        return self._senders()[1].prepare(task.name, args, kwargs, wanted, task)

    # -- publishing ------------------------------------------------------------------

    def publish(self, outgoing: Outgoing) -> None:
        """Publish a call and wait for its confirm, unless a pipeline here will."""
        pipeline = active_pipeline()
        if self.stand_in is not None:
            self.stand_in.deliver(outgoing)
        elif pipeline is not None and pipeline.belongs_to(self._transport):
            pipeline.add(outgoing.publications)
        elif len(outgoing.publications) == 1:
            self._transport.publish_and_wait(
                outgoing.publications[0], self._settings.publish_timeout
            )
        else:
            try:
                with Pipeline(self._transport) as pipeline:
                    pipeline.add(outgoing.publications)
            except PipelineError as error:
                raise error.failures[0][1] from error

    async def apublish(self, outgoing: Outgoing) -> None:
        """Publish a call and await its confirm, unless a pipeline here will."""
        pipeline = active_pipeline()
        if self.stand_in is not None:
            await self.stand_in.adeliver(outgoing)
        elif pipeline is not None and pipeline.belongs_to(self._transport):
            await pipeline.aadd(outgoing.publications)
        else:
            for publication in outgoing.publications:
                await self._transport.publish_and_await(publication)

    # -- handles ---------------------------------------------------------------------

    def handle(self, task_id: str, task: str) -> AsyncResult[Any]:
        """Return the handle of a call by its id."""
        backend = self._backend
        pending = backend.watch(task_id) if backend is not None else None
        return AsyncResult(
            task_id, task, pending, backend=backend, app=self._name, cancels=self._cancels
        )

    def tell(self, outgoing: Outgoing) -> None:
        """Tell all in `on_sent` of a call that was sent."""
        for tell in self.on_sent:
            tell(outgoing)

    def _sent(self, outgoing: Outgoing, backend: Backend | None) -> AsyncResult[Any]:
        self.tell(outgoing)
        parent = _current.get()
        if parent is not None:
            parent.sent(outgoing.id)
        return AsyncResult(
            outgoing.id,
            outgoing.task,
            outgoing.pending,
            backend=backend,
            app=self._name,
            parent=None if parent is None else self.handle(parent.id, parent.task),
            cancels=self._cancels,
            eta=outgoing.eta,
        )
