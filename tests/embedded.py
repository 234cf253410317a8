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
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from amqtask.broker import Broker
from tests.contract.broker.wire import Wire

_ROOT = Path(__file__).parents[1]
#: Seconds it has to end by itself.
_STOP = 60.0


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


async def lives(count: int) -> tuple[int, int, int]:
    """Start and stop brokers in this process, each with a client.

    Returns:
        How many descriptors, threads and tasks there are more than before.
    """
    process = psutil.Process()
    await _life()
    await asyncio.to_thread(_life_in_a_thread)
    before = process.num_fds(), _threads(), len(asyncio.all_tasks())
    for number in range(count):
        if number % 2:
            await asyncio.to_thread(_life_in_a_thread)
        else:
            await _life()
    after = process.num_fds(), _threads(), len(asyncio.all_tasks())
    sockets, threads, tasks = (now - then for now, then in zip(after, before, strict=True))
    return sockets, threads, tasks


def _threads() -> int:
    # those of asyncio.to_thread are as many as were busy at once
    return sum(not each.name.startswith("asyncio_") for each in threading.enumerate())


async def _life() -> None:
    async with Broker() as broker:
        await asyncio.to_thread(_use, broker.url)


def _life_in_a_thread() -> None:
    with Broker() as broker:
        _use(broker.url)


def _use(url: str) -> None:
    with Wire(url).login().open_channel():
        pass


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
