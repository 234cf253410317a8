"""Broker URLs: parsed once, shown without their password.

``amqp://user:password@host:port/vhost?heartbeat=30`` and ``amqps://`` for
TLS. The query may hold ``heartbeat`` (seconds), ``cafile``, ``certfile``,
``keyfile`` (paths), ``server_name`` (checked against the certificate) and
``verify`` (``0`` accepts any certificate).

``memory://`` and ``memory://name`` stand for the broker inside this process; it
starts when somebody connects to it, and ``name`` is a vhost of it.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pika

from amqtask.errors import ConfigurationError, near
from amqtask.settings import redact_url

_MEMORY = "memory"
_QUERY = ("heartbeat", "cafile", "certfile", "keyfile", "server_name", "verify")


@dataclass(frozen=True, slots=True)
class BrokerURL:
    """One broker address.

    Attributes:
        vhost: ``"/"`` when the URL names none.
        memory: Whether it is the broker inside this process; host and port are not known then.
        options: The query, by name.
    """

    host: str
    port: int
    user: str
    password: str
    vhost: str
    tls: bool
    options: tuple[tuple[str, str], ...] = ()
    memory: bool = False

    @classmethod
    def parse(cls, url: str) -> BrokerURL:
        """Parse ``url``.

        Raises:
            ConfigurationError: Not an AMQP URL, a bad port, or an unknown option.
        """
        parts = urlsplit(url)
        if parts.scheme == _MEMORY:
            return cls._in_memory(parts)
        if parts.scheme not in ("amqp", "amqps"):
            raise ConfigurationError(
                f"broker URL has scheme {parts.scheme!r}",
                hint="use amqp://user:password@host:port/vhost, or amqps:// for TLS",
            )
        try:
            port = parts.port
        except ValueError:
            raise ConfigurationError(
                f"broker URL for host {parts.hostname!r} has a port that is no number "
                "from 0 to 65535"
            ) from None
        options = tuple(parse_qsl(parts.query, keep_blank_values=True))
        for key, _ in options:
            if key not in _QUERY:
                raise ConfigurationError(
                    f"broker URL for host {parts.hostname!r} has unknown option "
                    f"{key!r}{near(key, _QUERY)}",
                    hint=f"known options: {', '.join(_QUERY)}",
                )
        vhost = unquote(parts.path[1:]) if len(parts.path) > 1 else "/"
        tls = parts.scheme == "amqps"
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=port or (5671 if tls else 5672),
            user=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            vhost=vhost,
            tls=tls,
            options=options,
        )

    @classmethod
    def _in_memory(cls, parts: SplitResult) -> BrokerURL:
        # netloc, not hostname: that would be in lower case
        if parts.path.strip("/") or parts.query or {"@", ":"} & set(parts.netloc):
            raise ConfigurationError(
                f"broker URL {redact_url(parts.geturl())!r} has more than a name",
                hint="use memory://, or memory://name for one apart from others",
            )
        vhost = unquote(parts.netloc) or "/"
        return cls("", 0, "guest", "guest", vhost, tls=False, memory=True)

    def __str__(self) -> str:
        """Return the URL without its password."""
        if self.memory:
            return f"{_MEMORY}://{'' if self.vhost == '/' else self.vhost}"
        scheme = "amqps" if self.tls else "amqp"
        vhost = "" if self.vhost == "/" else f"/{self.vhost}"
        return f"{scheme}://{self.user}@{self.host}:{self.port}{vhost}"

    def __repr__(self) -> str:
        return f"<BrokerURL {self}>"

    def parameters(self, *, name: str, heartbeat: int, timeout: float) -> pika.ConnectionParameters:
        """Return pika's parameters for one connection attempt.

        Args:
            name: Shown as the connection's name in RabbitMQ's tools.
            heartbeat: Seconds; a ``heartbeat`` in the URL wins.
            timeout: Seconds for the socket and for the whole handshake.
        """
        if self.memory:
            from amqtask.broker.memory import url_of  # only who uses it pays for it

            real = BrokerURL.parse(url_of("" if self.vhost == "/" else self.vhost))
            return real.parameters(name=name, heartbeat=heartbeat, timeout=timeout)
        options = dict(self.options)
        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.vhost,
            credentials=pika.PlainCredentials(self.user, self.password),
            heartbeat=self._heartbeat(options.get("heartbeat"), heartbeat),
            ssl_options=self._tls(options) if self.tls else None,
            connection_attempts=1,
            socket_timeout=timeout,
            stack_timeout=timeout,
            client_properties={"product": "amqtask", "connection_name": name},
        )

    def _heartbeat(self, text: str | None, default: int) -> int:
        if text is None:
            return default
        if not text.isdigit():
            raise ConfigurationError(
                f"broker URL for host {self.host!r} has heartbeat={text!r}",
                hint="give whole seconds, or 0 for no heartbeats",
            )
        return int(text)

    def _tls(self, options: dict[str, str]) -> Any:
        try:
            context = ssl.create_default_context(cafile=options.get("cafile"))
            if certfile := options.get("certfile"):
                context.load_cert_chain(certfile, options.get("keyfile"))
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(
                f"broker URL for host {self.host!r} names a certificate that does not load: {error}"
            ) from error
        if options.get("verify") in ("0", "false", "no"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return pika.SSLOptions(context, options.get("server_name", self.host))
