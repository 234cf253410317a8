"""Watching: which files count, and that every way of changing one is noticed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from amqtask.cli import watch


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_only_python_files_of_the_project_count(tmp_path: Path) -> None:
    """Not what tools, package managers and other languages put beside it."""
    ours = {write(tmp_path / "tasks.py"), write(tmp_path / "shop" / "orders" / "tasks.py")}
    write(tmp_path / "notes.txt")
    write(tmp_path / "__pycache__" / "tasks.py")
    write(tmp_path / ".git" / "hook.py")
    write(tmp_path / "node_modules" / "gyp.py")
    write(tmp_path / "env" / "pyvenv.cfg")
    inside = write(tmp_path / "env" / "lib" / "os.py")
    assert watch.snapshot([tmp_path]).keys() == ours
    assert all(watch._counts(path, [tmp_path]) for path in ours)
    assert not watch._counts(inside, [tmp_path])
    assert not watch._counts(tmp_path / ".git" / "hook.py", [tmp_path])
    assert not watch._counts(tmp_path / "notes.txt", [tmp_path])


def test_a_folder_that_is_gone_has_no_files(tmp_path: Path) -> None:
    """Folders go while they are looked at."""
    assert watch.snapshot([tmp_path / "gone"]) == {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The test's folder, as the operating system calls it."""
    return tmp_path.resolve()


async def told(found: AsyncIterator[list[Path]], wanted: Path, act: Callable[[], object]) -> None:
    """Act until the change is told: the operating system takes its time to listen."""
    while True:
        waiting = asyncio.ensure_future(anext(found))
        while not waiting.done():
            act()
            await asyncio.wait([waiting], timeout=0.1)
        assert set(waiting.result()) <= {wanted.parent / "old.py", wanted}
        if wanted in waiting.result():
            return


@pytest.mark.parametrize("how", ["_looked", "_told"])
async def test_changes_are_told(how: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, made or deleted, by either way; and what does not count is not."""
    if how == "_told" and not watch.has_watchfiles():
        pytest.skip("watchfiles is not installed: pip install 'amqtask[reload]'")
    monkeypatch.setattr(watch, "LOOK", 0.01)
    monkeypatch.setattr(watch, "QUIET", 0.02)
    old, new = write(folder / "old.py"), folder / "new.py"
    found = getattr(watch, how)([folder])
    texts = itertools.count()

    def change() -> None:
        write(folder / "notes.txt")
        write(old, "x" * next(texts))

    await told(found, old, change)
    await told(found, new, lambda: write(new))
    await told(found, new, lambda: new.unlink(missing_ok=True))
    await found.aclose()
