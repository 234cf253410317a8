"""Tests of processes, signals and the command line: one broker will do, whichever is here.

What depends on the broker is tested on each of them, in a process that is asked directly
(tests/integration/worker), and in the other acceptance tests.
"""

from __future__ import annotations

import pytest

from amqtask.testing.servers import Server


@pytest.fixture(scope="session")
def broker(any_broker: Server) -> str:
    """The URL of a broker."""
    return any_broker.url
