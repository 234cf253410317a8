"""Tables keep the type of every value, and broken ones are told from good ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtask.broker.fields import (
    Field,
    Malformed,
    described,
    equivalent,
    read_table,
    write_table,
)

_NAMES = st.text(max_size=20)
_LEAVES = st.one_of(
    st.builds(Field, st.just("t"), st.booleans()),
    st.builds(Field, st.just("b"), st.integers(-(2**7), 2**7 - 1)),
    st.builds(Field, st.just("B"), st.integers(0, 2**8 - 1)),
    st.builds(Field, st.just("s"), st.integers(-(2**15), 2**15 - 1)),
    st.builds(Field, st.just("u"), st.integers(0, 2**16 - 1)),
    st.builds(Field, st.just("I"), st.integers(-(2**31), 2**31 - 1)),
    st.builds(Field, st.just("i"), st.integers(0, 2**32 - 1)),
    st.builds(Field, st.sampled_from("lL"), st.integers(-(2**63), 2**63 - 1)),
    st.builds(Field, st.just("d"), st.floats(allow_nan=False)),
    st.builds(Field, st.just("T"), st.integers(0, 2**64 - 1)),
    st.builds(Field, st.just("S"), st.text(max_size=30)),
    st.builds(Field, st.just("x"), st.binary(max_size=30)),
    st.builds(Field, st.just("V"), st.none()),
    st.builds(
        Field, st.just("D"), st.tuples(st.integers(0, 255), st.integers(-(2**31), 2**31 - 1))
    ),
)
_FIELDS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(Field, st.just("A"), st.lists(inner, max_size=4)),
        st.builds(Field, st.just("F"), st.dictionaries(_NAMES, inner, max_size=4)),
    ),
    max_leaves=10,
)
_TABLES = st.dictionaries(_NAMES, _FIELDS, max_size=6)


@given(_TABLES)
def test_tables_come_back_as_they_were(table):
    packed = write_table(table)
    assert read_table(packed) == (table, len(packed))


@given(st.binary(max_size=80))
def test_octets_are_a_table_or_malformed(octets):
    """Nothing else is raised, whatever comes."""
    try:
        table, _ = read_table(octets)
    except Malformed:
        return
    assert isinstance(table, dict)


@given(_TABLES, st.data())
def test_a_changed_octet_is_a_table_or_malformed(table, data):
    packed = bytearray(write_table(table))
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] = data.draw(st.integers(0, 255))
    try:
        read_table(bytes(packed))
    except Malformed:
        return


def test_strings_that_are_no_utf8_come_back_too():
    packed = b"\x00\x00\x00\x09\x01aS\x00\x00\x00\x02\xff\xfe"
    table, _ = read_table(packed)
    assert write_table(table) == packed


def test_nesting_has_an_end():
    """A message may not use up the stack."""
    table = {"a": Field("V", None)}
    for _ in range(100):
        table = {"a": Field("F", table)}
    with pytest.raises(Malformed, match="nested too deep"):
        read_table(write_table(table))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (Field("I", 5), Field("l", 5), True),
        (Field("I", 5), Field("I", 6), False),
        (Field("I", 1), Field("t", True), False),
        (Field("f", 1.0), Field("d", 1.0), True),
        (Field("S", "5"), Field("I", 5), False),
    ],
)
def test_integers_of_any_width_are_equivalent(first, second, same):
    assert equivalent(first, second) is same


def test_values_are_described_in_the_words_of_rabbitmq():
    assert described(None) == "none"
    assert described(Field("I", 100)) == "the value '100' of type 'signedint'"
    assert described(Field("t", True)) == "the value 'true' of type 'bool'"
