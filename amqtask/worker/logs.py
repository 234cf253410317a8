"""Log lines of a worker process: one shape for supervisor and children."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(process)d %(levelname)-7s %(message)s"


def set_up_logging(level: str) -> None:
    """Send everything from ``level`` up to standard error, unless the app set up logging itself."""
    if not logging.root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT))
        logging.root.addHandler(handler)
        logging.root.setLevel(logging.WARNING)
    logging.getLogger("amqtask").setLevel(level.upper())
