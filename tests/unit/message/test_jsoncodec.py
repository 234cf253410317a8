"""JSON: kombu's forms, no silent change, and the path of what cannot be written."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqtask.errors import EncodeError, MalformedMessage
from amqtask.message.jsoncodec import dumps, loads
from tests.unit.message.strategies import outcome, some, values

SPECIALS = [
    datetime(2026, 11, 23, 3, 18, 2, 950430, tzinfo=UTC),
    datetime(2026, 11, 23, 3, 18, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    datetime(2026, 11, 23),  # noqa: DTZ001 - naive ones travel too
    date(2026, 11, 23),
    time(3, 18, 2, 5),
    time(3, 18, tzinfo=UTC),
    Decimal("1.50"),
    Decimal("-Infinity"),
    UUID("0b1e1b5c-0d4f-4f3e-9f5b-6f0c8c1a2b3d"),
    b"text",
    b"\xff\xfe",
    b"",
]


def kinds(value: Any) -> Any:
    """The types of a value and all in it."""
    if isinstance(value, list):
        return [kinds(item) for item in value]
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in value.items()}
    return type(value)


#: So large that the values beside it are looked at, and not the bytes.
LARGE = "x" * 100_000


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    ADA = "ada"


class Weight(float):
    pass


@dataclasses.dataclass
class Order:
    id: int


Point = namedtuple("Point", "x y")


@some
@given(values)
@example([1 << 64, -(1 << 63), -(1 << 63) - 1, (1 << 64) - 1])
@example({"a": "\ud800"})
@example([None, 1.5, {"b": [2.5, None]}])
def test_round_trip(value):
    """What can be written is read back equal, type for type."""
    back = loads(dumps(value))
    assert back == value
    assert kinds(back) == kinds(value)


@some
@given(values)
@example([1 << 64, -(1 << 63), -(1 << 63) - 1, (1 << 64) - 1])
@example([1e300, -1e19, 2.0**63])
@example({"__type__": "x", "__value__": 1, "c": None})
@example([{"a": {"b": Decimal("1.5")}}, SPECIALS])
def test_round_trip_beside_a_large_text(value):
    """A large text changes nothing about what is beside it."""
    back = loads(dumps([LARGE, value]))
    assert back == [LARGE, value]
    assert kinds(back) == kinds([LARGE, value])
    assert dumps((LARGE, value)) == b'["%s",%s]' % (LARGE.encode(), dumps(value))


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), Colour.RED, {1: [float("inf")]}])
def test_refusals_beside_a_large_text(value):
    """Nor does it hide what cannot be written."""
    with pytest.raises(EncodeError, match="does not serialise as json") as caught:
        dumps([LARGE, value])
    assert caught.value.path[0] == 1


@pytest.mark.parametrize("value", SPECIALS, ids=repr)
def test_specials_as_kombu_writes_them(value):
    """Marked values are what kombu writes, and each side reads the other's."""
    kombu = pytest.importorskip("kombu.utils.json")
    for shape in (value, [value], {"a": {"b": value}}):
        assert json.loads(dumps(shape)) == json.loads(kombu.dumps(shape))
        assert kombu.loads(dumps(shape)) == shape
        assert loads(kombu.dumps(shape).encode()) == shape


@some
@given(values)
def test_kombu_reads_ours_and_we_read_kombu(value):
    """Any value crosses in both directions."""
    kombu = pytest.importorskip("kombu.utils.json")
    assert kombu.loads(dumps(value)) == value
    assert loads(kombu.dumps(value).encode()) == value


def test_subclasses_travel_as_their_base():
    """Subclasses of str, int, float, list, tuple and dict are written as kombu writes them."""
    kombu = pytest.importorskip("kombu.utils.json")
    value = [Level.LOW, Name.ADA, Weight(1.5), OrderedDict(a=1), Point(1, 2), {Name.ADA: Level.LOW}]
    assert dumps(value) == b'[1,"ada",1.5,{"a":1},[1,2],{"ada":1}]'
    assert json.loads(dumps(value)) == json.loads(kombu.dumps(value))


def test_keys_become_text_as_in_the_standard_library():
    """Keys that are int, float, bool or None are written as json writes them."""
    value = {2: "a", 1.5: "b", "x": "c", None: "d", False: "e", True: "f"}
    assert json.loads(dumps(value)) == json.loads(json.dumps(value))


def test_tuples_become_lists():
    """JSON has no tuple, so they come back as lists."""
    assert loads(dumps((1, (2,)))) == [1, [2]]


def refusal(value: Any) -> EncodeError:
    with pytest.raises(EncodeError) as caught:
        dumps(value)
    return caught.value


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        (
            [{"a": [1, 2, object()]}],
            (0, "a", 2),
            "value of type 'object' at [0]['a'][2] does not serialise as json",
        ),
        (object(), (), "value of type 'object' does not serialise as json"),
        ([Order(1)], (0,), "value of type 'Order' at [0] does not serialise as json"),
        ({"a": Colour.RED}, ("a",), "value of type 'Colour' at ['a'] does not serialise as json"),
        ([{1, 2}], (0,), "value of type 'set' at [0] does not serialise as json"),
        ([bytearray(b"x")], (0,), "value of type 'bytearray' at [0] does not serialise as json"),
        ([1j], (0,), "value of type 'complex' at [0] does not serialise as json"),
        ([float("nan")], (0,), "value nan at [0] does not serialise as json"),
        ({"a": (1, float("-inf"))}, ("a", 1), "value -inf at ['a'][1] does not serialise as json"),
        ([Weight("inf")], (0,), "value inf at [0] does not serialise as json"),
        ([{(1, 2): 3}], (0,), "dict with the key (1, 2) at [0] does not serialise as json"),
        (
            {1: "a", "1": "b"},
            (),
            "dict with two keys that both become '1' does not serialise as json",
        ),
        (
            [{"__type__": "x", "__value__": 1}],
            (0,),
            "dict with exactly the keys '__type__' and '__value__' at [0] does not serialise as json",
        ),
    ],
)
def test_refusal_names_the_place(value, path, text):
    """What cannot be written is named with the path to it; nothing is changed silently."""
    error = refusal(value)
    assert error.path == path
    assert str(error) == text


