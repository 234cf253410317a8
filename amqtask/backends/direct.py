"""Results over RabbitMQ's direct reply-to: no queue, the fastest way back, and the frailest.

The publisher's channel consumes ``amq.rabbitmq.reply-to``; the broker puts an
address of that channel into each call, and hands what is published there
straight to the channel. Nothing is kept on the way: what comes while the
connection is down is lost, so a call whose channel ends is broken off with
`ReplyLost` instead of waiting for what cannot come.

Source: RabbitMQ's guide on direct reply-to; tried on 3.10 and 4.0.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import ClassVar

from amqtask.backends.rpc import RpcBackend
from amqtask.errors import ReplyLost
from amqtask.transport import Requirement
from amqtask.transport.direct import REPLY_TO

log = logging.getLogger(__name__)


class DirectBackend(RpcBackend):
    """``rpc+direct://``: outcomes come straight to the connection that sent the call.

    Delivery: an outcome that arrives while the connection is down is lost.
    Threads and fork: as `RpcBackend`.
    """

    scheme: ClassVar[str] = "rpc+direct"

    def reply_to(self) -> str:
        """See `Backend.reply_to`: the broker writes the channel's address there."""
        return REPLY_TO

    def requirements(self) -> Sequence[Requirement]:
        """See `Backend.requirements`."""
        return (self._requirement(),)

    def _requirement(self) -> Requirement:
        found = self._direct
        if found is None or found[0] != self._transport.generation:
            with self._lock:
                found = self._direct
                if found is None or found[0] != self._transport.generation:
                    requirement = self._transport.direct_replies(self._on_reply, self._on_lost)
                    found = self._direct = (self._transport.generation, requirement)
        return found[1]

    _direct: tuple[int, Requirement] | None = None

    def _on_lost(self, on_their_way: Collection[str]) -> None:
        """Break off the calls that were answered to a channel which is gone; on the I/O loop.

        Args:
            on_their_way: Ids of calls that will be sent again, with a new address.
        """
        with self._lock:
            lost = [
                pending
                for task_id, pending in self._waiting.items()
                if task_id not in on_their_way and not pending.ready
            ]
        for pending in lost:
            pending.fail(
                ReplyLost(
                    f"the reply to call {pending.task_id} is lost: the connection it was to come "
                    "over ended; the task may still run",
                    hint="use rpc://, whose reply queue outlives a connection, or a backend "
                    "that stores",
                )
            )
        if lost:
            log.warning("result.lost count=%d: their connection ended", len(lost))
