"""What was sent, and assertions about it.

A call is looked at as it is on the wire: its arguments went through the
serializer, so a test sees the lists that tuples became. What a test expects
goes the same way before the two are compared, and is matched by parameter, so
``delay(1, b=2)`` is found by ``assert_sent(add, 1, 2)``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from amqtask.app import App
from amqtask.errors import AmqtaskError, ConfigurationError
from amqtask.message import Message, Serializer, accepted, decode
from amqtask.send import Outgoing
from amqtask.task import Sendable, Task
from amqtask.topology.routing import Router

#: Calls that a failed assertion lists at most.
_SHOWN = 20


def codecs() -> Mapping[str, Serializer]:
    """Return all serializers there are, by content type: tests read what they sent themselves."""
    try:
        return accepted(("json", "pickle", "msgpack"))
    except ConfigurationError:  # the extra is not installed
        return accepted(("json", "pickle"))


@dataclass(frozen=True, slots=True)
class SentCall:
    """A call that was sent.

    Attributes:
        task: Name of its task.
        args: Positional arguments, as the worker gets them.
        kwargs: Keyword arguments, as the worker gets them.
        queues: Names of the queues that get it; empty when none the app knows does.
        routing_key: Its topic.
        countdown: Seconds it was put off by when it was sent; 0 for none.
        eta: The instant before which it may not start.
        expires: The instant after which it is not started.
        headers: The caller's own headers.
        message: All of it, as published.
    """

    id: str
    task: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    queues: tuple[str, ...]
    exchange: str
    routing_key: str
    countdown: float
    eta: datetime | None
    expires: datetime | None
    priority: int
    headers: Mapping[str, Any]
    message: Message = field(repr=False)

    def __str__(self) -> str:
        """Return it as it could have been called, and where it went."""
        words = [repr(value) for value in self.args]
        words += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        where = f"queue {', '.join(map(repr, self.queues))}" if self.queues else "no queue"
        later = f", in {self.countdown:g} s" if self.countdown else ""
        return f"{self.task}({', '.join(words)})  -> {where}{later}"


class Outbox:
    """Remembers what apps send.

    Threads: calls may come from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[tuple[App, Outgoing]] = []

    def record(self, app: App, outgoing: Outgoing) -> None:
        """Note a call."""
        with self._lock:
            self._calls.append((app, outgoing))

    def outgoing(self, task_id: str) -> Outgoing | None:
        """Return what was sent under an id."""
        with self._lock:
            return next((each for _, each in self._calls if each.id == task_id), None)

    def outgoings(self) -> list[Outgoing]:
        """Return all that was sent, as it was prepared."""
        with self._lock:
            return [each for _, each in self._calls]

    def forget_sent(self) -> None:
        """Forget what was sent so far."""
        with self._lock:
            self._calls.clear()

    def sent(self, task: Sendable[..., Any] | str | None = None) -> list[SentCall]:
        """Return what was sent so far, in order.

        Args:
            task: Only calls of this one; a task or its name.
        """
        with self._lock:
            calls = list(self._calls)
        name = None if task is None else _name(task)
        return [_read(app, each) for app, each in calls if name in (None, each.task)]

    def assert_sent(
        self,
        task: Sendable[..., Any] | str,
        /,
        *args: Any,
        queue: str | None = None,
        countdown: float | None = None,
        times: int | None = None,
        **kwargs: Any,
    ) -> SentCall:
        """Check that a call was sent, and return it (the last one, of several).

        A parameter of the task that is called ``queue``, ``countdown`` or ``times``
        is given by position here.

        Args:
            task: The task, or its name.
            args: Its arguments; without any, calls with whatever arguments count.
            queue: Where it has to go.
            countdown: Seconds it has to be put off by; 0 for not at all.
            times: How often, at least once; see `assert_not_sent` for never.
            kwargs: Its keyword arguments.

        Raises:
            AssertionError: It was not; the text says what was sent instead.
        """
        name = _name(task)
        wanted = _Wanted(_task(task), args, kwargs, queue, countdown)
        calls = self.sent()
        found = [each for each in calls if each.task == name and not wanted.differences(each)]
        if found and times in (None, len(found)):
            return found[-1]
        count = f"sent {_times(len(found))}" if found else "not sent"
        often = "" if times is None else f", expected {_times(times)}"
        raise AssertionError(f"{name}{wanted} was {count}{often}\n{_listing(calls, name, wanted)}")

    def assert_not_sent(
        self,
        task: Sendable[..., Any] | str,
        /,
        *args: Any,
        queue: str | None = None,
        countdown: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Check that no such call was sent; as `assert_sent`.

        Raises:
            AssertionError: One was.
        """
        name = _name(task)
        wanted = _Wanted(_task(task), args, kwargs, queue, countdown)
        found = [each for each in self.sent(name) if not wanted.differences(each)]
        if found:
            lines = "".join(f"\n    {each}" for each in found[:_SHOWN])
            raise AssertionError(f"{name}{wanted} was sent {_times(len(found))}:{lines}")


class _Wanted:
    """What a test expects of a call."""

    def __init__(
        self,
        task: Task[..., Any] | None,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        queue: str | None,
        countdown: float | None,
    ) -> None:
        self._task = task
        self._args = tuple(args)
        self._kwargs = dict(kwargs)
        self._queue = queue
        self._countdown = countdown
        self._any = not args and not kwargs

    def __str__(self) -> str:
        words = [repr(value) for value in self._args]
        words += [f"{name}={value!r}" for name, value in self._kwargs.items()]
        queue = "" if self._queue is None else f" to queue {self._queue!r}"
        later = "" if self._countdown is None else f" in {self._countdown:g} s"
        return f"({'...' if self._any else ', '.join(words)}){queue}{later}"

    def differences(self, call: SentCall) -> list[str]:
        """Return what a call has that is not wanted, a phrase each."""
        found = [] if self._any else self._in_arguments(call)
        # a queue the app does not list is known by the key its name became
        queues = call.queues or (call.routing_key,)
        if self._queue is not None and self._queue not in queues:
            found.append(f"queue is {', '.join(map(repr, call.queues)) or 'none'}")
        if self._countdown is not None and abs(self._countdown - call.countdown) > 1e-6:
            found.append(f"countdown is {call.countdown:g}")
        return found

    def _in_arguments(self, call: SentCall) -> list[str]:
        wanted = self._named(self._args, self._kwargs)
        given = self._named(call.args, call.kwargs)
        missing = object()
        return [
            f"{name} is {given[name]!r}" if name in given else f"{name} is not given"
            for name in dict.fromkeys((*wanted, *given))
            if not _same(wanted.get(name, missing), given.get(name, missing), call.message)
        ]

    def _named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if self._task is None:
            return {f"argument {index}": value for index, value in enumerate(args)} | dict(kwargs)
        bound = self._task.parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def _same(wanted: Any, given: Any, message: Message) -> bool:
    if wanted == given:
        return True
    try:  # as it would be on the wire: a tuple is a list there
        codec = codecs()[message.content_type or ""]
        return bool(codec.loads(codec.dumps(wanted)) == codec.loads(codec.dumps(given)))
    except (AmqtaskError, KeyError, ValueError):
        return False  # such as an object that only compares, which was asked already


def _name(task: Sendable[..., Any] | str) -> str:
    return task if isinstance(task, str) else task._task.name


def _task(task: Sendable[..., Any] | str) -> Task[..., Any] | None:
    return None if isinstance(task, str) else task._task


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _listing(calls: Sequence[SentCall], name: str, wanted: _Wanted) -> str:
    if not calls:
        return "  nothing was sent"
    # those of this task first: one of them is the one that was meant
    ordered = sorted(calls, key=lambda each: each.task != name)
    lines = ["  sent were:"]
    for call in ordered[:_SHOWN]:
        lines.append(f"    {call}")
        if call.task == name and (differences := wanted.differences(call)):
            lines.append(f"      differs: {'; '.join(differences)}")
    if len(ordered) > _SHOWN:
        lines.append(f"    and {len(ordered) - _SHOWN} more")
    return "\n".join(lines)


def _read(app: App, outgoing: Outgoing) -> SentCall:
    message = outgoing.publications[0].message
    call = decode(message, codecs(), max_decoded_size=app.settings.max_decoded_size)
    route = outgoing.route
    if route.queue is not None:
        queues: tuple[str, ...] = (route.queue.name,)
    else:
        known = Router(app.settings, app.queues).destinations(route.exchange, route.routing_key)
        queues = tuple(queue.name for queue in known)
    return SentCall(
        id=outgoing.id,
        task=outgoing.task,
        args=call.args,
        kwargs=call.kwargs,
        queues=queues,
        exchange=route.exchange,
        routing_key=route.routing_key,
        countdown=outgoing.delay,
        eta=call.eta,
        expires=call.expires,
        priority=call.priority,
        headers=call.headers,
        message=message,
    )
