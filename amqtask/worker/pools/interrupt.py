"""Raise an exception in a thread that runs a task, and in nothing but that task.

CPython can have an exception raised in another thread, at whatever it executes
next. That may be a moment too late: the task has returned, and the worker's
own code is what runs, or already the next task. So a thread calls a task
through a `Window`:

    shut --call--> open --task ends--> closing --lock, take back--> shut
                    |-- throw                `-- a late exception is absorbed here

Closing takes the lock under which exceptions are thrown, so afterwards none is
on its way; what arrives while it closes is caught there, and the task's value
or error stands.

Only code that Python executes can be interrupted: a thread that waits in C,
in a long `time.sleep` or query, gets the exception when that returns.

Source:
    CPython's ``PyThreadState_SetAsyncExc``: one exception is pending at most,
    a new one replaces it, NULL takes it back. It is raised where the evaluation
    loop looks for pending work: after calls, at the start of functions, and
    at jumps back; never between a call's return and a plain assignment.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from amqtask.errors import SoftTimeLimitExceeded, TaskCancelled
from amqtask.worker.pools.stacks import thread_stack

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)
_set_async_exc.restype = ctypes.c_int
# the same, for the NULL that a py_object cannot be
_clear_async_exc = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


class Window:
    """The calls of tasks that one thread makes, one after the other.

    Threads: make it and call through it in the thread it is for; throw from any other.
    """

    __slots__ = ("_early", "_ident", "_lock", "_open", "_thrown", "_turn")

    def __init__(self) -> None:
        self._ident = threading.get_ident()
        self._lock = threading.Lock()
        self._turn = 0
        self._open = False
        self._early: type[BaseException] | None = None
        self._thrown = False

    def next(self) -> ThreadRun:
        """Return the way to the next call."""
        with self._lock:
            self._turn += 1
            self._early = None
        return ThreadRun(self, self._turn)

    def call(self, function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
        """Call ``function``; returns its value, or what it raised."""
        value, error = None, None
        try:
            self._enter()
            value = function(*args)
            self._open = False
        except BaseException as caught:  # whatever user code raises is its outcome
            self._open = False
            error = caught
        # Written out, as the jump back of a loop would be a place to be interrupted at. At most
        # two can still come: one that is pending, and one of a thrower that holds the lock now.
        try:
            self._shut()
        except BaseException:
            try:
                self._shut()
            except BaseException:
                self._shut()
        return value, error

    def throw(self, turn: int, kind: type[BaseException]) -> None:
        """Raise ``kind`` in the call of that turn; in no other."""
        with self._lock:
            if turn != self._turn:
                return
            if self._open:
                self._thrown = True
                _set_async_exc(self._ident, kind)
            else:
                self._early = kind  # not begun yet; or ended, and then nobody looks at it

    def _enter(self) -> None:
        with self._lock:
            self._open = True
        if self._early is not None:
            raise self._early

    def _shut(self) -> None:
        with self._lock:
            if self._thrown:
                _clear_async_exc(self._ident, None)
                self._thrown = False


class ThreadRun:
    """The way to a task that runs in a thread; its verbs from any thread."""

    __slots__ = ("_turn", "_window")

    def __init__(self, window: Window, turn: int) -> None:
        self._window = window
        self._turn = turn

    def soft(self) -> None:
        """Raise `SoftTimeLimitExceeded` in it."""
        self._window.throw(self._turn, SoftTimeLimitExceeded)

    def cancel(self) -> None:
        """Raise `TaskCancelled` in it."""
        self._window.throw(self._turn, TaskCancelled)

    def kill(self) -> bool:
        """Do nothing: a thread ends with its process only."""
        return False

    def stack(self) -> str:
        """Return where it is."""
        return thread_stack(self._window._ident)
