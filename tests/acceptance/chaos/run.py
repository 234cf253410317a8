"""The three runs: faults at random, rolling restarts, and an hour of reconnecting.

starting --every child has run something--> running --time is up--> draining
    draining --all settled, or nothing moves any more--> stopping --> judged
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from amqtask import App
from tests.acceptance.chaos.faults import CATALOGUE, HELD, Fault
from tests.acceptance.chaos.growth import WARM_UP, Growth, growths, too_much, write_samples
from tests.acceptance.chaos.judge import Evidence, Harm, Verdict, judge
from tests.acceptance.chaos.load import SHARES, Load
from tests.acceptance.chaos.site import (
    CONCURRENCY,
    CONNECT_TIMEOUT,
    HEARTBEAT,
    PREFETCH,
    STOPPED,
    Brokers,
    Site,
    site,
)
from tests.cluster import RESEND
from tests.proxy import Proxy

#: Longest back-off of a link, in seconds.
BACKOFF = 5.0
#: Seconds from the broker's return until every worker process has run something again: two
#: heartbeats to see what is lost, a connection attempt that began too soon, the back-off, and
#: three quarters of a minute for a machine that has better things to do: who is deaf stays so.
RECOVERY = 2 * HEARTBEAT + CONNECT_TIMEOUT + BACKOFF + 45.0
#: Seconds for the first start of everything, and for a worker that starts again.
START = 120.0
#: Seconds without any event after which what is not settled will not be.
QUIET = 60.0
#: Seconds that RabbitMQ takes at most to hand on a dead letter again, and some more.
BETWEEN_QUEUES = RESEND * 2 + 60.0
#: Calls a second of the rolling restarts at most; fewer when they would be over in 25 seconds.
ROLLING_RATE = 1000.0
#: Seconds between two cuts of a soak.
CUT_EVERY = 30.0
#: Memory that a process may grow by in a run of faults: per cent, and bytes in any case.
GROWTH, SLACK = 15.0, 12 * 2**20
#: The same for a soak.
SOAK_GROWTH, SOAK_SLACK = 2.0, 0

Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        title: One line about what was run.
        violations: What must not be.
        facts: What was seen, a line each.
        folder: Ledger and logs.
        growths: Of the processes that lived to the end.
    """

    title: str
    folder: Path
    violations: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)


# -- faults at random -----------------------------------------------------------


def storm(at: Brokers, seconds: float, seed: int, only: Collection[str], say: Say) -> Outcome:
    """Do one fault after the other under load.

    Args:
        only: Names of the faults; none means all that can be done here.
    """
    rng = random.Random(seed)
    harms: list[Harm] = []
    done: list[str] = []
    recoveries: list[float] = []
    lossy: set[str] = set()
    with _running(at, "faults", seed, say, prefetch=PREFETCH, concurrency=CONCURRENCY) as stage:
        where, outcome = stage.site, stage.outcome
        begun = time.monotonic()
        for fault in _deck(where, rng, only):
            if time.monotonic() - begun > seconds or outcome.violations:
                break
            if not fault.can(where):
                continue
            since = time.monotonic()
            try:
                harm = fault.act(where, rng)
                if fault.name.startswith(("node.", "broker.")):
                    where.await_broker()
                took = _recovered(where, fault)
            except (AssertionError, psutil.Error) as error:
                outcome.violations.append(f"{fault.name}: {error}")
                harms.append(Harm(fault.name, since, time.monotonic()))
                break
            now = time.monotonic()
            if harm is not None:
                harm.begin, harm.end = since, now
                harms.append(harm)
            if fault.lossy:
                lossy.add("expendable")
            done.append(fault.name)
            recoveries.append(took)
            say(f"{fault.name}: {now - since - took:.1f} s, all work again {took:.1f} s later")
            time.sleep(rng.uniform(0.5, 2.0))
        stage.finish(harms, lossy)
        outcome.title = f"{len(done)} faults of {len(set(done))} kinds in {seconds:.0f} s"
        if recoveries:
            outcome.facts.append(
                f"working again after {sorted(recoveries)[len(recoveries) // 2]:.1f} s in the "
                f"median, {max(recoveries):.1f} s at most; {RECOVERY:.0f} s are allowed"
            )
        for growth in outcome.growths:
            outcome.violations += too_much(growth, GROWTH, SLACK)
    return outcome


def _deck(where: Site, rng: random.Random, only: Collection[str]) -> Iterator[Fault]:
    """Yield faults without end: all of them in some order, then all in another."""
    names = [name for name in CATALOGUE if name in only] if only else list(CATALOGUE)
    while True:
        rng.shuffle(names)
        any_ = False
        for name in names:
            any_ |= CATALOGUE[name].can(where)
            yield CATALOGUE[name]
        assert any_, f"none of these faults can be done here: {', '.join(names)}"


