"""The one thread of a process that waits for outcomes, however many callers wait.

Where the store notifies:

    connecting --listening, all loaded--> following --news--> following
        ^                                     |
        `-----back-off <--------lost----------'

Where it does not, the thread looks: soon after a call is waited for, then
less and less often, for all calls at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from amqtask.backends.base import Found, Listener, Store
from amqtask.backends.codec import Codec
from amqtask.backends.pending import Pending
from amqtask.errors import AmqtaskError, MessageError
from amqtask.message.results import ResultMeta
from amqtask.transport.backoff import Backoff

log = logging.getLogger(__name__)

#: Seconds between two looks into a store that does not notify: the first pause, and the longest.
SOON, LATE = 0.005, 0.5
#: How much longer each pause is than the one before.
SLOWER = 1.5
#: Seconds without news after which all is looked up, in case a notification was lost.
CHECK = 30.0
#: Calls that are over and still followed, at most.
FORGET = 256
#: Calls looked up at once.
CHUNK = 500


def deliver(pending: Pending, found: Found, codec: Codec) -> None:
    """Give what a store knows to whoever waits for it."""
    try:
        if isinstance(found, MessageError):
            raise found
        meta = found if isinstance(found, ResultMeta) else codec.decode(found)
    except MessageError as error:
        log.warning("result.unreadable id=%s error=%r", pending.task_id, str(error))
        pending.fail(error)
    else:
        pending.resolve(meta)


class Reader:
    """Resolves every `Pending` that somebody waits for.

    Args:
        store: What is read.
        poke: Calls a function soon, in another thread: waking a listener may block.

    Threads: `want` and `unwant` from any thread; neither blocks.
    """

    def __init__(self, store: Store, poke: Callable[[Callable[[], None]], object]) -> None:
        self._store = store
        self._poke = poke
        self._changed = threading.Condition()
        self._wanted: dict[str, Pending] = {}
        self._new: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        self._thread: threading.Thread | None = None
        self._listener: Listener | None = None
        self._taking = False

    def want(self, pending: Pending) -> None:
        """Follow a call until its end, or `unwant`."""
        with self._changed:
            self._wanted[pending.task_id] = pending
            self._new[pending.task_id] = None
            self._gone.pop(pending.task_id, None)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="amqtask-reader", daemon=True
                )
                self._thread.start()
            self._wake()

    def unwant(self, pending: Pending) -> None:
        """Follow a call no more."""
        with self._changed:
            if self._wanted.pop(pending.task_id, None) is not None:
                self._new.pop(pending.task_id, None)
                self._gone[pending.task_id] = None

    def close(self, timeout: float) -> None:
        """End the thread; whoever waits on goes on waiting, and a new wait starts it again."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._wake()
        if thread is not None:
            thread.join(timeout)

    # -- in the thread --------------------------------------------------------------

    def _run(self) -> None:
        follow = self._listen if self._store.can.notifies else self._look
        backoff = Backoff(first=0.1, cap=5.0)
        while self._mine():
            try:
                follow(backoff)
            except AmqtaskError as error:
                wait = backoff.next()
                log.warning(
                    "results.away backend=%s error=%r: looked for again in %.1f s",
                    self._store,
                    str(error),
                    wait,
                )
                self._pause(wait)
            except Exception:  # a store's bug must not leave everybody waiting for a dead thread
                log.exception("results.reader_failed: a bug in the backend, going on")
                self._pause(backoff.next())

    def _mine(self) -> bool:
        return self._thread is threading.current_thread()

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._mine(), seconds)

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._taking and self._listener is not None:
            self._taking = False  # one wake-up is enough
            self._poke(partial(self._wake_up, self._listener))

    def _wake_up(self, listener: Listener) -> None:
        """Have the thread look at what is wanted; in another thread, as it may block."""
        try:
            listener.wake()
        except AmqtaskError as error:
            log.info("results.not_woken error=%r: the next wait wakes it", str(error))
            with self._changed:
                self._taking = self._listener is listener

    def _look(self, backoff: Backoff) -> None:
        """Look again and again, until the thread is to end."""
        pause = SOON
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or not self._mine())
                if not self._mine():
                    return
                self._new.clear()
                self._gone.clear()
                ids = list(self._wanted)
            found = self._load(ids)
            backoff.reset()
            with self._changed:
                fresh = self._changed.wait_for(lambda: self._new or not self._mine(), pause)
            pause = SOON if found or fresh else min(LATE, pause * SLOWER)

    def _listen(self, backoff: Backoff) -> None:
        """Follow the news, until the thread is to end."""
        listener = self._store.listen()
        try:
            with self._changed:
                self._listener = listener
                self._new.update(dict.fromkeys(self._wanted))
            self._take_news(listener, backoff)
        finally:
            with self._changed:
                self._listener = None
                self._taking = False
            listener.close()

    def _take_news(self, listener: Listener, backoff: Backoff) -> None:
        checked = time.monotonic()
        while True:
            with self._changed:
                if not self._mine():
                    return
                new, self._new = list(self._new), {}
                gone: list[str] = []
                if new or len(self._gone) >= FORGET:  # in one go, not each by itself
                    gone, self._gone = list(self._gone), {}
                if not new and not gone:
                    self._taking = True
            if gone:
                listener.unfollow(gone)
            if new:
                listener.follow(new)
                self._load(new)  # what came before we followed
            backoff.reset()
            news = () if new or gone else listener.take(CHECK)
            with self._changed:
                self._taking = False
            self._deliver(news)
            if time.monotonic() - checked > CHECK:
                checked = time.monotonic()
                with self._changed:
                    ids = list(self._wanted)
                self._load(ids)

    def _load(self, ids: Sequence[str]) -> bool:
        """Look calls up; True when any of them had news."""
        news = False
        for start in range(0, len(ids), CHUNK):
            found = self._store.load(ids[start : start + CHUNK])
            news = self._deliver(found.items()) or news
        return news

    def _deliver(self, news: Iterable[tuple[str, Found | None]]) -> bool:
        changed = False
        lookups: list[str] = []
        for task_id, found in news:
            pending = self._wanted.get(task_id)
            if pending is None:
                continue
            if found is None:
                lookups.append(task_id)
                continue
            before = pending.meta
            deliver(pending, found, self._store.codec)
            changed = changed or pending.meta != before
            if pending.ready:
                with self._changed:
                    if self._wanted.pop(task_id, None) is not None:
                        self._gone[task_id] = None
        if lookups:
            changed = self._load(lookups) or changed
        return changed
