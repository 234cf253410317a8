"""The pytest plugin: fixtures for testing tasks without a broker to install.

    amqtask_broker   a broker for the test alone, with its time, its queues, its faults
    amqtask_app      the project's app, pointed at that broker until the test ends
    amqtask_worker   a worker of that app, running in this process
    amqtask_beat     a beat of that app, sending its schedule in this process
    amqtask_eager    the app's calls run where they are made

A module of its own, outside the package: pytest imports every plugin at every
start, and this way a run that uses none of it does not load amqtask at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from amqtask.app import App
    from amqtask.testing import Beat, Eager, Sandbox, Worker
    from amqtask.testing.embedded import Server

_INI = "amqtask_app"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini option that names the project's app."""
    parser.addini(_INI, "the App that tests use, as module:attribute, such as shop.tasks:app")


@pytest.fixture(scope="session")
def _amqtask_server() -> Iterator[Server]:
    from amqtask.testing.embedded import Server

    server = Server()
    with server:
        yield server


@pytest.fixture
def amqtask_broker(_amqtask_server: Server, pytestconfig: pytest.Config) -> Iterator[Sandbox]:
    """A broker of the test's own; the app of the ini option ``amqtask_app`` is pointed at it.

    What a task raised and the test has not seen is raised at its end.
    """
    from amqtask.testing import Sandbox

    sandbox = Sandbox(_amqtask_server)
    try:
        if (app := _configured(pytestconfig)) is not None:
            sandbox.use(app)
        yield sandbox
    finally:
        sandbox.close()


@pytest.fixture
def amqtask_app(pytestconfig: pytest.Config) -> App:
    """The project's app, as the ini option names it; override it to say which in code."""
    app = _configured(pytestconfig)
    if app is None:
        raise pytest.UsageError(
            f"no app is named: put {_INI} = shop.tasks:app into pytest's ini options "
            f"([tool.pytest.ini_options] of pyproject.toml), or override the fixture {_INI}"
        )
    return app


@pytest.fixture
def amqtask_worker(amqtask_broker: Sandbox, amqtask_app: App) -> Iterator[Worker]:
    """A worker of `amqtask_app` on `amqtask_broker`, for all queues of the app; it runs already."""
    with amqtask_broker.worker(amqtask_app) as worker:
        yield worker


@pytest.fixture
def amqtask_beat(amqtask_broker: Sandbox, amqtask_app: App) -> Iterator[Beat]:
    """A beat of `amqtask_app` on `amqtask_broker`: it sends what is due as time is advanced."""
    with amqtask_broker.beat(amqtask_app) as beat:
        yield beat


@pytest.fixture
def amqtask_eager(amqtask_app: App) -> Iterator[Eager]:
    """Eager mode for `amqtask_app`: its calls run where they are made, and raise what tasks raise."""
    from amqtask.testing import eager

    with eager(amqtask_app) as made:
        yield made


def _configured(config: pytest.Config) -> App | None:
    where: Any = config.getini(_INI)
    if not where:
        return None
    from amqtask.discovery import find_app

    return find_app(str(where), folder=config.rootpath)
