"""The worker of ``amqtask dev``: ``amqtask worker`` that ends with the process that started it.

Its standard input is a pipe that nobody writes to. When the pipe ends, `amqtask
dev` is gone, killed perhaps, and the worker stops as if it had been told to.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from amqtask.cli import main


def _until_alone() -> None:
    while os.read(0, 1024):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.argv[0] = "amqtask"
    threading.Thread(target=_until_alone, daemon=True).start()
    main()
