"""The other libraries, each at its best and in its safe setting.

Their programs run in an environment of their own, which `environment` makes: what they install
must not weigh on amqtask's figures, nor the other way round. Each module here is both the client
that is measured (``python -m tests.bench.side peers.celery_side FUNCTION JSON``) and what that
library's own worker command imports; none imports amqtask.

Where they run, and which setting is asked for, stands in ``BENCH_*`` variables: see `said`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Said:
    """What a run was told.

    Attributes:
        url: The broker.
        queue: Name of the queue that the tasks go to; nobody else's.
        safe: Whether each message is confirmed and acked after its task; otherwise the library
            is as fast as its own settings let it be.
        results: Where results go, as a URL; empty for none.
    """

    url: str
    queue: str
    safe: bool
    results: str


def said() -> Said:
    """Read the variables."""
    environ = os.environ
    return Said(
        environ["BENCH_URL"],
        environ["BENCH_QUEUE"],
        environ.get("BENCH_SAFE") == "1",
        environ.get("BENCH_RESULTS", ""),
    )
