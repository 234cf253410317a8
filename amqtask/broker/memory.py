"""The broker inside the process, behind URLs such as ``memory://`` and ``memory://orders``.

    none --first use--> running --exit of the process--> stopped
                           `--fork--> in the child: the parent's, over its port

There is one for the whole process, so that all apps that name the same URL
share what is in it; the URL's name is a vhost of it. It listens on a port of
the loopback interface as any broker does. That is why a forked child still
reaches it: what the parent's broker held before the fork is where it was, and
nothing is there twice. A child that is the first to use it has one of its own.
"""

from __future__ import annotations

import os
import threading

from amqtask.broker.server import Broker

_lock = threading.Lock()
_broker: Broker | None = None
#: The process that runs it.
_owner = 0


def shared() -> Broker:
    """Return the process's own broker, started at the first call.

    Threads: safe from any thread, and after a fork.
    """
    global _broker, _owner
    with _lock:
        if _broker is None:
            _broker = Broker(vhosts_on_demand=True).start_in_thread()
            _owner = os.getpid()
        return _broker


def url_of(name: str) -> str:
    """Return the AMQP URL that ``memory://name`` stands for; ``""`` is the vhost ``/``."""
    return shared().url_of(name or "/")


def stop() -> None:
    """Stop it, where it runs; for the end of the process, once nobody is connected."""
    global _broker
    with _lock:
        if _broker is not None and _owner == os.getpid():
            _broker.stop_thread()
            _broker = None


def _forked() -> None:
    """In a child: leave the broker to the parent, sockets included.

    A copy of them kept here would keep the port open after the parent has ended, and
    clients would wait for a broker that is gone.
    """
    global _lock
    _lock = threading.Lock()  # the parent's may have been held
    if _broker is not None:
        _broker.let_go()


os.register_at_fork(after_in_child=_forked)
