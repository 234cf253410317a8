"""Do my tasks work, from the call to the result? A real worker, in this process."""

import pytest
import tasks
from tasks import CarrierDown, ship, welcome

from amqtask.testing import Sandbox, Worker


def test_the_result_comes_back(amqtask_worker: Worker) -> None:
    result = welcome.delay("Ada", language="fr")
    amqtask_worker.run_until_idle()
    assert result.get(timeout=0) == "Bienvenue, Ada!"


async def test_from_a_coroutine(amqtask_worker: Worker) -> None:
    result = await ship.adelay(7)
    assert await result == "post-7"


def test_what_a_task_raises_is_raised_here(amqtask_worker: Worker) -> None:
    welcome.delay("Ada", language="tlh")
    with pytest.raises(KeyError, match="tlh"):
        amqtask_worker.run_until_idle()


def test_a_failure_is_parked(amqtask_worker: Worker, amqtask_broker: Sandbox) -> None:
    welcome.delay("Ada", language="tlh")
    with pytest.raises(KeyError):
        amqtask_worker.run_until_idle()
    (dead,) = amqtask_broker.dead_letters("email")
    assert (dead.args, dead.reason, dead.attempts) == (("Ada",), "failed", 1)


def test_the_carrier_is_tried_again(
    amqtask_worker: Worker, amqtask_broker: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    async def book(order: int, carrier: str) -> str:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise CarrierDown
        return f"{carrier}-{order}"

    monkeypatch.setattr(tasks, "book", book)
    result = ship.delay(7)
    amqtask_broker.advance(3600)  # the minutes between the attempts pass at once
    assert result.get(timeout=0) == "post-7"
    assert attempts == 3


def test_the_broker_may_fail_too(amqtask_worker: Worker, amqtask_broker: Sandbox) -> None:
    amqtask_broker.faults.cut_connections()
    result = welcome.delay("Ada")
    amqtask_worker.run_until_idle()
    assert result.get(timeout=0) == "Welcome, Ada!"
