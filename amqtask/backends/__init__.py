"""Where results live, chosen by URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from amqtask.backends.base import Backend, Pending
from amqtask.backends.rpc import RpcBackend
from amqtask.errors import ConfigurationError, near
from amqtask.settings import Settings
from amqtask.transport import Transport

_SCHEMES = {"rpc": RpcBackend}


def open_backend(url: str, transport: Transport, settings: Settings) -> Backend:
    """Return the backend that ``url`` names.

    Raises:
        ConfigurationError: No backend has that scheme.
    """
    scheme = urlsplit(url).scheme or url
    try:
        kind = _SCHEMES[scheme]
    except KeyError:
        raise ConfigurationError(
            f"no result backend for scheme {scheme!r}{near(scheme, list(_SCHEMES))}",
            hint=f"known schemes: {', '.join(f'{known}://' for known in _SCHEMES)}",
        ) from None
    return kind(transport, settings)


__all__ = ["Backend", "Pending", "RpcBackend", "open_backend"]
