"""Where results live, chosen by URL."""

from __future__ import annotations

from amqtask.backends.base import Backend, Can, Found, Listener, Record, Store
from amqtask.backends.chords import OpenChord, Register
from amqtask.backends.direct import DirectBackend
from amqtask.backends.keys import KeyStore
from amqtask.backends.opening import open_backend
from amqtask.backends.pending import Pending
from amqtask.backends.rpc import RpcBackend
from amqtask.backends.stored import StoredBackend

__all__ = [
    "Backend",
    "Can",
    "DirectBackend",
    "Found",
    "KeyStore",
    "Listener",
    "OpenChord",
    "Pending",
    "Record",
    "Register",
    "RpcBackend",
    "Store",
    "StoredBackend",
    "open_backend",
]
