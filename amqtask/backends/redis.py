"""``redis://``: results in Redis or Valkey, under Celery's keys and channels.

A record is written and published in one script, which never replaces a
SUCCESS. Whoever waits subscribes first and looks then, so nothing is missed;
one connection of a process carries all subscriptions.

    redis://user:password@host:6379/0        rediss:// with TLS, redis+socket:///path
    redis+sentinel://h1:26379,h2:26379/0?service=mymaster
    redis+cluster://host:6379                rediss+cluster:// with TLS
    valkey://, valkeys://, ...               the same

Source: celery 5.7 ``celery/backends/redis.py``.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import redis
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from amqtask.backends.base import Can, Found, Listener, Record, home, whole_seconds
from amqtask.backends.chords import Chords
from amqtask.backends.codec import Codec
from amqtask.backends.keys import KeyStore
from amqtask.backends.redis_chords import RedisChords
from amqtask.backends.redis_register import RedisRegister
from amqtask.backends.redis_scripts import Script
from amqtask.errors import BackendError, BackendUnavailable, ConfigurationError
from amqtask.settings import Settings

log = logging.getLogger(__name__)

#: Bytes of the largest value of a key.
_LARGEST = 512 * 1024 * 1024
#: Connections of a process at most, however many threads look for results.
_CONNECTIONS = 16
#: Seconds for a connection, and for an answer.
_CONNECT, _ANSWER = 5.0, 10.0

#: What asks for trying again: the server is away, starts, or is being replaced.
_AWAY = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.BusyLoadingError,
    redis_errors.ReadOnlyError,
    redis_errors.TryAgainError,
    redis_errors.ClusterDownError,
    redis_errors.MasterDownError,
)

#: Writes and publishes, unless a SUCCESS is there. Only what is compressed has to be judged by
#: the caller: then the value comes back, and the caller says which one may be replaced.
_SAVE = """
local old = redis.call('GET', KEYS[1])
if old and old ~= ARGV[3] then
  local start = string.sub(old, 1, 22)
  if string.find(start, '^{"status": ?"SUCCESS"') then return 0 end
  if string.sub(start, 1, 1) ~= '{' then return old end
