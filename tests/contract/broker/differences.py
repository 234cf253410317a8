"""Where RabbitMQ's own versions differ, and why: the only place in the suite that knows versions.

The embedded broker follows the newest version named here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.contract.broker.wire import Refused

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Difference(Generic[T]):
    """A behaviour that changed with a version.

    Attributes:
        before: What holds until then.
        after: What holds from then on.
        why: The reason of the change.
        since: The version that changed it.
    """

    before: T
    after: T
    why: str
    since: tuple[int, int] = (4, 0)

    def at(self, version: tuple[int, int]) -> T:
        """Return what holds in this version."""
        return self.after if version >= self.since else self.before


UNKNOWN_EXCHANGE_TYPE = Difference(
    Refused("connection", 503, "COMMAND_INVALID - unknown exchange type 'nosuch'"),
    Refused("channel", 406, "PRECONDITION_FAILED - unknown exchange type 'nosuch'"),
    why="a wrong argument of one channel shall not end the others",
)
"""Declaring an exchange of a type that the broker does not have."""

LAST_DEATH = Difference(
    before=False,
    after=True,
    why="the first death was shown from the start, the last one only since 3.13",
    since=(3, 13),
)
"""Dead-lettered messages carry ``x-last-death-*``."""

CLIENT_DEATHS_COUNT = Difference(
    before=True,
    after=False,
    why="a client could forge deaths; 4.0 keeps them apart from the headers it was sent",
)
"""An ``x-death`` header that a client published is taken for the message's history."""

FIRST_DELIVERY_COUNT: Difference[int | None] = Difference(
    before=0,
    after=None,
    why="3.12 leaves the header out while there is nothing to count",
    since=(3, 12),
)
"""The ``x-delivery-count`` of a quorum queue's first delivery."""

DEFAULT_DELIVERY_LIMIT: Difference[int | None] = Difference(
    before=None, after=20, why="a message that kills its consumers shall not do so for ever"
)
"""How often a quorum queue without ``x-delivery-limit`` takes a message back."""

QUORUM_RETURNS_TO_FRONT = Difference(
    before=False,
    after=True,
    why="a queue without a delivery limit put it at the back, and 4.0 gives every queue a limit",
)
"""A message given back to a quorum queue without ``x-delivery-limit`` is the next one again."""

QUORUM_PRIORITIES = Difference(
    before=False, after=True, why="4.0 has two classes, above 4 and the rest, served two to one"
)
"""A quorum queue prefers messages of high priority."""

QUORUM_TO_CLASSIC = Difference(
    before="received none but current is the value 'quorum' of type 'longstr'",
    after="received 'classic' but current is 'quorum'",
    why="the vhost's default queue type, classic, is filled in before the comparison",
)
"""Declaring a quorum queue again without its type."""

LEADER_LOCATOR_ON_CLASSIC = Difference(
    before=False, after=True, why="it took the place of x-queue-master-locator", since=(3, 12)
)
"""A classic queue takes ``x-queue-leader-locator``."""

MAX_MESSAGE_SIZE = Difference(
    before=134217728, after=16777216, why="a queue is no file store; 4.0 lowered the default"
)
"""Octets that a message may have."""

SINGLE_ACTIVE_PRIORITY = Difference(
    before=False,
    after=True,
    why="4.0 lets the consumer of the highest priority be the active one of a quorum queue",
)
"""A quorum queue with a single active consumer heeds consumer priorities."""

CC_AFTER_DEATH: Difference[list[str] | None] = Difference(
    before=None,
    after=["cc"],
    why="the routing keys of a message are kept apart from its headers, which stay as they came",
    since=(3, 13),
)
"""The CC header of a message that was dead-lettered by another key."""

FIRST_FAULT: Difference[tuple[str, str]] = Difference(
    before=("user_id property", "user_id property"),
    after=("invalid expiration", "unacceptable_type_in_header"),
    why="the user is checked once the message is taken apart",
    since=(3, 13),
)
"""What is told of a wrong expiration, CC header and user, and of the last two alone."""
