"""``app.schedules``: what beats have before them, seen and changed at run time.

Each method asks the beat that leads, over the control exchange; the ones that
begin with ``a`` are the same, awaited. Entries of the code can be looked at, paused,
resumed and run; those added here can also be edited and removed. A change is kept in
the beats' state on the broker once the method returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack

from amqtask.asking import PATIENCE, Asker
from amqtask.entries import ScheduleOptions, declare
from amqtask.errors import ConfigurationError, ControlError
from amqtask.policy.entry import Entry, Origin
from amqtask.topology.beating import beat_key

if TYPE_CHECKING:
    from amqtask.app import App


@dataclass(frozen=True, slots=True)
class ScheduleInfo:
    """An entry as the beat that leads knows it.

    Attributes:
        name: Unique in the app.
        origin: ``code``, or ``dynamic`` for one that was added at run time.
        schedule: The schedule as text.
        task: Name of the task it calls.
        paused: Whether its instants pass without being fired.
        next: When it is fired next; None for never, and while it is paused.
        last: The instant of its last fire; None for none.
        fires: How many there were.
        plain: All of it, as `Entry.to_plain` has it.
        error: Why the beat cannot use it; None while it can.
    """

    name: str
    origin: Origin
    schedule: str
    task: str
    paused: bool
    next: datetime | None
    last: datetime | None
    fires: int
    plain: Mapping[str, Any]
    error: str | None = None

    def entry(self, tz: str = "UTC") -> Entry:
        """Return it as an entry.

        Raises:
            ConfigurationError: It is one that this process cannot read, as its `error` may say.
        """
        return Entry.from_plain(self.name, self.plain, origin=self.origin, tz=tz)


class Schedules:
    """An app's schedule as it runs.

    Every method may raise `NoAnswer` when no beat leads within ``timeout`` seconds, and
    `ConfigurationError` for an unknown name or a wrong entry.

    Threads: safe from any thread and any loop; the awaited ones never block it.
    """

    def __init__(self, app: App, asker: Asker, *, timeout: float = PATIENCE) -> None:
        self._app = app
        self._asker = asker
        #: Seconds that a reply is waited for.
        self.timeout = timeout

    # -- looking ------------------------------------------------------------------

    def list(self) -> Sequence[ScheduleInfo]:
        """Return all entries."""
        return _infos(self._ask("list"))

    async def alist(self) -> Sequence[ScheduleInfo]:
        """As `list`, awaited."""
        return _infos(await self._aask("list"))

    def get(self, name: str) -> ScheduleInfo:
        """Return one entry."""
        return _info(self._ask("show", name=name))

    async def aget(self, name: str) -> ScheduleInfo:
        """As `get`, awaited."""
        return _info(await self._aask("show", name=name))

    # -- changing -----------------------------------------------------------------

    def add(
        self,
        name: str,
        what: Any,
        when: Any,
        *,
        replace: bool = False,
        **said: Unpack[ScheduleOptions],
    ) -> ScheduleInfo:
        """Add an entry; arguments as those of `App.schedule`.

        Args:
            name: Of the entry; one that code has is refused.
            what: A task, its name, ``(task, args, kwargs)``, or ``task.s(...)``.
            when: A schedule, or what stands for one.
            replace: True puts it in place of one that is there.
            said: See `ScheduleOptions`.
        """
        return _info(self._ask("add", **self._new(name, what, when, replace, said))[0])

    async def aadd(
        self,
        name: str,
        what: Any,
        when: Any,
        *,
        replace: bool = False,
        **said: Unpack[ScheduleOptions],
    ) -> ScheduleInfo:
        """As `add`, awaited."""
        return _info((await self._aask("add", **self._new(name, what, when, replace, said)))[0])

    def put(
        self, entries: Mapping[str, Mapping[str, Any]], *, replace: bool = False
    ) -> Sequence[ScheduleInfo]:
        """Add several entries at once, given as `Entry.to_plain` has them: all, or none."""
        return [_info(row) for row in self._ask("add", **_several(entries, replace))]

    async def aput(
        self, entries: Mapping[str, Mapping[str, Any]], *, replace: bool = False
    ) -> Sequence[ScheduleInfo]:
        """As `put`, awaited."""
        return [_info(row) for row in await self._aask("add", **_several(entries, replace))]

    def edit(self, name: str, **changes: Any) -> ScheduleInfo:
        """Change an entry that was added at run time.

        Args:
            name: Of the entry.
            changes: Fields as `Entry` has them, ``schedule`` in any of its forms; None takes a
                field back to its default.
        """
        return _info(self._ask("edit", name=name, changes=self._changes(name, changes)))

    async def aedit(self, name: str, **changes: Any) -> ScheduleInfo:
        """As `edit`, awaited."""
        return _info(await self._aask("edit", name=name, changes=self._changes(name, changes)))

    def remove(self, name: str) -> None:
        """Remove an entry that was added at run time."""
        self._ask("remove", name=name)

    async def aremove(self, name: str) -> None:
        """As `remove`, awaited."""
        await self._aask("remove", name=name)

    def pause(self, name: str) -> ScheduleInfo:
        """Have an entry's instants pass without being fired, until it is resumed."""
        return _info(self._ask("pause", name=name))

    async def apause(self, name: str) -> ScheduleInfo:
        """As `pause`, awaited."""
        return _info(await self._aask("pause", name=name))

    def resume(self, name: str) -> ScheduleInfo:
        """Fire an entry again from now on."""
        return _info(self._ask("resume", name=name))

    async def aresume(self, name: str) -> ScheduleInfo:
        """As `resume`, awaited."""
        return _info(await self._aask("resume", name=name))

    def run_now(self, name: str) -> str:
        """Fire an entry now, outside its schedule; returns the id of the call."""
        return str(self._ask("run_now", name=name)["id"])

    async def arun_now(self, name: str) -> str:
        """As `run_now`, awaited."""
        return str((await self._aask("run_now", name=name))["id"])

    def rewind(self) -> Sequence[str]:
        """Have entries that are ahead of the clock begin now, after it was wrong; returns them."""
        return [str(name) for name in self._ask("rewind")]

    async def arewind(self) -> Sequence[str]:
        """As `rewind`, awaited."""
        return [str(name) for name in await self._aask("rewind")]

    def status(self) -> Mapping[str, Any]:
        """Return who leads, and what it has done."""
        return _table(self._ask("status", room="beat"))

    async def astatus(self) -> Mapping[str, Any]:
        """As `status`, awaited."""
        return _table(await self._aask("status", room="beat"))

    # -- inside -------------------------------------------------------------------

    def _ask(self, verb: str, *, room: str = "schedule", **arguments: Any) -> Any:
        key, whom = self._whom()
        return self._asker.ask(key, f"{room}.{verb}", arguments, whom=whom, timeout=self.timeout)

    async def _aask(self, verb: str, *, room: str = "schedule", **arguments: Any) -> Any:
        key, whom = self._whom()
        return await self._asker.aask(
            key, f"{room}.{verb}", arguments, whom=whom, timeout=self.timeout
        )

    def _whom(self) -> tuple[str, str]:
        name = self._app.name
        return beat_key(self._app.settings, name), f"a leading beat of app {name!r}"

    def _new(
        self, name: str, what: Any, when: Any, replace: bool, said: Mapping[str, Any]
    ) -> dict[str, Any]:
        entry = declare(self._app, name, what, when, said)
        return {"entries": {name: entry.to_plain()}, "replace": replace}

    def _changes(self, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return changes as plain data, checked as far as they can be without the rest."""
        kept = {key: value for key, value in changes.items() if value is not None}
        whole = {"schedule": {"every": 60}, "task": "any", **kept}
        if kept.get("catch_up") == "all":
            whole.setdefault("window", 1)
        plain = Entry.from_plain(name, whole, tz=self._app.settings.timezone).to_plain()
        # one that is set to its default is not in there, and is said by taking it back
        return {key: plain.get(key) if key in kept else None for key in changes}


def _several(entries: Mapping[str, Mapping[str, Any]], replace: bool) -> dict[str, Any]:
    if not entries:
        raise ConfigurationError("there are no entries to add")
    return {"entries": {name: dict(plain) for name, plain in entries.items()}, "replace": replace}


def _infos(reply: Any) -> Sequence[ScheduleInfo]:
    return [_info(row) for row in _table(reply)["entries"]]


def _table(reply: Any) -> Mapping[str, Any]:
    if not isinstance(reply, Mapping):
        raise ControlError(f"the reply makes no sense: {reply!r}")
    return reply


def _info(row: Any) -> ScheduleInfo:
    try:
        return ScheduleInfo(
            row["name"],
            row["origin"],
            row["schedule"],
            row["task"],
            row["paused"],
            _moment(row["next"]),
            _moment(row["last"]),
            row["fires"],
            row["entry"],
            row.get("error"),
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ControlError(
            f"the reply makes no sense: {row!r}", hint="are client and beat of one version?"
        ) from error


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
