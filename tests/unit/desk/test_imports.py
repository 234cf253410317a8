"""Importing task modules: who asked for what is missing, and nothing else is covered up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from amqtask import ConfigurationError
from amqtask.imports import autodiscover, import_modules
from tests.unit.desk.folder import importable


def test_a_missing_module_in_full(tmp_path: Path) -> None:
    """Setting and module are named, and where it was looked for."""
    with importable(tmp_path, {}):
        sys.path.insert(0, str(tmp_path))
        with pytest.raises(ConfigurationError) as caught:
            import_modules(["no_such_module"])
    assert str(caught.value) == "imports='no_such_module': no module named 'no_such_module'"
    assert caught.value.hint == (
        f"it is looked for in {str(tmp_path)!r} and in the installed packages"
    )


def test_a_missing_package_in_full(tmp_path: Path) -> None:
    """autodiscover names its package."""
    with importable(tmp_path, {}), pytest.raises(ConfigurationError) as caught:
        autodiscover(["no_such_package"], "tasks")
    assert str(caught.value) == (
        "autodiscover of 'no_such_package': no module named 'no_such_package'"
    )


def test_what_a_module_lacks_is_its_own_error(tmp_path: Path) -> None:
    """A task module whose own import fails raises that, with its traceback."""
    with importable(tmp_path, {"jobs.py": "import not_installed\n"}):
        sys.path.insert(0, str(tmp_path))
        with pytest.raises(ModuleNotFoundError, match="not_installed"):
            import_modules(["jobs"])


def test_autodiscover_imports_by_name_at_any_depth(tmp_path: Path) -> None:
    """Every module of the name, and no other."""
    files = {
        "found/__init__.py": "",
        "found/jobs.py": "",
        "found/a/__init__.py": "",
        "found/a/jobs.py": "",
        "found/a/models.py": "raise AssertionError\n",
    }
    with importable(tmp_path, files):
        sys.path.insert(0, str(tmp_path))
        autodiscover(["found"], "jobs")
        imported = {name for name in sys.modules if name.startswith("found")}
    assert imported == {"found", "found.jobs", "found.a", "found.a.jobs"}


def test_autodiscover_of_a_plain_module_finds_nothing(tmp_path: Path) -> None:
    """A module that is no package has nothing inside."""
    with importable(tmp_path, {"plain.py": "x = 1\n"}):
        sys.path.insert(0, str(tmp_path))
        autodiscover(["plain"], "tasks")
        assert "plain" in sys.modules
