"""When a failed task runs again, and how long that waits.

A policy is a plain value that can travel in a header, so that a call keeps
the policy it was sent with, whatever the worker that fails it has configured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amqtask.errors import ConfigurationError, MalformedMessage

#: Header that carries the policy of one call.
RETRY_HEADER = "x-amqtask-retry"

ErrorClass = type[BaseException] | str


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, on what, and after which pause a task is tried again.

    The pause before retry number ``n`` (0 is the first) is ``backoff *
    factor**n`` seconds, at most ``cap``; jitter takes off up to half of it.

    Attributes:
        max_retries: Runs after the first one; None never gives up.
        on: Errors that lead to a retry, as classes or as ``"module.QualName"``
            (a name without a dot is a builtin). Empty: only a task that asks
            for a retry gets one.
        not_on: Errors that do not, though ``on`` holds them.
        backoff: Seconds before the first retry.
        factor: At least 1.
        cap: Seconds no pause exceeds.

    Raises:
        ConfigurationError: A value is of the wrong type or out of range.
    """

    max_retries: int | None = 3
    on: tuple[ErrorClass, ...] = ()
    not_on: tuple[ErrorClass, ...] = ()
    backoff: float = 1.0
    factor: float = 2.0
    cap: float = 600.0
    jitter: bool = True

    def __post_init__(self) -> None:
        retries: Any = self.max_retries  # whatever a caller passed
        if retries is not None and (
            isinstance(retries, bool) or not isinstance(retries, int) or retries < 0
        ):
            raise _refused("max_retries", retries, "a whole number of at least 0, or None")
        for name in ("on", "not_on"):
            object.__setattr__(self, name, _classes(name, getattr(self, name)))
        for name, least in (("backoff", 0.0), ("factor", 1.0), ("cap", 0.0)):
            object.__setattr__(self, name, _number(name, getattr(self, name), least))
        if not isinstance(self.jitter, bool):
            raise _refused("jitter", self.jitter, "True or False")

    def left(self, retries: int) -> bool:
        """Return whether a task that was retried ``retries`` times may be retried again."""
        return self.max_retries is None or retries < self.max_retries

    def delay(self, retries: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait before the next run.

        Args:
            retries: Retries so far; 0 after the first run.
            random: Gives a number from 0 up to 1, for the jitter.
        """
        try:
            pause = min(self.cap, self.backoff * self.factor ** max(retries, 0))
        except OverflowError:
            # the power left the range of a float; a pause of 0 stays one
            pause = self.cap if self.backoff else 0.0
        return pause * (0.5 + 0.5 * random()) if self.jitter else pause

    def matches(self, error: BaseException) -> bool:
        """Return whether this error leads to a retry by itself."""
        return _among(self.on, error) and not _among(self.not_on, error)

    def to_header(self) -> dict[str, Any]:
        """Return the policy as plain data for the ``x-amqtask-retry`` header.

        Classes become names. A fraction becomes decimal text, which every
        client reads and passes on alike.
        """
        return {
            "max_retries": self.max_retries,
            "on": [_class_name(item) for item in self.on],
            "not_on": [_class_name(item) for item in self.not_on],
            "backoff": _plain(self.backoff),
            "factor": _plain(self.factor),
            "cap": _plain(self.cap),
            "jitter": self.jitter,
        }

    @classmethod
    def from_header(cls, header: object) -> RetryPolicy:
        """Read a policy from a header; what it leaves out has the default.

        Raises:
            MalformedMessage: It is not a policy.
        """
        if not isinstance(header, Mapping):
            raise MalformedMessage(f"header {RETRY_HEADER!r} is {header!r}, not a table")
        found = {name: header[name] for name in cls.__slots__ if name in header}
        try:
            for name in ("backoff", "factor", "cap"):
                if isinstance(found.get(name), str):
                    found[name] = float(found[name])
            return cls(**found)
        except (ConfigurationError, TypeError, ValueError) as error:
            raise MalformedMessage(
                f"header {RETRY_HEADER!r} is not a retry policy: {error}"
            ) from error


def _refused(name: str, value: object, accepted: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} of the retry policy is {value!r}", hint=f"accepted: {accepted}"
    )


def _number(name: str, value: Any, least: float) -> float:
    accepted = f"a number of at least {least:g}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refused(name, value, accepted)
    try:
        number = float(value)
    except OverflowError:
        raise _refused(name, value, accepted) from None
    if not math.isfinite(number) or number < least:
        raise _refused(name, value, accepted)
    return number


def _classes(name: str, value: Any) -> tuple[ErrorClass, ...]:
    if not isinstance(value, (tuple, list)):
        raise _refused(name, value, "a tuple of exception classes or names, like (OSError,)")
    for item in value:
        if isinstance(item, str) and item:
            continue
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise _refused(name, item, "exception classes or their names")
    return tuple(value)


def _class_name(item: ErrorClass) -> str:
    if isinstance(item, str):
        return item if "." in item else f"builtins.{item}"
    return f"{item.__module__}.{item.__qualname__}"


def _among(items: tuple[ErrorClass, ...], error: BaseException) -> bool:
    if not items:
        return False
    names = {_class_name(base) for base in type(error).__mro__ if issubclass(base, BaseException)}
    return any(
        _class_name(item) in names if isinstance(item, str) else isinstance(error, item)
        for item in items
    )


def _plain(number: float) -> int | str:
    # whole numbers up to what a signed 64-bit field holds exactly
    return int(number) if number.is_integer() and abs(number) < 2**53 else repr(number)
