"""The table of what follows from how a run ended, every branch of it."""

from __future__ import annotations

import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask import (
    Ignore,
    Reject,
    RetriesExhausted,
    Retry,
    RetryPolicy,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLost,
)
from amqtask.message.model import Call
from amqtask.worker.outcome import (
    Again,
    Done,
    Failed,
    GivenBack,
    Ignored,
    Outcome,
    Returned,
    Revoked,
    Verdict,
    conclude,
    crashed,
    decide,
    describe,
    early,
    judged,
)

NOW = 1_800_000_000.0
CALL = Call("t.task", "A")
POLICY = RetryPolicy(max_retries=3, on=(OSError,), not_on=(FileNotFoundError,), backoff=10)


def after(
    error: BaseException, *, retries: int = 0, policy: RetryPolicy = POLICY, random: float = 1.0
) -> Outcome:
    call = replace(CALL, retries=retries)
    return decide(error, call, policy, now=NOW, random=lambda: random)


def in_seconds(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds)


def test_ignore():
    """Ignore means no outcome, whatever the policy says."""
    assert after(Ignore()) == Ignored()


def test_reject_with_requeue():
    """It goes back as a failed delivery."""
    assert after(Reject("busy", requeue=True)) == Returned()


def test_reject():
    """It is parked under a reason of its own."""
    error = Reject("not ours")
    assert after(error) == Failed(error, "rejected", "amqtask.errors.Reject: not ours\n")


@pytest.mark.parametrize(("retries", "delay"), [(0, 10.0), (1, 20.0), (2, 40.0)])
def test_an_error_of_the_policy_is_retried(retries, delay):
    """With the policy's back-off, and one retry more."""
    error = OSError("down")
    assert after(error, retries=retries) == Again(delay, in_seconds(delay), retries + 1, error)


def test_jitter_is_taken_off():
    """The random part shortens the pause by up to half."""
    again = after(OSError(), random=0.0)
    assert isinstance(again, Again)
    assert again.delay == 5.0


def test_no_retry_is_left():
    """The error itself is the outcome."""
    error = OSError("down")
    failed = after(error, retries=3)
    assert failed == Failed(error, "retries_exhausted", "OSError: down\n")


def test_without_a_limit_there_is_always_a_retry():
    """max_retries=None never gives up."""
    again = after(OSError(), retries=10_000, policy=RetryPolicy(max_retries=None, on=(OSError,)))
    assert isinstance(again, Again)
    assert again.retries == 10_001


@pytest.mark.parametrize(
    "error", [ValueError("no"), FileNotFoundError("no"), SystemExit(1), KeyboardInterrupt()]
)
def test_any_other_error_is_final(error):
    """Errors outside the policy, and those it excludes, end at once."""
    failed = after(error)
    assert isinstance(failed, Failed)
    assert (failed.error, failed.reason, failed.revoked) == (error, "failed", False)


@pytest.mark.parametrize(
    ("signal", "delay"),
    [
        (Retry(), 10.0),
        (Retry(countdown=3), 3.0),
        (Retry(countdown=0), 0.0),
        (Retry(countdown=-5), 0.0),
        (Retry(eta=in_seconds(7)), 7.0),
        (Retry(eta=in_seconds(-7)), 0.0),
        (Retry(eta=in_seconds(7), countdown=3), 7.0),
    ],
)
def test_retry_on_request(signal, delay):
    """An eta wins over a countdown, that over the policy; what is past is now."""
    assert after(signal) == Again(delay, in_seconds(delay), 1, signal)


def test_retry_on_request_needs_no_match():
    """A task that asks for a retry gets it under a policy that retries nothing by itself."""
    assert isinstance(after(Retry(), policy=RetryPolicy()), Again)


def test_retry_names_its_cause():
    """The error it was given is what the caller sees meanwhile."""
    cause = ValueError("busy")
    again = after(Retry(exc=cause))
    assert isinstance(again, Again)
    assert again.error is cause


def test_retry_overrides_the_limit():
    """max_retries of the signal counts, not the policy's, in both directions."""
    assert isinstance(after(Retry(max_retries=5), retries=4), Again)
    assert isinstance(after(Retry(max_retries=0)), Failed)
    unlimited = RetryPolicy(max_retries=None)
    assert isinstance(after(Retry(), retries=99, policy=unlimited), Again)
    assert isinstance(after(Retry(max_retries=5), retries=5, policy=unlimited), Failed)


def test_retry_exhausted_with_a_cause():
    """The cause becomes the outcome."""
    cause = ValueError("busy")
    assert after(Retry(exc=cause), retries=3) == Failed(
        cause, "retries_exhausted", "ValueError: busy\n"
    )


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("", "task 't.task' (id A) asked for a retry after its 3 retries"),
        ("never ready", "task 't.task' (id A) asked for a retry after its 3 retries: never ready"),
    ],
)
def test_retry_exhausted_without_a_cause(reason, text):
    """An error of ours says which task asked for what."""
    failed = after(Retry(reason), retries=3)
    assert isinstance(failed, Failed)
    assert type(failed.error) is RetriesExhausted
    assert str(failed.error) == text
    assert failed.reason == "retries_exhausted"


def test_traceback_starts_in_the_users_code():
    """The worker's own frames are nobody's business."""
    namespace: dict[str, object] = {"__name__": "amqtask.worker.execute"}
    exec("def run(task):\n    task()\n", namespace)

    def task():
        raise ValueError("here")

    with pytest.raises(ValueError, match="here") as caught:
        namespace["run"](task)  # type: ignore[operator]
    error = caught.value
    error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]
    assert "in run" in "".join(traceback.format_exception(error))
    text = describe(error)
    assert "in run" not in text
    assert 'raise ValueError("here")' in text


