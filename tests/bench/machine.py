"""What processes take of this machine: processor time and memory, the broker's too."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import psutil


def tree(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all below it."""
    return [process, *process.children(recursive=True)]


def used(processes: Iterable[psutil.Process]) -> float:
    """Return the processor seconds that processes have used; those that are gone count nothing."""
    total = 0.0
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def memory(processes: Iterable[psutil.Process]) -> list[int]:
    """Return the bytes that each process has, pages that it shares divided among the sharers."""
    return [each.memory_full_info().pss for each in processes]


def broker_of(url: str) -> psutil.Process | None:
    """Return the process that serves a URL; None where it is none of this machine's that we see."""
    parts = urlsplit(url)
    try:
        address = socket.gethostbyname(parts.hostname or "")
        found = [
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr.port == (parts.port or 5672)
        ]
    except (OSError, psutil.AccessDenied):
        return None
    pid = found[0] if found and address.startswith("127.") else None
    return psutil.Process(pid) if pid else None
