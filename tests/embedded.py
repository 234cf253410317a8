"""The embedded broker in a process of its own, as the tests and the benchmark use it.

``python -m tests.embedded`` prints its URL and runs until its standard input ends, so that it never
outlives who started it, not even one that was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from amqtask.broker import Broker

_ROOT = Path(__file__).parents[1]
#: Seconds it has to end by itself.
_STOP = 10.0


@dataclass(frozen=True, slots=True)
class BrokerProcess:
    """A broker that runs.

    Attributes:
        url: Where it is.
        pid: Its process.
    """

    url: str
    pid: int


@contextmanager
def broker_process(*arguments: str) -> Iterator[BrokerProcess]:
    """Run a broker for as long as the context.

    Raises:
        AssertionError: At the end, when it logged an error: it closes a connection over a fault of
            its own rather than stop, and nobody else may notice.
    """
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.embedded", *arguments],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        with process:
            try:
                url = process.stdout.readline().strip()
                if url:
                    yield BrokerProcess(url, process.pid)
            finally:
                _end(process)
        log.seek(0)
        said = log.read()
    assert not said, f"the embedded broker complained:\n{said}"
    assert url, "the embedded broker did not start"


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


async def _serve(data: Path | None) -> None:
    async with Broker(data=data) as broker:
        print(broker.url, flush=True)
        # a thread of its own: reading is all it does, and it ends with the process
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Run a broker until standard input ends."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(_serve(options.data))


if __name__ == "__main__":
    main()