def test_traceback_of_the_worker_alone_is_kept():
    """When no frame is the user's (arguments that do not fit), all of it is shown."""
    namespace: dict[str, object] = {"__name__": "amqtask.worker.execute"}
    exec("def run():\n    raise TypeError('missing')\n", namespace)
    with pytest.raises(TypeError) as caught:
        namespace["run"]()  # type: ignore[operator]
    error = caught.value
    error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]
    assert "in run" in describe(error)


# -- before its time ----------------------------------------------------------------


def test_no_eta_is_never_early():
    """A call without an eta may run now."""
    assert early(CALL, NOW) is None


@given(st.floats(-1e6, 1e6), st.integers(0, 9))
def test_early(seconds, retries):
    """What is more than a clock's difference too early waits until its eta, with its retries."""
    call = replace(CALL, eta=in_seconds(seconds), retries=retries)
    again = early(call, NOW)
    if seconds > 0.051:
        assert again is not None
        assert again.delay == pytest.approx(seconds, abs=1e-4)
        assert (again.eta, again.retries, again.error) == (call.eta, retries, None)
    elif seconds < 0.049:
        assert again is None


# -- time limits -----------------------------------------------------------------------


def concluded(error: BaseException, policy: RetryPolicy = POLICY, soft: float = 5.0) -> Outcome:
    return conclude(error, CALL, policy, soft, NOW, lambda: 1.0)


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), TimeLimitExceeded("over")])
def test_a_time_limit_is_parked_as_such(error):
    """Under its own reason, when the policy does not retry it."""
    outcome = concluded(error)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "timeout"


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), TimeLimitExceeded("over")])
def test_a_time_limit_may_be_retried(error):
    """It is an error like any other to the policy."""
    policy = RetryPolicy(on=(type(error),), max_retries=1)
    assert isinstance(concluded(error, policy), Again)


def test_a_soft_limit_says_what_it_is():
    """Raised from outside it has no text, until it has left the task."""
    outcome = concluded(SoftTimeLimitExceeded(), soft=2.5)
    assert isinstance(outcome, Failed)
    assert str(outcome.error) == "task 't.task' (id A) ran over its soft limit of 2.5 s"
    own = concluded(SoftTimeLimitExceeded("my own words"))
    assert isinstance(own, Failed)
    assert str(own.error) == "my own words"


def test_a_soft_limit_out_of_a_task_group():
    """The group around it is taken off; a group that holds more stays one."""
    limit = SoftTimeLimitExceeded()
    nested = BaseExceptionGroup("", [ExceptionGroup("", [limit])])
    outcome = concluded(nested)
    assert isinstance(outcome, Failed)
    assert outcome.error is limit
    both = ExceptionGroup("", [SoftTimeLimitExceeded(), ValueError()])
    outcome = concluded(both)
    assert isinstance(outcome, Failed)
    assert (outcome.error, outcome.reason) == (both, "failed")


# -- what a task was asked to do ---------------------------------------------------------


FAILED = Failed(ValueError(), "failed")
AGAIN = Again(1.0, in_seconds(1), 1, OSError())


@pytest.mark.parametrize(
    ("outcome", "verdict", "judged_"),
    [
        (Done(1), None, Done(1)),
        (FAILED, None, FAILED),
        (Done(1), Verdict.CANCELLED, Done(1)),
        (Ignored(), Verdict.CANCELLED, Ignored()),
        (FAILED, Verdict.CANCELLED, Revoked("cancelled")),
        (AGAIN, Verdict.CANCELLED, Revoked("cancelled")),
        (GivenBack(), Verdict.CANCELLED, Revoked("cancelled")),
        (Done(1), Verdict.STOPPING, Done(1)),
        (FAILED, Verdict.STOPPING, GivenBack()),
        (AGAIN, Verdict.STOPPING, AGAIN),
    ],
)
def test_verdicts(outcome, verdict, judged_):
    """Whoever ends in good order has ended; a failure is the doing of whoever asked."""
    assert judged(outcome, verdict) == judged_


def test_a_rejection_stands_though_the_worker_stops():
    """The task has said what it wants."""
    rejected = Failed(Reject("no"), "rejected")
    assert judged(rejected, Verdict.STOPPING) is rejected


# -- deaths --------------------------------------------------------------------------------


def died(crashes: int, limit: int = 3) -> Outcome:
    error = WorkerLost("it died", signal="SIGSEGV", peak_memory=5_000_000, runtime=1.25)
    return crashed(error, replace(CALL, retries=2), crashes, limit, now=NOW)


def test_a_death_below_the_limit():
    """It runs again as the same attempt, with its count, after pauses that grow."""
    first, second = died(1), died(2)
    assert isinstance(first, Again)
    assert isinstance(second, Again)
    assert (first.delay, first.eta, first.retries, first.crashes) == (1, in_seconds(1), 2, 1)
    assert (second.delay, second.crashes) == (2, 2)
    far = died(50, limit=100)
    assert isinstance(far, Again)
    assert far.delay == 60


def test_the_last_death():
    """It is parked, with what is known and nothing else."""
    last = died(3)
    assert isinstance(last, Failed)
    assert last.reason == "worker_lost"
    assert last.details == {
        "amqtask-crashes": 3,
        "amqtask-signal": "SIGSEGV",
        "amqtask-peak-memory": 5_000_000,
        "amqtask-runtime": "1.250",
    }