def _recovered(where: Site, fault: Fault) -> float:
    """Wait until every worker process has run something since now; return the seconds."""
    since = time.monotonic()
    # a worker that starts anew has Python to start first
    allowed = START if fault.name.startswith(("worker.", "supervisor.", "child.")) else RECOVERY
    while True:
        silent = where.silent(since)
        if fault.lossy and where.runs.latest_of.get("expendable", 0.0) <= since:
            silent.append("the queue that was deleted")
        took = time.monotonic() - since
        if not silent:
            return took
        assert took < allowed, f"deaf after {took:.1f} s: {', '.join(silent)}"
        time.sleep(0.1)


# -- rolling restarts -------------------------------------------------------------


def rolling(at: Brokers, total: int, seed: int, say: Say) -> Outcome:
    """Stop and start workers with SIGTERM, one after the other, until all calls are settled."""
    shares = {**SHARES, "slow": 1, "large": 1, "failing": 1, "expendable": 0}
    restarts = 0
    with _running(
        at,
        "rolling",
        seed,
        say,
        prefetch=None,
        concurrency=16,
        shares=shares,
        rate=min(ROLLING_RATE, total / 25),
        limit=3000,
        batch=100,
        longest=0.4,
        total=total,
    ) as stage:
        where, outcome = stage.site, stage.outcome
        begun = told = time.monotonic()
        while where.settled() < total and not outcome.violations:
            worker = where.workers[restarts % len(where.workers)]
            code = worker.stop()
            if code:
                outcome.violations.append(f"{worker.name} ended with {code}:\n{worker.tail()}")
            worker.start()
            restarts += 1
            # as a deploy does: the next one goes when this one says that it is ready
            since = time.monotonic()
            while worker.readies < len(worker.supervisors):
                if time.monotonic() - since > START:
                    outcome.violations.append(f"{worker.name} is not ready:\n{worker.tail()}")
                    break
                time.sleep(0.05)
            if stage.quiet():
                outcome.violations.append(f"nothing ran or ended for {QUIET:.0f} s")
            if time.monotonic() - told > 15:
                told = time.monotonic()
                say(f"rolling: {where.settled():,} of {total:,} after {restarts} restarts")
        took = time.monotonic() - begun
        stage.finish([], ())
        outcome.title = (
            f"{where.settled():,} of {total:,} calls through {restarts} restarts in {took:.0f} s"
        )
    return outcome


# -- soak ---------------------------------------------------------------------------


def soak(at: Brokers, seconds: float, seed: int, say: Say) -> Outcome:
    """Reset all connections every half minute, and see that no process grows."""
    harms: list[Harm] = []
    with _running(at, "soak", seed, say, prefetch=PREFETCH, concurrency=CONCURRENCY) as stage:
        where, outcome = stage.site, stage.outcome
        begun = time.monotonic()
        cuts = 0
        while (spent := time.monotonic() - begun) < seconds and not outcome.violations:
            time.sleep(min(CUT_EVERY, seconds - spent))
            since = time.monotonic()
            pids = frozenset(child.pid for worker in where.workers for child in worker.children)
            for link in (*where.links, where.client):
                link.each(Proxy.cut)
            cuts += 1
            try:
                took = _recovered(where, CATALOGUE["link.cut"])
            except AssertionError as error:
                outcome.violations.append(f"soak: {error}")
            else:
                now = time.monotonic()
                room = HELD * len(pids)
                harms.append(Harm("soak.cut", since, now, children=pids, room=room, client=True))
                if cuts % 10 == 0:
                    say(f"soak: {cuts} cuts, {spent:.0f} s; the last one was over in {took:.1f} s")
        stage.finish(harms, (), max(WARM_UP, seconds / 10))
        outcome.title = f"{seconds:.0f} s with {cuts} cuts of every connection"
        for growth in outcome.growths:
            outcome.violations += too_much(growth, SOAK_GROWTH, SOAK_SLACK)
    return outcome


# -- what they share ------------------------------------------------------------------


