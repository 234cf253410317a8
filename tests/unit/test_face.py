"""The face: what `amqtask` offers is sorted, complete, and nothing else."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import pytest

import amqtask
from amqtask import errors


def test_sorted_and_without_repeats() -> None:
    """A name is found where it is looked for."""
    assert amqtask.__all__ == sorted(set(amqtask.__all__))


def test_every_name_is_there() -> None:
    """What `__all__` promises exists, and what is there is promised, also what comes late."""
    for name in amqtask.__all__:
        assert getattr(amqtask, name) is not None
    public = {
        name
        for name, value in vars(amqtask).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public | {"__version__"} == set(amqtask.__all__)


def test_late_names_are_listed() -> None:
    """What is imported when it is asked for is seen by `dir` before that, and by `import *`."""
    assert set(amqtask.__all__) <= set(dir(amqtask))
    found: dict[str, object] = {}
    exec("from amqtask import *", found)
    assert set(amqtask.__all__) <= set(found)


def test_no_other_name() -> None:
    """A name that is not there is refused as by any module."""
    with pytest.raises(AttributeError, match="module 'amqtask' has no attribute 'crom'"):
        amqtask.crom  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'crom'"):
        exec("from amqtask import crom")  # type checkers refuse the statement


def test_every_error_is_on_the_face() -> None:
    """Whoever catches an error imports it from `amqtask`, whatever module it is made in."""
    tree = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }
    assert tree <= set(amqtask.__all__)


def test_every_error_is_in_the_drawing() -> None:
    """The tree that errors.py draws for its readers holds every class, under its base."""
    drawing = errors.__doc__ or ""
    bases: list[tuple[int, str]] = []
    drawn: dict[str, str] = {}
    for line in drawing.splitlines():
        text = line.lstrip(" |+-`")
        name = text.split(" ")[0]
        if not inspect.isclass(getattr(errors, name, None)):
            continue
        depth = len(line) - len(text)
        while bases and bases[-1][0] >= depth:
            bases.pop()
        drawn[name] = bases[-1][1] if bases else ""
        bases.append((depth, name))
    actual = {
        name: value.__bases__[0].__name__ if value.__module__ == errors.__name__ else ""
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }
    roots = {"AmqtaskError": "", "TaskSignal": ""}
    assert drawn == actual | roots


def test_version_is_the_package_s() -> None:
    """The version is written in two places, which agree."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert amqtask.__version__ == project["version"]
