"""Programs that send from everywhere at once; each is run as a process of its own.

``python -m tests.integration.transport.senders NAME URL QUEUE`` prints the ids of the calls that
were confirmed, one a line; what else it prints, on stderr, is a failure.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from amqtask import App, PipelineError, PublishError, Queue

THREADS = 16
EACH = 40


def make_app(url: str, queue: str, **settings: Any) -> App:
    described = Queue(queue, exchange="", dead_letter=False)
    settings.setdefault("publish_timeout", 60)  # a loaded machine is no failure
    return App("senders", broker=url, queues=[described], default_queue=queue, **settings)


def send(app: App, who: str, count: int = EACH) -> list[str]:
    return [app.send_task("t", (who,), task_id=f"{who}-{number}").id for number in range(count)]


async def asend(app: App, who: str, count: int = EACH) -> list[str]:
    calls = (app.asend_task("t", (who,), task_id=f"{who}-{n}") for n in range(count))
    return [result.id for result in await asyncio.gather(*calls)]


def forked(function: Callable[[], list[str]], *, clean: bool) -> int:
    """Run the function in a forked child, which prints its ids; return the child's pid.

    Args:
        clean: True ends the child as a Python program ends, False at once.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        gc.collect()  # what is left of the parent's connections must not write to them
        show(function())
        gc.collect()
        status = 0
    except BaseException:
        traceback.print_exc()  # os._exit below would end it without a word
        raise
    finally:
        if not clean or status:
            sys.stdout.flush()
            os._exit(status)
    sys.exit(0)


def show(ids: list[str]) -> None:
    # one write, so that lines of several processes do not mix
    os.write(1, "".join(f"{id_}\n" for id_ in ids).encode())


def waited(*pids: int) -> None:
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        if status:
            sys.exit(f"child {pid} ended with status {status}")


def everything(app: App) -> None:
    """Threads, a loop and forked children at once, over one app that is connected already."""
    ids = send(app, "before", 1)
    barrier = threading.Barrier(THREADS + 1)

    def run(who: str) -> None:
        barrier.wait()
        ids.extend(send(app, who))

    threads = [threading.Thread(target=run, args=(f"thread{n}",)) for n in range(THREADS)]
    for thread in threads:
        thread.start()

    async def loop() -> None:
        barrier.wait()
        ids.extend(await asend(app, "loop"))

    running = threading.Thread(target=lambda: asyncio.run(loop()))
    running.start()
    children = [
        forked(partial(send, app, "child"), clean=False),
        forked(lambda: asyncio.run(asend(app, "async-child")), clean=True),
    ]
    for thread in (*threads, running):
        thread.join()
    ids += send(app, "after", 1)
    waited(*children)
    show(ids)
    app.close()


def forks(app: App) -> None:
    """Fork again and again while another thread sends, and declares, without a pause."""
    ids: list[str] = []
    over = threading.Event()

    def run() -> None:
        number = 0
        while not over.is_set():
            ids.append(app.send_task("t", task_id=f"parent-{number}").id)
            number += 1

    thread = threading.Thread(target=run)
    thread.start()
    for number in range(10):
        waited(forked(partial(send, app, f"child{number}", 3), clean=number % 2 == 0))
    over.set()
    thread.join()
    show(ids)


def fork_before_use(app: App) -> None:
    """An app made before the fork and used first in children, as servers with workers do."""
    children = [forked(partial(send, app, f"child{n}", 5), clean=True) for n in range(3)]
    waited(*children)
    show(send(app, "parent", 5))


def pool(app: App) -> None:
    """A multiprocessing pool that forks under a connected app."""
    global _inherited
    _inherited = app
    show(send(app, "parent", 1))
    with multiprocessing.get_context("fork").Pool(2) as workers:
        for ids in workers.map(_send_inherited, ["one", "two", "three"]):
            show(ids)


_inherited: App


def _send_inherited(who: str) -> list[str]:
    return send(_inherited, who, 5)


def lazy_imports(app: App) -> None:
    """Print the modules that are imported by the first calls."""
    before = set(sys.modules)
    send(app, "first", 1)
    asyncio.run(asend(app, "async", 1))
    app.close()
    show(sorted(set(sys.modules) - before))


def fork_in_pipeline(app: App) -> None:
    """Fork inside a pipeline that has calls under way: each process confirms its own."""
    with app.pipeline():
        ids = send(app, "parent", 200)
        children = [
            forked(partial(send, app, "child", 5), clean=False),
            forked(partial(send, app, "clean-child", 5), clean=True),
        ]
    show(ids)
    waited(*children)


def closing(app: App) -> None:
    """Close the app again and again while threads send; a call ends confirmed or refused."""
    ids: list[str] = []
    over = threading.Event()

    def run(who: str) -> None:
        number = 0
        while not over.is_set():
            number += 1
            try:
                if number % 2:
                    ids.append(app.send_task("t", task_id=f"{who}-{number}").id)
                else:
                    with app.pipeline():
                        sent = app.send_task("t", task_id=f"{who}-{number}")
                    ids.append(sent.id)
            except (PublishError, PipelineError) as error:
                if not str(error).endswith("was not published: the app was closed"):
                    raise

    threads = [threading.Thread(target=run, args=(f"thread{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        before = len(ids)
        while len(ids) < before + 5:
            time.sleep(0.001)
        app.close()
    over.set()
    for thread in threads:
        thread.join()
    show(ids)


def pipeline(app: App) -> None:
    """One pipeline, filled from many threads."""
    ids: list[str] = []
    with app.pipeline():
        threads = [
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(lambda who=f"thread{n}": ids.extend(send(app, who)),),
            )
            for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    show(ids)


def no_close(app: App) -> None:
    """Ends without closing the app."""
    show(send(app, "last", 3))


def unreachable(app: App) -> None:
    """Ends while the app still tries to connect."""
    try:
        send(app, "never", 1)
    except Exception as error:
        os.write(1, f"{type(error).__name__}\n".encode())


def daemon_thread(app: App) -> None:
    """Ends while a daemon thread is in the middle of sending."""
    show(send(app, "main", 1))
    started = threading.Event()

    def run() -> None:
        with suppress(PublishError):  # at the end: the app was closed
            while True:
                app.send_task("t", task_id="daemon")
                started.set()

    threading.Thread(target=run, daemon=True).start()
    started.wait(60)


def unfinished_pipeline(app: App) -> None:
    """An exception ends the program inside a pipeline; what was sent is confirmed all the same."""
    try:
        with app.pipeline():
            show(send(app, "inside", 100))
            signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        pass


PROGRAMS: dict[str, Callable[[App], None]] = {
    each.__name__: each
    for each in (
        everything,
        forks,
        fork_before_use,
        pool,
        lazy_imports,
        fork_in_pipeline,
        closing,
        pipeline,
        no_close,
        unreachable,
        daemon_thread,
        unfinished_pipeline,
    )
}

if __name__ == "__main__":
    name, url, queue = sys.argv[1:]
    timeout = 1.0 if name == "unreachable" else 60.0
    PROGRAMS[name](make_app(url, queue, publish_timeout=timeout))
