"""One beat: in line for the lead, in the lead, and back in line, until it is stopped.

started --its turn--> reading the state --> leading: tick, tick, ... --lost--> in line again
                          |                    `--stop()--> handed over --> stopped
                          |--nothing there--> a new state, once nobody remembers one
                          |--damaged--> parked, a new state
                          `--of a later version--> left to others, tried again later
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from amqtask.app import App
from amqtask.beat.desk import Desk
from amqtask.beat.handover import exists, take_over
from amqtask.beat.leader import Leader, Role
from amqtask.beat.state import LaterVersion
from amqtask.beat.tally import Tally, utcnow
from amqtask.beat.term import Term
from amqtask.clock import awake, wall
from amqtask.control.agent import Agent
from amqtask.errors import AmqtaskError, TransportError
from amqtask.message.model import Message
from amqtask.policy.entry import Entry
from amqtask.topology.beating import beat_key, beat_plan, beat_queue_name
from amqtask.transport import Link, Session
from amqtask.transport.backoff import Backoff
from amqtask.transport.declare import declare
from amqtask.transport.seat import Seat

log = logging.getLogger(__name__)

#: Seconds between looks at the clock, at most: it may jump, also because a test has it do so.
POLL = 0.5
#: Seconds between proofs while nothing is due: a broker may have forgotten us.
PROVE = 10.0
#: Seconds after which the state is written anew, below what brokers allow a message to be held.
RENEW = 45.0
#: Seconds that a beat stays out of line after a term that failed, the first time and at most:
#: others have their turn, and a cause that stays makes no storm.
REST = (0.2, 30.0)
#: Seconds that a term lasts to count as one that went well.
_WELL = 10.0
#: Seconds that what is under way has to end when a beat stops.
STOP = 15.0
#: Seconds without a look at the clock after which a beat counts as dead.
DEAD = 60.0
#: Seconds by which the clock may jump before it is said.
_JUMP = 5.0
#: How far the clock may be behind what was fired already, before it is said.
_BEHIND = timedelta(seconds=60)
#: Seconds between looks whether it is.
_LOOK_BEHIND = 60.0


class Beat:
    """Sends an app's schedule, as long as it leads.

    Args:
        app: Its tasks are called; its settings name queue and exchange.
        entries: Gives the entries of the code.
        name: Shown in logs and to those who ask.
        on_change: Called on the loop whenever `role` may have changed.

    Attributes:
        tally: What it has done.

    Threads: start and stop it on one loop, on which all of it runs.
    """

    def __init__(
        self,
        app: App,
        entries: Callable[[], Iterable[Entry]],
        *,
        name: str | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        settings = app.settings
        self.app = app
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self.queue = beat_queue_name(settings, app.name)
        self.tally = Tally()
        self._entries = entries
        self._link = Link(
            app.transport.urls,
            name=f"{app.name} beat {self.name}",
            heartbeat=settings.beat_heartbeat,
            connect_timeout=settings.connect_timeout,
            backoff=Backoff(first=0.1, cap=2.0),
        )
        self._leader = Leader(self._link, self.queue, self._prepare, on_change)
        self._term: Term | None = None
        self._memory: Message | None = None
        self._existed = False
        self._stopping = asyncio.Event()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._looked = time.monotonic()
        self._offset = wall() - awake()

    # -- how it is ------------------------------------------------------------------

    @property
    def role(self) -> Role:
        """What it is now: ``connecting``, ``standby`` or ``leading``."""
        return self._leader.role

    @property
    def term(self) -> Term | None:
        """Its time in the lead; None while another one leads."""
        return self._term

    def unready(self) -> list[str]:
        """Return why it is neither leading nor in line; empty while it is."""
        if self._leader.role != "connecting":
            return []
        return [str(self._link.last_error or self._leader.error or "it starts")]

    def dead(self) -> list[str]:
        """Return why it does not tick; empty while it does."""
        silence = time.monotonic() - self._looked
        if self._term is not None and silence > DEAD:
            return [f"it leads, and has not looked at the clock for {silence:.0f} s"]
        return []

    # -- starting and stopping --------------------------------------------------------

    def start(self) -> None:
        """Get in line; `role` tells what comes of it."""
        self._task = asyncio.create_task(self._run(), name="amqtask beat")

    async def stop(self) -> None:
        """Finish what is being sent, hand the state over, and disconnect."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            if self._term is None:
                self._task.cancel()
            await asyncio.wait([self._task], timeout=STOP)
            if not self._task.done():
                log.warning("beat.hung: what is under way takes over %g s, it is given up", STOP)
                self._task.cancel()
                await asyncio.wait([self._task])
        await self._link.close()

    async def _run(self) -> None:
        rest = Backoff(*REST)
        while not self._stopping.is_set():
            seat = await self._leader.lead(self._memory)
            began = awake()
            pause = 0.0
            taken = False  # from outside: no fault of the term's
            try:
                why = await self._serve(seat)
            except LaterVersion as error:
                why, pause = str(error), REST[1]
                log.error("beat.state_later error=%s: left to others\n%s", error, error.hint)
            except AmqtaskError as error:
                why = str(error)
            except Exception as error:  # the next term begins with a fresh mind
                log.exception("beat.term_failed: the lead is given up")
                why = f"{type(error).__name__}: {error}"
            finally:
                taken = seat.over.done()
                if self._term is not None:
                    self._memory = self._term.memory()
                    self._term = None
                await seat.release()
            if self._stopping.is_set():
                return
            if taken or awake() - began > _WELL:
                rest.reset()
            self._leader.lost(why)
            pause = pause or rest.next()
            log.warning("beat.lost why=%r: in line again in %.1f s", why, pause)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    # -- one term ---------------------------------------------------------------------

    async def _serve(self, seat: Seat) -> str:
        """Lead until the lead is lost, or this stops; returns why it ended."""
        state = await take_over(
            seat,
            queue_type=self.app.settings.queue_type,
            existed=self._existed,
            host=self.name,
        )
        term = Term(self.app, seat, state, self._entries(), self.tally)
        await term.renew()
        self._term = term
        self._looked = time.monotonic()
        log.info(
            "beat.leading name=%s queue=%r entries=%d dynamic=%d seq=%d",
            self.name,
            self.queue,
            len(term.entries),
            len(state.dynamic),
            term.state.seq,
        )
        if left := term.left_behind():
            log.warning(
                "beat.left_behind entries=%s: the leader before had them, and the code of this one "
                "does not; do apps of one name have different schedules?",
                left[:10],
            )
        desk = Desk(term, self, self._wake.set)
        answering = asyncio.create_task(self._answer(seat.session, desk), name="amqtask beat desk")
        try:
            await self._lead(term)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            await term.close()
        return seat.over.result() if seat.over.done() else "it stops"

    async def _lead(self, term: Term) -> None:
        seat, proved, behind = term.seat, awake(), 0.0
        while not self._stopping.is_set() and not seat.over.done():
            self._looked = time.monotonic()
            self._wake.clear()
            self._watch_clock()
            now = utcnow()
            wake = await term.tick(now)
            if seat.news.is_set():
                await term.adopt()
            if term.age > RENEW:
                await term.renew()
                proved = awake()
            elif awake() - proved > PROVE:
                await term.prove()
                proved = awake()
            if awake() >= behind:
                behind = awake() + _LOOK_BEHIND
                self._say_behind(term.agenda.ahead(now))
            left = POLL if wake is None else (wake - utcnow()).total_seconds()
            await self._sleep(seat, min(POLL, left))

    async def _sleep(self, seat: Seat, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waking = asyncio.ensure_future(self._wake.wait())
        ends: list[asyncio.Future[Any]] = [waking, seat.over]
        try:
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()

    @staticmethod
    def _say_behind(ahead: timedelta) -> None:
        if ahead > _BEHIND:
            log.error(
                "beat.clock_behind seconds=%.0f: the clock is behind what was fired already; "
                "entries are silent until it has caught up\nif it is right now and was wrong "
                "before, `amqtask schedule rewind` has them begin anew",
                ahead.total_seconds(),
            )

    def _watch_clock(self) -> None:
        offset = wall() - awake()
        if abs(jump := offset - self._offset) > _JUMP:
            log.warning(
                "beat.clock_jumped seconds=%+.1f: what passed in between is %s",
                jump,
                "missed or caught up" if jump > 0 else "not fired again",
            )
        self._offset = offset

    async def _answer(self, session: Session, desk: Desk) -> None:
        """Answer requests, again after what ends that but not the session."""
        settings = self.app.settings
        agent = Agent(
            settings.control_exchange,
            beat_key(settings, self.app.name),
            desk.handle,
            declares=settings.declare == "auto",
        )
        backoff = Backoff(first=1.0, cap=30.0)
        while True:
            try:
                await agent.serve(session)
            except TransportError as error:
                if session.closed.done():
                    return
                wait = backoff.next()
                log.warning(
                    "beat.unreachable error=%r: schedules cannot be changed at run time now; "
                    "trying again in %.0f s%s",
                    str(error),
                    wait,
                    f"\n{error.hint}" if error.hint else "",
                )
                await asyncio.sleep(wait)

    async def _prepare(self, session: Session) -> None:
        self._existed = await exists(session, self.queue)
        await declare(session, beat_plan(self.app.settings, self.app.name))
