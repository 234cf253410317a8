"""Retries: how long, how often, on what, and the way through a header."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.errors import ConfigurationError, MalformedMessage
from amqtask.policy.retry import RETRY_HEADER, RetryPolicy


class Outer:
    class InnerError(OSError):
        pass


NAMES = st.sampled_from(["OSError", "builtins.ValueError", "pkg.mod.Error"])
POLICIES = st.builds(
    RetryPolicy,
    max_retries=st.none() | st.integers(0, 2**40),
    on=st.lists(NAMES, max_size=3).map(tuple),
    not_on=st.lists(NAMES, max_size=3).map(tuple),
    backoff=st.floats(0, 1e300),
    factor=st.floats(1, 1e300),
    cap=st.floats(0, 1e300),
    jitter=st.booleans(),
)


def top() -> float:
    return 1.0


# -- delay --------------------------------------------------------------------


def test_delay_grows_to_the_cap():
    """The pause doubles from one second to ten minutes unless told otherwise."""
    pauses = [RetryPolicy(jitter=False).delay(n, top) for n in (0, 1, 2, 9, 10, 1000)]
    assert pauses == [1, 2, 4, 512, 600, 600]


def test_jitter_takes_off_up_to_half():
    """Jitter spreads between half and all of the pause."""
    policy = RetryPolicy()
    assert policy.delay(2, lambda: 0.0) == 2
    assert policy.delay(2, lambda: 0.5) == 3
    assert policy.delay(2, top) == 4


@given(POLICIES, st.integers(-5, 10**9), st.floats(0, 1, exclude_max=True))
def test_delay_is_never_above_the_cap(policy, retries, chance):
    """Whatever the numbers, the pause is between zero and the cap, without overflow."""
    assert 0 <= policy.delay(retries, lambda: chance) <= policy.cap


def test_no_backoff_stays_none():
    """A back-off of zero retries at once, however often."""
    assert RetryPolicy(backoff=0, factor=10).delay(10**6, top) == 0


# -- left and matches ---------------------------------------------------------


def test_left():
    """Three retries are left after the first run, none after the third retry."""
    assert [RetryPolicy().left(n) for n in (0, 2, 3, 4)] == [True, True, False, False]
    assert not RetryPolicy(max_retries=0).left(0)
    assert RetryPolicy(max_retries=None).left(10**9)


def test_matches():
    """Classes and names match subclasses; not_on wins; nothing named matches nothing."""
    error = Outer.InnerError()
    assert RetryPolicy(on=(OSError,)).matches(error)
    assert RetryPolicy(on=("builtins.OSError",)).matches(error)
    assert RetryPolicy(on=("OSError",)).matches(error)
    assert RetryPolicy(on=(f"{__name__}.Outer.InnerError",)).matches(error)
    assert not RetryPolicy(on=("other.OSError", ValueError)).matches(error)
    assert not RetryPolicy(on=(Exception,), not_on=(OSError,)).matches(error)
    assert not RetryPolicy(on=(Exception,), not_on=("OSError",)).matches(error)
    assert not RetryPolicy().matches(error)


# -- the header ---------------------------------------------------------------


def test_header():
    """The header is plain data without a float: pika writes none into a table."""
    policy = RetryPolicy(on=(Outer.InnerError, "OSError"), backoff=0.5)
    assert policy.to_header() == {
        "max_retries": 3,
        "on": [f"{__name__}.Outer.InnerError", "builtins.OSError"],
        "not_on": [],
        "backoff": "0.5",
        "factor": 2,
        "cap": 600,
        "jitter": True,
    }


@given(POLICIES)
def test_header_round_trip(policy):
    """A policy comes out of its header as it went in, names spelled out."""
    again = RetryPolicy.from_header(json.loads(json.dumps(policy.to_header())))
    assert again.to_header() == policy.to_header()
    assert (again.backoff, again.factor, again.cap) == (policy.backoff, policy.factor, policy.cap)


def test_header_of_others():
    """What is left out has the default, and what is unknown is passed over."""
    assert RetryPolicy.from_header({}) == RetryPolicy()
    assert RetryPolicy.from_header({"cap": 5, "later": 1}) == RetryPolicy(cap=5)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("junk", f"header {RETRY_HEADER!r} is 'junk', not a table"),
        (None, f"header {RETRY_HEADER!r} is None, not a table"),
        (
            {"max_retries": "3"},
            (
                f"header {RETRY_HEADER!r} is not a retry policy:"
                " max_retries of the retry policy is '3'"
            ),
        ),
        (
            {"backoff": "soon"},
            (
                f"header {RETRY_HEADER!r} is not a retry policy:"
                " could not convert string to float: 'soon'"
            ),
        ),
        (
            {"on": [5]},
            f"header {RETRY_HEADER!r} is not a retry policy: on of the retry policy is 5",
        ),
    ],
)
def test_header_junk(header, text):
    """A broken policy makes the message malformed, never the worker."""
    with pytest.raises(MalformedMessage) as caught:
        RetryPolicy.from_header(header)
    assert str(caught.value) == text


TEXT = st.sampled_from(["", "5", "-1", "nan", "1e999", "OSError", "a.b"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(RetryPolicy.__slots__), JSON))
def test_header_noise(header):
    """Anything in the known keys is either a policy or a malformed message."""
    text = ""
    policy = RetryPolicy()
    try:
        policy = RetryPolicy.from_header(header)
    except MalformedMessage as error:
        text = str(error)
    assert not text or text.startswith(f"header {RETRY_HEADER!r} is not a retry policy: ")
    assert policy.delay(3, top) <= policy.cap


# -- values -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"max_retries": -1},
            (
                "max_retries of the retry policy is -1"
                " | accepted: a whole number of at least 0, or None"
            ),
        ),
        (
            {"max_retries": True},
            (
                "max_retries of the retry policy is True"
                " | accepted: a whole number of at least 0, or None"
            ),
        ),
        (
            {"backoff": -0.1},
            "backoff of the retry policy is -0.1 | accepted: a number of at least 0",
        ),
        ({"factor": 0.5}, "factor of the retry policy is 0.5 | accepted: a number of at least 1"),
        (
            {"cap": float("inf")},
            "cap of the retry policy is inf | accepted: a number of at least 0",
        ),
        ({"jitter": 1}, "jitter of the retry policy is 1 | accepted: True or False"),
        (
            {"on": ValueError},
            (
                "on of the retry policy is <class 'ValueError'>"
                " | accepted: a tuple of exception classes or names, like (OSError,)"
            ),
        ),
        (
            {"not_on": (int,)},
            (
                "not_on of the retry policy is <class 'int'>"
                " | accepted: exception classes or their names"
            ),
        ),
    ],
)
def test_refusals(options, text):
    """A policy that cannot work is refused where it is written."""
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**options)
    assert f"{caught.value} | {caught.value.hint}" == text
