"""From a call in Python to publications for the broker.

`Sender.prepare` decides everything without touching a socket: id, route,
times, body, what has to be declared first. Publishing the outcome is left to
the caller: one by one, awaited, or in a pipeline.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from amqtask import process
from amqtask.backends import Backend, Pending
from amqtask.clock import wall
from amqtask.context import _current
from amqtask.errors import EncodeError, Unroutable
from amqtask.message import NO_EMBED, Call, Embed, Message, encode, serializer
from amqtask.options import Options
from amqtask.policy.retry import RETRY_HEADER
from amqtask.records import record
from amqtask.settings import Settings
from amqtask.topology.delay import (
    LEVELS,
    delay_binding,
    delay_plan,
    delay_prefix,
    delay_route,
    level_name,
)
from amqtask.topology.entities import Exchange, Queue
from amqtask.topology.plan import Plan, exchange_plan, queue_plan
from amqtask.topology.routing import Route, Router
from amqtask.transport import Publication, Requirement, Session
from amqtask.transport.declare import declare, exists

if TYPE_CHECKING:
    from amqtask.result import AsyncResult, GroupResult
    from amqtask.task import Task


@record(frozen=True, slots=True)
class Outgoing:
    """A call ready to be published.

    Attributes:
        publications: One; several only for a delayed call to a topic that
            several queues are bound to.
        pending: Where its outcome will arrive; None when results are off for it.
        route: Where it goes, once it has waited.
        delay: Seconds from now that it has to wait; 0 for none.
        eta: When it is due; None for at once.
        whole: Handle of the workflow that it begins; None outside of one.
    """

    id: str
    task: str
    publications: Sequence[Publication]
    pending: Pending | None
    route: Route
    delay: float = 0.0
    eta: datetime | None = None
    whole: AsyncResult[Any] | GroupResult[Any] | None = None


@record(frozen=True, slots=True)
class Place:
    """Where a call stands in a workflow.

    Attributes:
        embed: What follows it.
        root_id: Id of the root of its tree; None makes it the root.
        parent_id: Id of the call that it follows, or that sent it.
        reply_to: Where its outcome goes; None for this process's own address.
        nesting: How often something took the place of what it stands for.
    """

    embed: Embed = NO_EMBED
    group: str | None = None
    group_index: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    reply_to: str | None = None
    nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: Mapping[str, Any] = field(default_factory=dict)


_ALONE = Place()


@record(frozen=True, slots=True)
class Address:
    """Where one copy of a message is published.

    Attributes:
        requires: What has to be on the broker first.
        anew: Works exchange and routing key out again when it is sent; None when
            they do not depend on the time.
    """

    exchange: str
    routing_key: str
    requires: tuple[Requirement, ...] = ()
    anew: Callable[[], tuple[str, str]] | None = None


class Sender:
    """Builds `Outgoing` from what a caller said.

    Args:
        settings: The app's settings.
        router: Where calls go.
        backend: Where outcomes come back, or None.

    Threads: safe from any thread.
    """

    def __init__(self, settings: Settings, router: Router, backend: Backend | None) -> None:
        self._settings = settings
        self._router = router
        self._backend = backend
        self._requirements: dict[str, Requirement] = {}
        self._queues: dict[str, Requirement] = {}  # those of queues, by their names
        self._host = socket.gethostname()
        self._named = 0, ""  # process and origin: a forked child is another one

    def prepare(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        task: Task[..., Any] | None = None,
        place: Place | None = None,
    ) -> Outgoing:
        """Build the publications of one call.

        Args:
            task: The registered task, when this process has it; its parameters'
                names make better error texts.
            place: Where it stands in a workflow; None outside of one.

        Raises:
            EncodeError: An argument or header does not serialise.
            ConfigurationError: A bad option or route.
            DelayTooLong: The countdown or eta lies too far ahead.
            Unroutable: A delayed call to a topic no known queue is bound to.
        """
        now = wall()
        route = self._router.route(
            name,
            args=args,
            kwargs=kwargs,
            queue=options.queue,
            exchange=options.exchange,
            routing_key=options.routing_key,
        )
        if place is None:
            place = _place()
        backend = self._waiting(options, place)
        eta, delay = _times(options, now)
        call = self._call(name, args, kwargs, options, route, eta, now, backend, place)
        message = self._encoded(call, options, delay, now, task)
        until = eta if delay > 0 else None
        publications = self._publications(message, route, until, name, options, backend)
        pending = None if backend is None else backend.watch(call.id)
        return Outgoing(call.id, name, publications, pending, route, delay, eta)

    def delayed(self, queue: Queue, until: datetime) -> Address:
        """Return where a message goes that ``queue`` shall get at ``until``.

        The levels it passes depend on the time that is left, so they are worked out
        when it is sent: declaring what is missing, or waiting for a broker that
        restarts, must not make it late.
        """
        name, prefix = queue.name, delay_prefix(queue, self._settings)

        def anew() -> tuple[str, str]:
            left = until.timestamp() - wall()
            return delay_route(left, name, prefix) or ("", name)

        requires: tuple[Requirement, ...] = ()
        if self._settings.declare == "auto":  # else whoever owns the topology made the levels
            requires = (
                self._levels_requirement(prefix),
                self._requirement(
                    f"binding of {name!r} to delay levels {prefix!r}",
                    partial(delay_binding, name, prefix),
                ),
            )
        return Address(*anew(), requires, anew)

    def queue_requirement(self, queue: Queue) -> Requirement:
        """Return what makes (or checks) ``queue``."""
        found = self._queues.get(queue.name)
        if found is None:
            plan = partial(queue_plan, queue, self._settings)
            found = self._queues[queue.name] = self._requirement(f"queue {queue.name!r}", plan)
        return found

    def _waiting(self, options: Options, place: Place) -> Backend | None:
        """Return what waits here for the outcome of a call; None when nothing does."""
        # else its outcome goes elsewhere
        return self._wanted_by(options) if place.reply_to is None else None

    def _wanted_by(self, options: Options) -> Backend | None:
        """Return the backend that the outcome of a call goes to; None when nobody wants it."""
        ignore = options.ignore_result
        if self._settings.ignore_result if ignore is None else ignore:
            return None
        return self._backend

    def _call(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        route: Route,
        eta: datetime | None,
        now: float,
        backend: Backend | None,
        place: Place,
    ) -> Call:
        id_ = options.task_id or process.new_id()
        headers = dict(options.headers or {})
        if options.retry is not None:
            headers[RETRY_HEADER] = options.retry.to_header()
        priority = options.priority if options.priority is not None else route.priority
        return Call(
            task=name,
            id=id_,
            args=tuple(args),
            kwargs=kwargs,
            eta=eta,
            expires=_expires(options, now),
            hard_limit=options.time_limit,
            soft_limit=options.soft_time_limit,
            embed=place.embed,
            root_id=place.root_id or id_,
            parent_id=place.parent_id,
            group=place.group,
            group_index=place.group_index,
            shadow=options.shadow,
            origin=self._origin(),
            ignore_result=options.ignore_result,
            replaced_task_nesting=place.nesting,
            stamped_headers=place.stamped_headers,
            stamps=place.stamps,
            reply_to=(place.reply_to or "") if backend is None else backend.reply_to(),
            correlation_id=id_,
            priority=priority or 0,
            headers=headers,
        )

    def _encoded(
        self, call: Call, options: Options, delay: float, now: float, task: Task[..., Any] | None
    ) -> Message:
        settings = self._settings
        try:
            return encode(
                call,
                serializer=serializer(options.serializer or settings.serializer),
                compression=options.compression or settings.compression,
                compress_over=settings.compress_over,
                now=now,
                ttl_ms=None if call.expires is None else self._ttl_ms(call, options, delay, now),
            )
        except EncodeError as error:
            raise _name_argument(error, task) from error

    def _ttl_ms(self, call: Call, options: Options, delay: float, now: float) -> int | None:
        """Return after how long the broker may drop a call that expires; None for never.

        Workers check `expires` by themselves. They alone can tell that a call has ended, so one
        whose outcome is wanted, or that something follows, has to come to a worker, however late.
        """
        told = call.reply_to or call.embed != NO_EMBED or self._wanted_by(options) is not None
        if call.expires is None or told or delay > 0:  # in the delay levels it would end too early
            return None
        return max(0, round((call.expires.timestamp() - now) * 1000))

    def _publications(
        self,
        message: Message,
        route: Route,
        until: datetime | None,
        task: str,
        options: Options,
        backend: Backend | None,
    ) -> list[Publication]:
        """Return the copies of a message, each with where it goes and what has to be there."""
        deadline = time.monotonic() + self._settings.publish_timeout
        requires = () if backend is None else tuple(backend.requirements())
        hint = self._hint(route, options)
        return [
            Publication(
                message,
                address.exchange,
                address.routing_key,
                address=address.anew,
                requires=requires + address.requires,
                deadline=deadline,
                task=task,
                hint=hint,
            )
            for address in self._addresses(route, until, task, options)
        ]

    def _origin(self) -> str:
        pid, text = self._named
        if pid != process.pid():
            pid = process.pid()
            text = f"amqtask{pid}@{self._host}"
            self._named = pid, text
        return text

    def _addresses(
        self, route: Route, until: datetime | None, task: str, options: Options
    ) -> list[Address]:
        """Return where each copy goes, and what that needs on the broker."""
        if until is None:
            needs = (
                self._exchange_requirement(options.exchange, route.exchange)
                if route.queue is None
                else (self.queue_requirement(route.queue),)
            )
            return [Address(route.exchange, route.routing_key, needs)]
        queues = (
            [route.queue]
            if route.queue is not None
            else self._router.destinations(route.exchange, route.routing_key)
        )
        if not queues:
            raise Unroutable(
                f"delayed call of task {task!r} to exchange {route.exchange!r} with routing key "
                f"{route.routing_key!r}: no queue this app knows is bound to that",
                hint="name the queue (queue=...), or list the bound queue in App(queues=...)",
            )
        addresses = [
            (self.queue_requirement(queue), self.delayed(queue, until)) for queue in queues
        ]
        return [
            replace(address, requires=(needed, *address.requires)) for needed, address in addresses
        ]

    def _exchange_requirement(
        self, said: str | Exchange | None, name: str
    ) -> tuple[Requirement, ...]:
        """Return what makes the exchange of a call that names no known queue."""
        if isinstance(said, Exchange):
            exchange = said
        elif name == self._settings.exchange:
            exchange = Exchange(name)
        else:
            return ()  # somebody else's: known by name only
        plan = partial(exchange_plan, exchange, self._settings)
        return (self._requirement(f"exchange {name!r}", plan),)

    def _levels_requirement(self, prefix: str) -> Requirement:
        """Return what makes the delay levels, unless a look shows that they are there."""

        async def prepare(session: Session) -> None:
            if not await exists(session, level_name(LEVELS - 1, prefix)):
                await declare(session, delay_plan(prefix))

        name = f"delay levels {prefix!r}"
        return self._requirements.setdefault(name, Requirement(name, prepare))

    def _requirement(self, name: str, plan: partial[Plan]) -> Requirement:
        found = self._requirements.get(name)
        if found is None:

            async def prepare(session: Session) -> None:
                await declare(session, plan())

            found = self._requirements.setdefault(name, Requirement(name, prepare))
        return found

    def _hint(self, route: Route, options: Options) -> str | None:
        if route.queue is not None:
            return None
        name = options.queue.name if isinstance(options.queue, Queue) else options.queue
        close = self._router.hint(name or route.routing_key)
        return (
            f"no queue of this app takes it{close}; start a worker for it, or list the queue in "
            "App(queues=...)"
        )


def _place() -> Place:
    """Return the place of a call outside of workflows: below the task that makes it, if one does."""
    parent = _current.get()
    if parent is None:
        return _ALONE
    return Place(root_id=parent.root_id, parent_id=parent.id)


def _times(options: Options, now: float) -> tuple[datetime | None, float]:
    """Return the eta, and the seconds until then (0 for none)."""
    if options.countdown is not None and options.countdown > 0:
        return datetime.fromtimestamp(now + options.countdown, UTC), options.countdown
    if options.eta is not None:
        return options.eta, max(0.0, options.eta.timestamp() - now)
    return None, 0.0


def _expires(options: Options, now: float) -> datetime | None:
    expires = options.expires
    if expires is None or isinstance(expires, datetime):
        return expires
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    return datetime.fromtimestamp(max(0.0, now + seconds), UTC)


def _name_argument(error: EncodeError, task: Task[..., Any] | None) -> EncodeError:
    """Name the argument as the caller knows it."""
    path, text = error.path, str(error)
    if path and isinstance(path[0], int):
        parameter = task.parameter(path[0]) if task is not None else None
        named = f"argument {parameter or path[0]!r}"
        text = text.replace("cannot encode args of", f"cannot encode {named} of", 1)
    elif path:
        text = text.replace("cannot encode kwargs of", f"cannot encode argument {path[0]!r} of", 1)
    named_error = EncodeError(text, hint=error.hint)
    named_error.path = path
    return named_error
