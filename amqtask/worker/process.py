"""A process that a supervisor started, as itself: its standard input, its memory, its name, its end."""

from __future__ import annotations

import logging
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

#: How a worker's processes have glibc keep memory, for each variable that would say otherwise the
#: number that ``mallopt`` knows it by, and what is wanted. By itself it has an arena for nearly each
#: thread, and raises the other two with the bodies that come, up to 64 MiB that are never given back.
#: Nothing kept is no better: half of what a body of 1 MB then costs is memory that is new each time.
MALLOC = {
    "MALLOC_ARENA_MAX": (-8, 2),
    "MALLOC_MMAP_THRESHOLD_": (-3, 4 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": (-1, 4 * 1024 * 1024),
}
#: What is said where a module should not be started by hand.
BY_HAND = "{} is started by `amqtask worker`, not by hand"


def take_standard_input(module: str) -> socket.socket:
    """Return the socket that is standard input, which is empty from now on.

    Raises:
        SystemExit: It is none: ``module`` was started by hand.
    """
    try:
        sock = socket.socket(fileno=os.dup(0))
        sock.getpeername()
    except OSError:
        raise SystemExit(BY_HAND.format(module)) from None
    # tasks that read standard input must find it empty, not the supervisor's words
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return sock


def name_process(name: str) -> None:
    """Show another name than ``python`` in ``ps -o comm`` and ``top``; at most 15 characters."""
    with suppress(OSError):  # a nicety, and Linux only
        Path("/proc/self/comm").write_text(name)


def memory() -> int:
    """Return the bytes of memory this process holds; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - each second, so the quick way
            return int(statm.read().split()[1]) * _PAGE
    except OSError:
        return 0


_PAGE = os.sysconf("SC_PAGE_SIZE")


def end_process(code: int) -> NoReturn:
    """End at once: a task's thread that never ends must not keep the process."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # a task closed it, or its reader is gone
    os._exit(code)


def end_with_traceback() -> NoReturn:
    """End because of the exception that is being handled, as Python ends a program."""
    error = sys.exception()
    code: object = 1
    if isinstance(error, SystemExit):
        code = error.code
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
    end_process(code if isinstance(code, int) else int(code is not None))
