"""Run the demo: ``python -m examples.demo``.

    broker -> worker -> calls -> outcomes -> dead letters -> clean up -> table

Exit codes: 0 every count is right, 1 one is not, 2 there is no broker.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from contextlib import ExitStack

from rich.console import Console

from amqtask import AmqtaskError, BrokerUnreachable, ConfigurationError
from amqtask.settings import redact_url
from amqtask.testing import find_or_start

_HOW = {
    "environment": "from the environment",
    "running": "found running",
    "docker": "started in Docker for this run",
    "program": "started for this run",
}


def _broker(stack: ExitStack, console: Console) -> str:
    """Return where the broker came from; its URL is in ``AMQTASK_BROKER`` afterwards."""
    if os.environ.get("AMQTASK_BROKER"):
        return "from AMQTASK_BROKER"
    with console.status("looking for a broker"):
        server = stack.enter_context(find_or_start("rabbitmq"))
    os.environ["AMQTASK_BROKER"] = server.url
    return f"RabbitMQ {server.version}, {_HOW[server.how]}"


def main() -> int:
    """Run the demo and return its exit code."""
    console = Console(highlight=False)
    for number in (signal.SIGINT, signal.SIGTERM):  # the worker is stopped after either
        signal.signal(number, signal.default_int_handler)
    os.environ["DEMO_RUN"] = f"amqtask-demo-{secrets.token_hex(3)}"
    try:
        with ExitStack() as stack:
            try:
                how = _broker(stack, console)
                # the tasks' module reads the environment when it is imported
                from examples.demo import run

                run.check(console, f"{redact_url(os.environ['AMQTASK_BROKER'])} ({how})")
            except (ConfigurationError, BrokerUnreachable) as error:
                return _complain(error, 2)
            return run.run(console)
    except AmqtaskError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130


def _complain(error: AmqtaskError, code: int) -> int:
    print(f"demo: {error}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
