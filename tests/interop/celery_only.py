"""What only the process of the Celery worker imports."""

from __future__ import annotations


class Bounced(Exception):
    """An exception that the other side has no class for."""
