"""Calls that are not trusted to run beside others, or to run at all.

A call may have ended the process it ran in. It is suspect when the supervisor
says so, from the run board of a child that died, or when the broker has
delivered it before, more often than chance explains. A suspect runs in a
runner, whatever its pool: when it kills that one it is known for certain, and
has hurt nobody else. A condemned call has hung its process beyond its hard
limit; it is settled as timed out without running again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from amqtask.transport import Delivery
from amqtask.worker.job import header_id

#: Returns of a quorum queue from which on a call is suspect: the first may be a lost connection.
SUSPECT_RETURNS = 2
#: Ids kept at most; the oldest go first.
KEPT = 10_000


class Suspects:
    """Ids of calls, and why they are suspect.

    Threads: any.
    """

    def __init__(self) -> None:
        self._why: OrderedDict[str, str] = OrderedDict()
        self._condemned: OrderedDict[str, str] = OrderedDict()

    def suspect(self, id: str, why: str) -> None:
        """Have it run isolated when it comes."""
        _keep(self._why, id, why)

    def condemn(self, id: str, why: str) -> None:
        """Have it not run when it comes."""
        _keep(self._condemned, id, why)

    def why_isolated(self, delivery: Delivery) -> str | None:
        """Return why a delivery runs isolated; None when it need not."""
        why = self._why.get(header_id(delivery.message)) if self._why else None
        return why or _returned(delivery)

    def sentence(self, id: str) -> str | None:
        """Return why a call does not run any more; None when it may."""
        return self._condemned.get(id) if self._condemned else None


def _keep(ids: OrderedDict[str, str], id: str, why: str) -> None:
    ids[id] = why
    while len(ids) > KEPT:
        ids.popitem(last=False)


def _returned(delivery: Delivery) -> str | None:
    if not delivery.redelivered:
        return None
    count: Any = delivery.message.headers.get("x-delivery-count")
    if not isinstance(count, int):  # a classic queue does not count
        return "it was delivered before"
    return f"it was returned {count} times" if count >= SUSPECT_RETURNS else None
