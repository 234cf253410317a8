"""Finding the app that a command line means, and saying clearly when there is none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from amqtask import App, AppNotFound, ConfigurationError
from amqtask.discovery import find_app, locate
from tests.unit.desk.folder import importable

MAKE = "from amqtask import App\n"
GUESS = "name it: -A module:attribute, AMQTASK_APP, or app in [tool.amqtask] of pyproject.toml"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AMQTASK_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("shop:app", "one"),
        ("shop:other", "two"),
        ("shop:holder.app", "three"),
        ("shop", "one"),
        ("single", "four"),
        ("package.deep:x", "five"),
    ],
)
def test_every_way_to_name_it(tmp_path: Path, where: str, name: str) -> None:
    """module:attribute, dotted on both sides; a module alone means its only app, or app."""
    files = {
        "shop.py": MAKE + "app = App('one')\nother = App('two')\n"
        "class holder:\n    app = App('three')\n",
        "single.py": MAKE + "whatever = same = App('four')\n",
        "package/__init__.py": "",
        "package/deep.py": MAKE + "x = App('five')\n",
    }
    with importable(tmp_path, files) as folder:
        assert find_app(where, folder=folder).name == name


def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line before the environment before pyproject.toml before a guess."""
    files = {
        "a.py": MAKE + "app = App('argument')\n",
        "b.py": MAKE + "app = App('environment')\n",
        "c.py": MAKE + "app = App('pyproject')\n",
        "tasks.py": MAKE + "app = App('guess')\n",
        "pyproject.toml": '[tool.amqtask]\napp = "c"\n',
    }
    with importable(tmp_path, files) as folder:
        assert find_app(folder=folder).name == "pyproject"
        monkeypatch.setenv("AMQTASK_APP", "b:app")
        assert find_app(folder=folder).name == "environment"
        assert find_app("a", folder=folder).name == "argument"
        monkeypatch.delenv("AMQTASK_APP")
        (folder / "pyproject.toml").unlink()
        assert find_app(folder=folder).name == "guess"


@pytest.mark.parametrize(
    "files",
    [
        {"tasks.py": MAKE + "celery = App('found')\n"},
        {"app.py": MAKE + "application = App('found')\n"},
        {"tasks.py": "x = 1\n", "app.py": MAKE + "app = App('found')\n"},
    ],
)
def test_guessed_from_the_folder(tmp_path: Path, files: dict[str, str]) -> None:
    """tasks.py, then app.py; one without an App is passed over."""
    with importable(tmp_path, files) as folder:
        assert find_app(folder=folder).name == "found"


@pytest.mark.parametrize(
    ("where", "text", "hint"),
    [
        ("nowhere:app", "app 'nowhere:app': no module named 'nowhere'", "it is looked for in "),
        ("shop.deep:app", "app 'shop.deep:app': no module named 'shop.deep'", "it is looked for"),
        ("shop:aplication", "module 'shop' has no 'aplication', did you mean 'application'?", None),
        ("shop:number", "'shop:number' is a int, not an App", None),
        ("empty", "module 'empty' holds 0 apps", "name one: -A empty:attribute"),
        ("two", "module 'two' holds 2 apps", "name one: -A two:attribute"),
    ],
)
def test_what_is_not_there_in_full(tmp_path: Path, where: str, text: str, hint: str | None) -> None:
    """Module, attribute or kind: the text says which of them is wrong."""
    files = {
        "shop.py": MAKE + "application = App('x')\nnumber = 7\n",
        "empty.py": "",
        "two.py": MAKE + "a, b = App('a'), App('b')\n",
    }
    with importable(tmp_path, files) as folder, pytest.raises(AppNotFound) as caught:
        find_app(where, folder=folder)
    assert str(caught.value) == text
    assert (caught.value.hint or "").startswith(hint or "")
    assert bool(caught.value.hint) is bool(hint)


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({}, "there is no tasks.py or app.py"),
        ({"tasks.py": ""}, "tasks.py hold no App"),
        ({"tasks.py": "", "app.py": ""}, "tasks.py and app.py hold no App"),
    ],
)
def test_nothing_to_guess_in_full(tmp_path: Path, files: dict[str, str], what: str) -> None:
    """Where was looked, and the three ways to name it."""
    with importable(tmp_path, files) as folder, pytest.raises(AppNotFound) as caught:
        find_app(folder=folder)
    assert str(caught.value) == f"no app found in {tmp_path}: {what}"
    assert caught.value.hint == GUESS


def test_an_error_inside_the_module_is_its_own(tmp_path: Path) -> None:
    """A module that exists and fails shows its own error, not that it was not found."""
    files = {"shop.py": "import missing_dependency\n", "bad.py": "1 / 0\n"}
    with importable(tmp_path, files) as folder:
        with pytest.raises(ModuleNotFoundError, match="missing_dependency"):
            find_app("shop", folder=folder)
        with pytest.raises(ZeroDivisionError):
            find_app("bad", folder=folder)


def test_pyproject_is_checked(tmp_path: Path) -> None:
    """An app that is no text, or a file that is no TOML, is said with its path."""
    path = tmp_path / "pyproject.toml"
    with importable(tmp_path, {"pyproject.toml": "[tool.amqtask]\napp = 3\n"}) as folder:
        with pytest.raises(ConfigurationError) as caught:
            find_app(folder=folder)
        assert str(caught.value) == f"app=3 in [tool.amqtask] of {path} is not text"
        path.write_text("[tool\n")
        with pytest.raises(ConfigurationError, match="is not valid TOML: "):
            find_app(folder=folder)


def test_task_modules_are_imported(tmp_path: Path) -> None:
    """What imports= and autodiscover name is registered when find_app returns."""
    task = "from shop.main import app\n@app.task\ndef {0}(): ...\n"
    files = {
        "shop/__init__.py": "",
        "shop/main.py": MAKE + "app = App('shop', imports=['extra'])\napp.autodiscover('shop')\n",
        "extra.py": task.format("extra"),
        "shop/mail/__init__.py": "",
        "shop/mail/tasks.py": task.format("mail"),
        "shop/deep/__init__.py": "",
        "shop/deep/er/__init__.py": "",
        "shop/deep/er/tasks.py": task.format("deep"),
        "shop/deep/views.py": "raise AssertionError('not a task module')\n",
    }
    with importable(tmp_path, files) as folder:
        app = find_app("shop.main", folder=folder)
        assert list(app.tasks) == ["extra.extra", "shop.deep.er.tasks.deep", "shop.mail.tasks.mail"]


def test_an_app_can_be_located(tmp_path: Path) -> None:
    """A worker's children import the app under the name that it has in a module."""
    with importable(tmp_path, {"located.py": MAKE + "here = App('x')\n"}) as folder:
        app = find_app("located", folder=folder)
        assert locate(app) == "located:here"


def test_an_app_in_no_module_cannot_be_located() -> None:
    """One that only a function knows cannot be imported by a child, and that is said."""
    with pytest.raises(AppNotFound) as caught:
        locate(App("hidden", environ={}))
    assert str(caught.value) == "app 'hidden' is not an attribute of any imported module"
    assert caught.value.hint == (
        "keep it in a module-level variable, so that worker processes can import it"
    )


def test_the_folder_is_importable_once(tmp_path: Path) -> None:
    """Looking twice does not make sys.path grow."""
    with importable(tmp_path, {"tasks.py": MAKE + "app = App('x')\n"}) as folder:
        find_app(folder=folder)
        find_app(folder=folder)
        assert sys.path.count(str(folder)) == 1