def test_hints_say_what_to_pass():
    """The error says what to do about it."""
    assert "pass plain data" in str(refusal(Order(1)).hint)
    assert refusal({1}).hint == "pass a list"
    assert refusal(Colour.RED).hint == "pass its value, plain data"


def test_marked_shape_with_a_third_key_is_plain_data():
    """Only exactly the two keys are taken for a mark, as in kombu."""
    value = {"__type__": "datetime", "__value__": 1, "more": 2}
    assert loads(dumps(value)) == value


def test_cycles_are_refused():
    """A list that contains itself is an error, with its place."""
    loop: list[Any] = [1]
    loop.append({"a": loop})
    error = refusal(loop)
    assert error.path == (1, "a")
    assert str(error) == "list that contains itself at [1]['a'] does not serialise as json"


def test_the_same_object_twice_is_no_cycle():
    """Sharing is fine, each place is written out."""
    shared = [datetime(2026, 1, 1, tzinfo=UTC)]
    assert loads(dumps([shared, shared])) == [shared, shared]


def test_deep_nesting():
    """Deeper than orjson goes still travels; deeper than the stack goes is refused."""
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    assert loads(dumps(deep)) == deep
    for _ in range(100_000):
        deep = [deep]
    assert str(refusal(deep)) == "value nests too deeply to serialise as json"


def test_integer_too_long_for_text():
    """An integer Python itself refuses to write is an encode error."""
    assert str(refusal([10**5000])).startswith(
        "value does not serialise as json: Exceeds the limit"
    )


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"18446744073709551616", 1 << 64),
        (b"-9223372036854775809", -(1 << 63) - 1),
        (b"[1, 123456789012345678901234567890]", [1, 123456789012345678901234567890]),
        (b"18446744073709551615", (1 << 64) - 1),
        (b"1700000000000000000", 1700000000000000000),
        (b'["\\ud800"]', ["\ud800"]),
        (b"[Infinity, -Infinity]", [float("inf"), float("-inf")]),
        (b"1e400", float("inf")),
    ],
)
def test_reads_what_celery_writes_and_orjson_does_not(data, value):
    """Long integers, bare Infinity and lone surrogates are read exactly."""
    back = loads(data)
    assert back == value
    assert type(back) is type(value)
    assert loads(b'["%s",%s]' % (LARGE.encode(), data)) == [LARGE, value]


def test_reads_bare_nan():
    """Python writers emit NaN as a bare token."""
    [value] = loads(b"[NaN]")
    assert value != value


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            b'{"__type__":"set","__value__":[]}',
            "json value is marked as 'set', a type nothing here reads",
        ),
        (
            b'{"__type__":[1],"__value__":[]}',
            "json value is marked as [1], a type nothing here reads",
        ),
        (
            b'[{"__type__":"datetime","__value__":"soon"}]',
            "json value 'soon' is marked as 'datetime' and is none",
        ),
        (b'{"__type__":"date","__value__":5}', "json value 5 is marked as 'date' and is none"),
        (
            b'{"__type__":"decimal","__value__":"x"}',
            "json value 'x' is marked as 'decimal' and is none",
        ),
        (
            b'{"__type__":"decimal","__value__":[]}',
            "json value [] is marked as 'decimal' and is none",
        ),
        (
            b'{"__type__":"uuid","__value__":{"int":5}}',
            "json value {'int': 5} is marked as 'uuid' and is none",
        ),
        (b'{"__type__":"uuid","__value__":"x"}', "json value 'x' is marked as 'uuid' and is none"),
        (
            b'{"__type__":"base64","__value__":"x"}',
            "json value 'x' is marked as 'base64' and is none",
        ),
        (b"", "not valid json: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_malformed(data, text):
    """Broken JSON and unknown or broken marks are malformed, with the value named."""
    with pytest.raises(MalformedMessage) as caught:
        loads(data)
    assert str(caught.value) == text


@pytest.mark.parametrize("data", [b"\xff", b"{", b"[" * 100_000, b"1" * 5000, b"\xef\xbb\xbf1"])
def test_broken_bytes_are_malformed(data):
    """Whatever is no JSON is malformed, never another error."""
    with pytest.raises(MalformedMessage, match=r"^not valid json: "):
        loads(data)


def test_deep_marked_json_is_malformed():
    """Nesting that reading survives and restoring does not is malformed."""
    data = b'["__type__",' + b"[" * 1000 + b"]" * 1000 + b"]"
    with pytest.raises(MalformedMessage, match="nests too deeply"):
        loads(data)


@some
@given(st.binary())
def test_any_bytes(data):
    """Any bytes read as a value or are malformed."""
    found = outcome(lambda: loads(data))
    assert found is None or isinstance(found, str | int | float | list | dict | MalformedMessage)
