"""What a leader answers: list, add, edit, remove, pause, resume, run now.

Requests are as `amqtask.message.control` has them, with plain data both ways. A
change is answered once it is saved, and saving shows that whoever answers leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from amqtask.beat.tally import Tally, utcnow
from amqtask.beat.term import Term
from amqtask.entries import check
from amqtask.errors import ConfigurationError, ControlError, near
from amqtask.message.control import Request
from amqtask.policy.entry import Entry

#: Rows of a list that are made in one go.
_BREATH = 100

Arguments = Mapping[str, Any]


class Host(Protocol):
    """The beat that this is the desk of."""

    name: str
    tally: Tally


class Desk:
    """Answers requests during one term.

    Args:
        term: The term.
        host: The beat.
        wake: Called after each change, to have the agenda looked at.
    """

    def __init__(self, term: Term, host: Host, wake: Callable[[], object]) -> None:
        self._term = term
        self._host = host
        self._wake = wake
        self._methods: dict[str, Callable[[Arguments], Awaitable[Any]]] = {
            "beat.status": self._status,
            "schedule.list": self._list,
            "schedule.show": self._show,
            "schedule.add": self._add,
            "schedule.edit": self._edit,
            "schedule.remove": self._remove,
            "schedule.pause": self._pause,
            "schedule.resume": self._resume,
            "schedule.run_now": self._run_now,
            "schedule.rewind": self._rewind,
        }

    async def handle(self, request: Request) -> Any:
        """Do what a request asks; returns its reply.

        Raises:
            AmqtaskError: It is refused, or failed; the text says why.
        """
        method = self._methods.get(request.method)
        if method is None:
            raise ControlError(
                f"a beat has no method {request.method!r}{near(request.method, [*self._methods])}",
                hint="is the one that asks of a later version than the beat?",
            )
        return await method(request.arguments)

    # -- looking ------------------------------------------------------------------

    async def _status(self, _: Arguments) -> Any:
        tally = self._host.tally
        return {
            "leader": self._host.name,
            "entries": len(self._term.entries),
            "dynamic": len(self._term.state.dynamic),
            "seq": self._term.state.seq,
            "counts": dict(tally.counts),
            "drift": round(tally.drift, 3),
            "most_drift": round(tally.most_drift, 3),
            "most_tick": round(tally.most_tick, 4),
        }

    async def _list(self, _: Arguments) -> Any:
        now = utcnow()
        rows: list[dict[str, Any]] = []
        for entry in self._term.entries.values():
            rows.append(self._row(entry, now))
            if len(rows) % _BREATH == 0:
                await asyncio.sleep(0)  # thousands take a while, and fires come first
        rows += [self._broken_row(name) for name in self._term.broken]
        return {"leader": self._host.name, "now": now.isoformat(), "entries": rows}

    async def _show(self, arguments: Arguments) -> Any:
        name = _name(arguments)
        if name in self._term.broken:
            return self._broken_row(name)
        return self._row(self._known(name), utcnow())

    def _row(self, entry: Entry, now: datetime) -> dict[str, Any]:
        mark = self._term.state.marks.get(entry.name)
        paused = entry.paused if mark is None or mark.paused is None else mark.paused
        at = now if mark is None else max(now, mark.at)
        following = None if paused else entry.due_after(at)
        due = None if following is None else following + entry.late_by(following)
        return {
            "name": entry.name,
            "origin": entry.origin,
            "schedule": str(entry.schedule),
            "task": entry.task,
            "paused": paused,
            "next": None if due is None else due.isoformat(),
            "last": None if mark is None or mark.fired is None else mark.fired.isoformat(),
            "fires": 0 if mark is None else mark.fires,
            "entry": entry.to_plain(),
            "error": None,
        }

    def _broken_row(self, name: str) -> dict[str, Any]:
        plain = dict(self._term.state.dynamic[name])
        return {
            "name": name,
            "origin": "dynamic",
            "schedule": str(plain.get("schedule")),
            "task": str(plain.get("task")),
            "paused": False,
            "next": None,
            "last": None,
            "fires": 0,
            "entry": plain,
            "error": self._term.broken[name],
        }

    # -- changing -----------------------------------------------------------------

    async def _add(self, arguments: Arguments) -> Any:
        """Add an entry, or several at once: all of them, or none."""
        tables = arguments.get("entries")
        if not isinstance(tables, Mapping) or not tables:
            raise ControlError("schedule.add has no entries: give a table of them, by name")
        made = [self._read(str(name), plain) for name, plain in tables.items()]
        async with self._term.lock:
            if arguments.get("replace") is not True:
                for entry in made:
                    if entry.name in self._term.state.dynamic:
                        raise ConfigurationError(
                            f"there is an entry {entry.name!r} already",
                            hint="edit it, or say that it is to be replaced",
                        )
            await self._term.put(made)
        self._wake()
        return [self._row(entry, utcnow()) for entry in made]

    async def _edit(self, arguments: Arguments) -> Any:
        name, changes = _name(arguments), arguments.get("changes")
        if not isinstance(changes, Mapping) or not changes:
            raise ControlError("schedule.edit has no changes: give a table of them, by key")
        async with self._term.lock:
            self._dynamic(name)
            plain = {**self._term.state.dynamic[name], **changes}
            plain = {key: value for key, value in plain.items() if value is not None}
            entry = self._read(name, plain)
            await self._term.put([entry])
        self._wake()
        return self._row(entry, utcnow())

    async def _remove(self, arguments: Arguments) -> Any:
        name = _name(arguments)
        async with self._term.lock:
            self._dynamic(name, shadowed=True)
            await self._term.remove(name)
        self._wake()
        return name

    async def _pause(self, arguments: Arguments) -> Any:
        return await self._set_paused(arguments, True)

    async def _resume(self, arguments: Arguments) -> Any:
        return await self._set_paused(arguments, False)

    async def _set_paused(self, arguments: Arguments, paused: bool) -> Any:
        async with self._term.lock:
            entry = self._known(_name(arguments))
            await self._term.pause(entry.name, paused)
        self._wake()
        return self._row(entry, utcnow())

    async def _run_now(self, arguments: Arguments) -> Any:
        entry = self._known(_name(arguments))
        fire = await self._term.run_now(entry.name)
        return {"id": fire.id, "task": entry.task, "instant": fire.instant.isoformat()}

    async def _rewind(self, _: Arguments) -> Any:
        async with self._term.lock:
            names = await self._term.rewind()
        self._wake()
        return names

    # -- inside -------------------------------------------------------------------

    def _read(self, name: str, plain: Any) -> Entry:
        if self._term.is_code(name):
            raise ConfigurationError(
                f"entry {name!r} is declared in code",
                hint="change it there; at run time it can be paused, resumed and run",
            )
        app = self._term.app
        entry = Entry.from_plain(name, plain, tz=app.settings.timezone)
        check(app, entry)
        return entry

    def _known(self, name: str) -> Entry:
        entry = self._term.entry(name)
        if entry is None:
            if name in self._term.broken:
                raise ConfigurationError(
                    f"entry {name!r} cannot be used here: {self._term.broken[name]}"
                )
            known = [*self._term.entries]
            raise ConfigurationError(f"there is no entry {name!r}{near(name, known)}")
        return entry

    def _dynamic(self, name: str, *, shadowed: bool = False) -> None:
        """Refuse a name that bears no dynamic entry, or one that code has taken."""
        here = name in self._term.state.dynamic
        if self._term.is_code(name) and not (here and shadowed):
            raise ConfigurationError(
                f"entry {name!r} is declared in code",
                hint="change it there; at run time it can be paused, resumed and run",
            )
        if not here:
            known = [*self._term.state.dynamic]
            raise ConfigurationError(f"there is no entry {name!r}{near(name, known)}")


def _name(arguments: Arguments) -> str:
    name = arguments.get("name")
    if not isinstance(name, str):
        raise ControlError("the request names no entry")
    return name
