"""A task: a function, its name and how calls of it are sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

from amqtask.context import Context, _current
from amqtask.errors import ArgumentsError, ConfigurationError, near
from amqtask.message.model import Call
from amqtask.options import CallOptions, Options, options
from amqtask.policy.retry import RetryPolicy
from amqtask.result import AsyncResult

# signatures are imported where one is made: most programs only send single calls
if TYPE_CHECKING:
    from amqtask.app import App
    from amqtask.workflow.canvas import GroupSignature, Signature

P = ParamSpec("P")
R = TypeVar("R")

_EMPTY: Mapping[str, Any] = {}
_NOTHING = Options()


class Sendable(Generic[P, R]):
    """What can be sent: a task, or a task with options."""

    def __init__(self, app: App, task: Task[P, R], said: Options) -> None:
        self._app = app
        self._task = task
        self._options = said

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send a call and wait until the broker has it.

        Inside ``with app.pipeline():`` it does not wait; the pipeline's end does.

        Raises:
            ArgumentsError: The arguments do not fit the function.
            EncodeError: An argument does not serialise.
            PublishError: The broker did not confirm it within ``publish_timeout``.

        Delivery: when this returns, a queue has the message on disk. When it
        raises PublishTimeout after sending, the message may still arrive.
        Threads: safe from any thread, and after a fork.
        """
        return self._app.producer.send(self._task.checked(args, kwargs), self._options)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send a call and await the broker's confirm; as `delay`."""
        return await self._app.producer.asend(self._task.checked(args, kwargs), self._options)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Have a worker run it, wait, and return the value: a remote procedure call.

        The reply comes straight back over this process's connection, so no result
        backend is needed, and none is asked. It waits for ``call_timeout`` seconds.

        Raises:
            ResultTimeout: No reply in time; the task may still run.
            ReplyLost: The connection ended before the reply came.
            WaitInTask: This is called in a task, which would keep its slot meanwhile.
            BaseException: What the task raised, as `AsyncResult.get`; and what `delay` raises.

        Delivery: the call is as safe as that of `delay`, the reply is kept nowhere.
        Threads: as `delay`.
        """
        value: R = self._app.producer.call(self._task.checked(args, kwargs), self._options)
        return value

    async def acall(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Have a worker run it, and await the value; as `call`."""
        value: R = await self._app.producer.acall(self._task.checked(args, kwargs), self._options)
        return value

    def delay_many(
        self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]
    ) -> list[AsyncResult[R]]:
        """Send many calls, pipelined, and wait until the broker has them all.

        Args:
            calls: For each call its positional arguments (a sequence) or its
                keyword arguments (a mapping).

        Raises:
            PipelineError: Lists every call that failed; the others were confirmed.
        """
        with self._app.pipeline():
            return [self.apply_async(*_split(call)) for call in calls]

    async def adelay_many(
        self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]
    ) -> list[AsyncResult[R]]:
        """Send many calls, pipelined, and await their confirms; as `delay_many`."""
        async with self._app.pipeline():
            return [
                await self._app.producer.asend(self._task.checked(*_split(call)), self._options)
                for call in calls
            ]

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        link: Any = None,
        link_error: Any = None,
        **said: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Send a call with its options in one call, as Celery spells it; see `delay`.

        Args:
            link: One signature or several that get the value.
            link_error: The same that get (id, exception, traceback) when it fails.
        """
        if link or link_error:
            made = self.s(*args, **(kwargs or {})).set(link=link, link_error=link_error)
            return made.apply_async(**said)
        checked = self._task.checked(tuple(args), kwargs or {})
        return self._app.producer.send(checked, options(said).over(self._options))

    # -- signatures ---------------------------------------------------------------

    def s(self, *args: Any, **kwargs: Any) -> Signature[..., R]:
        """Return the signature of a call with part of its arguments.

        What comes before it in a workflow, and what it is sent with, is put before ``args``.
        """
        return self._signature(args, kwargs, immutable=False)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[[], R]:
        """Return the signature of a call with all its arguments: it takes no others.

        Raises:
            ArgumentsError: They do not fit the function.
        """
        self._task.checked(args, kwargs)
        return self._signature(args, kwargs, immutable=True)

    def signature(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **said: Any,
    ) -> Signature[..., R]:
        """Return the signature of a call, with options; see `s` and `Canvas.set`."""
        return self._signature(args, kwargs or {}, immutable=False).set(**said)

    def map(self, items: Iterable[Any]) -> Signature[[], list[R]]:
        """Return the signature that calls this once for each item, in one run."""
        from amqtask.workflow.compose import map_signature

        made: Signature[[], list[R]] = map_signature(self.s(), items, star=False)
        return made

    def starmap(self, items: Iterable[Sequence[Any]]) -> Signature[[], list[R]]:
        """Return the signature that calls this with each item's elements, in one run."""
        from amqtask.workflow.compose import map_signature

        made: Signature[[], list[R]] = map_signature(self.s(), items, star=True)
        return made

    def chunks(self, items: Iterable[Sequence[Any]], size: int) -> GroupSignature[[], list[R]]:
        """Return the group of runs that each call this with ``size`` items' elements.

        Raises:
            ConfigurationError: ``size`` is no number from 1 up.
        """
        from amqtask.workflow.compose import chunk_signature

        made: GroupSignature[[], list[R]] = chunk_signature(self.s(), items, size)
        return made

    def _signature(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, immutable: bool
    ) -> Signature[Any, R]:
        from amqtask.workflow.compose import task_signature

        made: Signature[Any, R] = task_signature(
            self._app, self._task.name, args, kwargs, self._said, immutable=immutable
        )
        return made

    @property
    def _said(self) -> Options:
        """Options of its own: what a task has from its decorator is added when ids are fixed."""
        return self._options

    def options(self, **said: Unpack[CallOptions]) -> Sendable[P, R]:
        """Return this with other options: ``task.options(countdown=5).delay(...)``.

        Raises:
            ConfigurationError: An unknown option, or a value out of range.
        """
        return Sendable(self._app, self._task, options(said).over(self._options))


