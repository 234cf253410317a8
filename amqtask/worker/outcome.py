"""What follows from how a run ended: pure decisions, no I/O.

    value --------------------------------------------> Done
    Ignore ------------------------------------------> Ignored
    Replace -----------------------------------------> Replaced
    Reject(requeue=True) ----------------------------> Returned
    Reject ------------------------------------------> Failed("rejected")
    Retry, or an error the policy retries
        |-- retries left ----------------------------> Again
        `-- none left -------------------------------> Failed("retries_exhausted")
    a time limit, which the policy does not retry ---> Failed("timeout")
    any other error ---------------------------------> Failed("failed")
    its process died
        |-- fewer crashes than the limit ------------> Again
        `-- as many ---------------------------------> Failed("worker_lost")

What the task was asked to do goes before how it ended, see `judged`.
`amqtask.worker.settle` makes an outcome safe on the broker, then acks.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Any

from amqtask.errors import (
    Ignore,
    Reject,
    Replace,
    RetriesExhausted,
    Retry,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLost,
)
from amqtask.message.model import Call
from amqtask.policy.retry import RETRY_HEADER, RetryPolicy
from amqtask.task import Task


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
        crashes: How often its process has died under this attempt.
    """

    delay: float
    eta: datetime
    retries: int
    error: BaseException | None
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """It is parked in the dead-letter queue.

    Attributes:
        reason: Short machine word for the dead-letter header.
        traceback: Text, or None when no code of the user's was running.
        revoked: True stores the state REVOKED instead of FAILURE.
        details: More headers of ours for the dead letter.
    """

    error: BaseException
    reason: str
    traceback: str | None = None
    revoked: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ignored:
    """It is acked, without an outcome."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """It is acked, and a signature runs in its place.

    Attributes:
        signature: In JSON form, with all ids.
    """

    signature: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Returned:
    """It goes back to its queue as a failed delivery."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """It goes back to its queue, not as a failure: this worker stops."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """It was cancelled: it is acked, and the state REVOKED stored.

    Attributes:
        why: Goes into the exception that a caller gets.
    """

    why: str


Outcome = Done | Again | Failed | Ignored | Replaced | Returned | GivenBack | Revoked


class Verdict(Enum):
    """Why a running task was asked to end."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    STOPPING = "stopping"


def judged(outcome: Outcome, verdict: Verdict | None) -> Outcome:
    """Return what follows when a task that was asked to end has ended with ``outcome``.

    A time limit is not undone by a task that ends all the same: `TimeLimitExceeded`
    has been its end before. See the executor, which has the call at hand.
    """
    if verdict is Verdict.CANCELLED and not isinstance(outcome, Done | Ignored):
        return Revoked("cancelled")
    if (
        verdict is Verdict.STOPPING
        and isinstance(outcome, Failed)
        and outcome.reason in ("failed", "timeout", "retries_exhausted")
    ):
        return GivenBack()
    return outcome


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
        case Replace():
            return Replaced(error.signature)
        case Reject():
            if error.requeue:
                return Returned()
            return Failed(error, "rejected", describe(error))
        case Retry():
            return _retry(error, call, policy, now=now, random=random)
    if not policy.matches(error):
        limit = isinstance(error, SoftTimeLimitExceeded | TimeLimitExceeded)
        return Failed(error, "timeout" if limit else "failed", describe(error))
    if not policy.left(call.retries):
        return Failed(error, "retries_exhausted", describe(error))
    return _again(call, policy.delay(call.retries, random), error, now)


def conclude(
    error: BaseException,
    call: Call,
    policy: RetryPolicy,
    soft: float,
    now: float,
    random: Callable[[], float],
) -> Outcome:
    """Return what follows from ``error``, whatever it holds; see `decide`.

    Args:
        soft: Seconds of the call's soft time limit, for the text of an error that has none.
    """
    error = _single_limit(error)
    if isinstance(error, SoftTimeLimitExceeded) and not str(error):
        # raised from outside, where nothing but the class can be given
        error.args = (f"task {call.task!r} (id {call.id}) ran over its soft limit of {soft:g} s",)
    try:
        return decide(error, call, policy, now=now, random=random)
    except Exception as wrong:  # such as a retry with a countdown that is no number
        return Failed(wrong, "failed", describe(wrong))


def policy_of(task: Task[..., object], call: Call) -> RetryPolicy:
    """Return the retry policy in force: the call's own, else its task's.

    Raises:
        MalformedMessage: The call's own is none.
    """
    if call.headers and RETRY_HEADER in call.headers:
        return RetryPolicy.from_header(call.headers[RETRY_HEADER])
    return task.retry_policy


def _single_limit(error: BaseException) -> BaseException:
    """Take a soft limit out of the group that a TaskGroup makes of it."""
    inner = error
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        (inner,) = inner.exceptions
    return inner if isinstance(inner, SoftTimeLimitExceeded) else error


#: Seconds before a call runs again after the first death of its process; doubled each time.
CRASH_BACKOFF = 1.0
#: The most that grows to.
CRASH_BACKOFF_CAP = 60.0


def crashed(error: WorkerLost, call: Call, crashes: int, limit: int, *, now: float) -> Outcome:
    """Return what follows when the process that ran a call has died under it.

    Args:
        crashes: How often that has happened, this time included.
        limit: Crashes after which it is parked.
        now: Unix time in seconds.
    """
    if crashes >= limit:
        known = {
            "amqtask-crashes": crashes,
            "amqtask-signal": error.signal,
            "amqtask-exit-code": error.exit_code,
            "amqtask-peak-memory": error.peak_memory,
            "amqtask-runtime": None if error.runtime is None else f"{error.runtime:.3f}",
        }
        details = {name: value for name, value in known.items() if value is not None}
        return Failed(error, "worker_lost", details=details)
    delay = min(CRASH_BACKOFF_CAP, CRASH_BACKOFF * 2.0 ** (crashes - 1))
    return Again(
        delay, datetime.fromtimestamp(now + delay, UTC), call.retries, error, crashes=crashes
    )


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
