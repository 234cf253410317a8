"""Run the demo: ``python -m examples.demo``.

    broker -> worker -> calls -> outcomes -> dead letters -> clean up -> table

The broker is the embedded one, unless ``AMQTASK_BROKER`` names another.

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
from amqtask.broker import Broker
from amqtask.settings import redact_url


def _broker(stack: ExitStack) -> str:
    """Return where the broker came from; its URL is in ``AMQTASK_BROKER`` afterwards."""
    if os.environ.get("AMQTASK_BROKER"):
        return "from AMQTASK_BROKER"
    broker = stack.enter_context(Broker())
    os.environ["AMQTASK_BROKER"] = broker.url
    return "the embedded broker, for this run"


def main() -> int:
    """Run the demo and return its exit code."""
    console = Console(highlight=False)
    for number in (signal.SIGINT, signal.SIGTERM):  # the worker is stopped after either
        signal.signal(number, signal.default_int_handler)
    os.environ["DEMO_RUN"] = f"amqtask-demo-{secrets.token_hex(3)}"
    try:
        with ExitStack() as stack:
            try:
                how = _broker(stack)
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