class Task(Sendable[P, R]):
    """A registered function.

    Made by ``@app.task``; calling it runs the function here and now.

    Attributes:
        name: What it is called on the wire.
        function: The function itself.
        bind: Whether the function's first parameter is the `Context`.
        is_async: Whether it is a coroutine function.
        retry_policy: When a failure is retried by itself.
        pool: Where workers run it: ``loop``, ``thread`` or ``process``; None leaves it to them.
    """

    def __init__(
        self,
        app: App,
        function: Callable[..., Any],
        *,
        name: str,
        bind: bool,
        retry: RetryPolicy,
        defaults: Options,
        pool: str | None = None,
    ) -> None:
        super().__init__(app, self, defaults)
        self.app = app
        self.function = function
        self.__wrapped__ = function
        self.__doc__ = function.__doc__
        self.name = name
        self.bind = bind
        self.is_async = inspect.iscoroutinefunction(function)
        self.retry_policy = retry
        self.pool = _checked_pool(name, pool, self.is_async)
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[1 if bind else 0 :]
        self._parameters = signature.replace(parameters=parameters)
        self._names = frozenset(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        self._limits = _positional_limits(parameters)

    @property
    def _said(self) -> Options:
        return _NOTHING

    @property
    def defaults(self) -> Options:
        """The options given to the decorator."""
        return self._options

    @property
    def parameters(self) -> inspect.Signature:
        """What a caller may pass."""
        return self._parameters

    def parameter(self, position: int) -> str | None:
        """Return the name of the parameter that takes positional argument ``position``."""
        for index, parameter in enumerate(self._parameters.parameters.values()):
            if parameter.kind is parameter.VAR_POSITIONAL or index == position:
                return parameter.name
        return None

    def checked(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Task[P, R], Sequence[Any], Mapping[str, Any]]:
        """Return task and arguments when these fit the function.

        Raises:
            ArgumentsError: They do not; the text names task and argument.
        """
        least, most = self._limits
        if kwargs or not least <= len(args) <= most:
            try:
                self._parameters.bind(*args, **kwargs)
            except TypeError as error:
                raise ArgumentsError(
                    f"task {self.name!r}: {error}",
                    hint=f"its signature is {self.function.__name__}{self._parameters}",
                ) from None
        return self, args, kwargs

    def run(self, context: Context) -> Any:
        """Call the function as a worker does; for an async one, returns its coroutine."""
        call = context.call
        if self.bind:
            return self.function(context, *call.args, **call.kwargs)
        return self.function(*call.args, **call.kwargs)

    def _here(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.bind:
            return self.function(*args, **kwargs)
        context = _current.get()
        if context is None or context.task != self.name:
            context = Context(
                self.app, Call(self.name, id="local", args=args, kwargs=kwargs), hostname="local"
            )
        return self.function(context, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.name}>"


class SyncTask(Task[P, R]):
    """A task made of a plain function; workers run it in a thread."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and return its value."""
        value: R = self._here(args, kwargs)
        return value


class AsyncTask(Task[P, R]):
    """A task made of a coroutine function; workers run it on their event loop."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Return the function's coroutine, to be awaited here."""
        coroutine: Coroutine[Any, Any, R] = self._here(args, kwargs)
        return coroutine


#: What a task's ``pool`` may be.
POOLS = ("loop", "thread", "process")


def _checked_pool(name: str, pool: str | None, is_async: bool) -> str | None:
    if pool is None:
        return None
    if pool not in POOLS:
        raise ConfigurationError(
            f"task {name!r} has pool={pool!r}{near(str(pool), POOLS)}",
            hint=f"there are {', '.join(POOLS)}",
        )
    if pool == ("thread" if is_async else "loop"):
        kind, own = ("an async", "loop") if is_async else ("a plain", "thread")
        raise ConfigurationError(
            f"task {name!r} has pool={pool!r}, but it is {kind} function",
            hint=f'give it pool="{own}" or pool="process"',
        )
    return pool


def _positional_limits(parameters: Sequence[inspect.Parameter]) -> tuple[int, float]:
    """Return how many positional arguments alone make a good call; (1, 0) when none do."""
    least, most = 0, 0.0
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = float("inf")
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                return 1, 0
        elif parameter.kind is not parameter.VAR_KEYWORD:
            most += 1
            least += parameter.default is parameter.empty
    return least, most


def _split(call: Sequence[Any] | Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if isinstance(call, Mapping):
        return (), call
    if isinstance(call, str | bytes) or not isinstance(call, Sequence):
        raise ArgumentsError(
            f"delay_many got {call!r} for one call",
            hint="give each call a tuple of positional or a dict of keyword arguments: "
            "[(1, 2), (3, 4)]",
        )
    return call, _EMPTY