end
if ARGV[2] == '' then redis.call('SET', KEYS[1], ARGV[1])
else redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1]) end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
"""
_SAVING = Script(_SAVE)
_COUNT = """
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
if ARGV[2] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return count
"""


class RedisStore(KeyStore):
    """Keeps results in Redis.

    Raises:
        ConfigurationError: The URL cannot be understood.
    """

    can = Can(notifies=True, expires=True, guards=True, counts=True, keeps=True, largest=_LARGEST)

    def __init__(self, url: str, settings: Settings, codec: Codec) -> None:
        super().__init__(url, settings, codec)
        self._connect = connector(url)
        self._made: Any = None
        self._making = threading.Lock()
        #: a connection for reads of one key, and whose turn it is
        self._held: Any = None
        self._holding = threading.Lock()

    @property
    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = self._connect(1)
            return self._made

    # -- records --------------------------------------------------------------------

    def save(self, records: Sequence[Record]) -> None:
        """See `Store.save`."""
        with _wrapped(self):
            answers = self._run_save([(record, b"") for record in records])
            # a compressed record is there: it is unpacked here, and named in the second try
            again = [
                (record, answer)
                for record, answer in zip(records, answers, strict=True)
                if isinstance(answer, bytes) and not self._is_success(answer)
            ]
            if again:
                self._run_save(again)

    def _run_save(self, records: Sequence[tuple[Record, bytes]]) -> list[Any]:
        client = self._client
        arguments = [
            (self.key(record.id), record.body, _seconds(record.expires), old)
            for record, old in records
        ]
        if isinstance(client, RedisCluster):  # its pipelines take no scripts
            return [client.eval(_SAVE, 1, *each) for each in arguments]
        return _SAVING.run(client, [((key,), rest) for key, *rest in arguments])

    def _is_success(self, value: bytes) -> bool:
        try:
            return self.codec.decode(value).status == "SUCCESS"
        except Exception:  # whatever is there and cannot be read may be replaced
            log.info("result.replaced: what was stored under its key cannot be read")
            return False

    def read(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """See `KeyStore.read`."""
        with _wrapped(self):
            client = self._client
            if len(keys) == 1:
                value = self._read_one(client, keys[0])
                return {} if value is None else {keys[0]: value}
            if isinstance(client, RedisCluster):
                values: Any = client.mget_nonatomic(list(keys))
            else:
                values = client.mget(list(keys))
            return {
                key: value for key, value in zip(keys, values, strict=True) if value is not None
            }

    def _read_one(self, client: Any, key: str) -> Any:
        """Read one key, on a connection that is kept.

        The way through the pool costs more than the question; who comes while the connection
        is in use takes that way.
        """
        pool: Any = getattr(client, "connection_pool", None)
        # Sentinel's pool has to see each use: the server may be no master any more
        plain = type(pool) is redis.BlockingConnectionPool
        if not plain or not self._holding.acquire(blocking=False):
            return client.get(key)
        try:
            if self._held is None:
                self._held = pool.get_connection()
            self._held.send_command("GET", key)
            return self._held.read_response()
        except BaseException as error:
            self._let_go(pool)  # half an answer may be in it
            if not isinstance(error, _AWAY):
                raise
        finally:
            self._holding.release()
        return client.get(key)

    def _let_go(self, pool: Any) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.disconnect()
            pool.release(held)

    def write(self, key: str, value: bytes, expires: float | None) -> None:
        """See `KeyStore.write`."""
        with _wrapped(self):
            self._client.set(key, value, ex=whole_seconds(expires))
            self._client.publish(key, value)

    def delete(self, keys: Sequence[str]) -> None:
        """See `KeyStore.delete`."""
        with _wrapped(self):
            for key in keys:  # one by one: in a cluster they live apart
                self._client.delete(key)

    def count(self, key: str, by: int, expires: float | None) -> int:
        """See `Store.count`."""
        with _wrapped(self):
            return int(self._client.eval(_COUNT, 1, self._count + key, by, _seconds(expires)))

    def keep(self, key: str, value: bytes, expires: float) -> bytes:
        """See `Store.keep`."""
        with _wrapped(self):
            name = self._group + key
            made = self._client.set(name, value, ex=whole_seconds(expires), nx=True)
            there = None if made else self._client.get(name)
            return value if there is None else bytes(there)

    def chords(self) -> Chords | None:
        """See `Store.chords`; a cluster has the keys of one chord in several places."""
        if "+cluster" in self.url.partition("://")[0]:
            return None
        decode = self.codec.decode_value
        register = self.register()
        return RedisChords(
            lambda: self._client, lambda: _wrapped(self), self._group, decode, register
        )

    def register(self) -> RedisRegister:
        """See `Store.register`."""
        where = home(self.settings)
        return RedisRegister(lambda: self._client, lambda: _wrapped(self), self._group, where)

    # -- news -----------------------------------------------------------------------

    def listen(self) -> Listener:
        """See `Store.listen`."""
        with _wrapped(self):
            # of its own, and without retries: redis-py would subscribe again after a loss
            # and say nothing, and what came meanwhile would be missed
            return _Listener(self, self._connect(0), self._task)

    def close(self) -> None:
        """See `Store.close`."""
        with self._making:
            made, self._made = self._made, None
        if made is not None:
            with _wrapped(self):
                with self._holding:
                    self._let_go(getattr(made, "connection_pool", None))
                _close(made)

    def forked(self) -> None:
        """See `Store.forked`: redis-py closes a socket without a word."""
        self._made = self._held = None


class _Listener:
    """The subscriptions of one process, on one connection.

    Redis has no way to interrupt a read, so the connection subscribes to a
    channel of its own, too, and `wake` publishes there.
    """

    def __init__(self, store: RedisStore, client: Any, prefix: str) -> None:
        self._store = store
        self._client = client  # its pool holds the subscribed connection, and another to wake it
        self._prefix = prefix
        self._own = f"amqtask-wake-{uuid.uuid4().hex}"
        self._pubsub = client.pubsub()
        with _wrapped(store):
            self._pubsub.subscribe(self._own)
            self._await_subscribed(1)
        self._early: list[tuple[str, Found | None]] = []

    def follow(self, ids: Sequence[str]) -> None:
        with _wrapped(self._store):
            self._pubsub.subscribe(*(self._prefix + task_id for task_id in ids))
            self._early = self._await_subscribed(len(ids))

    def unfollow(self, ids: Sequence[str]) -> None:
        with _wrapped(self._store):
            self._pubsub.unsubscribe(*(self._prefix + task_id for task_id in ids))

    def take(self, timeout: float) -> Sequence[tuple[str, Found | None]]:
        news, self._early = self._early, []
        deadline = time.monotonic() + timeout
        with _wrapped(self._store):
            # one at a time: with no time to wait, redis-py takes half a message for a lost server
            while not news and (left := deadline - time.monotonic()) > 0:
                message = self._pubsub.get_message(timeout=left)
                if message is None or message["type"] != "message":
                    continue
                if message["channel"].decode() == self._own:
                    break
                news.append(self._news(message))
        return news

    def wake(self) -> None:
        with _wrapped(self._store):
            self._client.publish(self._own, b"")

    def close(self) -> None:
        with suppress(redis_errors.RedisError, OSError):
            self._pubsub.close()
        with suppress(redis_errors.RedisError, OSError):
            _close(self._client)

    def _news(self, message: Mapping[str, Any]) -> tuple[str, Found | None]:
        return message["channel"].decode().removeprefix(self._prefix), message["data"]

    def _await_subscribed(self, count: int) -> list[tuple[str, Found | None]]:
        """Read until the server has confirmed; what comes between is kept."""
        early: list[tuple[str, Found | None]] = []
        deadline = time.monotonic() + _ANSWER
        while count:
            message = self._pubsub.get_message(timeout=max(0.0, deadline - time.monotonic()))
            if message is None:
                if time.monotonic() > deadline:
                    raise BackendUnavailable(f"backend {self._store} did not confirm in time")
            elif message["type"] == "subscribe":
                count -= 1
            elif message["type"] == "message" and message["channel"].decode() != self._own:
                early.append(self._news(message))
        return early


# -- URLs -----------------------------------------------------------------------


def connector(url: str) -> Callable[[int], Any]:
    """Return what makes a client for a URL, given how often it tries again by itself.

    Raises:
        ConfigurationError: It cannot be understood.
    """
    scheme, _, rest = url.partition("://")
    family, _, way = scheme.replace("valkeys", "rediss").replace("valkey", "redis").partition("+")
    options: dict[str, Any] = {
        "socket_connect_timeout": _CONNECT,
        "socket_timeout": _ANSWER,
        "socket_keepalive": True,
        "health_check_interval": 30,
        "client_name": f"amqtask-{socket.gethostname()}"[:60].replace(" ", "-"),
        "protocol": 2,
    }
    try:
        if family == "sentinel" or way == "sentinel":
            return _sentinel(rest, options)
        if way == "cluster":
            options.pop("protocol")
            return lambda _: RedisCluster.from_url(f"{family}://{rest}", **options)
        if way == "socket":
            options.pop("socket_keepalive")
            return lambda tries: redis.Redis.from_url(
                f"unix://{rest}", retry=_retry(tries), **options
            )
        pool = f"{family}://{_without_celery_words(rest)}"
        redis.ConnectionPool.from_url(pool)  # tells of a wrong URL now
        return lambda tries: redis.Redis.from_pool(
            redis.BlockingConnectionPool.from_url(
                pool,
                max_connections=_CONNECTIONS,
                timeout=_ANSWER,
                retry=_retry(tries),
                **options,
            )
        )
    except (ValueError, TypeError, redis_errors.RedisError) as error:
        raise ConfigurationError(
            f"backend URL cannot be understood: {error}",
            hint="write redis://user:password@host:6379/0",
        ) from None  # the cause would show the password


def _without_celery_words(rest: str) -> str:
    """Translate Celery's ``ssl_cert_reqs=CERT_REQUIRED`` and the like."""
    parts = urlsplit(f"//{rest}")
    words = [
        (name, value.removeprefix("CERT_").lower() if name == "ssl_cert_reqs" else value)
        for name, value in parse_qsl(parts.query)
    ]
    return urlunsplit(("", parts.netloc, parts.path, urlencode(words), ""))[2:]


