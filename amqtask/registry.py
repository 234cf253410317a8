"""The tasks of an app, by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amqtask.errors import ConfigurationError, UnknownTask, near

if TYPE_CHECKING:
    from amqtask.task import Task


def task_name(function: Callable[..., Any]) -> str:
    """Return the default name of a task: ``module.qualname``.

    A module that runs as a script is called by its file's name, so that the
    script and the worker that imports it mean the same task.
    """
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        if spec is not None:
            module = spec.name.removesuffix(".__main__")
        elif file:
            module = Path(file).stem
    return f"{module}.{function.__qualname__}"


class Registry:
    """Tasks by name.

    Those that every worker has are found by name, and are not among the others.

    Threads: reading is safe anywhere; register while modules are imported.
    """

    __slots__ = ("_builtin", "_tasks")

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}
        self._builtin: dict[str, Task[..., Any]] = {}

    def add_builtin(self, task: Task[..., Any]) -> None:
        """Register a task of the library's own; one of the user's takes its place."""
        self._builtin[task.name] = task

    def add(self, task: Task[..., Any]) -> None:
        """Register ``task``.

        Raises:
            ConfigurationError: Another function has that name already.
        """
        other = self._tasks.get(task.name)
        if other is not None and _origin(other) != _origin(task):
            raise ConfigurationError(
                f"two tasks are called {task.name!r}: "
                f"{'.'.join(_origin(other))} and {'.'.join(_origin(task))}",
                hint='give one of them another name: @app.task(name="...")',
            )
        self._tasks[task.name] = task

    def get(self, name: str) -> Task[..., Any] | None:
        """Return the task of that name, or None."""
        return self._tasks.get(name) or self._builtin.get(name)

    def __getitem__(self, name: str) -> Task[..., Any]:
        """Return the task of that name.

        Raises:
            UnknownTask: There is none.
        """
        try:
            return self._tasks[name]
        except KeyError:
            if name in self._builtin:
                return self._builtin[name]
            raise UnknownTask(
                f"unknown task {name!r}{near(name, list(self._tasks))}",
                hint="import its module in the worker (imports=), or deploy the code that has it",
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._tasks))

    def __len__(self) -> int:
        return len(self._tasks)

    def values(self) -> list[Task[..., Any]]:
        """Return the tasks, by name."""
        return [self._tasks[name] for name in self]


def _origin(task: Task[..., Any]) -> tuple[str, str]:
    return task.function.__module__, task.function.__qualname__
