"""The entries that an app's code declares, and what is checked of any entry.

All that can be wrong with an entry is found where it is declared: beat, which
runs elsewhere and later, has nobody to tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from amqtask.backends import Backend
from amqtask.errors import AmqtaskError, ConfigurationError, near
from amqtask.message import serializer
from amqtask.options import CallOptions, Options, options
from amqtask.policy.entry import CatchUp, Entry, Overlap, read_for
from amqtask.policy.retry import RetryPolicy
from amqtask.settings import Settings
from amqtask.task import Sendable, Task

if TYPE_CHECKING:
    from amqtask.app import App

#: Options of a call that an entry cannot have, and why.
_NOT_HERE = {
    "eta": "the schedule says when; countdown= starts each call later than that",
    "task_id": "each fire has its own, made of entry and instant",
    "call_timeout": "nobody waits for the value",
    **dict.fromkeys(("link", "link_error"), "schedule a task that starts the workflow"),
}
#: What an entry of `beat_schedule` may have besides, for Celery's sake. Intervals are counted
#: from full ones here anyway, which is what ``relative`` asks for there.
_CELERY = ("relative",)
_COMPOSITES = ("celery.chain", "celery.group", "celery.chord")


class ScheduleOptions(CallOptions, total=False):
    """Keywords of ``app.schedule``: those of a call, and those of an entry.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        jitter: Seconds by which a fire is late at most.
        start: Aware datetime; no instant before it.
        end: Aware datetime; no instant after it.
        overlap: When the last fire's call still runs: ``queue`` sends all the same,
            ``skip`` does not, ``cancel_running`` cancels the other one first.
        catch_up: Of instants that passed while no beat ran: ``none`` of them, the
            ``latest`` one, or ``all`` within the window.
        window: Seconds, or a timedelta, that are looked back for them.
        paused: True lets instants pass until somebody resumes it.
    """

    args: Sequence[Any]
    kwargs: Mapping[str, Any] | None
    jitter: float | timedelta
    start: datetime | None
    end: datetime | None
    overlap: Overlap
    catch_up: CatchUp
    window: float | timedelta | None
    paused: bool


class Entries:
    """Entries by name, in the order in which they were declared.

    Threads: reading is safe anywhere; declare while modules are imported.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Take an entry in.

        Raises:
            ConfigurationError: There is another one of that name.
        """
        other = self._entries.get(entry.name)
        if other is not None and other.to_plain() != entry.to_plain():
            raise ConfigurationError(
                f"two entries are called {entry.name!r}: task {other.task!r}, {other.schedule}, "
                f"and task {entry.task!r}, {entry.schedule}",
                hint="give one of them another name",
            )
        self._entries[entry.name] = entry

    def get(self, name: str) -> Entry | None:
        """Return the entry of that name, or None."""
        return self._entries.get(name)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def declare(app: App, name: str, what: Any, when: Any, said: Mapping[str, Any]) -> Entry:
    """Return the entry of what ``app.schedule`` was given, checked.

    Args:
        what: A task, a task with options, the name of one, ``(task, args, kwargs)``, or
            a signature of one task.
        when: What `read_schedule` takes.

    Raises:
        ConfigurationError: Something is wrong with it; the text names the entry.
    """
    own, call = _parted(name, {**_what(name, what), **said})
    schedule = read_for(name, when, app.settings.timezone)
    entry = Entry(name, schedule, **own, options=call)
    check(app, entry)
    return entry


def from_setting(settings: Settings) -> list[tuple[str, dict[str, Any]]]:
    """Return the entries of the setting ``beat_schedule``: name and keywords of `declare`.

    Raises:
        ConfigurationError: An entry has a key that none can have, or lacks one.
    """
    found = []
    known = ["task", "schedule", "options", *_CELERY, *ScheduleOptions.__annotations__]
    for name, table in (settings.beat_schedule or {}).items():
        if not isinstance(table, Mapping):
            raise ConfigurationError(
                f"entry {name!r} of beat_schedule is {table!r}",
                hint="write a mapping with at least task and schedule",
            )
        for key in table:
            if key not in known:
                raise ConfigurationError(
                    f"entry {name!r} of beat_schedule has the key {key!r}{near(str(key), known)}",
                    hint=f"known keys: {', '.join(known)}",
                )
        for key in ("task", "schedule"):
            if key not in table:
                raise ConfigurationError(f"entry {name!r} of beat_schedule has no {key}")
        said = {key: value for key, value in table.items() if key not in _CELERY}
        found.append((str(name), {**(said.pop("options", None) or {}), **said}))
    return found


def check(app: App, entry: Entry) -> None:
    """Check what an entry says of calls, wherever it comes from.

    Raises:
        ConfigurationError: An option is wrong, the arguments do not fit a task that is
            known here or do not serialise, or nobody could tell whether calls overlap.
    """
    try:
        said = call_options(entry)
        if entry.task in _COMPOSITES:
            raise ConfigurationError(
                f"it calls a workflow ({entry.task})",
                hint="schedule a task that starts the workflow",
            )
        task = app.tasks.get(entry.task)
        if task is not None:
            task.checked(entry.args, entry.kwargs)
        name = said.serializer or app.settings.serializer
        serializer(name).dumps([list(entry.args), dict(entry.kwargs)])
        if entry.overlap == "skip":
            _check_known(app.backend, task, said, app.settings)
    except AmqtaskError as error:
        raise ConfigurationError(f"entry {entry.name!r}: {error}", hint=error.hint) from error


def call_options(entry: Entry) -> Options:
    """Return the options of an entry's calls, as a call takes them.

    Raises:
        ConfigurationError: One of them is unknown or wrong.
    """
    said: dict[str, Any] = dict(entry.options)
    for key, reason in _NOT_HERE.items():
        if said.get(key) is not None:
            raise ConfigurationError(f"an entry has no option {key!r}", hint=reason)
    if isinstance(said.get("retry"), Mapping):
        said["retry"] = RetryPolicy.from_header(said["retry"])
    if entry.expires is not None:
        said["expires"] = entry.expires
    return options(said)


def _check_known(
    backend: Backend | None, task: Task[..., Any] | None, said: Options, settings: Settings
) -> None:
    ignored = said.ignore_result
    if ignored is None and task is not None:
        ignored = task.defaults.ignore_result
    if backend is None or not backend.can.stores:
        why = "no result backend keeps what became of the call before"
    elif settings.ignore_result if ignored is None else ignored:
        why = "the task's results are ignored"
    else:
        return
    raise ConfigurationError(
        f"overlap 'skip' cannot be told: {why}",
        hint="set a backend that stores, like redis:// or db+postgresql://, and do not ignore "
        "the task's result; or take overlap='queue'",
    )


def _what(name: str, what: Any) -> dict[str, Any]:
    """Return task, arguments and options of whatever stands for a call."""
    if isinstance(what, str):
        return {"task": what}
    if isinstance(what, Task):
        return {"task": what.name}
    if isinstance(what, Sendable):
        return {"task": what._task.name, **_plain(what._options)}
    if isinstance(what, tuple) and 1 <= len(what) <= 3 and not isinstance(what[0], tuple):
        given = dict(zip(("args", "kwargs"), what[1:], strict=False))
        return {**_what(name, what[0]), **given}
    plain = what if isinstance(what, Mapping) else _document(what)
    if plain is not None and isinstance(plain.get("task"), str):
        said = {key: plain[key] for key in ("task", "args", "kwargs") if plain.get(key)}
        return {**said, **(plain.get("options") or {})}
    raise ConfigurationError(
        f"entry {name!r} calls {what!r}",
        hint="give a task, its name, (task, args, kwargs) or task.s(...)",
    )


def _document(what: Any) -> Mapping[str, Any] | None:
    """Return a signature's JSON form, by whatever method it has for that."""
    for method in ("as_dict", "to_dict", "__json__"):
        make = getattr(what, method, None)
        if callable(make):
            made = make()
            return made if isinstance(made, Mapping) else None
    return None


