"""Log lines for people: shorter, and in colours where a terminal shows them."""

from __future__ import annotations

import os
import re
from typing import TextIO

#: As `amqtask.worker.logs` writes them: date, time, process, level, message.
_LINE = re.compile(r"^\d{4}-\d\d-\d\d (\d\d:\d\d:\d\d),\d{3} \d+ (\w+) +(.*)$")
_EVENT = re.compile(r"^(\w+\.\w+)")
_TASK = re.compile(r"\b(task=)(\S+)")

_RESET, _DIM, _BOLD = "\x1b[0m", "\x1b[2m", "\x1b[1m"
_RED, _GREEN, _YELLOW, _BLUE = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m"
_LEVELS = {"WARNING": _YELLOW, "ERROR": _RED, "CRITICAL": _RED}
_EVENTS = {"task.succeeded": _GREEN, "worker.ready": _GREEN}


class Painter:
    """Writes lines to a stream.

    Colours are left out where the stream is no terminal, or ``NO_COLOR`` is set.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._coloured = stream.isatty() and not os.environ.get("NO_COLOR")

    def own(self, text: str) -> None:
        """Write a line of the command's own."""
        self._write(f"{self._in(_BLUE, 'dev')}  {text}")

    def log(self, line: str) -> None:
        """Write a line of a worker; one that is no log line stays as it is."""
        found = _LINE.match(line)
        if found is None:
            self._write(line)
            return
        at, level, message = found.groups()
        event = _EVENT.match(message)
        name = event[1] if event else ""
        colour = _LEVELS.get(level) or _EVENTS.get(name, _DIM if name != "task.retry" else "")
        rest = message[len(name) :]
        if self._coloured:
            rest = _TASK.sub(rf"\1{_BOLD}\2{_RESET}", rest)
        mark = "" if level not in _LEVELS else f"{level.lower()} "
        self._write(f"{self._in(_DIM, at)} {self._in(colour, mark + name)}{rest}")

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._coloured and colour and text else text

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()
