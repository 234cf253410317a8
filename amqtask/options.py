"""The options of a call, in one typed place.

The same words serve the decorator (a task's defaults), ``task.options(...)``
and ``apply_async``; the nearest one wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, TypedDict

from amqtask.errors import ConfigurationError, near
from amqtask.policy.retry import RetryPolicy
from amqtask.topology.entities import Exchange, Queue


class CallOptions(TypedDict, total=False):
    """Keywords of ``task.options``, ``apply_async`` and ``send_task``.

    Attributes:
        countdown: Seconds from now before it may start; 0 or less means at once.
        eta: Aware datetime before which it may not start.
        expires: Seconds from now, or aware datetime, after which it is not started.
        queue: Name of the queue, or a `Queue`.
        exchange: Name of the exchange, or an `Exchange`.
        routing_key: Topic to publish under.
        priority: 0 to 255, higher is sooner; only on queues that have priorities.
        headers: Your own message headers (str, numbers, bool, None, lists, dicts).
        task_id: Id instead of a random one.
        time_limit: Seconds of run time after which it is ended.
        soft_time_limit: Seconds of run time after which it is asked to end.
        retry: When and how it is retried, instead of the task's policy.
        serializer: ``json``, ``msgpack`` or ``pickle``.
        compression: ``zlib``, ``zstd``, ... for the body.
        ignore_result: True sends and keeps no result.
        shadow: Name to show in logs instead of the task's.
        call_timeout: Seconds that `Sendable.call` waits for the value.
    """

    countdown: float | None
    eta: datetime | None
    expires: float | timedelta | datetime | None
    queue: str | Queue | None
    exchange: str | Exchange | None
    routing_key: str | None
    priority: int | None
    headers: Mapping[str, Any] | None
    task_id: str | None
    time_limit: float | None
    soft_time_limit: float | None
    retry: RetryPolicy | None
    serializer: str | None
    compression: str | None
    ignore_result: bool | None
    shadow: str | None
    call_timeout: float | None


@dataclass(frozen=True, slots=True)
class Options:
    """`CallOptions`, checked; None means "not said"."""

    countdown: float | None = None
    eta: datetime | None = None
    expires: float | timedelta | datetime | None = None
    queue: str | Queue | None = None
    exchange: str | Exchange | None = None
    routing_key: str | None = None
    priority: int | None = None
    headers: Mapping[str, Any] | None = None
    task_id: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    retry: RetryPolicy | None = None
    serializer: str | None = None
    compression: str | None = None
    ignore_result: bool | None = None
    shadow: str | None = None
    call_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.countdown is not None and self.eta is not None:
            raise ConfigurationError(
                "countdown and eta are both given",
                hint="give one: eta is an instant, countdown seconds from now",
            )
        for name in ("eta", "expires"):
            value = getattr(self, name)
            if isinstance(value, datetime) and value.tzinfo is None:
                raise ConfigurationError(
                    f"{name}={value!r} has no time zone",
                    hint="use an aware datetime, such as datetime.now(UTC) + timedelta(hours=1)",
                )
        for name in ("time_limit", "soft_time_limit", "call_timeout"):
            _check_seconds(name, getattr(self, name), least=0)
        # a countdown worked out from a time may have run out by now: that means at once
        _check_seconds("countdown", self.countdown)
        if isinstance(self.expires, int | float):
            _check_seconds("expires", self.expires)
        if self.priority is not None and not 0 <= self.priority <= 255:
            raise ConfigurationError(f"priority={self.priority!r} is not from 0 to 255")
        id_: Any = self.task_id  # whatever a caller passed
        if id_ is not None and not (isinstance(id_, str) and 0 < len(id_.encode()) <= 255):
            raise ConfigurationError(f"task_id={self.task_id!r} is not a str of 1 to 255 bytes")

    def over(self, base: Options) -> Options:
        """Return ``base`` with everything that is said here replaced; headers are merged."""
        said = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        if not said:
            return base
        if self.headers and base.headers:
            said["headers"] = {**base.headers, **self.headers}
        if self.eta is not None:
            said["countdown"] = None
        if self.countdown is not None:
            said["eta"] = None
        if {"queue", "exchange", "routing_key"} & said.keys():
            # a route given here replaces the base's whole route, never half of it
            for part in ("queue", "exchange", "routing_key"):
                said.setdefault(part, None)
        return replace(base, **said)


#: About 3,000 years: beyond it no datetime goes.
_MOST_SECONDS = 1e11


def _check_seconds(name: str, value: Any, least: float = -_MOST_SECONDS) -> None:
    if value is not None and (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least <= value <= _MOST_SECONDS
    ):
        from_ = " from 0 up" if least == 0 else ""
        raise ConfigurationError(f"{name}={value!r} is not a number of seconds{from_}")


def options(values: Mapping[str, Any]) -> Options:
    """Check keywords and return them as `Options`.

    Raises:
        ConfigurationError: An unknown option, or a value out of range.
    """
    try:
        return Options(**values)
    except TypeError:
        known = [field.name for field in fields(Options)]
        unknown = next((key for key in values if key not in known), None)
        if unknown is None:
            raise
        raise ConfigurationError(
            f"unknown option {unknown!r}{near(unknown, known)}",
            hint=f"known options: {', '.join(known)}",
        ) from None
