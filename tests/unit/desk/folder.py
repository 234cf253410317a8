"""A folder of modules to import from, forgotten after the test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def importable(folder: Path, files: dict[str, str]) -> Iterator[Path]:
    """Write ``files`` under ``folder``; what is imported meanwhile is forgotten at the end."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    path_before, modules_before = list(sys.path), set(sys.modules)
    try:
        yield folder
    finally:
        sys.path[:] = path_before
        for name in set(sys.modules) - modules_before:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "") or folder):
                del sys.modules[name]
        sys.path_importer_cache.pop(str(folder), None)
