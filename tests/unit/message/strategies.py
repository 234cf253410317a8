"""Hypothesis strategies for what calls carry, and what became of reading it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, timedelta, timezone
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from amqtask.errors import MessageError
from amqtask.message.headers import PROTOCOL_HEADERS

#: Enough to meet each kind of value, few enough for a suite of seconds; no deadline, as machines differ.
some = settings(max_examples=40, deadline=None)

_offsets = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_zones = st.none() | st.just(UTC) | _offsets


def _marked(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"__type__", "__value__"}


text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
    | st.text()  # lone surrogates too
)
specials = (
    st.datetimes(timezones=_zones).map(lambda value: value.replace(fold=0))
    | st.dates()
    | st.times(timezones=_zones).map(lambda value: value.replace(fold=0))
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary()
)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists and dicts of the leaves."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(text, inner, max_size=4).filter(lambda value: not _marked(value))
        ),
        max_leaves=12,
    )


values = nested(scalars | specials)

# anything a field table could hold, and then some
junk = nested(
    scalars
    | specials
    | st.just(math.nan)
    | st.just(math.inf)
    | st.sampled_from(["2026-11-23", "json", "zlib", "t.add", "", "0", "-1", "é"])
)


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str).encode()


_protocol = sorted(PROTOCOL_HEADERS)
_fields = st.sampled_from([*_protocol, "args", "kwargs", "utc", "taskset", "chord"])
_call = {"task": st.just("t") | junk, "id": st.just("A") | junk}

#: Bodies of messages: bytes, any JSON, and what looks like protocol 2 or 1.
bodies = (
    st.binary(max_size=60)
    | junk.map(_json)
    | st.lists(junk, min_size=3, max_size=3).map(_json)
    | st.tuples(st.lists(junk), st.dictionaries(text, junk), st.none()).map(_json)
    | st.dictionaries(_fields, junk).map(_json)
    | st.fixed_dictionaries(_call, optional={"args": st.lists(junk), "eta": junk}).map(_json)
)
_any_table = st.dictionaries(st.sampled_from(_protocol) | st.text(max_size=4), junk)

#: Header tables: of any names and values, mostly with a task and an id.
tables = (
    st.tuples(_any_table, st.fixed_dictionaries(_call)).map(lambda both: {**both[0], **both[1]})
    | _any_table
)

_loose = ["lang", "argsrepr", "meth", "x-death", "CC", "amqtask-x", "foo", "é"]
_user_table = st.dictionaries(st.sampled_from(_loose), junk).map(
    lambda table: {k: v for k, v in table.items() if not isinstance(v, bytes)}
)
_named = {"task": st.just("t"), "id": st.just("A")}
_parts = {"args": st.lists(values), "kwargs": st.dictionaries(text, values)}

#: Body and headers of calls that do run, of protocol 2, 1 and the hybrid.
runnable = st.tuples(
    st.tuples(*_parts.values(), st.none()).map(_json) | st.fixed_dictionaries(_parts).map(_json),
    st.tuples(_user_table, st.fixed_dictionaries(_named)).map(lambda both: both[0] | both[1]),
) | st.tuples(st.fixed_dictionaries({**_named, **_parts}).map(_json), _user_table)


def outcome(run: Callable[[], Any]) -> Any:
    """The value, or the message error; any other error is the test's failure."""
    try:
        return run()
    except MessageError as error:
        return error


def without_floats(value: Any) -> Any:
    """A header value as pika alone can write it: its floats as integers."""
    if isinstance(value, float):
        return 0
    if isinstance(value, list):
        return [without_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: without_floats(item) for key, item in value.items()}
    return value
