"""Find the backend that a URL names: ours by its scheme, others by an entry point."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from amqtask.backends.base import Backend, Store, missing
from amqtask.backends.direct import DirectBackend
from amqtask.backends.rpc import RpcBackend
from amqtask.backends.stored import StoredBackend
from amqtask.errors import ConfigurationError, near
from amqtask.settings import Settings, redact_url
from amqtask.transport import Transport

#: Where other packages name their backends: scheme = "package.module:Class".
ENTRY_POINTS = "amqtask.backends"


@dataclass(frozen=True, slots=True)
class _Kind:
    """One backend of ours.

    Attributes:
        schemes: Those that it answers to; one that ends with ``+`` stands for all it begins.
        path: Module and class.
        package: The import that its driver needs, and the distribution that brings it.
        extra: What to install for it.
    """

    schemes: tuple[str, ...]
    path: str
    package: tuple[str, str] = ("", "")
    extra: str = ""


_KINDS = (
    _Kind(("memory", "cache+memory"), "amqtask.backends.memory:MemoryStore"),
    _Kind(("file",), "amqtask.backends.file:FileStore"),
    _Kind(
        (
            *("redis", "rediss", "redis+socket", "redis+sentinel", "sentinel"),
            *("redis+cluster", "rediss+cluster"),
            *("valkey", "valkeys", "valkey+socket", "valkey+sentinel", "valkey+cluster"),
        ),
        "amqtask.backends.redis:RedisStore",
        ("redis", "redis"),
        "redis",
    ),
    _Kind(("db+",), "amqtask.backends.sql:SqlStore", ("sqlalchemy", "SQLAlchemy"), "sql"),
    _Kind(
        ("memcached", "memcache", "cache+memcached"),
        "amqtask.backends.memcached:MemcachedStore",
        ("pymemcache", "pymemcache"),
        "memcached",
    ),
    _Kind(
        ("mongodb", "mongodb+srv"),
        "amqtask.backends.mongodb:MongoStore",
        ("pymongo", "pymongo"),
        "mongodb",
    ),
    _Kind(
        ("cassandra",),
        "amqtask.backends.cassandra:CassandraStore",
        ("cassandra", "cassandra-driver"),
        "cassandra",
    ),
    _Kind(
        ("couchbase", "couchbases"),
        "amqtask.backends.couchbase:CouchbaseStore",
        ("couchbase", "couchbase"),
        "couchbase",
    ),
    _Kind(
        ("kv+",), "amqtask.backends.keyvalue:KeyValueStore", ("key_value", "py-key-value-aio"), "kv"
    ),
)


def open_backend(url: str, transport: Transport, settings: Settings) -> Backend:
    """Return the backend that ``url`` names; nothing connects yet.

    Raises:
        ConfigurationError: No backend has that scheme, its driver is not installed, or
            the URL is wrong.
    """
    scheme = scheme_of(url)
    if scheme == "rpc":
        return RpcBackend(transport, settings)
    if scheme == "rpc+direct":
        return DirectBackend(transport, settings)
    for kind in _KINDS:
        if scheme in kind.schemes or scheme.startswith(
            tuple(each for each in kind.schemes if each.endswith("+"))
        ):
            return StoredBackend(_load(kind, scheme), url, settings)
    # it brings email and zipfile along, in every process, for what few apps have
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if scheme not in found:
        raise _unknown(scheme, list(found))
    try:
        made = found[scheme].load()
    except Exception as error:  # whatever a foreign module does at its import
        raise ConfigurationError(
            f"backend {scheme}:// of {found[scheme].value!r} cannot be loaded: {error}"
        ) from error
    if isinstance(made, type) and issubclass(made, Store):
        return StoredBackend(made, url, settings)
    return cast(Callable[..., Backend], made)(url, transport, settings)


def schemes() -> list[str]:
    """Return the schemes of our own backends."""
    return ["rpc", "rpc+direct", *(scheme for kind in _KINDS for scheme in kind.schemes)]


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, which need not be one that `urlsplit` understands."""
    return url.partition("://")[0].lower()


def _load(kind: _Kind, scheme: str) -> type[Store]:
    module, _, name = kind.path.partition(":")
    try:
        loaded: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != kind.package[0]:
            raise
        raise missing(scheme, kind.package[1], kind.extra) from error
    return cast(type[Store], getattr(loaded, name))


def _unknown(scheme: str, others: list[str]) -> ConfigurationError:
    known = [*schemes(), *others]
    shown = ", ".join(f"{each}...://" if each.endswith("+") else f"{each}://" for each in known)
    return ConfigurationError(
        f"no result backend for scheme {redact_url(scheme)!r}{near(scheme, known)}",
        hint=f"known schemes: {shown}",
    )
