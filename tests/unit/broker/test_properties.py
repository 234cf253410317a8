"""Properties are walked, not decoded; what is not touched stays octet for octet."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, header

from amqtask.broker.fields import Field, Malformed
from amqtask.broker.properties import facts, join, split, with_headers, with_reply_to

_SHORT = st.none() | st.text(min_size=1, max_size=20)
_PROPERTIES = st.builds(
    commands.Basic.Properties,
    content_type=_SHORT,
    content_encoding=_SHORT,
    headers=st.none() | st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9)),
    delivery_mode=st.sampled_from([None, 1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=_SHORT,
    reply_to=_SHORT,
    expiration=_SHORT,
    message_id=_SHORT,
    timestamp=st.sampled_from([None, datetime(2026, 1, 2, tzinfo=UTC)]),
    message_type=_SHORT,
    user_id=_SHORT,
    app_id=_SHORT,
)


def _packed(properties: commands.Basic.Properties) -> bytes:
    return properties.marshal()


def _read(packed: bytes) -> commands.Basic.Properties:
    content = header.ContentHeader()
    content.unmarshal(b"\x00\x3c" + bytes(10) + packed)
    return content.properties


@given(_PROPERTIES)
def test_facts_are_what_another_codec_wrote(properties):
    known = facts(_packed(properties))
    assert known.persistent == (properties.delivery_mode == 2)
    assert known.priority == properties.priority
    assert known.reply_to == properties.reply_to
    assert known.expiration == properties.expiration
    assert known.user_id == properties.user_id


@given(_PROPERTIES)
def test_cut_and_joined_they_are_the_same(properties):
    packed = _packed(properties)
    assert join(split(packed)) == packed


@given(_PROPERTIES)
def test_a_header_is_added_and_nothing_else_changes(properties):
    changed = _read(with_headers(_packed(properties), {"x-new": Field("l", 7)}))
    properties.headers = {**(properties.headers or {}), "x-new": 7}
    assert changed == properties


@given(_PROPERTIES)
def test_another_reply_address(properties):
    changed = _read(with_reply_to(_packed(properties), "there"))
    properties.reply_to = "there"
    assert changed == properties


def test_expiration_is_taken_out():
    packed = _packed(commands.Basic.Properties(expiration="5", message_id="m"))
    changed = _read(with_headers(packed, {}, expires=False))
    assert (changed.expiration, changed.message_id) == (None, "m")


@given(st.binary(max_size=60))
def test_octets_are_properties_or_malformed(octets):
    try:
        facts(octets)
    except Malformed:
        return
    assert join(split(octets)) == octets


@pytest.mark.parametrize(
    "octets",
    [b"", b"\x00", b"\x80\x00", b"\x80\x00\x05ab", b"\x00\x00x", b"\x00\x01\x00\x00",
     b"\x20\x00\x00\x00\x00\x04\x01aZ1", b"\x20\x00\xff\xff\xff\xff"],
)  # fmt: skip
def test_malformed(octets):
    with pytest.raises(Malformed):
        facts(octets)
