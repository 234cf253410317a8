"""The application: settings, tasks, and the one way to the broker."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from inspect import iscoroutinefunction
from pathlib import Path
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Unpack,
    overload,
)

from amqtask import process
from amqtask.backends import Backend, open_backend
from amqtask.cancel import Canceller, as_ids
from amqtask.decorator import (
    NO_RETRY,
    BoundTaskDecorator,
    TaskDecorator,
    TaskOptions,
    retry_policy,
)
from amqtask.errors import ConfigurationError, NoBackend
from amqtask.imports import autodiscover, import_modules
from amqtask.message.model import Call
from amqtask.options import CallOptions, Options, options
from amqtask.pipeline import Pipeline
from amqtask.producer import Producer
from amqtask.registry import Registry, task_name
from amqtask.result import AsyncResult, GroupResult, remember
from amqtask.settings import Settings
from amqtask.task import AsyncTask, SyncTask, Task
from amqtask.topology.cancelling import cancel_plan
from amqtask.topology.delay import delay_binding, delay_plan, delay_prefix
from amqtask.topology.entities import Queue
from amqtask.topology.plan import Plan, queue_plan
from amqtask.transport import Transport
from amqtask.transport.direct import is_direct
from amqtask.workflow.builtin import BUILTIN

# Most programs that send calls have no schedules and build no workflows: what these need is imported where it is first used, and is no part of `import amqtask`.
if TYPE_CHECKING:
    from amqtask.entries import Entries, ScheduleOptions
    from amqtask.policy.entry import Entry
    from amqtask.schedules import Schedules
    from amqtask.send import Outgoing, Sender
    from amqtask.workflow.builder import Workflow
    from amqtask.workflow.canvas import Canvas
    from amqtask.workflow.ports import Joins
    from amqtask.workflow.run import WorkflowRun

P = ParamSpec("P")
R = TypeVar("R")


class App:
    """A set of tasks and where they are sent.

    Args:
        name: Shows in connection names and logs.
        broker: AMQP URL, or several to fail over to.
        backend: URL of the result backend; None keeps no results.
        queues: Queues of this app: names or `Queue` objects. The default queue
            and those named by tasks are added.
        config: Object, module or mapping with more settings.
        environ: Environment to read ``AMQTASK_*`` from; the process's by default.
        pyproject: Path of the pyproject.toml to read ``[tool.amqtask]`` from; the
            current folder's by default.
        settings: Any other setting by name; see the configuration reference.

    Raises:
        ConfigurationError: A setting is wrong; the text says where it stands.

    Threads: safe from any thread, any event loop, and after a fork. Nothing
    connects before the first call.
    """

    def __init__(
        self,
        name: str,
        *,
        broker: str | Sequence[str] | None = None,
        backend: str | None = None,
        queues: Iterable[str | Queue] = (),
        config: object | None = None,
        environ: Mapping[str, str] | None = None,
        pyproject: Path | None = None,
        **settings: Any,
    ) -> None:
        named = {"broker": broker, "backend": backend, "queues": tuple(queues)}
        said = {**settings, **{key: value for key, value in named.items() if value}}
        self.name = name
        self.settings = Settings.load(
            values=said, source=config, environ=environ, pyproject=pyproject or _pyproject()
        )
        self.tasks = Registry()
        self._lock = process.Lock()
        self._entries: Entries | None = None
        self._schedules: Schedules | None = None
        for task, function in BUILTIN.items():
            self.tasks.add_builtin(
                SyncTask(self, function, name=task, bind=True, retry=NO_RETRY, defaults=Options())
            )
        #: The event loop of a worker's async tasks; None where no worker runs.
        self.loop: AbstractEventLoop | None = None
        self.transport = Transport(self.settings, name=name)
        self._canceller = Canceller(self.settings, self.transport)
        self._queues: dict[str, Queue] = {}
        url = self.settings.backend
        results = None if url is None else open_backend(url, self.transport, self.settings)
        #: Sends this app's calls.
        self.producer = Producer(
            name, self.settings, self.transport, self._queues, results, self._canceller
        )
        for entry in (*self.settings.queues, self.settings.default_queue):
            self._add_queue(entry)
        self._joins: Joins | None = None
        self._discover: list[tuple[tuple[str, ...], str]] = []
        if self.settings.beat_schedule:
            self._schedule_settings()
        remember(self)

    # -- tasks --------------------------------------------------------------------

    @overload
    def task(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, *, bind: Literal[True], **said: Unpack[TaskOptions]) -> BoundTaskDecorator: ...
    @overload
    def task(
        self, *, bind: Literal[False] = False, **said: Unpack[TaskOptions]
    ) -> TaskDecorator: ...

    # mypy does not see that **said takes what Unpack[TaskOptions] names
    def task(  # type: ignore[misc]
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        bind: bool = False,
        **said: Unpack[TaskOptions],
    ) -> Any:
        """Make a function a task.

        Works bare (``@app.task``) or with options (``@app.task(queue="email")``).

        Args:
            bind: True passes the `Context` of the run as first argument.
            said: See `TaskOptions`.

        Raises:
            ConfigurationError: An unknown option, or a name taken by another function.
        """

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            return self._register(function, bind, dict(said))

        return decorate if function is None else decorate(function)

    def _register(
        self, function: Callable[..., Any], bind: bool, said: dict[str, Any]
    ) -> Task[..., Any]:
        name = said.pop("name", None) or task_name(function)
        retry, pool = retry_policy(name, said), said.pop("pool", None)
        when = said.pop("schedule", None)
        defaults = options(said)
        kind: type[Task[..., Any]] = AsyncTask if iscoroutinefunction(function) else SyncTask
        made = kind(self, function, name=name, bind=bind, retry=retry, defaults=defaults, pool=pool)
        self.tasks.add(made)
        if defaults.queue is not None:
            self._add_queue(defaults.queue)
        if when is not None:
            self._schedule(name, made, when, {})
        return made

    def schedule(self, name: str, what: Any, when: Any, **said: Unpack[ScheduleOptions]) -> Entry:
        """Have beats send a call whenever a schedule is due.

        Args:
            name: Of the entry, unique in the app.
            what: A task, a task with options, a task's name, ``(task, args, kwargs)``, or
                ``task.s(...)``.
            when: ``cron(...)``, ``every(...)``, ``once(...)``; seconds or a timedelta;
                Celery's ``crontab`` or ``schedule``; or a schedule of your own.
            said: See `ScheduleOptions`.

        Returns:
            The entry, as it stands in ``app.entries``.

        Raises:
            ConfigurationError: Something is wrong with it; the text names the entry.

        Example:
            >>> app.schedule("report", report, cron("0 9 * * mon-fri"), args=["sales"])
        """
        return self._schedule(name, what, when, said)

    def _schedule_settings(self) -> None:
        from amqtask.entries import from_setting

        for name, table in from_setting(self.settings):
            self._schedule(name, table.pop("task"), table.pop("schedule"), table)

    def _schedule(self, name: str, what: Any, when: Any, said: Mapping[str, Any]) -> Entry:
        from amqtask.entries import declare

        entry = declare(self, name, what, when, said)
        self.entries.add(entry)
        queue = said.get("queue")
        if isinstance(queue, Queue):
            self._add_queue(queue)
        return entry

    @property
    def entries(self) -> Entries:
        """What the code wants beats to fire, by `schedule`, ``@app.task(schedule=...)`` and settings."""
        with self._lock:
            if self._entries is None:
                from amqtask.entries import Entries

                self._entries = Entries()
            return self._entries

    @property
    def schedules(self) -> Schedules:
        """What beats have before them, seen and changed at run time."""
        with self._lock:
            if self._schedules is None:
                from amqtask.asking import Asker
                from amqtask.schedules import Schedules

                self._schedules = Schedules(self, Asker(self.settings, self.transport))
            return self._schedules

    def autodiscover(self, *packages: str, module: str = "tasks") -> None:
        """Have workers import every module of this name in these packages, at any depth."""
        self._discover.append((packages, module))

    def import_tasks(self) -> None:
        """Import what ``imports`` names and `autodiscover` finds, so that tasks register."""
        import_modules(self.settings.imports)
        for packages, module in self._discover:
            autodiscover(packages, module)

    # -- calls --------------------------------------------------------------------

    def send_task(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **said: Unpack[CallOptions],
    ) -> AsyncResult[Any]:
        """Send a call by the task's name; its code need not be here.

        Raises:
            PublishError: The broker did not confirm it within ``publish_timeout``.

        Delivery: as `Sendable.delay`.
        """
        return self.producer.deliver(self._by_name(name, args, kwargs or {}, options(said)))

    async def asend_task(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **said: Unpack[CallOptions],
    ) -> AsyncResult[Any]:
        """Send a call by the task's name and await the broker's confirm."""
        outgoing = self._by_name(name, args, kwargs or {}, options(said))
        return await self.producer.adeliver(outgoing)

    def _by_name(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], said: Options
    ) -> Outgoing:
        task = self.tasks.get(name)
        if task is not None:
            said = said.over(task.defaults)
        return self.sender.prepare(name, args, kwargs, said, task)

    def pipeline(self) -> Pipeline:
        """Send many calls at once: ``with app.pipeline(): ...`` or ``async with``.

        Calls inside do not wait for their confirm; the end of the block waits for
        all, and raises `PipelineError` with every call that failed.
        """
        return Pipeline(self.transport)

    def result(self, task_id: str, task: str = "unknown") -> AsyncResult[Any]:
        """Return the handle of a call by its id.

        Args:
            task: Name of its task, for texts.
        """
        return self.producer.handle(task_id, task)

    def group_result(self, group_id: str) -> GroupResult[Any] | None:
        """Return a group that was saved, by its id; None when it is unknown.

        Raises:
            NoBackend: Results are off.
            BackendError: The backend keeps no groups, or does not answer.
        """
        if self.backend is None:
            raise NoBackend(
                f"results are off, so group {group_id} is not kept",
                hint='set a result backend that stores, for example App(..., backend="redis://")',
            )
        members = self.backend.load_group(group_id)
        if members is None:
            return None
        return GroupResult.of(members, self.result)

    def backend_for(self, call: Call, task: Task[..., Any] | None = None) -> Backend | None:
        """Return what takes the outcome of a call; None when nobody wants it.

        A caller that waits on its own connection gets its reply whatever backend this
        app has: it can read no other.

        Args:
            task: What runs it, whose ``ignore_result`` counts where the call says nothing.
        """
        ignore = call.ignore_result
        if ignore is None:
            task = task or self.tasks.get(call.task)
            ignore = None if task is None else task.defaults.ignore_result
        if self.settings.ignore_result if ignore is None else ignore:
            return None
        return self.producer.direct if is_direct(call.reply_to) else self.backend

    def cancel(
        self, ids: str | Iterable[str], *, terminate: bool = False, keep: float | None = None
    ) -> None:
        """Have calls not run: dropped when they come up, and cancelled where they run.

        A call that has ended stays as it ended, and an unknown id is no error.

        Args:
            ids: Id of a call, or several.
            terminate: Also end one that runs and ignores its cancellation.
            keep: Seconds that workers remember it, also those that start later; None
                takes the setting ``cancel_expires``.

        Raises:
            PublishError: The broker did not confirm it within ``publish_timeout``.
            PipelineError: The same for one or more of several.
            ConfigurationError: An id is empty or longer than an id can be.

        Delivery: once this returns, the broker keeps it until it expires, or until
        ``cancel_limit`` later ones have come.
        """
        self._canceller.cancel(as_ids(ids), terminate=terminate, keep=keep)

    async def acancel(
        self, ids: str | Iterable[str], *, terminate: bool = False, keep: float | None = None
    ) -> None:
        """As `cancel`, awaited."""
        await self._canceller.acancel(as_ids(ids), terminate=terminate, keep=keep)

    # -- workflows ----------------------------------------------------------------

    def signature(
        self,
        varies: Canvas[..., Any] | Mapping[str, Any] | str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **said: Any,
    ) -> Any:
        """Return the signature of a task by its name, or of a signature's JSON form.

        Args:
            args: Arguments, before those it has.
            said: Options, see `Canvas.set`.

        Raises:
            MalformedMessage: The JSON form is none.
            ConfigurationError: An unknown option, or a value out of range.
        """
        from amqtask.workflow.compose import signature

        return signature(varies, args, kwargs, app=self, **said)

    def workflow(self, name: str) -> Workflow:
        """Return a workflow that steps can be added to; see `Workflow`."""
        from amqtask.workflow.builder import Workflow

        return Workflow(self, name)

    def workflow_run(self, id: str) -> WorkflowRun | None:
        """Return a run of a workflow of named steps by its id; None when it is unknown.

        Raises:
            NoBackend: Results are off.
            BackendError: The backend does not answer.
        """
        from amqtask.workflow.run import STATE, WorkflowRun

        meta = self.result(id).meta
        if meta is None or meta.status != STATE:
            return None
        return WorkflowRun.of(self, id, meta.result)

    @property
    def joins(self) -> Joins:
        """What joins the members of chords: the result backend where it can, else the broker."""
        joins = self._joins
        if joins is None:
            from amqtask.workflow.join import joins_of

            with self._lock:
                joins = self._joins
                if joins is None:
                    joins = self._joins = joins_of(self)
        return joins

    def _replacement(self, call: Call, made: Canvas[..., Any]) -> dict[str, Any]:
        from amqtask.workflow.inside import replacement_of

        return replacement_of(self, call, made._node)

    def _addition(
        self, call: Call, made: Canvas[..., Any], position: int
    ) -> tuple[dict[str, Any], AsyncResult[Any]]:
        from amqtask.workflow.inside import addition_of

        return addition_of(self, call, made._node, position)

    # -- broker -------------------------------------------------------------------

    @property
    def queues(self) -> Mapping[str, Queue]:
        """The known queues, by name."""
        return dict(self._queues)

    @property
    def backend(self) -> Backend | None:
        """The result backend, or None."""
        return self.producer.backend

    @property
    def sender(self) -> Sender:
        """Builds publications; for the worker, which sends retries the same way."""
        return self.producer.sender

    def queue(self, name: str) -> Queue:
        """Return the known queue of that name, or a new one with the app's defaults."""
        return self._queues.get(name) or Queue(name)

    def topology(self, queues: Iterable[str] | None = None, *, cancelling: bool = True) -> Plan:
        """Return what this app wants on the broker.

        Args:
            queues: Names of the queues meant; all known ones by default.
            cancelling: False leaves out what only cancelling needs.
        """
        names = list(self._queues) if queues is None else list(queues)
        wanted = [self.queue(name) for name in names]
        plans = [queue_plan(queue, self.settings) for queue in wanted]
        if self.settings.declare == "auto":
            for queue in wanted:
                prefix = delay_prefix(queue, self.settings)
                plans += [delay_plan(prefix), delay_binding(queue.name, prefix)]
        if cancelling:
            plans.append(cancel_plan(self.settings))
        return Plan().merge(*plans)

    def close(self, timeout: float = 5.0) -> None:
        """Wait for calls and results on their way, at most ``timeout`` seconds, and disconnect.

        The next call connects again.
        """
        if self.backend is not None:
            self.backend.close(timeout)
        self.transport.close(timeout)

    def __enter__(self) -> App:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<App {self.name}: {len(self.tasks)} tasks>"

    def _add_queue(self, entry: str | Queue) -> None:
        queue = Queue(entry) if isinstance(entry, str) else entry
        with self._lock:
            known = self._queues.get(queue.name)
            if known is None or (known == Queue(queue.name) and known != queue):
                self._queues[queue.name] = queue
                self.producer.renew()
            elif queue not in (known, Queue(queue.name)):
                raise ConfigurationError(
                    f"queue {queue.name!r} is described twice, in different ways: {known} and"
                    f" {queue}",
                    hint="describe it once in App(queues=...) and name it by its str elsewhere",
                )


def _pyproject() -> Path | None:
    path = Path.cwd() / "pyproject.toml"
    return path if path.is_file() else None
