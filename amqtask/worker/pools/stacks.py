"""Where the code of a task is, as text."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Coroutine
from types import FrameType
from typing import Any

# modules whose frames lie below the task's own
_BELOW = ("amqtask.worker", "amqtask.task", "threading", "asyncio.")


def thread_stack(ident: int) -> str:
    """Return the stack of a thread, from the task's own frames on."""
    frame = sys._current_frames().get(ident)
    return _text(frame) if frame is not None else "  it is not running\n"


def coroutine_stack(coroutine: Coroutine[Any, Any, Any] | None) -> str:
    """Return the frames of a coroutine and of what it awaits, outermost first."""
    lines: list[str] = []
    step: Any = coroutine
    while step is not None:
        frame = getattr(step, "cr_frame", None) or getattr(step, "gi_frame", None)
        if frame is None:
            if not inspect.isawaitable(step) or isinstance(step, Coroutine):
                break
            lines.append(f"  awaits {step!r}\n")
            break
        lines += traceback.format_stack(frame, limit=1)
        step = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None)
    return "".join(lines) or "  it has not begun, or has ended\n"


def _text(frame: FrameType) -> str:
    pairs = list(traceback.walk_stack(frame))[::-1]
    first = next((index for index, (each, _) in enumerate(pairs) if not _is_below(each)), 0)
    return "".join(traceback.StackSummary.extract(iter(pairs[first:])).format())


def _is_below(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(_BELOW)
