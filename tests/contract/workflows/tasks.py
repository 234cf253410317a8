"""Tasks that workflows of the contract are made of, and what they note down."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from typing import Any

from amqtask import App, Context, Ignore, Retry, chain, chord, group


class Tasks:
    """The tasks of one app.

    Attributes:
        mark: Name of the case that runs; what it notes down is kept under it.
        broken: Marks for which ``mended`` fails.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.mark = ""
        self.broken: set[str] = set()
        self._notes: dict[str, list[Any]] = defaultdict(list)
        self._lock = threading.Lock()
        self._define_sums(app)
        self._define_notes(app)
        self._define_replacing(app)

    def noted(self) -> list[Any]:
        """Return what the case that runs has noted down."""
        with self._lock:
            return list(self._notes[self.mark])

    def noted_for(self, mark: str) -> list[Any]:
        """Return what is noted down under another name."""
        with self._lock:
            return list(self._notes[mark])

    def _put(self, mark: str, what: Any) -> None:
        with self._lock:
            self._notes[mark].append(what)

    def _define_sums(self, app: App) -> None:
        @app.task(name="w.add")
        def add(a: int, b: int) -> int:
            return a + b

        @app.task(name="w.sub")
        def sub(a: int, b: int) -> int:
            return a - b

        @app.task(name="w.aadd")
        async def aadd(a: int, b: int) -> int:
            await asyncio.sleep(0)
            return a + b

        @app.task(name="w.kw")
        def kw(a: int, b: int = 0, *, c: int = 0) -> list[int]:
            return [a, b, c]

        @app.task(name="w.xsum")
        def xsum(numbers: list[int]) -> int:
            return sum(numbers)

        @app.task(name="w.same")
        def same(value: Any) -> Any:
            return value

        @app.task(name="w.boom")
        def boom(*_: Any, why: str = "boom") -> None:
            raise ValueError(why)

        @app.task(name="w.sleeps")
        async def sleeps(seconds: float) -> None:
            self._put("sleeps", seconds)
            await asyncio.sleep(seconds)

        @app.task(name="w.mended")
        def mended(value: Any, mark: str) -> Any:
            if mark in self.broken:
                raise ValueError("broken")
            return value

        self.sleeps, self.mended = sleeps, mended

        @app.task(name="w.flaky", bind=True)
        def flaky(self: Context, value: Any) -> list[Any]:
            if self.retries < 2:
                raise Retry(countdown=0)
            return [value, self.attempt]

        @app.task(name="w.ignored")
        def ignored(*_: Any) -> None:
            raise Ignore

        @app.task(name="w.about", bind=True)
        def about(self: Context, *_: Any) -> dict[str, Any]:
            call = self.call
            return {
                "priority": call.priority,
                "hard": call.hard_limit,
                "expires": call.expires is not None,
                "delayed": call.eta is not None,
                "root": self.root_id,
                "parent": self.parent_id,
                "id": self.id,
                "headers": dict(self.headers),
            }

        self.add, self.sub, self.aadd, self.kw = add, sub, aadd, kw
        self.xsum, self.same, self.boom, self.flaky = xsum, same, boom, flaky
        self.ignored, self.about = ignored, about

    def _define_notes(self, app: App) -> None:
        @app.task(name="w.note")
        def note(*values: Any, mark: str) -> Any:
            self._put(mark, list(values))
            return values[0] if values else None

        @app.task(name="w.error")
        def error(id: str, exception: BaseException, traceback: str | None, *, mark: str) -> None:
            said = None if traceback is None else traceback.strip().splitlines()[-1]
            self._put(mark, [type(exception).__name__, str(exception), said])

        @app.task(name="w.error_id")
        def error_id(id: str, *, mark: str) -> None:
            self._put(mark, ["id", len(id)])

        self._note, self._error, self._error_id = note, error, error_id

    def _define_replacing(self, app: App) -> None:
        @app.task(name="w.replaced", bind=True)
        def replaced(self: Context, value: int, how: str) -> None:
            one = self.app.signature("w.add", (value, 1))
            more = self.app.signature("w.add", (10,))
            many = group(one, one.clone())
            self.replace(
                {
                    "task": one,
                    "chain": chain(one, more),
                    "group": many,
                    "chord": chord(many, self.app.signature("w.xsum")),
                    "boom": self.app.signature("w.boom"),
                    "again": self.app.signature("w.replaced", (value + 1, "task")),
                }[how]
            )

        @app.task(name="w.adds", bind=True)
        def adds(self: Context, value: int, more: int) -> int:
            for number in range(more):
                self.add_to_chord(self.app.signature("w.same", (100 + number,)))
            return value

        self.replaced, self.adds = replaced, adds

    # -- with the mark of the case that runs ------------------------------------------

    def note(self, *args: Any) -> Any:
        """Return the signature that notes its arguments down, and returns the first."""
        return self._note.s(*args, mark=self.mark)

    def note_only(self, *args: Any) -> Any:
        """Return the same, immutable."""
        return self._note.si(*args, mark=self.mark)

    def error(self) -> Any:
        """Return an errback that notes down what it gets."""
        return self._error.s(mark=self.mark)

    def error_id(self) -> Any:
        """Return an errback that takes the id only."""
        return self._error_id.s(mark=self.mark)
