"""What users test with: finding the servers a test needs, and starting one that is missing.

Tests that need a broker run wherever there is one, and say in one line how to get it elsewhere.
"""

from __future__ import annotations

from amqtask.testing.servers import Server, find, find_or_start, missing, required

__all__ = ["Server", "find", "find_or_start", "missing", "required"]
