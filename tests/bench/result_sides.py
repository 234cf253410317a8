"""The processes that keep results and read them, ours and Celery's; see `tests.bench.results`.

Celery stores one by one, as its workers do; amqtask's are stored as they come in, as its workers
do. Each function returns the seconds of its steps.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from amqtask import App, AsyncResult, as_completed
from amqtask.backends import Backend
from amqtask.message.results import ResultMeta

#: Results on their way at once, as many as a worker holds deliveries.
UNDER_WAY = 1024
#: Seconds to wait for one result.
ANSWER = 120.0
#: Seconds that what is measured stays in a server that others use, too.
KEPT = 900.0

#: What a step is called in the tables.
STORED, ONE_BY_ONE, TOGETHER = "stored", "read one by one", "read together"
#: Over rpc:// outcomes come while others are still being sent, so both are one step.
BOTH = "sent, and read one by one"


def ours(url: str, broker: str, queue: str, count: int) -> dict[str, float]:
    """Store and read with amqtask."""
    worker, caller = open_apps(url, broker, queue)
    ids = [str(uuid.uuid4()) for _ in range(count)]
    backend, reads = worker.backend, caller.backend
    assert backend is not None
    assert reads is not None
    reply_to = ready(caller, queue)
    # over rpc:// an outcome comes to whoever has its handle already
    handles = [caller.result(task_id) for task_id in ids]

    def read() -> None:
        for handle in handles:
            handle.get(ANSWER)

    taken = {STORED: _timed(lambda: store(backend, ids, reply_to)), ONE_BY_ONE: _timed(read)}
    if reads.can.stores:
        again = [worker.result(task_id) for task_id in ids]
        taken[TOGETHER] = _timed(lambda: [each.get() for each in as_completed(again, ANSWER)])
    else:
        taken = {BOTH: sum(taken.values())}
    for app in (worker, caller):
        app.close()
    return taken


def store(backend: Backend, ids: Sequence[str], reply_to: str = "") -> None:
    """Store a result for each id, and return once all are safe."""
    room = threading.Semaphore(UNDER_WAY)
    failed: list[Exception] = []

    def done(error: Exception | None) -> None:
        if error is not None:
            failed.append(error)
        room.release()

    for number, task_id in enumerate(ids):
        room.acquire()
        meta = ResultMeta(task_id, "SUCCESS", number, date_done=datetime.now(UTC))
        backend.save(meta, reply_to=reply_to, correlation_id=task_id, done=done)
    for _ in range(UNDER_WAY):
        room.acquire()
    if failed:
        raise failed[0]


def theirs(url: str, broker: str, queue: str, count: int) -> dict[str, float]:
    """Store and read with Celery, as its own settings are."""
    import celery

    app: Any = celery.Celery(
        "bench", broker=broker, backend=_their_url(url), set_as_current=False, result_expires=KEPT
    )
    backend = app.backend
    ids = [str(uuid.uuid4()) for _ in range(count)]
    said: dict[str, Any] = {}
    if url == "rpc://":
        with app.producer_or_acquire() as producer:
            backend.on_task_call(producer, ids[0])
        said["request"] = _Request(backend.oid)

    def save() -> None:
        for number, task_id in enumerate(ids):
            if said:
                said["request"].correlation_id = task_id
            backend.store_result(task_id, number, "SUCCESS", **said)

    taken = {STORED: _timed(save)}
    handles = [app.AsyncResult(task_id) for task_id in ids]
    taken[ONE_BY_ONE] = _timed(lambda: [handle.get(timeout=ANSWER) for handle in handles])
    return {BOTH: sum(taken.values())} if said else taken


def wakes(url: str, broker: str, queue: str, count: int) -> dict[str, list[float]]:
    """Return the seconds from a worker's giving an outcome away to its waiter's going on."""
    worker, caller = open_apps(url, broker, queue)
    backend, reads = worker.backend, caller.backend
    assert backend is not None
    assert reads is not None
    reply_to = ready(caller, queue)
    late = []
    for number in range(count + 5):
        handle = caller.result(str(uuid.uuid4()))
        woken, thread = _waiter(handle)
        while not handle._need().awaited:
            time.sleep(0.0005)
        time.sleep(0.02)  # it follows by now, and waits as one does whose call takes a while
        began = time.perf_counter()
        store(backend, [handle.id], reply_to)
        thread.join(ANSWER)
        if number >= 5:  # the first ones connect
            late.append(woken[0] - began)
    for app in (worker, caller):
        app.close()
    return {"late": late}


def finish() -> None:
    """See `tests.bench.side`: nothing is held."""


def _waiter(handle: AsyncResult[Any]) -> tuple[list[float], threading.Thread]:
    woken: list[float] = []

    def wait() -> None:
        handle.get(ANSWER)
        woken.append(time.perf_counter())

    thread = threading.Thread(target=wait)
    thread.start()
    return woken, thread


def open_apps(url: str, broker: str, queue: str) -> tuple[App, App]:
    """Return a worker's app and a caller's."""
    said: dict[str, Any] = {"backend": url, "broker": broker, "result_expires": KEPT}
    if queue:
        said["queues"] = [queue]
    worker, caller = (App(name, environ={}, **said) for name in ("w", "c"))
    return worker, caller


def ready(app: App, queue: str) -> str:
    """Return the address for replies, once it is one."""
    assert app.backend is not None
    if app.backend.can.stores:
        return ""
    app.send_task("bench.nothing", queue=queue)  # confirmed once its replies have a place
    return app.backend.reply_to()


class _Request:
    """What Celery's rpc backend reads of the call that it answers."""

    def __init__(self, reply_to: str) -> None:
        self.reply_to = reply_to
        self.correlation_id = ""
        self.children: list[Any] = []
        self.group = self.parent_id = self.root_id = None
        self.stamps: dict[str, Any] = {}
        self.stamped_headers = None


def _their_url(url: str) -> str:
    """Return what Celery calls the same place."""
    if url.startswith("memcached:"):
        return f"cache+{url}/"
    return url.replace("db+postgresql:", "db+postgresql+psycopg:").replace(
        "db+mysql:", "db+mysql+pymysql:"
    )


def _timed(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin
