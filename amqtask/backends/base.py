"""The ports between the library and whatever keeps results.

    App, Settler --> Backend      never blocks; what the library calls
                       |-- rpc, direct: outcomes are messages
                       `-- StoredBackend: outcomes are kept, by a
                             --> Store      blocking, a handful of methods; what a new backend writes

All that every store would have to do again (queueing and batches, waiting,
back-off, expiry, sizes, compression, forks, "a SUCCESS is never overwritten")
is in `StoredBackend`, so a store is only reading and writing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from amqtask.backends.chords import Chords, Register
from amqtask.backends.codec import Codec
from amqtask.backends.pending import Pending
from amqtask.errors import BackendError, ConfigurationError, MessageError
from amqtask.message.results import ResultMeta
from amqtask.records import record
from amqtask.settings import Settings, redact_url
from amqtask.transport import Requirement
from amqtask.transport.url import BrokerURL

#: What a store knows of a call: the document's bytes, the document, or why it cannot be read.
Found: TypeAlias = bytes | ResultMeta | MessageError

Done: TypeAlias = Callable[[Exception | None], object]


@dataclass(frozen=True, slots=True)
class Can:
    """What a backend can do, as a table in its class.

    Attributes:
        stores: Outcomes are kept: any process may read them, more than once.
        notifies: The store tells when something changed; without it one thread per
            process looks, with a back-off.
        expires: It drops by itself what is past its time; without it a worker does.
        guards: It never overwrites a SUCCESS, whoever writes at the same time; without
            it the library looks before it writes, as Celery does.
        counts: It has atomic counters.
        groups: It keeps groups.
        keeps: It keeps small values beside results, which with ``counts`` is what chords need.
        largest: Bytes of the largest record; None for no limit worth naming.
    """

    stores: bool = True
    notifies: bool = False
    expires: bool = False
    guards: bool = False
    counts: bool = False
    groups: bool = True
    keeps: bool = False
    largest: int | None = None


@record(frozen=True, slots=True)
class Record:
    """One outcome on its way into a store.

    Attributes:
        id: The call's id.
        body: The document as Celery writes it, compressed if that was asked for.
        expires: Seconds to keep it; None for ever.
        meta: The same, not encoded, for stores that keep its parts apart.
    """

    id: str
    body: bytes
    expires: float | None
    meta: ResultMeta

    @property
    def final(self) -> bool:
        """Whether nothing may replace it."""
        return self.meta.status == "SUCCESS"


class Listener(Protocol):
    """The news of a store that notifies. One thread uses it; `wake` alone comes from another."""

    def follow(self, ids: Sequence[str]) -> None:
        """Take news of these calls from now on; returns once none can be missed."""
        ...

    def unfollow(self, ids: Sequence[str]) -> None:
        """Take no more news of these."""
        ...

    def take(self, timeout: float) -> Sequence[tuple[str, Found | None]]:
        """Block for news at most ``timeout`` seconds, or until `wake`.

        Returns:
            Ids and what is known of them; None says that it has to be loaded.
        """
        ...

    def wake(self) -> None:
        """Have `take` return."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class Store(ABC):
    """Where results are kept. This, or `KeyStore`, is what a new backend derives from.

    Nothing connects before the first use. A driver's errors leave it as
    `BackendUnavailable`, when trying again may help, or as `BackendError`.

    Args:
        url: As in the ``backend`` setting.
        settings: The app's settings.
        codec: Writes and reads documents.

    Attributes:
        can: What it can do.

    Threads: called from several threads at once, all of them the library's, so
        every method may block.
    Fork: a child makes a store of its own, and calls `forked` on its parent's.
    """

    can: Can = Can()

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        self.url = url
        self.settings = settings
        self.codec = codec

    @abstractmethod
    def save(self, records: Sequence[Record]) -> None:
        """Store records, each of another call; all of them, or raise."""

    @abstractmethod
    def load(self, ids: Sequence[str]) -> Mapping[str, Found]:
        """Return what is known of these calls; unknown ones are left out."""

    @abstractmethod
    def forget(self, ids: Sequence[str]) -> None:
        """Drop what is known of these calls."""

    def expire(self, now: datetime) -> int:
        """Drop what is past its time and return how much that was; where `Can.expires` is false."""
        return 0

    def save_group(self, group_id: str, body: bytes, expires: float | None) -> None:
        """Store the members of a group."""
        raise BackendError(f"backend {self} keeps no groups")

    def load_group(self, group_id: str) -> bytes | None:
        """Return the members of a group; None when it is unknown."""
        raise BackendError(f"backend {self} keeps no groups")

    def forget_group(self, group_id: str) -> None:
        """Drop a group."""
        raise BackendError(f"backend {self} keeps no groups")

    def count(self, key: str, by: int, expires: float | None) -> int:
        """Add to a counter, which begins at 0, and return it; where `Can.counts` is true."""
        raise BackendError(f"backend {self} has no counters")

    def keep(self, key: str, value: bytes, expires: float) -> bytes:
        """Keep a value unless there is one; returns what is there then. With `Can.keeps`."""
        raise BackendError(f"backend {self} keeps results only")

    def kept(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return values that are kept; unknown ones are left out. With `Can.keeps`."""
        raise BackendError(f"backend {self} keeps results only")

    def unkeep(self, keys: Sequence[str]) -> None:
        """Drop values that are kept. With `Can.keeps`."""
        raise BackendError(f"backend {self} keeps results only")

    def chords(self) -> Chords | None:
        """Return how Celery keeps chords here; None where it has no way that can be shared."""
        return None

    def register(self) -> Register | None:
        """Return where open chords are on record; None where they cannot be listed."""
        return None

    def listen(self) -> Listener:
        """Open a way for news; where `Can.notifies` is true."""
        raise BackendError(f"backend {self} does not notify")

    def close(self) -> None:  # noqa: B027 - a store without connections has nothing to do
        """Let go of every connection; the next call makes new ones."""

    def forked(self) -> None:  # noqa: B027 - as above
        """Drop the parent's connections, in the child, without a word to the server."""

    def __str__(self) -> str:
        return redact_url(self.url)


class Backend(Protocol):
    """What a result backend offers the library.

    Threads: every method may be called from any thread. Those that say so block;
    the ones that begin with ``a`` do the same for coroutines.
    """

    @property
    def can(self) -> Can:
        """What it can do."""
        ...

    def watch(self, task_id: str) -> Pending:
        """Return the `Pending` of a call; the same one while anybody holds it."""
        ...

    def reply_to(self) -> str:
        """Return the address to put into calls, ``""`` when outcomes are stored."""
        ...

    def requirements(self) -> Sequence[Requirement]:
        """Return what must be ready before a call whose outcome is wanted goes out."""
        ...

    def save(self, meta: ResultMeta, *, reply_to: str, correlation_id: str, done: Done) -> None:
        """Store an outcome or a state; must not block.

        Args:
            done: Called once, from any thread, with None when it is safe, or with
                the error that kept it from being stored.

        Raises:
            EncodeError: The result does not serialise.
        """
        ...

    def refresh(self, pending: Pending) -> None:
        """Look up what is known of a call now; blocks."""
        ...

    async def arefresh(self, pending: Pending) -> None:
        """Look up what is known of a call now."""
        ...

    def forget(self, task_id: str) -> None:
        """Drop what is kept of a call; blocks."""
        ...

    async def aforget(self, task_id: str) -> None:
        """Drop what is kept of a call."""
        ...

    def save_group(self, group_id: str, members: object) -> None:
        """Store the members of a group, in Celery's form; blocks."""
        ...

    def load_group(self, group_id: str) -> object | None:
        """Return the members of a group, None when it is unknown; blocks."""
        ...

    def forget_group(self, group_id: str) -> None:
        """Drop a group; blocks."""
        ...

    def close(self, timeout: float) -> None:
        """Store what waits, at most ``timeout`` seconds, and disconnect; the next use opens again."""
        ...


# -- what stores share ----------------------------------------------------------


def query(url: str) -> dict[str, str]:
    """Return the options at the end of a URL."""
    return dict(parse_qsl(urlsplit(url).query))


def home(settings: Settings) -> str:
    """Return what tells an app's chords from those of another broker's apps in the same store.

    Hosts do not: one broker may have a different name for each of its clients.
    """
    return f"{BrokerURL.parse(settings.broker[0]).vhost}:{settings.exchange}"


def missing(scheme: str, package: str, extra: str) -> ConfigurationError:
    """Return the error for a driver that is not installed."""
    return ConfigurationError(
        f"backend {scheme}:// needs the package {package!r}, which is not installed",
        hint=f'pip install "amqtask[{extra}]"',
    )


def whole_seconds(expires: float | None) -> int | None:
    """Return a time to live for stores that count whole seconds, never too short."""
    return None if expires is None else max(1, -int(-expires // 1))
