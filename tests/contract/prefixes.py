"""Delay levels for a run of tests: made once for each broker, deleted at the end.

Making and deleting 32 quorum queues takes half a second, so tests share them; they do not meet
there, as each test waits for queues of its own.
"""

from __future__ import annotations

from tests.servers import Names


class DelayPrefixes:
    """Hands out one delay prefix for each broker."""

    def __init__(self) -> None:
        self._prefixes: dict[str, tuple[Names, str]] = {}

    def of(self, url: str) -> str:
        """Return the prefix to use on this broker."""
        if url not in self._prefixes:
            names = Names()
            self._prefixes[url] = names, names.delay_prefix()
        return self._prefixes[url][1]

    def delete(self) -> None:
        """Delete all levels that were made."""
        for url, (names, _) in self._prefixes.items():
            names.delete(url)