def _plain(said: Options) -> dict[str, Any]:
    return {
        each.name: value for each in fields(said) if (value := getattr(said, each.name)) is not None
    }


def _parted(name: str, found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell the fields of an entry from the options of its calls, both as plain data."""
    own: dict[str, Any] = {}
    call: dict[str, Any] = {}
    of_entry = {each.name for each in fields(Entry)} - {"name", "schedule", "options", "origin"}
    known = [*of_entry, *CallOptions.__annotations__]
    for key, value in found.items():
        if key not in known and key not in _NOT_HERE:
            raise ConfigurationError(
                f"entry {name!r} has no option {key!r}{near(key, known)}",
                hint=f"known options: {', '.join(sorted(known))}",
            )
        if key in of_entry:
            own[key] = value
        elif value is not None:
            call[key] = _as_plain(value)
    if isinstance(own.get("expires"), datetime):
        raise ConfigurationError(
            f"entry {name!r} expires at an instant, {own['expires']!r}",
            hint="give the seconds after which each call expires; end= ends the entry",
        )
    own["args"] = own.get("args") or ()
    own["kwargs"] = own.get("kwargs") or {}
    return own, call


def _as_plain(value: Any) -> Any:
    if isinstance(value, RetryPolicy):
        return value.to_header()
    return getattr(value, "name", value) if not isinstance(value, str) else value
