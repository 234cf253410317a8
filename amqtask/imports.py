"""Import the modules that tasks are in, with errors that say who asked for them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from types import ModuleType

from amqtask.errors import ConfigurationError


def import_modules(names: Iterable[str]) -> None:
    """Import each module, so that its tasks register.

    Raises:
        ConfigurationError: A module does not exist.
    """
    for name in names:
        import_module(name, f"imports={name!r}", ConfigurationError)


def autodiscover(packages: Iterable[str], module: str) -> None:
    """Import every module called ``module`` in these packages, at any depth.

    Raises:
        ConfigurationError: A package does not exist.
    """
    import pkgutil  # few apps ask for this

    for name in packages:
        package = import_module(name, f"autodiscover of {name!r}", ConfigurationError)
        for found in pkgutil.walk_packages(getattr(package, "__path__", ()), f"{name}."):
            if found.name.rpartition(".")[2] == module:
                import_module(found.name, f"autodiscover of {name!r}", ConfigurationError)


def import_module(name: str, what: str, error: type[ConfigurationError]) -> ModuleType:
    """Import ``name`` and return it.

    Args:
        what: Who asked for it, for the error text.
        error: Class of the error when there is no such module.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and (
            name == missing.name or name.startswith(f"{missing.name}.")
        ):
            raise error(
                f"{what}: no module named {missing.name!r}",
                hint=f"it is looked for in {sys.path[0]!r} and in the installed packages",
            ) from None
        raise
