"""A steady stream of calls of every kind, and a record of what was confirmed.

    asked --confirmed--> a promise: it must end, or be parked as it should
      `--raised--------> unsure: it may run, or never

Clients keep the number of open calls below a limit, so that a slow machine makes the run thin
rather than late.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amqtask import AmqtaskError, App, PipelineError

#: Share of each kind among the calls.
SHARES = {
    "plain": 40,
    "coroutine": 20,
    "computing": 8,
    "slow": 2,
    "large": 4,
    "delayed": 8,
    "retrying": 8,
    "failing": 4,
    "expendable": 6,
}
#: Kinds that wait in the broker's delay levels on their way.
LEVELLED = frozenset({"delayed", "retrying"})


@dataclass(slots=True)
class Sent:
    """One call of a client.

    Attributes:
        id: Of the call.
        kind: Name of the task.
        begun: `time.monotonic` when the client asked.
        confirmed: The same for the confirm; None while, or because, there is none.
        error: What the client was told instead.
    """

    id: str
    kind: str
    begun: float
    confirmed: float | None = None
    error: str = ""


class Load:
    """Clients that call until they are told to stop.

    Args:
        app: Sends the calls; knows no task.
        shares: How many of each kind among all.
        rate: Calls a second, all clients together.
        seed: Of what is called.
        settled: Returns how many calls are over, but for expendable ones, so that open ones
            can be limited.
        expendable: Name of the queue whose loss is one of the faults.
        limit: Open calls at most.
        batch: Calls that the first client has under way at once; the others wait for each.
        longest: Seconds that a slow call takes at most.
        total: Calls in all; None goes on until `stop`.
    """

    def __init__(
        self,
        app: App,
        shares: Mapping[str, int],
        *,
        rate: float,
        seed: int,
        settled: Callable[[], int],
        expendable: str,
        limit: int = 400,
        clients: int = 3,
        batch: int = 16,
        longest: float = 2.0,
        total: int | None = None,
    ) -> None:
        self._app = app
        self._kinds = list(shares)
        self._weights = list(shares.values())
        self._pause = clients / rate
        self._settled = settled
        self._expendable = expendable
        self._limit = limit
        self._batch = batch
        self._longest = longest
        self._left = total
        self._counted = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.sent: dict[str, Sent] = {}
        self._threads = [
            threading.Thread(
                target=self._work, args=(random.Random(seed * 1000 + index), index), daemon=True
            )
            for index in range(clients)
        ]

    def start(self) -> None:
        """Begin to call."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop calling; returns when each call was confirmed or refused."""
        self._stopping.set()
        self.join()

    def join(self) -> None:
        """Wait until all of a limited load is sent."""
        for thread in self._threads:
            thread.join()

    @property
    def promised(self) -> list[Sent]:
        """The calls that were confirmed."""
        return [each for each in self._all() if each.confirmed is not None]

    @property
    def counts(self) -> Counter[str]:
        """Confirmed calls, by kind."""
        return Counter(each.kind for each in self.promised)

    @property
    def errors(self) -> Counter[str]:
        """What clients were told instead of a confirm."""
        found = (each for each in self._all() if each.error)
        return Counter(f"{each.kind}: {each.error.rpartition(': ')[2][:120]}" for each in found)

    def _all(self) -> list[Sent]:
        with self._lock:
            return list(self.sent.values())

    def _work(self, rng: random.Random, index: int) -> None:
        batch = 1 if index else self._batch
        due = time.monotonic()
        while not self._stopping.is_set() and (count := self._take(batch)):
            while self._counted - self._settled() > self._limit:
                if self._stopping.wait(0.05):
                    return
            calls = [self._choose(rng) for _ in range(count)]
            self._send(calls)
            due = max(due + self._pause * count, time.monotonic() - 1.0)
            self._stopping.wait(max(0.0, due - time.monotonic()))

    def _take(self, count: int) -> int:
        with self._lock:
            if self._left is None:
                return count
            count = min(count, self._left)
            self._left -= count
            return count

    def _send(self, calls: list[tuple[Sent, list[Any], dict[str, Any]]]) -> None:
        with self._lock:
            self.sent.update((sent.id, sent) for sent, _, _ in calls)
            self._count(calls, 1)
        try:
            if len(calls) == 1:
                self._call(*calls[0])
            else:
                with self._app.pipeline():
                    for call in calls:
                        self._call(*call)
        except PipelineError as error:
            failed = {call: str(why) for call, why in error.failures}
        except AmqtaskError as error:
            failed = {sent.id: str(error) for sent, _, _ in calls}
        else:
            failed = {}
        now = time.monotonic()
        for sent, _, _ in calls:
            if sent.id in failed:
                sent.error = failed[sent.id]
            else:
                sent.confirmed = now
        with self._lock:
            self._count([call for call in calls if call[0].id in failed], -1)

    def _count(self, calls: list[tuple[Sent, list[Any], dict[str, Any]]], by: int) -> None:
        self._counted += by * sum(sent.kind != "expendable" for sent, _, _ in calls)

    def _call(self, sent: Sent, args: list[Any], options: dict[str, Any]) -> None:
        self._app.send_task(sent.kind, args, task_id=sent.id, ignore_result=True, **options)

    def _choose(self, rng: random.Random) -> tuple[Sent, list[Any], dict[str, Any]]:
        (kind,) = rng.choices(self._kinds, self._weights)
        args, options = self._arguments(kind, rng)
        return Sent(str(uuid.uuid4()), kind, time.monotonic()), args, options

    def _arguments(self, kind: str, rng: random.Random) -> tuple[list[Any], dict[str, Any]]:
        match kind:
            case "plain" | "coroutine" | "computing":
                return [round(rng.uniform(0.0, self._longest / 100), 4)], {}
            case "slow":
                return [round(rng.uniform(self._longest / 4, self._longest), 2)], {}
            case "large":
                size = rng.randrange(20_000, 400_000)
                return ["x" * size, size], {}
            case "delayed":
                return [], {"countdown": round(rng.uniform(0.1, 4.0), 2)}
            case "retrying":
                return [rng.randint(1, 2), round(rng.uniform(0.1, 1.0), 2)], {}
            case "expendable":
                return [], {"queue": self._expendable}
            case _:
                return [], {}
