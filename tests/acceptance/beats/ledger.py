"""What beats fired, as their queue had it, and what that says of them."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pika
import pika.exceptions

_ORIGIN = re.compile(r"amqtask(\d+)@")


@dataclass(frozen=True, slots=True)
class Fired:
    """One message.

    Attributes:
        entry: The entry it is for.
        instant: The instant it is for.
        id: The call's id.
        pid: The process that sent it.
        at: Monotonic seconds at which it came.
    """

    entry: str
    instant: datetime
    id: str
    pid: int
    at: float


class Ledger:
    """Takes every message of one queue, from a thread of its own.

    It connects anew when its broker restarts, and acks what it has written down, so that what it
    writes twice was sent or delivered twice; the latter it leaves out, by the redelivered flag and
    the same message having been written down before.
    """

    def __init__(self, urls: Sequence[str], queue: str) -> None:
        self._urls, self._queue = itertools.cycle(urls), queue
        self._lock = threading.Lock()
        self._fired: list[Fired] = []
        self._ending = threading.Event()
        self._moving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def fired(self) -> list[Fired]:
        """What was fired so far, in the order in which it came."""
        with self._lock:
            return list(self._fired)

    def move(self, urls: Sequence[str]) -> None:
        """Take from these brokers from now on."""
        self._urls = itertools.cycle(urls)
        self._moving.set()

    def close(self) -> None:
        """Stop taking."""
        self._ending.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._ending.is_set():
            # the queue is not there yet, or the broker is not
            with suppress(pika.exceptions.AMQPError, OSError):
                self._take()
            self._ending.wait(0.2)

    def _take(self) -> None:
        self._moving.clear()
        parameters = pika.URLParameters(next(self._urls))
        parameters.heartbeat = 5
        connection = pika.BlockingConnection(parameters)
        try:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=500)
            for method, props, _ in channel.consume(self._queue, inactivity_timeout=0.1):
                if self._ending.is_set() or self._moving.is_set():
                    return
                if method is not None:
                    self._write(method, props)
                    channel.basic_ack(method.delivery_tag)
        finally:
            with suppress(pika.exceptions.AMQPError):
                connection.close()

    def _write(self, method: Any, props: Any) -> None:
        headers = props.headers
        found = _ORIGIN.search(headers["origin"])
        assert found is not None
        fired = Fired(
            headers["x-amqtask-entry"],
            datetime.fromisoformat(headers["x-amqtask-instant"]),
            headers["id"],
            int(found[1]),
            time.monotonic(),
        )
        with self._lock:
            if method.redelivered and any(
                each.id == fired.id and each.pid == fired.pid for each in self._fired
            ):
                return
            self._fired.append(fired)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a ledger says.

    Attributes:
        instants: Different ones that were fired, of all entries.
        repeats: Messages beyond one for each instant.
        missing: Instants between the first and the last that were not fired.
        two_ids: Instants that were fired under more than one id.
        gap: Seconds of the longest silence.
    """

    instants: int
    repeats: int
    missing: list[tuple[str, datetime]]
    two_ids: list[tuple[str, datetime]]
    gap: float


def judge(fired: Sequence[Fired], interval: timedelta = timedelta(seconds=1)) -> Verdict:
    """Judge the fires of entries that are due at every full ``interval``."""
    seen = Counter((each.entry, each.instant) for each in fired)
    missing = []
    for entry in {each.entry for each in fired}:
        instants = sorted(instant for name, instant in seen if name == entry)
        instant = instants[0]
        while instant < instants[-1]:
            instant += interval
            if (entry, instant) not in seen:
                missing.append((entry, instant))
    ids: dict[tuple[str, datetime], set[str]] = {}
    for each in fired:
        ids.setdefault((each.entry, each.instant), set()).add(each.id)
    at = [each.at for each in fired]
    return Verdict(
        instants=len(seen),
        repeats=len(fired) - len(seen),
        missing=missing,
        two_ids=[key for key, found in ids.items() if len(found) > 1],
        gap=max((after - before for before, after in itertools.pairwise(at)), default=0.0),
    )
