"""What cancelling needs on the broker, by the app's settings."""

from __future__ import annotations

import pytest

from amqtask.settings import Settings
from amqtask.topology.cancelling import MARKS, cancel_plan, register_name
from amqtask.topology.plan import BindQueue, DeclareExchange, DeclareQueue


def test_the_plan() -> None:
    """A fanout exchange, and a register bound to it that readers share by turns."""
    exchange, register, binding = cancel_plan(Settings()).steps
    assert exchange == DeclareExchange("amqtask.cancel", "fanout")
    assert isinstance(register, DeclareQueue)
    assert (register.name, register.durable) == ("amqtask.cancel.register", True)
    assert register.arguments == {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
        "x-max-length": 10_000 + MARKS,
        "x-overflow": "drop-head",
        "x-delivery-limit": 2**31 - 1,
    }
    assert binding == BindQueue("amqtask.cancel.register", "amqtask.cancel")


def test_a_classic_register_has_no_delivery_limit() -> None:
    """A classic queue refuses the argument, and counts no deliveries."""
    _, register, _ = cancel_plan(Settings(queue_type="classic", cancel_limit=5)).steps
    assert isinstance(register, DeclareQueue)
    assert register.arguments == {
        "x-queue-type": "classic",
        "x-single-active-consumer": True,
        "x-max-length": 5 + MARKS,
        "x-overflow": "drop-head",
    }


@pytest.mark.parametrize(("declare", "steps"), [("never", 0), ("passive", 2)])
def test_what_others_make(declare: str, steps: int) -> None:
    """It is looked for, or left alone."""
    plan = cancel_plan(Settings(declare=declare))  # type: ignore[arg-type]
    assert len(plan.steps) == steps
    assert all(getattr(step, "passive", False) for step in plan.steps)


def test_names_follow_the_exchange() -> None:
    """Two systems on one vhost keep apart by one setting."""
    assert register_name(Settings(cancel_exchange="shop.cancel")) == "shop.cancel.register"
