"""The servers that results are stored in: how each is asked, and the command that starts one."""

from __future__ import annotations

import io
import os
import pwd
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, unquote

from amqtask.errors import ConfigurationError

#: Where Debian keeps the programs of PostgreSQL, by version.
_POSTGRESQL = Path("/usr/lib/postgresql")

#: MongoDB's number for a message.
_OP_MSG = 2013
#: What Cassandra's protocol 4 calls the question for what a server supports, and its answer.
_OPTIONS, _SUPPORTED = 5, 6
#: What Couchbase's protocol calls the question for the ways to log in.
_SASL_MECHANISMS = 0x20

# -- asking -------------------------------------------------------------------


def probe_memcached(stream: io.BufferedRWPair, url: SplitResult) -> str:
    """Ask for the version, and return it.

    Raises:
        ConnectionError: It does not answer as memcached does.
    """
    stream.write(b"version\r\n")
    stream.flush()
    answer = stream.readline()
    if not answer.startswith(b"VERSION "):
        raise ConnectionError("it does not speak memcached's protocol")
    return answer[8:].strip().decode()


def probe_postgresql(stream: io.BufferedRWPair, url: SplitResult) -> str:
    """Log in as far as no password is asked for, and return the version, ``""`` before that.

    Raises:
        ConnectionError: It does not speak PostgreSQL's protocol, or refuses user or database.

    Source: PostgreSQL's manual, "Message Formats".
    """
    user = unquote(url.username or "postgres")
    words = f"user\0{user}\0database\0{unquote(url.path[1:]) or user}\0\0".encode()
    stream.write(struct.pack(">II", len(words) + 8, 196608) + words)
    version = ""
    while True:
        kind, body = _postgresql_message(stream)
        if kind == b"R" and body[:4] != b"\0\0\0\0":
            return ""  # it asks for a password: whether that is right is for the caller to see
        if kind == b"S" and body.startswith(b"server_version\0"):
            version = body.split(b"\0")[1].decode().partition(" ")[0]
        if kind == b"E":
            raise ConnectionError(f"it answers {_postgresql_text(body)!r}")
        if kind == b"Z":
            stream.write(b"X\0\0\0\4")
            stream.flush()
            return version


def _postgresql_message(stream: io.BufferedRWPair) -> tuple[bytes, bytes]:
    stream.flush()
    head = stream.read(5)
    if len(head) < 5 or head[:1] not in b"RSKZEN":
        raise ConnectionError("it does not speak PostgreSQL's protocol")
    return head[:1], stream.read(int.from_bytes(head[1:]) - 4)


def _postgresql_text(body: bytes) -> str:
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return fields.get(b"M", "an error")


def probe_mysql(stream: io.BufferedRWPair, url: SplitResult) -> str:
    """Read the greeting of MySQL or MariaDB, and return the version.

    Raises:
        ConnectionError: It greets otherwise, or refuses this host.

    Source: MySQL's manual, "Protocol::HandshakeV10".
    """
    head = stream.read(4)
    if len(head) < 4:
        raise ConnectionError("it closed the connection")
    body = stream.read(int.from_bytes(head[:3], "little"))
    if body[:1] == b"\xff":
        raise ConnectionError(f"it answers {body[3:].decode(errors='replace')!r}")
    if body[:1] != b"\x0a":
        raise ConnectionError("it does not speak MySQL's protocol")
    # MariaDB says 5.5.5- first, for replicas of old
    return body[1:].split(b"\0")[0].decode().removeprefix("5.5.5-")


def probe_mongodb(stream: io.BufferedRWPair, url: SplitResult) -> str:
    """Say hello, which needs no login.

    Returns:
        ``""``: a hello does not tell the version.

    Raises:
        ConnectionError: It does not speak MongoDB's protocol.

    Source: MongoDB's manual, "Wire Protocol", OP_MSG; bsonspec.org.
    """
    hello = b"\x10hello\0" + struct.pack("<i", 1) + b"\x02$db\0" + struct.pack("<i", 6) + b"admin\0"
    document = struct.pack("<i", len(hello) + 5) + hello + b"\0"
    body = struct.pack("<i", 0) + b"\0" + document
    stream.write(struct.pack("<iiii", 16 + len(body), 1, 0, _OP_MSG) + body)
    stream.flush()
    head = stream.read(16)
    if len(head) < 16 or struct.unpack("<iiii", head)[3] != _OP_MSG:
        raise ConnectionError("it does not speak MongoDB's protocol")
    return ""


