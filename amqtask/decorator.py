"""What ``@app.task`` is: its forms for type checkers, its keywords, the policy they say."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from amqtask.context import Context
from amqtask.errors import ConfigurationError
from amqtask.options import CallOptions
from amqtask.policy.retry import RetryPolicy
from amqtask.task import AsyncTask, SyncTask

P = ParamSpec("P")
R = TypeVar("R")

#: Never retried by itself: a failure goes to the dead-letter queue.
NO_RETRY = RetryPolicy()


class TaskDecorator(Protocol):
    """What ``@app.task(...)`` is before it meets the function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> SyncTask[P, R]: ...


class BoundTaskDecorator(Protocol):
    """What ``@app.task(bind=True)`` is before it meets the function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]]
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R]) -> SyncTask[P, R]: ...


class TaskOptions(CallOptions, total=False):
    """Keywords of ``@app.task``: defaults for its calls, and when it is retried.

    Attributes:
        name: Name on the wire; ``module.function`` by default.
        retry_on: Exception classes that are retried, as short form of ``retry=``.
        max_retries: How often at most, as short form of ``retry=``.
        pool: Where workers run it: ``process`` isolates it in a process that can be
            killed, ``thread`` is for plain functions, ``loop`` for async ones.
        schedule: When beats call it, without arguments, under an entry of the task's
            name; for arguments and more see `App.schedule`.
    """

    name: str | None
    retry_on: Sequence[type[BaseException] | str]
    max_retries: int | None
    pool: Literal["loop", "thread", "process"] | None
    schedule: Any


def retry_policy(name: str, said: dict[str, Any]) -> RetryPolicy:
    """Take the retry keywords out of ``said`` and return the task's policy.

    Raises:
        ConfigurationError: Both the policy and its short form are given.
    """
    retry = cast(RetryPolicy | None, said.pop("retry", None))
    short = {
        key: said.pop(word)
        for word, key in (("retry_on", "on"), ("max_retries", "max_retries"))
        if word in said
    }
    if retry is not None and short:
        raise ConfigurationError(
            f"task {name!r} has retry= and {', '.join(sorted(short))}",
            hint="put all of it into retry=RetryPolicy(on=..., max_retries=...)",
        )
    if retry is not None:
        return retry
    if "on" in short:
        short["on"] = tuple(short["on"])
    return RetryPolicy(**short) if short else NO_RETRY