def _sentinel(rest: str, options: dict[str, Any]) -> Callable[[int], Any]:
    # Celery separates by "sentinel://h1;sentinel://h2", we by commas
    first = rest.replace(";sentinel://", ",")
    userinfo, _, hosts = first.rpartition("@")
    hosts, _, path = hosts.partition("/")
    database, _, words = path.partition("?")
    said = dict(parse_qsl(words))
    addresses = []
    for host in hosts.split(","):
        name, _, port = host.partition(":")
        addresses.append((name, int(port or 26379)))
    user, _, password = userinfo.partition(":")
    login: dict[str, Any] = {}
    if password:
        login["password"] = unquote(password)
    if user:
        login["username"] = unquote(user)
    sentinel_login = {
        key.removeprefix("sentinel_"): value
        for key, value in said.items()
        if key in ("sentinel_username", "sentinel_password")
    }
    service = said.get("service") or said.get("master_name") or "mymaster"
    index = int(database or 0)
    make_sentinel: Any = Sentinel  # redis-py leaves it without annotations

    def connect(tries: int) -> Any:
        sentinel: Any = make_sentinel(
            addresses,
            sentinel_kwargs={"socket_timeout": _CONNECT, **sentinel_login},
            retry=_retry(tries),
            **options,
        )
        return sentinel.master_for(service, db=index, **login)

    return connect


def _close(client: Any) -> None:
    if isinstance(client, RedisCluster):
        cluster: Any = client  # redis-py leaves it without annotations
        cluster.disconnect_connection_pools()  # its close() leaves the sockets of nodes open
    elif isinstance(pool := client.connection_pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:  # nor does close() know of those
            sentinel.close()
    client.close()


def _retry(tries: int) -> Retry:
    # the library tries again itself, with the delivery in view; once helps over a dead socket
    return Retry(NoBackoff(), tries)


# -- small things ---------------------------------------------------------------


def _seconds(expires: float | None) -> str | int:
    seconds = whole_seconds(expires)
    return "" if seconds is None else seconds


@contextmanager
def _wrapped(store: RedisStore) -> Iterator[None]:
    """Turn redis-py's errors into ours."""
    try:
        yield
    except _AWAY as error:
        raise BackendUnavailable(f"backend {store} does not answer: {error}") from error
    except redis_errors.RedisError as error:
        raise BackendError(f"backend {store} refused: {error}") from error
    except OSError as error:
        raise BackendUnavailable(f"backend {store} does not answer: {error}") from error
