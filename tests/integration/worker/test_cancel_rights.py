"""A worker that may not have what cancelling needs: it says so, with the broker's words, and works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from amqtask import App
from amqtask.errors import ConfigurationError, PublishError
from amqtask.testing.servers import Server, from_program
from tests.helpers import eventually
from tests.integration.worker.inprocess import Worker

#: All rights but on what cancelling needs.
CONFIG = r"""
[{rabbit, [{default_permissions, [
    <<"^(?!amqtask\\.cancel).*">>, <<"^(?!amqtask\\.cancel).*">>, <<"^(?!amqtask\\.cancel).*">>
]}]}].
"""


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    """A private RabbitMQ whose guest may not touch the register."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(from_program("rabbitmq", config=CONFIG))
        except ConfigurationError as error:
            pytest.skip(str(error))
        yield server


@pytest.mark.parametrize("declare", ["auto", "never"])
def test_it_works_without(strict: Server, declare: str, caplog: pytest.LogCaptureFixture) -> None:
    """No wait, no end: one line; and who cancels is told."""
    with App("strict", broker=strict.url, backend="rpc://", environ={}) as maker:
        Worker(maker).start().stop()  # makes the queue
    with App("strict", broker=strict.url, backend="rpc://", declare=declare, environ={}) as app:

        @app.task(name="t.one")
        def one() -> int:
            return 1

        worker = Worker(app).start()
        try:
            result = one.delay()
            assert result.get(60) == 1
            eventually(lambda: "cancel.off" in caplog.text)
            with pytest.raises(PublishError):
                result.cancel()
        finally:
            worker.stop()
    said = [r.getMessage() for r in caplog.records if "cancel.off" in r.msg]
    assert any("ACCESS_REFUSED" in line and "amqtask.cancel" in line for line in said)
