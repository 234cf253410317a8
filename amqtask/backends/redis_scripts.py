"""Lua scripts in Redis, called by their hash.

redis-py asks the server before each pipeline whether it has the scripts in it, which is one more
way there and back for every batch. Here the server says so itself, after it was started anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError, RedisError


class Script:
    """A script.

    Args:
        text: What it does.

    Threads: safe from any thread.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._hash = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - it is Redis's name for it

    def run(self, client: Any, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        """Call it with keys and arguments, as often as there are some; returns the answers.

        Raises:
            RedisError: One of the calls failed; others may have been done.
        """
        answers = self._run(client, calls)
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            client.script_load(self._text)
            again = self._run(client, [calls[at] for at in unknown])
            for at, answer in zip(unknown, again, strict=True):
                answers[at] = answer
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return answers

    def _run(self, client: Any, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        with client.pipeline(transaction=False) as pipe:
            for keys, arguments in calls:
                pipe.evalsha(self._hash, len(keys), *keys, *arguments)
            answers: list[Any] = pipe.execute(raise_on_error=False)
            return answers
