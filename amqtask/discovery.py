"""Find the app that a command line means, and the modules its tasks are in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from amqtask.app import App
from amqtask.errors import AppNotFound, ConfigurationError, near
from amqtask.imports import import_module

#: Modules of the current folder that are looked into when nothing names an app.
_GUESSES = ("tasks", "app")
#: Packages in which there hardly is an app.
_FOREIGN = frozenset({"amqtask", "click", "pika", *sys.stdlib_module_names})


def find_app(where: str | None = None, *, folder: Path | None = None) -> App:
    """Return the app, with its task modules imported.

    Looked for in this order: ``where``, ``AMQTASK_APP``, ``app`` in
    ``[tool.amqtask]`` of pyproject.toml, an `App` in ``tasks.py`` or
    ``app.py`` of ``folder``.

    Args:
        where: ``module`` or ``module:attribute``.
        folder: The folder to look in and to import from; the current one by default.

    Raises:
        AppNotFound: Nothing was found, or no App is where it was said to be.
    """
    folder = folder or Path.cwd()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    where = where or os.environ.get("AMQTASK_APP") or _from_pyproject(folder)
    app = _load(where) if where else _guess(folder)
    app.import_tasks()
    return app


def find_object(where: str, *, folder: Path | None = None) -> Any:
    """Return what ``module:attribute`` or ``file.py:attribute`` names.

    Raises:
        AppNotFound: There is no such module or attribute.
    """
    folder = folder or Path.cwd()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    name, _, attribute = where.partition(":")
    if not attribute:
        raise AppNotFound(f"{where!r} names no attribute", hint="write module:attribute")
    name = name.removesuffix(".py").removeprefix("./").replace("/", ".")
    return _attribute(import_module(name, repr(where), AppNotFound), name, attribute)


def locate(app: App) -> str:
    """Return ``module:attribute`` under which another process can import ``app``.

    Raises:
        AppNotFound: No imported module holds it under a public name.
    """
    # to look at what a module has is to write to its memory, which processes may share: those
    # that are likely to have it come first
    for name, module in sorted(sys.modules.items(), key=lambda item: _is_foreign(item[0])):
        if name == "__main__" or not isinstance(module, ModuleType):
            continue
        for attribute, value in list(vars(module).items()):
            if value is app:
                return f"{name}:{attribute}"
    raise AppNotFound(
        f"app {app.name!r} is not an attribute of any imported module",
        hint="keep it in a module-level variable, so that worker processes can import it",
    )


def _is_foreign(module: str) -> bool:
    return module.partition(".")[0] in _FOREIGN


def _from_pyproject(folder: Path) -> str | None:
    path = folder / "pyproject.toml"
    if not path.is_file():
        return None
    import tomllib  # only needed where there is a file

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    app = table.get("tool", {}).get("amqtask", {}).get("app")
    if app is not None and not isinstance(app, str):
        raise ConfigurationError(f"app={app!r} in [tool.amqtask] of {path} is not text")
    return app


def _load(where: str) -> App:
    module_name, _, attribute = where.partition(":")
    module = import_module(module_name, f"app {where!r}", AppNotFound)
    if not attribute:
        return _only_app(module, module_name)
    value = _attribute(module, module_name, attribute)
    if not isinstance(value, App):
        raise AppNotFound(f"{where!r} is a {type(value).__name__}, not an App")
    return value


def _attribute(module: ModuleType, module_name: str, attribute: str) -> Any:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            names = [name for name in vars(module) if not name.startswith("_")]
            raise AppNotFound(
                f"module {module_name!r} has no {attribute!r}{near(attribute, names)}"
            )
        value = getattr(value, part)
    return value


def _only_app(module: ModuleType, name: str) -> App:
    apps = {id(v): v for v in vars(module).values() if isinstance(v, App)}
    if len(apps) == 1:
        return next(iter(apps.values()))
    if isinstance(preferred := vars(module).get("app"), App):
        return preferred
    raise AppNotFound(
        f"module {name!r} holds {len(apps)} apps", hint=f"name one: -A {name}:attribute"
    )


def _guess(folder: Path) -> App:
    looked = []
    for name in _GUESSES:
        if (folder / f"{name}.py").is_file():
            looked.append(f"{name}.py")
            module = import_module(name, f"{name}.py", AppNotFound)
            if any(isinstance(value, App) for value in vars(module).values()):
                return _only_app(module, name)
    what = f"{' and '.join(looked)} hold no App" if looked else "there is no tasks.py or app.py"
    raise AppNotFound(
        f"no app found in {folder}: {what}",
        hint="name it: -A module:attribute, AMQTASK_APP, or app in [tool.amqtask] of pyproject.toml",
    )
