"""`App.topology`: what an app wants on the broker, by its ``declare`` setting."""

from __future__ import annotations

import pytest

from amqtask import App
from amqtask.topology.plan import DeclareExchange, DeclareQueue


def app(declare: str) -> App:
    return App("topology", queues=["email"], default_queue="email", declare=declare, environ={})


def test_auto_makes_the_delay_levels() -> None:
    """A queue comes with its dead-letter queue and the levels that its delayed calls wait in."""
    queues = {step.name for step in app("auto").topology().steps if isinstance(step, DeclareQueue)}
    digits = {level: 7 if level < 3 else 1 for level in range(26)}
    levels = {
        f"amqtask.delay.level{level:02d}.{digit}"
        for level, most in digits.items()
        for digit in range(1, most + 1)
    }
    assert (
        queues == {"email", "email.dead", "amqtask.delay.lost", "amqtask.cancel.register"} | levels
    )


@pytest.mark.parametrize("queues", [None, ["email"], ["email", "unlisted"]])
def test_passive_makes_nothing(queues: list[str] | None) -> None:
    """Under ``passive`` every step only looks whether something is there."""
    steps = app("passive").topology(queues).steps
    assert steps
    for step in steps:
        assert isinstance(step, DeclareExchange | DeclareQueue)
        assert step.passive


def test_never_wants_nothing() -> None:
    """Under ``never`` the broker is not asked for anything."""
    assert app("never").topology().steps == ()
