"""Scripts in Redis: one way there and back, unless the server does not know the script."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import NoScriptError, ResponseError

from amqtask.backends.redis_scripts import Script

SCRIPT = Script("return ARGV[1]")


class Client:
    """A server that returns the first argument; it knows scripts once they are loaded."""

    def __init__(self, *, knows: bool) -> None:
        self.knows = knows
        self.loaded: list[str] = []
        self.batches: list[list[Any]] = []
        #: Answers in place of the first ones.
        self.instead: list[Exception] = []

    def script_load(self, text: str) -> None:
        self.loaded.append(text)
        self.knows = True

    def pipeline(self, *, transaction: bool) -> Client:
        assert not transaction
        self.batches.append([])
        return self

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None: ...

    def evalsha(self, name: str, keys: int, *rest: Any) -> None:
        assert len(name) == 40
        self.batches[-1].append(rest[keys])

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        if not self.knows:
            return [NoScriptError("NOSCRIPT")] * len(self.batches[-1])
        answers = [*self.instead, *self.batches[-1][len(self.instead) :]]
        self.instead = []
        return answers


def _calls(*values: int) -> list[tuple[list[str], list[int]]]:
    return [(["key"], [value]) for value in values]


def test_a_batch_goes_out_at_once() -> None:
    """Nothing is asked before."""
    client = Client(knows=True)
    assert SCRIPT.run(client, _calls(1, 2, 3)) == [1, 2, 3]
    assert (client.batches, client.loaded) == ([[1, 2, 3]], [])


def test_a_server_that_does_not_know_it_is_told() -> None:
    """It was started anew, say."""
    client = Client(knows=False)
    assert SCRIPT.run(client, _calls(1, 2)) == [1, 2]
    assert client.loaded == ["return ARGV[1]"]


def test_what_was_done_is_not_done_again() -> None:
    """Somebody else may have told the server in the middle of a batch."""
    client = Client(knows=True)
    client.instead = [NoScriptError("NOSCRIPT")]
    assert SCRIPT.run(client, _calls(1, 2, 3)) == [1, 2, 3]
    assert client.batches == [[1, 2, 3], [1]]


def test_what_the_server_refuses_is_raised() -> None:
    """Whichever of the calls it was."""
    client = Client(knows=True)
    client.instead = [ResponseError("OOM")]
    with pytest.raises(ResponseError, match="OOM"):
        SCRIPT.run(client, _calls(1, 2))
