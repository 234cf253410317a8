"""A process that has imported what every child needs, and makes children by copying itself.

    imports --> waiting --fork--> waiting, beside a child
                   |--become--> it is a child itself
                   `--line ends--> gone

A child that is a copy starts at once, and shares the memory of the code with
its template, its neighbours and the supervisor; one that starts as a fresh
Python holds all of it by itself.

Forking is known for children that hang on a lock which a thread held that they
do not have, and for connections that two processes write to. So a template is
made before there is a thread, an event loop or a connection, it never makes
one, and unless it is wanted so (``preload = "app"``) not a line of the app has
run in it. Where there is a thread all the same, there is no template.

What goes over its line, a socketpair, is one packet each way:

    fork, become   with two descriptors: the child's end of its line, and its run board
    pid            of the child; or ``!`` and why there is none
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys

# What an app reads its settings with. Each copy that imported it would write to pages with the names
# and code of others, and share 1 MiB less.
import tomllib  # noqa: F401
from contextlib import suppress
from typing import NoReturn

from amqtask.discovery import find_app
from amqtask.worker.child import run_child
from amqtask.worker.process import (
    MALLOC,
    end_process,
    end_with_traceback,
    name_process,
    take_standard_input,
)

#: What the supervisor says.
FORK, BECOME = b"fork", b"become"
#: What a template that was started, not forked, says when it can serve.
READY = b"ready"
#: What ``ps -o comm`` and ``top`` show of a template.
NAME = "amqtask-fork"
#: Bytes of the longest packet: that with ``sys.path``.
MOST = 128 * 1024
#: What a terminal or a service manager sends to all; it is the supervisor's to hear.
_FOR_ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)


def alone() -> bool:
    """Whether this process has one thread only, so that a copy of it misses nothing."""
    try:
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - names are all it takes
    except OSError:
        return False


def settle_memory() -> None:
    """Keep the collector off what is there, so that copies go on to share it."""
    gc.collect()
    gc.freeze()


def serve(line: socket.socket) -> NoReturn:
    """Make children until the line ends; each of them goes its own way from here."""
    try:
        name_process(NAME)
        _prepare()
        sock, board = _wait(line)
        name_process("amqtask-child")
        for number in _FOR_ALL:
            signal.signal(number, signal.SIG_DFL)
        run_child(sock, board)
    except BaseException:  # nothing may return to what was going on when this was forked
        end_with_traceback()


def _stay() -> None:
    for number in _FOR_ALL:
        signal.signal(number, signal.SIG_IGN)


def _prepare() -> None:
    _stay()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    with suppress(OSError, AttributeError):  # only glibc has it, and only it needs it
        mallopt = ctypes.CDLL(None).mallopt
        for name, (number, wanted) in MALLOC.items():
            if name not in os.environ:
                mallopt(number, wanted)
    settle_memory()


def _wait(line: socket.socket) -> tuple[socket.socket, int]:
    """Answer the supervisor; returns in each process that is to be a child."""
    while True:
        word, found, _, _ = socket.recv_fds(line, MOST, 2)
        if not word:
            os._exit(0)
        theirs, board = found
        if word == BECOME:
            line.send(str(os.getpid()).encode())
        elif _fork(line):
            os.close(theirs)
            os.close(board)
            continue
        line.close()
        os.set_inheritable(theirs, False)
        os.set_inheritable(board, False)
        return socket.socket(fileno=theirs), board


def _fork(line: socket.socket) -> bool:
    """Make a child that is the supervisor's, not ours; returns whether this is still the template.

    The process between the two ends at once, so the child becomes that of the
    nearest subreaper, which is the supervisor. That waits for its end as for any
    other child, and misses nothing of it should the template be gone.
    """
    ours, theirs = os.pipe()
    template = os.getpid()
    try:
        between = os.fork()
        if not between:
            child = os.fork()
            if not child:
                os.close(ours)
                os.close(theirs)
                return False
            os.write(theirs, str(child).encode())
            os._exit(0)
    except OSError as error:  # in one or the other: no memory, or too many processes
        os.write(theirs, f"!{error}".encode())
        if os.getpid() != template:
            os._exit(0)
        between = 0
    os.close(theirs)
    if between:
        os.waitpid(between, 0)
    said = os.read(ours, 1024) or b"!it was killed"
    os.close(ours)
    try:
        line.send(said)
    except OSError:  # nobody is there any more; a child finds that out by itself
        os._exit(0)
    return True


def main() -> None:
    """Be a template that was started, not forked: import what is asked for, and serve."""
    _stay()
    line = take_standard_input("amqtask.worker.template")
    said = line.recv(MOST)
    if not said:
        end_process(0)
    wanted = json.loads(said)
    if wanted["app"] is not None:
        sys.path[:] = wanted["path"]
        find_app(wanted["app"])
    if not alone():
        end_process(0)
    line.send(READY)
    serve(line)


if __name__ == "__main__":
    main()
