"""What travels: a Message as AMQP sees it, a Call as a task sees it.

Both are plain frozen data, so that encoding, routing and deciding stay pure
functions and only the rooms above touch a socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any

from amqtask.records import record

#: One AMQP field-table value. Only the kinds every client decodes the same
#: way are sent: str, int (signed 64 bit), float, bool, None, list, dict,
#: aware datetime (whole seconds).
HeaderValue = Any


@record(frozen=True, slots=True)
class Message:
    """Body and basic properties of one AMQP message, in either direction.

    Attributes:
        body: Raw bytes, possibly compressed.
        headers: The ``application_headers`` table.
        expiration: Per-message TTL in milliseconds as a decimal string, as on the wire.
        timestamp: Unix seconds.
    """

    body: bytes
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    delivery_mode: int | None = 2
    priority: int | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None


@record(frozen=True, slots=True)
class Embed:
    """What follows a task: the third element of a protocol 2 body.

    Each entry is a signature in Celery's JSON form; ``chain`` is reversed
    (the next step is its last element).
    """

    callbacks: list[dict[str, Any]] | None = None
    errbacks: list[dict[str, Any]] | None = None
    chain: list[dict[str, Any]] | None = None
    chord: dict[str, Any] | None = None


NO_EMBED = Embed()


@record(frozen=True, slots=True)
class Call:
    """One task call, decoded: what to run, with what, under which conditions.

    Attributes:
        retries: 0 on the first run; the attempt is ``retries + 1``.
        eta: Earliest start, aware.
        expires: Not started after this instant, aware.
        hard_limit: Seconds of run time after which it is ended, or None.
        soft_limit: Seconds of run time after which it is asked to end, or None.
        ignore_result: True or False for this call; None leaves it to the task.
        headers: The user's own headers: all that neither the protocol nor the
            broker put there.
        protocol: 2, or 1 for a message whose metadata came in the body.
    """

    task: str
    id: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    embed: Embed = NO_EMBED
    retries: int = 0
    eta: datetime | None = None
    expires: datetime | None = None
    hard_limit: float | None = None
    soft_limit: float | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    shadow: str | None = None
    origin: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: Mapping[str, Any] = field(default_factory=dict)
    reply_to: str | None = None
    correlation_id: str | None = None
    priority: int = 0
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    protocol: int = 2
