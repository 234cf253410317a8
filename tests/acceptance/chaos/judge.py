"""What the ledger, the clients' record and the list of faults prove, or disprove. Pure.

*Lost* is a confirmed call that neither ended nor lies in any queue once the workers are gone: one
that still lies somewhere is late, and has another name. So no deadline decides about a loss.

A *repeat* has to be explained by a fault that could have caused it: one that hit a process which
held the call, while it held it, or the client that sent it, while it sent it, or a broker, while
the call was between two of its queues. And no fault explains more calls than can have been in
flight at it: the prefetch of each connection that it cost. Calls are matched to faults so that as
many as can be are explained (a matching, not a guess), hence what is left over is a proof.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.acceptance.chaos.ledger import Event
from tests.acceptance.chaos.load import LEVELLED, Sent

#: Seconds between a run's end and its acknowledgement, on a loaded machine.
ACK = 10.0
#: Seconds that a call may lie in a worker before it runs: a full prefetch before it.
HOLD = 20.0
#: Reasons for which a call may be parked that would not have failed by itself.
CRASHED = frozenset({"worker_lost", "delivery_limit"})


@dataclass(slots=True)
class Harm:
    """What a fault did, as far as repeats may come of it.

    Attributes:
        fault: Its name.
        begin: `time.monotonic` just before it.
        end: The same once all was as before.
        children: Pids of the worker processes that lost deliveries.
        room: Calls that may have been in flight there.
        client: Whether clients lost confirms.
        levels: Calls that may have been between two queues of a broker that died.
        boot: Whether all nodes booted at once. Then, for a moment, RabbitMQ hands on what is
            delayed before it knows its bindings again, and it ends in the lost queue.
    """

    fault: str
    begin: float
    end: float = 0.0
    children: frozenset[int] = frozenset()
    room: int = 0
    client: bool = False
    levels: int = 0
    boot: bool = False


@dataclass(slots=True)
class Run:
    """One run of a task's code.

    Attributes:
        child: The worker process that held the delivery.
        end: None when it was cut off.
        word: How it ended, ``""`` when it was cut off.
    """

    id: str
    attempt: int
    kind: str
    child: int
    begin: float
    end: float | None = None
    word: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """One message of a dead-letter queue."""

    id: str
    reason: str


@dataclass(slots=True)
class Evidence:
    """All that the judge knows.

    Attributes:
        sent: What clients asked for, by id.
        runs: By the call's id.
        parked: What lay in dead-letter queues at the end.
        left: Ids in any other queue at the end, with the queue's name.
        harms: In the order of their begin.
        lossy: Kinds of which a fault destroyed messages: their loss proves nothing.
        strand: Name of the queue that keeps delayed messages that no queue took.
        crash_limit: Crashes after which a call may be parked.
    """

    sent: Mapping[str, Sent]
    runs: Mapping[str, Sequence[Run]]
    parked: Sequence[Parked] = ()
    left: Mapping[str, str] = field(default_factory=dict)
    harms: Sequence[Harm] = ()
    lossy: Collection[str] = ()
    strand: str = ""
    crash_limit: int = 3


@dataclass(slots=True)
class Verdict:
    """What came of it.

    Attributes:
        violations: A line each; none is what is asked for.
        repeated: Calls of which some attempt ran more than once.
        by_fault: How many of them each fault explains.
        room: How many could have been in flight at all faults together.
        parked_crashes: Calls that were parked for their crashes, rightly.
        stranded: Calls kept in the lost queue of the delay levels, since a boot of all nodes.
    """

    violations: list[str] = field(default_factory=list)
    repeated: int = 0
    by_fault: Counter[str] = field(default_factory=Counter)
    room: int = 0
    parked_crashes: int = 0
    stranded: int = 0


class Runs:
    """Makes runs of the ledger's events, as they come in.

    Attributes:
        by_id: The runs of each call, in the order they were read.
        latest: When each worker process last began something.
        latest_of: When anything of each kind last began.
        settled: Ids of calls that are over, but for expendable ones.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, list[Run]] = defaultdict(list)
        self.latest: dict[int, float] = {}
        self.latest_of: dict[str, float] = {}
        self.settled: set[str] = set()
        self._open: dict[str, Run] = {}
        self.count = 0

    def add(self, event: Event, supervisors: Collection[int]) -> None:
        """Add one event.

        Args:
            supervisors: Pids of the supervisors there have been: what they started holds
                deliveries itself, anything else is a runner and its parent holds them.
        """
        if event.word == "begun":
            held = event.ppid in supervisors or event.ppid <= 1  # 1: the supervisor was killed
            child = event.pid if held else event.ppid
            run = Run(event.id, event.attempt, event.kind, child, event.at)
            self._open[event.run] = run
            self.by_id[event.id].append(run)
            self.count += 1
            self.latest[child] = max(event.at, self.latest.get(child, 0.0))
            self.latest_of[event.kind] = max(event.at, self.latest_of.get(event.kind, 0.0))
            return
        run = self._open.pop(event.run)
        run.end, run.word = event.at, event.word
        if event.word != "again" and event.kind != "expendable":
            self.settled.add(event.id)


def judge(evidence: Evidence) -> Verdict:
    """Return what the evidence proves."""
    verdict = Verdict(room=sum(harm.room + harm.levels for harm in evidence.harms))
    _losses(evidence, verdict)
    _dead_letters(evidence, verdict)
    _repeats(evidence, verdict)
    return verdict


# -- nothing is lost -----------------------------------------------------------


