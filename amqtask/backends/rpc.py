"""Results as messages: each client process has one reply queue.

A call carries the queue's name in ``reply_to``; the worker publishes the
outcome there, with the task id as ``correlation_id``. Only the process that
sent a call can read its outcome, and only while it lives: for more, use a
backend that stores.

Wire: body and properties as Celery's rpc backend writes them (celery 5.7,
``celery/backends/rpc.py``), so either side reads the other's.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar
from weakref import WeakSet, WeakValueDictionary

from amqtask.backends.base import Can, Done
from amqtask.backends.pending import Pending
from amqtask.errors import BackendError, MessageError, ResultTooLarge, Unroutable
from amqtask.message import accepted, decode_meta, encode_meta
from amqtask.message.model import Message
from amqtask.message.results import ResultMeta
from amqtask.settings import Settings
from amqtask.transport import Publication, ReplyQueue, Requirement, Transport

log = logging.getLogger(__name__)

#: Seconds without a consumer after which a reply queue goes when results are kept for ever.
_LONG = 86400.0
#: Outcomes kept for handles that are made after they arrived.
_UNCLAIMED = 1000

_living: WeakSet[RpcBackend] = WeakSet()


class RpcBackend:
    """``rpc://``: outcomes come back over this process's reply queue.

    Threads: safe from any thread. Fork: a child gets a reply queue of its own;
    handles made before the fork stay with the parent.
    """

    scheme: ClassVar[str] = "rpc"
    can: ClassVar[Can] = Can(stores=False, notifies=True, expires=True, groups=False)

    def __init__(self, transport: Transport, settings: Settings) -> None:
        self._transport = transport
        self._settings = settings
        self._accepted = accepted(settings.accept_content)
        self._lock = threading.Lock()
        self._waiting: WeakValueDictionary[str, Pending] = WeakValueDictionary()
        self._unclaimed: OrderedDict[str, ResultMeta] = OrderedDict()
        self._replies: tuple[int, ReplyQueue, Requirement] | None = None
        _living.add(self)

    def watch(self, task_id: str) -> Pending:
        """See `Backend.watch`."""
        with self._lock:
            pending = self._waiting.get(task_id)
            if pending is None:
                pending = self._waiting[task_id] = Pending(task_id)
            meta = self._unclaimed.pop(task_id, None)
        if meta is not None:
            pending.resolve(meta)
        return pending

    def reply_to(self) -> str:
        """See `Backend.reply_to`."""
        return self._reply_queue()[0].name

    def requirements(self) -> Sequence[Requirement]:
        """See `Backend.requirements`."""
        return (self._reply_queue()[1],)

    def save(self, meta: ResultMeta, *, reply_to: str, correlation_id: str, done: Done) -> None:
        """Publish an outcome to ``reply_to``; see `Backend.save`.

        Delivery: confirmed by the broker before ``done``. When the reply queue is
        gone nobody can want the outcome any more: that is logged and counts as done.
        """
        if not reply_to:
            done(None)
            return
        body = encode_meta(meta)
        largest = self._settings.result_max_size
        if len(body) > largest:
            done(
                ResultTooLarge(
                    f"result (id {meta.task_id}) has {len(body)} bytes, "
                    f"result_max_size is {largest}",
                    hint="store the data elsewhere and return a reference to it",
                )
            )
            return
        message = Message(
            body,
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=correlation_id,
            message_id=meta.task_id,
        )

        def on_done(publication: Publication) -> None:
            error = publication.error
            if isinstance(error, Unroutable):
                log.info(
                    "result.unwanted id=%s reply_to=%s: the caller's reply queue is gone",
                    meta.task_id,
                    reply_to,
                )
                error = None
            done(error)

        self._transport.publish(Publication(message, "", reply_to, on_done=on_done))

    def refresh(self, pending: Pending) -> None:
        """See `Backend.refresh`: what came is here already."""

    async def arefresh(self, pending: Pending) -> None:
        """See `Backend.arefresh`."""

    def forget(self, task_id: str) -> None:
        """Drop an outcome that came, asked for or not."""
        with self._lock:
            self._unclaimed.pop(task_id, None)
            pending = self._waiting.get(task_id)
        if pending is not None:
            pending.reset()

    async def aforget(self, task_id: str) -> None:
        """See `forget`; it does not block."""
        self.forget(task_id)

    def save_group(self, group_id: str, members: object) -> None:
        """See `Backend.save_group`."""
        raise self._no_groups()

    def load_group(self, group_id: str) -> object | None:
        """See `Backend.load_group`."""
        raise self._no_groups()

    def forget_group(self, group_id: str) -> None:
        """See `Backend.forget_group`."""
        raise self._no_groups()

    def close(self, timeout: float) -> None:
        """See `Backend.close`: the transport's end takes the reply queue along."""

    def _no_groups(self) -> BackendError:
        return BackendError(
            f"backend {self.scheme}:// keeps no groups: only this process reads its outcomes",
            hint="keep the GroupResult itself, or use a backend that stores",
        )

    def _reply_queue(self) -> tuple[ReplyQueue, Requirement]:
        found = self._replies
        if found is None or found[0] != self._transport.generation:
            with self._lock:
                found = self._replies
                if found is None or found[0] != self._transport.generation:
                    replies = self._transport.open_replies(
                        expires=self._settings.result_expires or _LONG, on_reply=self._on_reply
                    )
                    requirement = Requirement("reply queue", replies.ready)
                    found = self._replies = (self._transport.generation, replies, requirement)
        return found[1], found[2]

    def _on_reply(self, message: Message) -> None:
        """Match one reply to whoever waits for it; runs on the I/O loop."""
        try:
            meta = decode_meta(message.body, message.content_type, self._accepted)
        except MessageError as error:
            log.warning(
                "result.unreadable id=%s error=%r: dropped", message.correlation_id, str(error)
            )
            return
        task_id = message.correlation_id or meta.task_id
        with self._lock:
            pending = self._waiting.get(task_id)
            if pending is None:
                self._unclaimed[task_id] = meta
                if len(self._unclaimed) > _UNCLAIMED:
                    self._unclaimed.popitem(last=False)
                return
        pending.resolve(meta)


def _forked() -> None:
    for backend in list(_living):
        backend._lock = threading.Lock()  # the parent's may have been held


os.register_at_fork(after_in_child=_forked)