class _Stage:
    """A site under load, and the way to its end."""

    def __init__(self, where: Site, app: App, load: Load, outcome: Outcome, say: Say) -> None:
        self.site = where
        self.outcome = outcome
        self._app = app
        self._load = load
        self._say = say
        self._count = (0, time.monotonic())

    def quiet(self) -> bool:
        """Whether nothing has begun or ended for a while."""
        seen, since = self._count
        now = self.site.runs.count + self.site.settled()
        if now != seen:
            self._count = (now, time.monotonic())
            return False
        return time.monotonic() - since > QUIET

    def finish(self, harms: list[Harm], lossy: Collection[str], warm_up: float = WARM_UP) -> None:
        """Drain, stop and judge."""
        where, outcome = self.site, self.outcome
        self._load.stop()
        self._drain(lossy)
        time.sleep(2.0)  # for a look at processes that have nothing to do
        outcome.growths = growths(where.workers, warm_up)
        write_samples(where.workers, where.folder / "samples.csv")
        outcome.violations += self._stop()
        self._app.close()
        where.read()
        try:
            where.await_broker()
        except AssertionError as error:  # the faults that were found say why
            outcome.violations.append(f"not judged: {error}")
            return
        parked, left = where.empty()
        evidence = Evidence(
            dict(self._load.sent), where.runs.by_id, parked, left, harms, lossy, where.strand
        )
        verdict = judge(evidence)
        outcome.violations += [*verdict.violations, *where.trouble]
        outcome.facts += _facts(self._load, where, verdict, len(parked))

    def _drain(self, lossy: Collection[str]) -> None:
        promised = {each.id for each in self._load.promised if each.kind != "expendable"}
        self._count = (0, time.monotonic())
        while promised - self.site.runs.settled and not self.quiet():
            time.sleep(0.2)
        until = time.monotonic() + BETWEEN_QUEUES
        moved = False
        while promised - self.site.runs.settled and (count := self.site.between()):
            if time.monotonic() > until:
                if moved:
                    break
                held, moved, until = self.site.move(), True, time.monotonic() + BETWEEN_QUEUES
                self.outcome.facts.append(
                    f"RabbitMQ had {count} messages between two queues for {BETWEEN_QUEUES:.0f} s, "
                    f"until their leaders were moved: {held}"
                )
            self._say(f"{count} messages are between two queues of the broker, which tries again")
            time.sleep(10.0)

    def _stop(self) -> list[str]:
        found = []
        for worker in self.site.workers:
            try:
                code = worker.stop()
            except Exception as error:
                found.append(f"{worker.name} did not end on SIGTERM: {error}")
                continue
            if code:
                found.append(f"{worker.name} ended with {code} on SIGTERM")
        members = [member for worker in self.site.workers for member in worker.alive()]
        _, alive = psutil.wait_procs([member.process for member in members], timeout=STOPPED)
        return found + [f"orphaned at the end: {process}" for process in alive]


def _facts(load: Load, where: Site, verdict: Verdict, parked: int) -> list[str]:
    counts = load.counts
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())
    explained = ", ".join(f"{name} {count}" for name, count in verdict.by_fault.most_common())
    repeats = (
        f"{verdict.repeated:,} calls ran some attempt twice, of {verdict.room:,} that may have"
    )
    repeats += f" been in flight at faults{': ' + explained if explained else ''}"
    lines = [
        f"{counts.total():,} calls confirmed ({kinds}), {len(load.sent) - counts.total():,} unsure"
    ]
    lines += [f"unsure: {count} times {error}" for error, count in load.errors.most_common(5)]
    lines.append(
        f"{where.runs.count:,} runs in the ledger, {parked:,} messages parked, "
        f"{verdict.parked_crashes} of them for their crashes"
    )
    if verdict.stranded:
        lines.append(f"{verdict.stranded} calls kept in {where.strand!r} since all nodes booted")
    lines.append(repeats)
    return lines


@contextmanager
def _running(
    at: Brokers,
    name: str,
    seed: int,
    say: Say,
    *,
    prefetch: int | None,
    concurrency: int,
    shares: Mapping[str, int] = SHARES,
    rate: float = 80.0,
    limit: int = 400,
    batch: int = 16,
    longest: float = 2.0,
    total: int | None = None,
) -> Iterator[_Stage]:
    """Give a site whose workers run what a load sends."""
    kinds = {kind: share for kind, share in shares.items() if share}
    with site(at, name, workers=2, concurrency=concurrency, prefetch=prefetch) as where:
        outcome = Outcome(name, where.folder)
        handler = logging.FileHandler(where.folder / "clients.log")
        logging.getLogger("amqtask").addHandler(handler)
        where.start()
        app = where.app()
        load = Load(
            app,
            kinds,
            rate=rate,
            seed=seed,
            settled=where.settled,
            expendable=where.expendable,
            limit=limit,
            batch=batch,
            longest=longest,
            total=total,
        )
        load.start()
        since = time.monotonic()
        while where.silent(since):
            assert time.monotonic() - since < START, (
                f"the workers did not start:\n{where.workers[0].tail()}"
            )
            time.sleep(0.1)
        say(f"{name}: {len(where.workers)} workers run what {len(kinds)} kinds of calls ask for")
        try:
            yield _Stage(where, app, load, outcome, say)
        finally:
            load.stop()
            app.close()
            logging.getLogger("amqtask").removeHandler(handler)
            handler.close()
