"""A stand-in for Couchbase: its key-value protocol over one bucket in memory.

Couchbase's own SDK connects to it, logs in and sends its operations, so what is tested is all of
the backend but the server. What it does not know it refuses as an unknown command.

Source: Couchbase, ``kv_engine/docs/BinaryProtocol.md`` and ``docs/SASL.md``; RFC 5802.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.contract.backends.double import Connection, Double

HEAD = struct.Struct(">BBHBBHIIQ")
OK, NOT_FOUND, EXISTS, TOO_LARGE, AUTH_ERROR, CONTINUE = 0, 1, 2, 3, 0x20, 0x21
UNKNOWN, BUSY = 0x81, 0x86
#: Partitions of the bucket; any number will do that is a power of 2.
PARTITIONS = 64
#: A time to live above this is a Unix time.
MONTH = 30 * 24 * 3600


@dataclass
class Document:
    value: bytes
    flags: int
    cas: int
    ends: float | None


class Couchbase(Double):
    """The server, with one bucket and one user.

    Attributes:
        busy: It answers that it cannot do it now.
    """

    def __init__(self, bucket: str, user: str, password: str) -> None:
        self.bucket, self.user, self.password = bucket, user, password
        self.busy = False
        self.documents: dict[bytes, Document] = {}
        self.lock = threading.Lock()
        self._cas = itertools.count(1)
        super().__init__(_Connection)

    def config(self) -> bytes:
        """Return the bucket's map: this node has every partition."""
        node = {"services": {"kv": self.port}, "thisNode": True, "hostname": "127.0.0.1"}
        said = {
            "rev": 1,
            "revEpoch": 1,
            "name": self.bucket,
            "uuid": "0" * 32,
            "nodeLocator": "vbucket",
            "nodes": [{"hostname": "127.0.0.1:8091", "ports": {"direct": self.port}}],
            "nodesExt": [node],
            "bucketCapabilities": [
                "couchapi",
                "xattr",
                "dcp",
                "cbhello",
                "touch",
                "cccp",
                "nodesExt",
            ],
            "vBucketServerMap": {
                "hashAlgorithm": "CRC",
                "numReplicas": 0,
                "serverList": [f"127.0.0.1:{self.port}"],
                "vBucketMap": [[0]] * PARTITIONS,
            },
        }
        return json.dumps(said).encode()

    def alive(self, key: bytes) -> Document | None:
        """Return a document that is there, and not past its time."""
        found = self.documents.get(key)
        if found is not None and found.ends is not None and found.ends <= time.time():
            del self.documents[key]
            return None
        return found

    def put(self, key: bytes, value: bytes, flags: int, expiry: int) -> Document:
        """Set a document."""
        ends = None if not expiry else expiry if expiry > MONTH else time.time() + expiry
        made = self.documents[key] = Document(value, flags, next(self._cas), ends)
        return made


@dataclass(frozen=True)
class Request:
    opcode: int
    key: bytes
    extras: bytes
    value: bytes
    cas: int


@dataclass(frozen=True)
class Answer:
    status: int = OK
    value: bytes = b""
    extras: bytes = b""
    cas: int = 0


class _Connection(Connection):
    """One connection, which logs in and then works on the bucket."""

    server_: Couchbase

    def serve(self) -> None:
        self.scram = Scram(self.server_.user, self.server_.password)
        while head := self.read(HEAD.size):
            magic, opcode, keys, extras, _kind, _, size, opaque, cas = HEAD.unpack(head)
            framing = 0
            if magic == 0x08:  # two bytes of sizes where the others have one
                framing, keys = keys >> 8, keys & 0xFF
            body = self.read(size)[framing:]
            key, value = body[extras : extras + keys], body[extras + keys :]
            request = Request(opcode, key, body[:extras], value, cas)
            answer = self._answer(request)
            echo = key if opcode in _ECHO else b""
            length = len(answer.extras) + len(echo) + len(answer.value)
            self.request.sendall(
                HEAD.pack(
                    *(0x81, opcode, len(echo), len(answer.extras), 0, answer.status, length),
                    *(opaque, answer.cas),
                )
                + answer.extras
                + echo
                + answer.value
            )

    def _answer(self, request: Request) -> Answer:
        work = _WORK.get(request.opcode)
        if work is not None:
            if not self.scram.done:
                return Answer(AUTH_ERROR)
            with self.server_.lock:
                return Answer(BUSY) if self.server_.busy else work(self.server_, request)
        if request.opcode == 0x1F:  # HELLO: of all that is offered, nothing is needed but errors
            wanted = struct.unpack(f">{len(request.value) // 2}H", request.value)
            return Answer(value=b"".join(struct.pack(">H", each) for each in wanted if each == 7))
        if request.opcode == 0x20:
            return Answer(value=Scram.NAME)
        if request.opcode in (0x21, 0x22):
            return self.scram.answer(request)
        if request.opcode == 0xFE:
            return Answer(value=json.dumps({"version": 1, "revision": 1, "errors": {}}).encode())
        if request.opcode == 0x89:
            found = request.key.decode() == self.server_.bucket
            return Answer(OK if found else NOT_FOUND)
        if request.opcode == 0xB5:
            return Answer(value=self.server_.config())
        return Answer(UNKNOWN)


