"""What users test with: a broker for each test, a worker in its process, and time that jumps.

`Sandbox` is one test's broker; the pytest plugin gives it as the fixture
``amqtask_broker``, and `sandbox` without pytest. `eager` runs calls where they are
made. Tests that need another server find or start it with `find_or_start`, and say
in one line how to get it where that fails.
"""

from __future__ import annotations

from amqtask.testing.beat import Beat
from amqtask.testing.eager import Eager, eager
from amqtask.testing.failures import CallParked, Failure
from amqtask.testing.letters import Letter
from amqtask.testing.outbox import Outbox, SentCall
from amqtask.testing.sandbox import Sandbox, sandbox
from amqtask.testing.servers import Server, find, find_or_start, missing, required
from amqtask.testing.worker import Worker

__all__ = [
    "Beat",
    "CallParked",
    "Eager",
    "Failure",
    "Letter",
    "Outbox",
    "Sandbox",
    "SentCall",
    "Server",
    "Worker",
    "eager",
    "find",
    "find_or_start",
    "missing",
    "required",
    "sandbox",
]
