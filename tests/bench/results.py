"""Results beside Celery's, on one backend: stored, and read again.

    python -m tests.bench.results redis://127.0.0.1:6379/5 [COUNT]

Run it with nothing else on the machine. Celery stores one by one, as its
workers do; amqtask's are stored as they come in, as its workers do.
"""

from __future__ import annotations

import argparse
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from amqtask import App, as_completed
from amqtask.backends import Backend
from amqtask.message.results import ResultMeta

#: Results on their way at once, as many as a worker holds deliveries.
UNDER_WAY = 1024
#: Seconds to wait for one result.
ANSWER = 60.0


def main() -> None:
    """Measure what the arguments say, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="the backend, as in the setting")
    parser.add_argument("count", nargs="?", type=int, default=50_000)
    said = parser.parse_args()
    for name, measure in (("amqtask", ours), ("Celery", theirs)):
        for step, seconds in measure(said.url, said.count).items():
            print(f"{name:8} {step:20} {said.count / seconds:10,.0f} results/s")


def ours(url: str, count: int) -> dict[str, float]:
    """Return the seconds of each step."""
    worker, caller = (App(name, environ={}, backend=url) for name in ("worker", "caller"))
    ids = [str(uuid.uuid4()) for _ in range(count)]
    backend = worker.backend
    assert backend is not None
    taken = {"stored": _timed(lambda: _store(backend, ids))}
    handles = [caller.result(task_id) for task_id in ids]

    def read() -> None:
        for handle in as_completed(handles, ANSWER):
            handle.get()

    taken["read, all together"] = _timed(read)
    once = [worker.result(task_id) for task_id in ids]
    taken["read, one by one"] = _timed(lambda: [handle.get(ANSWER) for handle in once])
    for app in (worker, caller):
        app.close()
    return taken


def _store(backend: Backend, ids: list[str]) -> None:
    room = threading.Semaphore(UNDER_WAY)

    def done(error: Exception | None) -> None:
        if error is not None:
            raise error
        room.release()

    for number, task_id in enumerate(ids):
        room.acquire()
        meta = ResultMeta(task_id, "SUCCESS", number, date_done=datetime.now(UTC))
        backend.save(meta, reply_to="", correlation_id=task_id, done=done)
    for _ in range(UNDER_WAY):
        room.acquire()


def theirs(url: str, count: int) -> dict[str, float]:
    """Return the seconds of each step."""
    import celery

    if url.startswith("memcached"):
        url = f"cache+{url}/"
    url = url.replace("db+postgresql:", "db+postgresql+psycopg:")
    url = url.replace("db+mysql:", "db+mysql+pymysql:")
    app: Any = celery.Celery("bench", backend=url, set_as_current=False)
    ids = [str(uuid.uuid4()) for _ in range(count)]

    def store() -> None:
        for number, task_id in enumerate(ids):
            app.backend.store_result(task_id, number, "SUCCESS")

    def read() -> None:
        for task_id in ids:
            app.AsyncResult(task_id).get(timeout=ANSWER)

    return {"stored": _timed(store), "read, one by one": _timed(read)}


def _timed(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
