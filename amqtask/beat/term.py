"""One beat's time in the lead: from the state it was handed to the one it hands on.

    state read --tick: decide, send, save--> ... --the seat is over--> memory

Whatever changes is saved before anybody is told that it was done, and saving shows
that this one still leads: the record comes back to it, and to no other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from amqtask.app import App
from amqtask.beat.agenda import Agenda
from amqtask.beat.firing import Firing, Outcome
from amqtask.beat.plan import Fire, Mark
from amqtask.beat.state import State, adopt, note, plain_marks, read, snapshot
from amqtask.beat.tally import AGAIN, Tally, settled, utcnow
from amqtask.clock import awake
from amqtask.errors import ConfigurationError, MalformedMessage
from amqtask.message.model import Message
from amqtask.message.serializers import JSON
from amqtask.policy.entry import Entry
from amqtask.transport.seat import Seat

log = logging.getLogger(__name__)

#: Bytes up to which a state is written whole each time, so that its queue holds one message. Of
#: a larger one only what changed is written, until that is as much again.
_SMALL = 4096
#: Marks of entries that are no more are kept so long, in case that they come back.
_KEEP = timedelta(days=30)
#: An entry that was decided within this is one that the leader before had.
_LATELY = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class _Put:
    """An entry that waits because its fire could not be sent."""

    entry: Entry
    mark: Mark
    until: float


class Term:
    """What a leader does.

    Args:
        app: Whose tasks are called.
        seat: The lead.
        state: As it was handed over.
        entries: Those of the code.
        tally: Where it is counted.

    Attributes:
        state: As it was saved last.
        lock: Held by whoever changes anything.
        broken: Names of dynamic entries that cannot be read here, and why.

    Threads: on the seat's loop only.
    """

    def __init__(
        self, app: App, seat: Seat, state: State, entries: Iterable[Entry], tally: Tally
    ) -> None:
        self.app = app
        self.seat = seat
        self.state = state
        self.lock = asyncio.Lock()
        self.broken: dict[str, str] = {}
        #: What is due when, but for entries that wait for another try.
        self.agenda = Agenda(app.name, (), {}, utcnow())
        self._tally = tally
        self._code = {entry.name: entry for entry in entries}
        self._firing = Firing(app, seat, self._fired)
        self._held: dict[str, _Put] = {}
        self._plain = plain_marks(state.marks)  # as they are written, so that not all are made anew
        self._own = set(seat.held)  # tags of records that are in the state
        self._noted = 0
        self._whole = 0  # bytes of the last snapshot
        self._saved = awake()
        self._place_all(utcnow())

    # -- entries ------------------------------------------------------------------

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All entries by name, those that wait for another try included."""
        held = {name: put.entry for name, put in self._held.items()}
        return {**self.agenda.entries, **held}

    def entry(self, name: str) -> Entry | None:
        """Return an entry by its name."""
        return self.agenda.entries.get(name) or (
            self._held[name].entry if name in self._held else None
        )

    def is_code(self, name: str) -> bool:
        """Whether an entry is declared in code."""
        return name in self._code

    def left_behind(self) -> list[str]:
        """Return the names that were looked after until lately, and are not any more."""
        since, known = utcnow() - _LATELY, self.entries
        return [
            name
            for name, mark in self.state.marks.items()
            if mark.at > since and name not in known and name not in self.broken
        ]

    def _place_all(self, now: datetime) -> None:
        for name, entry in self._code.items():
            self.agenda.put(entry, now, self.state.marks.get(name))
        for name in self.state.dynamic:
            self._place(name, now)

    def _place(self, name: str, now: datetime) -> None:
        """Put a dynamic entry on the agenda, unless code has one of its name."""
        if name in self._code:
            log.warning(
                "beat.shadowed entry=%r: it was added at run time, and code declares one of that "
                "name now, which counts; remove the other one by `amqtask schedule remove`",
                name,
            )
            return
        try:
            tz = self.app.settings.timezone
            entry = Entry.from_plain(name, self.state.dynamic[name], tz=tz)
        except ConfigurationError as error:
            self.broken[name] = str(error)
            log.error("beat.broken entry=%r error=%r: it is kept, and not fired", name, str(error))
            return
        self.broken.pop(name, None)
        self.agenda.put(entry, now, self.state.marks.get(name))

    # -- time ---------------------------------------------------------------------

    async def tick(self, now: datetime) -> datetime | None:
        """Send what is due and save that; returns when the next tick is wanted.

        Raises:
            TransportError: The lead is lost.
        """
        async with self.lock:
            began = time.thread_time()
            self._release_held(now)
            tick = self.agenda.tick(now)
            self._tally.tell(tick)
            marks = dict(tick.marks)
            if tick.fires:
                outcome = await self._firing.send(tick.fires)
                self._tally.tell_outcome(outcome)
                self._correct(tick.fires, outcome, marks, now)
            if marks:
                await self._save(marks)
            took = time.thread_time() - began
            self._tally.most_tick = max(self._tally.most_tick, took)
            return tick.wake

    async def run_now(self, name: str) -> Fire:
        """Fire an entry outside its schedule.

        Raises:
            AmqtaskError: It could not be sent, or the lead is lost.
        """
        async with self.lock:
            now = utcnow()
            self._release_held(now, only=name)
            before = self.agenda.marks[name]
            fire = self.agenda.run_now(name, now)
            outcome = await self._firing.send([fire])
            self._tally.tell_outcome(outcome)
            for _, error in (*outcome.failed, *outcome.late):
                self.agenda.put(fire.entry, now, before)
                raise error
            await self._save({name: self.agenda.marks[name]})
            return fire

    async def renew(self) -> None:
        """Write the state anew: a broker takes back what is held for too long."""
        async with self.lock:
            await self._save({}, whole=True)

    async def prove(self) -> None:
        """Show that this one leads; raises TransportError otherwise."""
        async with self.lock:
            await self.seat.prove()

    @property
    def age(self) -> float:
        """Seconds since the oldest record that is held was written."""
        return awake() - self._saved

    # -- changes ------------------------------------------------------------------

    async def pause(self, name: str, paused: bool) -> None:
        """Pause an entry that is on the agenda, or have it go on; with `lock` held."""
        now = utcnow()
        self._release_held(now, only=name)
        change = self.agenda.pause if paused else self.agenda.resume
        await self._save({name: change(name, now)})

    async def rewind(self) -> list[str]:
        """Have entries that are ahead of the clock begin now; returns their names. Needs `lock`."""
        names = self.agenda.rewind(utcnow())
        await self._save({name: self.agenda.marks[name] for name in names}, whole=True)
        return names

    async def put(self, entries: Sequence[Entry]) -> None:
        """Add dynamic entries, or replace some; with `lock` held."""
        now = utcnow()
        plain = {entry.name: entry.to_plain() for entry in entries}
        dynamic = {**self.state.dynamic, **plain}
        self._refuse_if_too_large(plain)
        marks: dict[str, Mark] = {}
        for entry in entries:
            self._release_held(now, only=entry.name)
            self.broken.pop(entry.name, None)
            marks[entry.name] = self.agenda.put(entry, now, self.state.marks.get(entry.name))
        await self._save(marks, dynamic)

    async def remove(self, name: str) -> None:
        """Remove a dynamic entry; with `lock` held."""
        dynamic = {key: plain for key, plain in self.state.dynamic.items() if key != name}
        self._held.pop(name, None)
        self.broken.pop(name, None)
        if name not in self._code:
            if name in self.agenda:
                self.agenda.remove(name)
            self._forget([name])
        await self._save({}, dynamic)

    async def adopt(self) -> None:
        """Take in what others wrote to the queue: the memory of one that led before."""
        async with self.lock:
            self.seat.news.clear()
            strangers = {tag: held for tag, held in self.seat.held.items() if tag not in self._own}
            state = self.state
            for held in strangers.values():
                try:
                    record = read(held.message)
                except MalformedMessage as error:
                    log.warning("beat.stranger error=%r: a record is passed over", str(error))
                    continue
                state = adopt(state, record)
            if state != self.state:
                log.info(
                    "beat.adopted seq=%d entries=%d: one that led before knew more",
                    state.seq,
                    len(state.dynamic),
                )
                self.state, self._plain = state, plain_marks(state.marks)
                self._place_all(utcnow())
            await self._save({}, whole=True)
            self.seat.drop(*strangers)

    def memory(self) -> Message:
        """Return all that this one knows, for whoever leads next."""
        return snapshot(self.state)

    async def close(self) -> None:
        """Let go of what was used to send."""
        await self._firing.close()

    # -- inside -------------------------------------------------------------------

    def _fired(self, name: str) -> datetime | None:
        mark = self.state.marks.get(name)
        return None if mark is None else mark.fired

    async def _save(
        self,
        marks: Mapping[str, Mark],
        dynamic: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        whole: bool = False,
    ) -> None:
        known = self.state
        state = State(
            known.seq + 1,
            {**known.marks, **marks} if marks else known.marks,
            known.dynamic if dynamic is None else dynamic,
        )
        # remembered before it is written: what was fired must not be forgotten if that fails
        self.state = state
        changed = plain_marks(marks)
        self._plain.update(changed)
        many = 2 * len(marks) > len(known.marks)
        message: Message | None = None
        if not (whole or many or dynamic is not None or self._whole <= _SMALL):
            message = note(state.seq, changed)
            self._noted += len(message.body)
        whole = message is None or self._noted >= self._whole
        if whole or message is None:
            self._prune()
            message = snapshot(self.state, self._plain)
        before = tuple(self._own)
        tag = await self.seat.put(message)
        if whole:
            self._noted, self._whole, self._saved = 0, len(message.body), awake()
            self._own.clear()
            self.seat.drop(*before)
        self._own.add(tag)

    def _prune(self) -> None:
        """Forget the marks of entries that have long been gone."""
        limit = utcnow() - _KEEP
        marks, dynamic = self.state.marks, self.state.dynamic
        gone = [name for name in marks if name not in self._code and name not in dynamic]
        if old := [name for name in gone if marks[name].at < limit]:
            self._forget(old)

    def _forget(self, names: Iterable[str]) -> None:
        gone = set(names)
        marks = {name: mark for name, mark in self.state.marks.items() if name not in gone}
        self.state = replace(self.state, marks=marks)
        for name in gone:
            self._plain.pop(name, None)

    def _refuse_if_too_large(self, plain: Mapping[str, Mapping[str, Any]]) -> None:
        size = self._whole + len(JSON.dumps(plain))
        most = self.app.settings.max_message_size // 2
        if size > most:
            raise ConfigurationError(
                f"the state would have about {size} bytes then, at most {most} are safe",
                hint="give tasks references to large arguments instead of the arguments",
            )

    def _release_held(self, now: datetime, only: str | None = None) -> None:
        for name, put in list(self._held.items()):
            if name == only or (only is None and awake() >= put.until):
                del self._held[name]
                self.agenda.put(put.entry, now, put.mark)

    def _correct(
        self, fires: Sequence[Fire], outcome: Outcome, marks: dict[str, Mark], now: datetime
    ) -> None:
        """Have marks say what was sent, where that is not all that was due."""
        late = {fire.id for fire, _ in outcome.late}
        sent = {fire.id for fire in outcome.sent}
        if len(sent) == len(fires):
            return
        by_name: defaultdict[str, list[Fire]] = defaultdict(list)
        for fire in fires:
            by_name[fire.entry.name].append(fire)
        for name, group in by_name.items():
            if all(fire.id in sent for fire in group):
                continue
            entry = group[0].entry
            mark = settled(self.state.marks.get(name), self.agenda.marks[name], group, sent, late)
            marks[name] = mark
            if any(fire.id in late for fire in group):
                self.agenda.remove(name)
                self._held[name] = _Put(entry, mark, awake() + AGAIN)
            else:
                self.agenda.put(entry, now, mark)
