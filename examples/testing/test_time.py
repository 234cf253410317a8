"""Delays, back-off and expiry, without waiting for them."""

import pytest
from tasks import app, remind, sign_up, stock_take, welcome

from amqtask import TaskRevoked
from amqtask.testing import Beat, Sandbox, Worker

DAY = 24 * 3600


def test_the_reminder_comes_after_a_week(amqtask_worker: Worker, amqtask_broker: Sandbox) -> None:
    sign_up("Ada")
    amqtask_broker.advance(6 * DAY)
    amqtask_broker.assert_not_sent(welcome, "customer of order 1")
    amqtask_broker.advance(1 * DAY + 1)
    amqtask_broker.assert_sent(welcome, "customer of order 1")


def test_drain_lets_everything_happen(amqtask_worker: Worker, amqtask_broker: Sandbox) -> None:
    start = amqtask_broker.now()
    sign_up("Ada")
    amqtask_worker.drain()
    assert amqtask_worker.counts["done"] == 3
    assert amqtask_broker.now() - start >= 7 * DAY


def test_an_old_reminder_is_not_sent(amqtask_broker: Sandbox) -> None:
    reminder = remind.options(expires=DAY).delay(order=1)
    amqtask_broker.advance(2 * DAY)
    with amqtask_broker.worker(app), pytest.raises(TaskRevoked):
        reminder.get(timeout=10)
    amqtask_broker.assert_not_sent(welcome)


def test_the_stock_is_taken_each_week(
    amqtask_worker: Worker, amqtask_beat: Beat, amqtask_broker: Sandbox
) -> None:
    amqtask_broker.advance(4 * 7 * DAY)
    amqtask_broker.assert_sent(stock_take, times=4)
