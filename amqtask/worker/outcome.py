"""What follows from how a run ended: pure decisions, no I/O.

    value --------------------------------------------> Done
    Ignore ------------------------------------------> Ignored
    Reject(requeue=True) ----------------------------> Returned
    Reject ------------------------------------------> Failed("rejected")
    Retry, or an error the policy retries
        |-- retries left ----------------------------> Again
        `-- none left -------------------------------> Failed("retries_exhausted")
    any other error ---------------------------------> Failed("failed")

`amqtask.worker.settle` makes an outcome safe on the broker, then acks.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from amqtask.errors import Ignore, Reject, RetriesExhausted, Retry
from amqtask.message.model import Call
from amqtask.policy.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Done:
    """It ended with a value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Again:
    """It runs again.

    Attributes:
        delay: Seconds from now.
        eta: The same as an instant.
        retries: The next attempt's count; unchanged when it has not run at all yet.
        error: What made it necessary, or None when it only came early.
    """

    delay: float
    eta: datetime
    retries: int
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Failed:
    """It is parked in the dead-letter queue.

    Attributes:
        reason: Short machine word for the dead-letter header.
        traceback: Text, or None when no code of the user's was running.
        revoked: True stores the state REVOKED instead of FAILURE.
    """

    error: BaseException
    reason: str
    traceback: str | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Ignored:
    """It is acked, without an outcome."""


@dataclass(frozen=True, slots=True)
class Returned:
    """It goes back to its queue as a failed delivery."""


Outcome = Done | Again | Failed | Ignored | Returned


def decide(
    error: BaseException,
    call: Call,
    policy: RetryPolicy,
    *,
    now: float,
    random: Callable[[], float],
) -> Outcome:
    """Return what follows from ``error``.

    Args:
        policy: The retry policy in force for this call.
        now: Unix time in seconds.
        random: Source of the jitter, 0 to 1.
    """
    match error:
        case Ignore():
            return Ignored()
        case Reject():
            if error.requeue:
                return Returned()
            return Failed(error, "rejected", describe(error))
        case Retry():
            return _retry(error, call, policy, now=now, random=random)
    if not policy.matches(error):
        return Failed(error, "failed", describe(error))
    if not policy.left(call.retries):
        return Failed(error, "retries_exhausted", describe(error))
    return _again(call, policy.delay(call.retries, random), error, now)


def early(call: Call, now: float) -> Again | None:
    """Return when to run a call that came before its eta; None when it may run now."""
    if call.eta is None:
        return None
    wait = call.eta.timestamp() - now
    if wait <= _EARLY:
        return None
    return Again(wait, call.eta, call.retries, None)


#: Seconds before its eta that a call may start: clocks of two machines differ by as much,
#: and sending it into the delay levels again would make it later, not more exact.
_EARLY = 0.05


def _retry(
    signal: Retry, call: Call, policy: RetryPolicy, *, now: float, random: Callable[[], float]
) -> Outcome:
    limit = signal.max_retries if signal.max_retries is not None else policy.max_retries
    if limit is not None and call.retries >= limit:
        error = signal.exc
        if error is None:
            why = f": {signal.reason}" if signal.reason else ""
            error = RetriesExhausted(
                f"task {call.task!r} (id {call.id}) asked for a retry after its "
                f"{call.retries} retries{why}"
            )
        return Failed(error, "retries_exhausted", describe(signal.exc or signal))
    cause = signal.exc or signal
    if signal.eta is not None:
        delay = max(0.0, signal.eta.timestamp() - now)
    elif signal.countdown is not None:
        delay = max(0.0, signal.countdown)
    else:
        delay = policy.delay(call.retries, random)
    return _again(call, delay, cause, now)


def _again(call: Call, delay: float, error: BaseException, now: float) -> Again:
    return Again(delay, datetime.fromtimestamp(now + delay, UTC), call.retries + 1, error)


def describe(error: BaseException) -> str:
    """Return the traceback's text, from the task's own frame on."""
    return "".join(traceback.format_exception(type(error), error, _own(error.__traceback__)))


def _own(tb: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of the worker itself."""
    first = tb
    while tb is not None and tb.tb_frame.f_globals.get("__name__", "").startswith("amqtask."):
        tb = tb.tb_next
    return tb or first
