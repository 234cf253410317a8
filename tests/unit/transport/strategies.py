"""Messages of every kind that AMQP can hold."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import strategies as st

from amqtask.message.model import Message
from amqtask.transport import fields

#: More than any table of the property test takes.
BODY_MAX = 32 * 1024

fields.install()  # importing the room has done it; here it shows

short = st.text(max_size=60)
scalar = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=30)
    | st.binary(max_size=30)
    | st.integers(86_400, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
    | st.integers(-(2**31), 2**31 - 1).map(lambda number: Decimal(number).scaleb(-3))
)
value = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short, inner, max_size=4),
    max_leaves=12,
)
maybe = st.none() | short
bodies = st.builds(
    lambda bit, size: (bit * (size // len(bit) + 1))[:size],
    st.binary(min_size=1, max_size=8),
    st.integers(0, 3 * BODY_MAX),
)
messages = st.builds(
    Message,
    body=bodies,
    headers=st.dictionaries(short, value, max_size=6),
    content_type=maybe,
    content_encoding=maybe,
    correlation_id=maybe,
    reply_to=maybe,
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    expiration=maybe,
    message_id=maybe,
    timestamp=st.none() | st.integers(0, 2**40),
    type=maybe,
    user_id=maybe,
    app_id=maybe,
)
