"""Values as short text: for headers that show a call, and for error messages.

A repr must never fail a send or a park, and never cost more than it is worth.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

#: What `show` gives at most, in characters.
SHOWN = 80

_MARK = "..."


def _bounded(size: int) -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxlevel = 4
    short.maxdict = short.maxlist = short.maxtuple = short.maxset = short.maxfrozenset = 16
    short.maxstring = short.maxlong = short.maxother = max(size // 4, 40)
    return short


_SHORT = _bounded(1024)
_SHORTEST = _bounded(SHOWN)


def cut(text: str, size: int) -> str:
    """Return text of at most ``size`` characters, marked where it was cut."""
    return text if len(text) <= size else text[: size - len(_MARK)] + _MARK


def brief(value: Any, size: int, *, whole: bool = True) -> str:
    """Return a repr of at most ``size`` characters, whatever ``__repr__`` does.

    Args:
        whole: False looks at the first elements only, for a value so large
            that its full repr would cost more than sending it.
    """
    text = _whole(value) if whole else None
    if text is None:
        text = _parts(value, _SHORTEST if size <= SHOWN else _SHORT)
    return cut(sendable(cut(text, size)), size)


def _whole(value: Any) -> str | None:
    try:
        return repr(value)
    except Exception:  # a user's __repr__ may raise anything
        return None


def _parts(value: Any, bounds: reprlib.Repr) -> str:
    try:
        return bounds.repr(value)  # shields each element by itself
    except Exception:  # a key, or what a user's class says its type is
        return f"<unprintable {type(value).__name__}>"


def show(value: Any) -> str:
    """Return a short repr for an error message."""
    return brief(value, SHOWN, whole=False)


def sendable(text: str) -> str:
    """Return the text with lone surrogates escaped, so that it encodes as UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def at(path: Sequence[str | int]) -> str:
    """Render a path as it would be subscripted: ``" at [0]['a']"``, or ``""`` at the root."""
    return " at " + "".join(f"[{key!r}]" for key in path) if path else ""