def probe_cassandra(stream: io.BufferedRWPair, url: SplitResult) -> str:
    """Ask what is supported, which needs no login.

    Returns:
        ``""``: the answer does not tell the version.

    Raises:
        ConnectionError: It does not speak Cassandra's protocol.

    Source: Apache Cassandra, ``doc/native_protocol_v4.spec``, sections 2 and 4.1.3.
    """
    stream.write(struct.pack(">BBhBi", 4, 0, 0, _OPTIONS, 0))
    stream.flush()
    head = stream.read(9)
    if len(head) < 9 or not head[0] & 0x80 or head[4] != _SUPPORTED:
        raise ConnectionError("it does not speak Cassandra's protocol")
    return ""


def probe_couchbase(stream: io.BufferedRWPair, url: SplitResult) -> str:
    """Ask for the ways to log in, which memcached has none of.

    Returns:
        ``""``: the answer does not tell the version.

    Raises:
        ConnectionError: It does not speak Couchbase's key-value protocol.

    Source: Couchbase, ``kv_engine/docs/BinaryProtocol.md``.
    """
    stream.write(struct.pack(">BBHBBHIIQ", 0x80, _SASL_MECHANISMS, 0, 0, 0, 0, 0, 0, 0))
    stream.flush()
    head = stream.read(24)
    if len(head) < 24 or head[0] != 0x81 or head[6:8] != b"\0\0":
        raise ConnectionError("it does not speak Couchbase's key-value protocol")
    return ""


# -- starting -----------------------------------------------------------------


def memcached_command(port: int, folder: Path) -> Sequence[str]:
    """Return what starts a private memcached."""
    return [
        _program("memcached"),
        *_as("nobody", "-u"),
        "-l",
        "127.0.0.1",
        "-p",
        str(port),
        "-U",
        "0",
    ]


def postgresql_command(port: int, folder: Path) -> Sequence[str]:
    """Make a database folder, and return what starts a private PostgreSQL on it."""
    programs = _postgresql_programs()
    data = folder / "data"
    data.mkdir()
    drop = _drop_root("postgres", folder)
    _do([*drop, str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust"])
    options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    return [*drop, str(programs / "postgres"), "-D", str(data), "-p", str(port), *options]


def mysql_command(port: int, folder: Path) -> Sequence[str]:
    """Make a database folder, and return what starts a private MariaDB on it."""
    data = folder / "data"
    data.mkdir()
    user = _as("mysql", "--user=", joined=True)
    if user:
        _drop_root("mysql", folder)
    install = [_program("mariadb-install-db"), "--no-defaults", f"--datadir={data}"]
    _do([*install, "--auth-root-authentication-method=normal", *user])
    start = [_program("mariadbd"), "--no-defaults", f"--datadir={data}", f"--port={port}", *user]
    return [*start, "--bind-address=127.0.0.1", f"--socket={folder / 'socket'}"]


def _postgresql_programs() -> Path:
    versions = sorted(_POSTGRESQL.glob("*/bin"), key=lambda path: -float(path.parent.name))
    if versions:
        return versions[0]
    return Path(_program("initdb")).parent


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise ConfigurationError(f"the program {name} is not installed")
    return found


def _as(user: str, option: str, *, joined: bool = False) -> list[str]:
    """Return the option by which a server leaves root, when this is root."""
    if os.getuid() != 0:
        return []
    return [option + user] if joined else [option, user]


def _drop_root(user: str, folder: Path) -> list[str]:
    """Give the folder to the user, and return what runs a program as that user; root only."""
    if os.getuid() != 0:
        return []
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise ConfigurationError(f"there is no user {user!r} to run the server as") from None
    for path in (folder, *folder.iterdir()):
        os.chown(path, found.pw_uid, found.pw_gid)
    return [_program("setpriv"), f"--reuid={user}", f"--regid={found.pw_gid}", "--clear-groups"]


def _do(command: Sequence[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        text = done.stdout.decode(errors="replace").strip().splitlines()
        raise ConfigurationError(f"{command[-1]} failed: {text[-1] if text else done.returncode}")
