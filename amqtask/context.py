"""What a running task can know about itself: `Context` and `current_task`."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from amqtask.errors import AmqtaskError, ConfigurationError, Replace, Retry
from amqtask.message.model import Call
from amqtask.message.results import READY_STATES, ResultMeta
from amqtask.message.serializers import JSON
from amqtask.progress import PROGRESS, Reporter

if TYPE_CHECKING:
    from amqtask.app import App
    from amqtask.result import AsyncResult
    from amqtask.workflow.canvas import Canvas

#: Children that a result names at most; a task that starts a million calls would name them all.
MOST_CHILDREN = 1000


class Trail:
    """What a run leaves behind besides its outcome.

    Attributes:
        children: Calls it sent, in Celery's form.
        reporter: Sends what it reports; None while it reported nothing.
        added: Members for the chord that it is in, in JSON form.
    """

    __slots__ = ("added", "children", "reporter")

    def __init__(self) -> None:
        self.added: list[dict[str, Any]] = []
        self.children: list[Any] = []
        self.reporter: Reporter | None = None


_current: ContextVar[Context | None] = ContextVar("amqtask_current_task", default=None)


@dataclass(frozen=True, slots=True)
class Context:
    """One run of one task, as the task sees it.

    Given to tasks made with ``bind=True``, and reachable as `current_task`.

    Attributes:
        app: The app that runs it.
        call: All that came in the message.
        queue: The queue it was taken from.
        exchange: Where it was published to.
        routing_key: Its routing key.
        redelivered: True when it was delivered to a worker before; it may
            have run then, in part or whole.
        hostname: The worker's name.
    """

    app: App
    call: Call
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    redelivered: bool = False
    hostname: str = ""
    trail: Trail = field(default_factory=Trail, repr=False, compare=False)

    def __bool__(self) -> bool:
        """Return True; `current_task`, outside of a task, is false."""
        return True

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.call.task

    @property
    def id(self) -> str:
        """Id of the call; the same in every attempt."""
        return self.call.id

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""
        return self.call.args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments."""
        return self.call.kwargs

    @property
    def retries(self) -> int:
        """How often it was retried: 0 in the first attempt."""
        return self.call.retries

    @property
    def attempt(self) -> int:
        """Which attempt this is: 1 is the first."""
        return self.call.retries + 1

    @property
    def headers(self) -> Mapping[str, Any]:
        """The caller's own headers."""
        return self.call.headers

    @property
    def root_id(self) -> str:
        """Id of the call at the root of the tree this one belongs to."""
        return self.call.root_id or self.call.id

    @property
    def parent_id(self) -> str | None:
        """Id of the call whose task sent this one."""
        return self.call.parent_id

    @property
    def request(self) -> Context:
        """Itself, for those who are used to ``self.request.id``."""
        return self

    def progress(self, done: float, total: float | None = None, /, **meta: Any) -> None:
        """Tell whoever watches the result how far this is; see `AsyncResult.watch`.

        It may be called as often as one likes: what the backend cannot keep up with
        is left out, but for the newest. Without a backend it does nothing.

        Args:
            done: Units done.
            total: Units there are, if that is known.
            meta: More to tell; plain data.

        Raises:
            EncodeError: ``meta`` does not serialise.

        Delivery: reports are not essential, and may be lost.
        Threads: safe from any thread; does not block.
        """
        self.update_state(PROGRESS, {"done": done, "total": total, **meta})

    def update_state(self, state: str, meta: Any = None) -> None:
        """Store a state of your own for this call; as `progress`, which is one.

        Raises:
            ConfigurationError: The state is one that ends a call.
            EncodeError: ``meta`` does not serialise.
        """
        if state in READY_STATES or not state:
            raise ConfigurationError(
                f"state {state!r} ends a call, and is stored when the task ends",
                hint='take a name of your own, such as "PROGRESS"',
            )
        backend = self.app.backend_for(self.call)
        if backend is None:
            return
        JSON.dumps(meta)  # tells the task here, and not a thread later
        trail = self.trail
        if trail.reporter is None:
            call = self.call
            save = partial(_save, backend, call.reply_to or "", call.correlation_id or call.id)
            trail.reporter = Reporter(save)
        trail.reporter.report(
            ResultMeta(self.id, state, meta, group_id=self.call.group, parent_id=self.parent_id)
        )

    def sent(self, task_id: str) -> None:
        """Note a call that this one sent, for the ``children`` of its result."""
        if len(self.trail.children) < MOST_CHILDREN:
            self.trail.children.append([[task_id, None], None])

    def retry(
        self,
        reason: str = "",
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        exc: BaseException | None = None,
        max_retries: int | None = None,
    ) -> NoReturn:
        """Leave this attempt and run again later; see `amqtask.Retry`.

        Raises:
            Retry: Always.
        """
        raise Retry(reason, countdown=countdown, eta=eta, exc=exc, max_retries=max_retries) from exc

    def replace(self, signature: Canvas[..., Any]) -> NoReturn:
        """Leave this run, and have a signature run in this call's place.

        Its last step has this call's id, so whoever waits for that gets its value; what
        was to follow this call follows it. A group's value is the list of its members'.

        Raises:
            Replace: Always.
            ConfigurationError: The signature has no meaning.

        Delivery: what begins in its place is confirmed before this call is acked. After a
            crash in between, this call runs again, and replaces itself again.
        """
        raise Replace(self.app._replacement(self.call, signature))

    def add_to_chord(self, signature: Canvas[..., Any]) -> AsyncResult[Any]:
        """Add a member to the chord that this call is in; its value comes after the others.

        It is sent when this call has ended with a value, so that it always counts; a call
        that fails, or is retried, has added nothing.

        Raises:
            ConfigurationError: This call is no member of a chord.
        """
        member, handle = self.app._addition(self.call, signature, len(self.trail.added))
        self.trail.added.append(member)
        return handle


def _save(backend: Any, reply_to: str, correlation_id: str, meta: ResultMeta, done: Any) -> None:
    backend.save(meta, reply_to=reply_to, correlation_id=correlation_id, done=done)


class _CurrentTask:
    """Stands for the `Context` of the task that runs here."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        context = _current.get()
        if context is None:
            raise AmqtaskError(
                f"current_task.{name} was read outside a task",
                hint="it exists only while a worker runs a task; use `if current_task:` to ask",
            )
        return getattr(context, name)

    def __bool__(self) -> bool:
        return _current.get() is not None

    def __repr__(self) -> str:
        return f"<current_task {_current.get()!r}>"


#: The task that runs in this thread or coroutine; false outside of one.
current_task = cast(Context, _CurrentTask())
