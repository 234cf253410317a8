"""The process a user starts: it prepares the broker, starts the children and watches them.

    preparing --topology declared--> running --SIGTERM, SIGINT, SIGQUIT--> stopping --> exit 0, 1
        |                               |  ^                 (see `amqtask.worker.ladder`)
        |--refused, mismatch--> exit 1  |  `--SIGHUP: every child replaced, one after the other, the beat last
        `--no broker for long--> 69     |--none ever gets ready--> stopping --> exit 1
                                        `--deaf for long--> stopping --> exit 69

Children are never forked from here, where there are connections and may be
threads: they are fresh Pythons, or copies of a process that has neither, see
`amqtask.worker.template`. Each has one socketpair of its own to the supervisor,
and shares no lock, pipe or connection with the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from amqtask.app import App
from amqtask.errors import AmqtaskError
from amqtask.worker.autoscale import scale
from amqtask.worker.beatkeeper import BeatKeeper, BeatProcess
from amqtask.worker.crew import Crew
from amqtask.worker.ladder import Descent, Ladder, Rung
from amqtask.worker.notify import Notifier
from amqtask.worker.prepare import Backlog, declare_topology
from amqtask.worker.rounds import ROUND, Rounds
from amqtask.worker.scaling import Scaler
from amqtask.worker.spawn import ChildProcess
from amqtask.worker.spec import WorkerSpec
from amqtask.worker.starting import Starter
from amqtask.worker.status import Status

log = logging.getLogger(__name__)


#: Exit code of a worker that did not consume for too long (EX_UNAVAILABLE of sysexits.h).
DEAF = 69
#: Seconds that what runs has to finish, at most, when the worker ends because it is deaf.
DEAF_WARM = 30.0

_STEPS = {
    Rung.WARM: "finishing what runs, giving back the rest; once more to cancel what runs",
    Rung.CANCEL: "cancelling what runs, it has a moment to clean up",
    Rung.NOW: "giving back what runs",
    Rung.KILL: "killing what is left, what it ran is delivered again",
}
_WORDS = {
    Rung.WARM: "worker.stopping",
    Rung.CANCEL: "worker.cancelling",
    Rung.NOW: "worker.stopping_now",
    Rung.KILL: "worker.killing",
}


class Supervisor:
    """Runs children until a signal says otherwise.

    Args:
        app: The app, imported; used for the topology and the broker's address only.
        spec: What each child is given.
        processes: How many children, to begin with.
        beat: Whether it keeps a beat besides.
        scaler: Decides how many later on; None keeps that number.
        deaf_timeout: Seconds without consuming after which it ends; 0 never does.
        notifier: Who is told how it is, besides the log.
        starter: Starts the processes of children; closed with the supervisor.
        spawn: Starts a child of a spec in a place.
        spawn_beat: Starts a beat.
    """

    def __init__(
        self,
        app: App,
        spec: WorkerSpec,
        *,
        processes: int,
        beat: bool = False,
        scaler: Scaler | None = None,
        deaf_timeout: float = 0.0,
        notifier: Notifier | None = None,
        starter: Starter | None = None,
        spawn: Callable[[WorkerSpec, int], ChildProcess] | None = None,
        spawn_beat: Callable[[WorkerSpec, int], BeatProcess] | None = None,
    ) -> None:
        self._app = app
        self._spec = spec
        self._processes = processes
        self._scaler = scaler
        self._deaf_timeout = deaf_timeout
        self._notifier = notifier or Notifier({})
        self._starter = starter or Starter()
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._code = 0
        self._waiting_for = "it starts"
        self._announced = False
        self._restarting: asyncio.Task[None] | None = None
        self._terminal = os.isatty(0)
        self._crew = Crew(
            spec,
            on_change=self._announce,
            on_hopeless=self._on_hopeless,
            spawn=spawn or partial(ChildProcess, start=self._starter),
        )
        self._rounds = Rounds(self._crew, spec, deaf_timeout=deaf_timeout, on_deaf=self._on_deaf)
        start_beat = spawn_beat or partial(BeatProcess, start=self._starter)
        self._beat = BeatKeeper(partial(start_beat, spec), wanted=beat)
        self._descent: Descent | None = None

    async def run(self) -> int:
        """Run until stopped; returns the exit code."""
        self._listen()
        background = [asyncio.create_task(self._go_round(), name="amqtask rounds")]
        try:
            if not await self._prepare():
                return self._code
            self._crew.resize(self._processes)
            self._beat.open()
            if self._scaler is not None:
                backlog = Backlog(self._app, self._spec.names)
                scaling = scale(self._crew, self._spec, self._scaler, backlog)
                background.append(asyncio.create_task(scaling, name="amqtask scale"))
            await self._stopping.wait()
            await self._crew.ended()
            await self._beat.ended()
        finally:
            await self._tidy(background)
        log.info("worker.stopped counts=%s", dict(self._crew.counts))
        return self._code or int(self._crew.failed)

    async def _tidy(self, background: list[asyncio.Task[None]]) -> None:
        self._rounds.close()
        if self._descent is not None:
            self._descent.close()
        if self._restarting is not None:
            background.append(self._restarting)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        self._starter.close()

    # -- before the first child -------------------------------------------------------

    async def _prepare(self) -> bool:
        """Declare the topology once, so that what is wrong with it is said once, at the start."""
        preparing = asyncio.create_task(
            declare_topology(self._app, self._spec.names, self._on_waiting)
        )
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([preparing, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not preparing.done():
            preparing.cancel()
            with suppress(asyncio.CancelledError, AmqtaskError):
                await preparing
            return False
        try:
            await preparing
        except AmqtaskError as error:
            log.error(
                "worker.cannot_start error=%s%s", error, f"\n{error.hint}" if error.hint else ""
            )
            self._code = 1
            return False
        return not self._stopping.is_set()

    def _on_waiting(self, reason: str) -> None:
        self._waiting_for = reason

    # -- while it runs ----------------------------------------------------------------

    async def _go_round(self) -> None:
        while True:
            await asyncio.sleep(ROUND)
            now = time.monotonic()
            try:
                self._rounds.look(now, time.time())
                self._beat.look(partial(self._rounds.silence, now=now))
            except Exception:  # a round that fails must not end the watch
                log.exception("worker.round_failed: the next one follows")
            if self.status().live:
                self._notifier.alive(now)
            if not self._announced and not self._stopping.is_set():
                self._notifier.starting()
            self._starter.look()
            if self._starter.adopts or os.getpid() == 1:
                reap_strangers({child.pid for child in self._everyone()} | self._starter.pids)

    def status(self) -> Status:
        """Return how the worker is now, as ``/live`` and ``/ready`` tell it."""
        now = time.monotonic()
        # the broker drops a connection after two heartbeats, and with it what such a child runs
        bound = 2.0 * (self._app.settings.heartbeat or 30)
        dead: list[str] = []
        shown: list[dict[str, object]] = []
        for child in self._crew.children():
            silence, blocked = self._rounds.silence(child, now), child.beat.blocked
            if silence > bound:
                dead.append(f"process {child.index} (pid {child.pid}): silent for {silence:.0f} s")
            elif blocked > bound:
                dead.append(
                    f"process {child.index} (pid {child.pid}): its event loop is blocked for "
                    f"{blocked:.0f} s"
                )
            shown.append(
                {
                    "pid": child.pid,
                    "ready": child.ready,
                    "running": child.beat.running,
                    "waiting": child.beat.waiting,
                    "finished": child.beat.finished,
                    "rss": child.beat.rss,
                    "silent": round(silence, 1),
                }
            )
        beat = self._beat.status()
        return Status(
            self._spec.name,
            (*dead, *beat.dead),
            (*self._reasons(), *beat.deaf),
            (*shown, *beat.children),
        )

    def _everyone(self) -> list[ChildProcess]:
        return [*self._crew.children(), *self._beat.children()]

    def _reasons(self) -> list[str]:
        if self._stopping.is_set():
            return ["it stops"]
        return self._rounds.reasons() if self._crew.size else [self._waiting_for]

    def _announce(self) -> None:
        ready, size = self._crew.ready, self._crew.size
        self._notifier.status(f"{ready} of {size} processes consume")
        if ready == size and size and not self._announced:
            self._announced = True
            log.info("worker.ready name=%s processes=%d", self._spec.name, ready)
            self._notifier.ready()

    # -- signals ----------------------------------------------------------------------

    def _listen(self) -> None:
        add = self._loop.add_signal_handler
        for number in (signal.SIGTERM, signal.SIGINT):
            add(number, self._stop, f"signal={number.name}")
        add(signal.SIGQUIT, self._stop, "signal=SIGQUIT", Rung.NOW)
        add(signal.SIGHUP, self._on_hangup)
        add(signal.SIGUSR1, self._on_stacks)

    def _on_hangup(self) -> None:
        if self._terminal and not os.isatty(0):  # not asked for: the terminal was closed
            self._stop("signal=SIGHUP")
        elif self._stopping.is_set() or not self._crew.size:
            log.info("worker.restart_ignored signal=SIGHUP: it starts or stops just now")
        elif self._restarting is not None and not self._restarting.done():
            log.info("worker.restart_ignored signal=SIGHUP: one is under way")
        else:
            self._restarting = asyncio.create_task(self._restart(), name="amqtask restart")

    async def _restart(self) -> None:
        log.info(
            "worker.restarting signal=SIGHUP processes=%d: one after the other, each stops once "
            "its successor is ready",
            self._crew.size,
        )
        self._notifier.reloading()
        await self._starter.renew(self._spec)
        # the beat last: what new schedules call, old processes may not know
        replaced = await self._crew.restart() and await self._beat.restart()
        if self._stopping.is_set():
            return
        if replaced:
            log.info("worker.restarted processes=%d", self._crew.size)
        else:
            log.error("worker.restart_failed: a new process did not get ready, the old ones go on")
        self._notifier.ready()

    def _on_stacks(self) -> None:
        for child in self._crew.children():
            if child.silent:
                child.dump()
            else:
                child.say(do="stacks")

    # -- stopping -------------------------------------------------------------------

    def _stop(self, why: str, least: Rung = Rung.WARM, warm: float | None = None) -> None:
        """Go down the ladder, one rung further each time.

        Args:
            why: What the log names as its cause.
            least: The rung it goes to at least.
            warm: Seconds for what runs to finish; None takes what the spec says.
        """
        if self._descent is None:
            spec = self._spec
            ladder = Ladder(
                warm=spec.shutdown_timeout if warm is None else warm, cleanup=spec.cleanup_timeout
            )
            self._descent = Descent(ladder, self._everyone, self._log_rung)
            self._notifier.stopping()
        self._why = why
        self._stopping.set()
        self._crew.close()
        self._beat.stop()
        self._descent.press(least)
        self._why = "reason=timeout"

    def _log_rung(self, rung: Rung) -> None:
        level = logging.INFO if rung is Rung.WARM else logging.WARNING
        log.log(level, "%s %s: %s", _WORDS[rung], self._why, _STEPS[rung])
        self._notifier.status(f"stopping: {rung.name.lower()}")

    def _on_hopeless(self) -> None:
        self._code = 1
        if not self._stopping.is_set():
            self._stop("reason=hopeless")

    def _on_deaf(self, reasons: Sequence[str]) -> None:
        if self._stopping.is_set():
            return
        self._code = DEAF
        log.error(
            "worker.deaf seconds=%g reasons=%s: it ends with exit code %d, to be started again",
            self._deaf_timeout,
            list(reasons) or [self._waiting_for],
            DEAF,
        )
        warm = self._spec.shutdown_timeout
        self._stop("reason=deaf", warm=DEAF_WARM if warm is None else min(warm, DEAF_WARM))


def reap_strangers(ours: set[int]) -> None:
    """Collect what others left behind, where that becomes ours.

    What a killed child had started does so in the first process of a container,
    and in one that adopts. It would stay a zombie for good if nobody waited for it.
    """
    with suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if found.si_pid in ours or found.si_pid == 0:
                return  # its own watch collects it; others have their turn at the next round
            os.waitpid(found.si_pid, os.WNOHANG)
