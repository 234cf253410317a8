"""What a beat has done: counted, and said in the log."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from amqtask.beat.agenda import Tick
from amqtask.beat.firing import Outcome
from amqtask.beat.plan import Fire, Mark
from amqtask.clock import wall
from amqtask.errors import AmqtaskError
from amqtask.transport.backoff import Repeats

log = logging.getLogger(__name__)

#: Seconds until a fire that could not be sent is tried again.
AGAIN = 2.0
_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class Tally:
    """What a beat has done, over all its terms.

    Attributes:
        counts: Fires by what became of them: ``due``, ``caught_up``, ``run_now`` were sent;
            ``missed``, ``skipped`` and ``failed`` were not, ``late`` were tried again.
        drift: Seconds between an instant and the broker's confirm, of the last fire that was due.
        most_drift: The most of these.
        most_tick: Seconds of processor time that the longest tick took, sending included.
    """

    counts: Counter[str] = field(default_factory=Counter)
    drift: float = 0.0
    most_drift: float = 0.0
    most_tick: float = 0.0
    _repeats: Repeats = field(default_factory=Repeats)

    def sent(self, fire: Fire, now: datetime) -> float:
        """Note that a fire was confirmed at ``now``; returns its drift."""
        self.counts[fire.reason] += 1
        drift = (now - fire.at).total_seconds()
        if fire.reason == "due":
            self.drift = drift
            self.most_drift = max(self.most_drift, drift)
        return drift

    def tell(self, tick: Tick) -> None:
        """Count and log what a tick decided besides its fires."""
        for missed in tick.missed:
            self.counts["missed"] += missed.count
            log.warning(
                "beat.missed entry=%r count=%d first=%s before=%s: nobody fired then, and its "
                "catch_up=%s leaves it at that",
                missed.entry.name,
                missed.count,
                missed.first.isoformat(),
                missed.before.isoformat(),
                missed.entry.catch_up,
            )
        for name in tick.ended:
            log.info("beat.ended entry=%r: it has no instant any more", name)
        for entry, error in tick.failed:
            log.error(
                "beat.schedule_failed entry=%r error=%r: it is asked again in a minute",
                entry.name,
                str(error),
            )

    def tell_outcome(self, outcome: Outcome) -> None:
        """Count and log what became of fires."""
        now = utcnow()
        for fire in outcome.sent:
            drift = self.sent(fire, now)
            log.info(
                "beat.fired entry=%r task=%s id=%s instant=%s drift=%.3f reason=%s",
                fire.entry.name,
                fire.entry.task,
                fire.id,
                fire.instant.isoformat(),
                drift,
                fire.reason,
            )
        for fire in outcome.skipped:
            self.counts["skipped"] += 1
            log.info(
                "beat.skipped entry=%r instant=%s: call %s has not ended",
                fire.entry.name,
                fire.instant.isoformat(),
                fire.previous,
            )
        for fire, error in outcome.failed:
            self.counts["failed"] += 1
            self._say_failed(fire, error)
        for fire, error in outcome.late:
            self.counts["late"] += 1
            said = self._repeats.due(f"{fire.entry.name} {error}", time.monotonic())
            log.log(
                logging.WARNING if said else logging.DEBUG,
                "beat.late entry=%r instant=%s error=%r: trying again in %g s",
                fire.entry.name,
                fire.instant.isoformat(),
                str(error),
                AGAIN,
            )

    @staticmethod
    def _say_failed(fire: Fire, error: AmqtaskError) -> None:
        log.error(
            "beat.failed entry=%r instant=%s error=%r: this instant is not fired%s",
            fire.entry.name,
            fire.instant.isoformat(),
            str(error),
            f"\n{error.hint}" if error.hint else "",
        )


def utcnow() -> datetime:
    """Return the time of day, as schedules read it."""
    return datetime.fromtimestamp(wall(), UTC)


def settled(
    before: Mark | None, after: Mark, fires: Sequence[Fire], sent: set[str], late: set[str]
) -> Mark:
    """Return an entry's mark by what became of its fires.

    Args:
        before: As it was; None for a new entry.
        after: As it would be had all been sent.
        fires: Of this entry, in order.
        sent: Ids of those that were.
        late: Ids of those that are to be decided again.
    """
    fired = None if before is None else before.fired
    count = 0 if before is None else before.fires
    for fire in fires:
        if fire.id in late:
            return replace(after, at=fire.instant - _MICROSECOND, fired=fired, fires=count)
        if fire.id in sent:
            fired, count = fire.instant, count + 1
    return replace(after, fired=fired, fires=count)