class Scram:
    """The server's side of a login that sends no password."""

    NAME = b"SCRAM-SHA512"
    ROUNDS = 4096

    def __init__(self, user: str, password: str) -> None:
        self.user = user
        self.salt = b"0123456789abcdef"
        self.salted = hashlib.pbkdf2_hmac("sha512", password.encode(), self.salt, self.ROUNDS)
        self.done = False
        self.said = ""

    def answer(self, request: Request) -> Answer:
        if request.key != self.NAME:
            return Answer(AUTH_ERROR)
        text = request.value.decode()
        words = dict(each.split("=", 1) for each in text.split(",") if "=" in each)
        if request.opcode == 0x21:
            salt = base64.b64encode(self.salt).decode()
            first = f"r={words['r']}server,s={salt},i={self.ROUNDS}"
            self.said = f"{text[3:]},{first}"
            return Answer(CONTINUE if words["n"] == self.user else AUTH_ERROR, first.encode())
        message = f"{self.said},{text.rpartition(',p=')[0]}".encode()
        client = hmac.digest(self.salted, b"Client Key", "sha512")
        mark = hmac.digest(hashlib.sha512(client).digest(), message, "sha512")
        proof = bytes(a ^ b for a, b in zip(client, mark, strict=True))
        if base64.b64decode(words["p"]) != proof:
            return Answer(AUTH_ERROR)
        self.done = True
        server = hmac.digest(hmac.digest(self.salted, b"Server Key", "sha512"), message, "sha512")
        return Answer(value=b"v=" + base64.b64encode(server))


# -- what is done with documents ----------------------------------------------------


def _get(server: Couchbase, request: Request) -> Answer:
    found = server.alive(request.key)
    if found is None:
        return Answer(NOT_FOUND)
    return Answer(value=found.value, extras=struct.pack(">I", found.flags), cas=found.cas)


def _store(server: Couchbase, request: Request) -> Answer:
    flags, expiry = struct.unpack(">II", request.extras)
    found = server.alive(request.key)
    if len(request.value) > 20 * 1024 * 1024:
        return Answer(TOO_LARGE)
    if request.opcode == _ADD and found is not None:
        return Answer(EXISTS)
    if request.opcode == _REPLACE and found is None:
        return Answer(NOT_FOUND)
    if request.cas and (found is None or found.cas != request.cas):
        return Answer(NOT_FOUND if found is None else EXISTS)
    return Answer(cas=server.put(request.key, request.value, flags, expiry).cas)


def _delete(server: Couchbase, request: Request) -> Answer:
    if server.alive(request.key) is None:
        return Answer(NOT_FOUND)
    del server.documents[request.key]
    return Answer(cas=1)


def _increment(server: Couchbase, request: Request) -> Answer:
    delta, initial, expiry = struct.unpack(">QQI", request.extras)
    found = server.alive(request.key)
    if found is None:
        if expiry == 0xFFFFFFFF:
            return Answer(NOT_FOUND)
        made, value = server.put(request.key, str(initial).encode(), 0, expiry), initial
    else:
        value = int(found.value) + delta
        made = server.put(request.key, str(value).encode(), found.flags, 0)
        made.ends = found.ends
    return Answer(value=struct.pack(">Q", value), cas=made.cas)


def _nothing(server: Couchbase, request: Request) -> Answer:
    return Answer()


_ADD, _REPLACE = 2, 3
_WORK: dict[int, Callable[[Couchbase, Request], Answer]] = {
    0: _get,
    1: _store,
    _ADD: _store,
    _REPLACE: _store,
    4: _delete,
    5: _increment,
    0x0A: _nothing,
}
#: Answers that repeat the key: none of those that are used.
_ECHO: frozenset[int] = frozenset()