def _losses(evidence: Evidence, verdict: Verdict) -> None:
    parked = {each.id for each in evidence.parked}
    for sent in evidence.sent.values():
        if sent.confirmed is None or sent.kind in evidence.lossy:
            continue
        words = {run.word for run in evidence.runs.get(sent.id, ())}
        wanted = "failed" if sent.kind == "failing" else "done"
        if wanted in words and (sent.kind != "failing" or sent.id in parked):
            continue
        if sent.id in parked and sent.kind != "failing":
            continue  # whether it should be there is asked below
        where = evidence.left.get(sent.id)
        if where == evidence.strand and any(
            harm.boot and sent.begun <= harm.end for harm in evidence.harms
        ):
            verdict.stranded += 1
            continue
        text = f"{sent.kind} {sent.id}, confirmed at {sent.confirmed:.2f}: "
        text += f"still in queue {where!r}" if where else "in no queue, and did not end"
        ran = [_shown(run) for run in evidence.runs.get(sent.id, ())]
        word = "late" if where else "lost"
        verdict.violations.append(f"{word}: {text}; runs: {', '.join(ran) or 'none'}")


def _dead_letters(evidence: Evidence, verdict: Verdict) -> None:
    """See that what is parked should be: it fails for good, or crashed often enough."""
    for parked in evidence.parked:
        sent = evidence.sent.get(parked.id)
        if sent is not None and sent.kind == "failing" and parked.reason not in CRASHED:
            continue
        runs = evidence.runs.get(parked.id, ())
        crashes = sum(run.end is None for run in runs)
        if parked.reason in CRASHED and crashes >= evidence.crash_limit:
            verdict.parked_crashes += 1
            continue
        kind = sent.kind if sent is not None else "unknown"
        verdict.violations.append(
            f"parked: {kind} {parked.id}, reason {parked.reason!r}, after {crashes} crashes; "
            f"runs: {', '.join(map(_shown, runs)) or 'none'}"
        )


# -- repeats are explained ---------------------------------------------------------


def _repeats(evidence: Evidence, verdict: Verdict) -> None:
    matching = _Matching(evidence.harms)
    for call, runs in evidence.runs.items():
        again = _first_repeat(runs)
        if again is None:
            continue
        verdict.repeated += 1
        sent = evidence.sent.get(call)
        could = [harm for harm in evidence.harms if _explains(harm, runs, again, sent)]
        if sent is not None and any(_client_explains(harm, sent) for harm in evidence.harms):
            verdict.by_fault["(client)"] += 1
        elif not matching.add(call, could):
            why = (
                f"the faults that could have caused it ({_names(could)}) explain others"
                if could
                else "no fault explains it"
            )
            shown = ", ".join(map(_shown, runs))
            verdict.violations.append(f"repeated: {runs[0].kind} {call}: {why}; runs: {shown}")
    verdict.by_fault.update(matching.counts())


def _first_repeat(runs: Sequence[Run]) -> int | None:
    """Return the first attempt that ran more than once."""
    times = Counter(run.attempt for run in runs)
    return min((attempt for attempt, count in times.items() if count > 1), default=None)


def _explains(harm: Harm, runs: Sequence[Run], again: int, sent: Sent | None) -> bool:
    """Whether a fault can have caused the repeat of attempt ``again``.

    Either it took that attempt's delivery from the process that ran it, or it
    left in doubt whether the attempt before it had published its successor.
    """
    second = sorted(run.begin for run in runs if run.attempt == again)[1]
    if harm.begin > second:
        return False
    for run in runs:
        if run.attempt not in (again, again - 1) or run.child not in harm.children:
            continue
        over = second if run.end is None else run.end
        if run.begin <= harm.end + HOLD and over + ACK >= harm.begin:
            return True
    levelled = sent is None or sent.kind in LEVELLED
    since = sent.begun if sent is not None else 0.0
    return bool(harm.levels) and levelled and since <= harm.end


def _client_explains(harm: Harm, sent: Sent) -> bool:
    """Whether its confirm may have been lost, so that it was published twice."""
    until = sent.confirmed if sent.confirmed is not None else harm.end
    return harm.client and sent.begun <= harm.end and until >= harm.begin


class _Matching:
    """Gives each repeated call to one fault that has room for it, moving others if need be."""

    def __init__(self, harms: Iterable[Harm]) -> None:
        self._room = {id(harm): harm.room + harm.levels for harm in harms}
        self._given: dict[int, list[str]] = defaultdict(list)
        self._could: dict[str, list[Harm]] = {}
        self._names = {id(harm): harm.fault for harm in harms}

    def add(self, call: str, could: list[Harm]) -> bool:
        self._could[call] = could
        return self._place(call, set())

    def counts(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for key, calls in self._given.items():
            found[self._names[key]] += len(calls)
        return found

    def _place(self, call: str, tried: set[int]) -> bool:
        for harm in self._could[call]:
            key = id(harm)
            if key in tried:
                continue
            tried.add(key)
            given = self._given[key]
            if len(given) < self._room[key]:
                given.append(call)
                return True
            for other in list(given):
                if self._place(other, tried):
                    given[given.index(other)] = call
                    return True
        return False


def _names(harms: Iterable[Harm]) -> str:
    return ", ".join(harm.fault for harm in harms)


def _shown(run: Run) -> str:
    end = "cut off" if run.end is None else f"{run.word} {run.end:.2f}"
    return f"attempt {run.attempt} in {run.child} from {run.begin:.2f} to {end}"
