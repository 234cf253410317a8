"""Ask a port whether the server that is wanted answers there, and which version it is.

A port may be open before the server behind it serves, or belong to another
program, so each probe speaks the protocol as far as a login.
"""

from __future__ import annotations

import io
from typing import TypeVar
from urllib.parse import SplitResult, unquote

from pamqp import commands, exceptions, frame, header

M = TypeVar("M")


def probe_rabbitmq(stream: io.BufferedRWPair, url: SplitResult) -> str:
    """Log in, open the virtual host, close again.

    Args:
        stream: A fresh connection.
        url: Names the user, the password and the virtual host.

    Returns:
        The server's version, such as ``"4.0.5"``.

    Raises:
        ConnectionError: It does not speak AMQP 0-9-1, or refuses the login or the virtual host.

    Source:
        AMQP 0-9-1 specification, section 2.2.4, the connection class.
    """
    stream.write(header.ProtocolHeader().marshal())
    start = _receive(stream, commands.Connection.Start)
    login = f"\0{unquote(url.username or 'guest')}\0{unquote(url.password or 'guest')}"
    # without this the server closes the socket on a wrong password and says nothing
    _send(
        stream,
        commands.Connection.StartOk(
            {"capabilities": {"authentication_failure_close": True}}, "PLAIN", login
        ),
    )
    tune = _receive(stream, commands.Connection.Tune)
    _send(stream, commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0))
    _send(stream, commands.Connection.Open(unquote(url.path[1:]) or "/"))
    _receive(stream, commands.Connection.OpenOk)
    _send(stream, commands.Connection.Close(200, "", 0, 0))
    _receive(stream, commands.Connection.CloseOk)
    return str((start.server_properties or {}).get("version", ""))


def _send(stream: io.BufferedRWPair, method: frame.FrameTypes) -> None:
    stream.write(frame.marshal(method, 0))


def _receive(stream: io.BufferedRWPair, kind: type[M]) -> M:
    stream.flush()
    head = stream.read(7)
    if not head:
        raise ConnectionError("it closed the connection")
    # 1 is the type of a method frame; an HTTP server, say, answers with other bytes
    if len(head) < 7 or head[0] != 1:
        raise ConnectionError("it does not speak AMQP 0-9-1")
    try:
        *_, method = frame.unmarshal(head + stream.read(int.from_bytes(head[3:]) + 1))
    except exceptions.PAMQPException as error:
        raise ConnectionError("it does not speak AMQP 0-9-1") from error
    if isinstance(method, commands.Connection.Close):
        raise ConnectionError(f"it answers {method.reply_code} {method.reply_text!r}")
    if not isinstance(method, kind):
        raise ConnectionError(f"it answers {type(method).__name__} instead of {kind.__name__}")
    return method


def probe_redis(stream: io.BufferedRWPair, url: SplitResult) -> str:
    """Log in when the URL has a password, and ping.

    Args:
        stream: A fresh connection.
        url: Names the user and the password.

    Returns:
        ``""``: a ping does not tell the version.

    Raises:
        ConnectionError: It does not answer ``PONG``.
    """
    if _ask_redis(stream, url, b"PING") != b"+PONG":
        raise ConnectionError("it does not speak Redis's protocol")
    return ""


def probe_valkey(stream: io.BufferedRWPair, url: SplitResult) -> str:
    """Log in when the URL has a password, and ask for the name, which Redis does not give.

    Args:
        stream: A fresh connection.
        url: Names the user and the password.

    Returns:
        The server's version.

    Raises:
        ConnectionError: It is no Valkey.
    """
    answer = _ask_redis(stream, url, b"INFO", b"server")
    if not answer.startswith(b"$"):
        raise ConnectionError("it does not speak Redis's protocol")
    text = stream.read(int(answer[1:]) + 2).decode(errors="replace")
    said = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if said.get("server_name") != "valkey":
        raise ConnectionError("it is a Redis, no Valkey")
    return said.get("valkey_version", "")


def _ask_redis(stream: io.BufferedRWPair, url: SplitResult, *question: bytes) -> bytes:
    """Return the first line of the answer."""
    words = [list(question)]
    if url.password:
        # servers before 6 know a password only
        login = [part for part in (url.username, url.password) if part]
        words.insert(0, [b"AUTH", *(unquote(part).encode() for part in login)])
    answer = b""
    for command in words:
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in command)
        stream.write(b"*%d\r\n%s" % (len(command), parts))
        stream.flush()
        answer = stream.readline().strip()
        if answer.startswith(b"-"):
            raise ConnectionError(f"it answers {answer[1:].decode(errors='replace')!r}")
    return answer
