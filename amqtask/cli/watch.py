"""Which Python files of a project have changed.

By `watchfiles`, which the operating system tells, where it is installed
(``amqtask[reload]``); else by looking at the time and size of every file, twice
a second, which is quick enough for the few thousand that a project has.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

#: Seconds between two looks.
LOOK = 0.5
#: Seconds without a further change after which one counts as whole: editors write in pieces.
QUIET = 0.1
#: Folders that hold no code of the project; those with a dot in front are left out too.
_FOREIGN = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
_VENV = "pyvenv.cfg"


def has_watchfiles() -> bool:
    """Tell whether the operating system's word is to be had."""
    try:
        import watchfiles  # noqa: F401 - only whether it is there
    except ImportError:
        return False
    return True


async def changes(folders: Iterable[Path]) -> AsyncIterator[list[Path]]:
    """Yield the Python files that changed, appeared or went, whenever some did."""
    roots = [folder.resolve() for folder in folders]
    found = _told(roots) if has_watchfiles() else _looked(roots)
    async for changed in found:
        yield changed


async def _told(roots: list[Path]) -> AsyncIterator[list[Path]]:
    import watchfiles

    step, debounce = int(QUIET * 1000), int(QUIET * 1000)
    async for changed in watchfiles.awatch(
        *roots, watch_filter=lambda _, path: _counts(Path(path), roots), step=step,
        debounce=debounce, recursive=True,
    ):  # fmt: skip
        yield sorted({Path(path) for _, path in changed})


async def _looked(roots: list[Path]) -> AsyncIterator[list[Path]]:
    before = snapshot(roots)
    while True:
        await asyncio.sleep(LOOK)
        now = await asyncio.to_thread(snapshot, roots)
        if now == before:
            continue
        seen: dict[Path, tuple[int, int]] | None = None
        while seen != now:  # until nobody writes any more
            seen = now
            await asyncio.sleep(QUIET)
            now = await asyncio.to_thread(snapshot, roots)
        changed = [path for path in now.keys() | before.keys() if now.get(path) != before.get(path)]
        before = now
        yield sorted(changed)


def snapshot(roots: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Return time and size of every Python file under some folders."""
    found = {}
    for root in roots:
        for entry in _files(root):
            try:
                seen = entry.stat()
            except OSError:  # it went just now
                continue
            found[Path(entry.path)] = (seen.st_mtime_ns, seen.st_size)
    return found


def _files(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # it went, or is not ours to read
        return
    if any(entry.name == _VENV for entry in entries):
        return
    for entry in entries:
        if entry.name.endswith(".py"):
            yield entry
        elif _ours(entry.name) and entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)


def _ours(name: str) -> bool:
    return not name.startswith(".") and name not in _FOREIGN


def _counts(path: Path, roots: Iterable[Path]) -> bool:
    """Tell whether a path that changed is a Python file of the project."""
    if path.suffix != ".py":
        return False
    for root in roots:
        if path.is_relative_to(root):
            folders = path.relative_to(root).parts[:-1]
            above = [root.joinpath(*folders[: depth + 1]) for depth in range(len(folders))]
            return all(map(_ours, folders)) and not any((each / _VENV).exists() for each in above)
    return False
