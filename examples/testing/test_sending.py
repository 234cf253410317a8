"""What does my code send? No worker, no waiting."""

from tasks import remind, sign_up, welcome

from amqtask.testing import Sandbox


def test_a_new_customer_is_greeted(amqtask_broker: Sandbox) -> None:
    sign_up("Ada")
    amqtask_broker.assert_sent(welcome, "Ada", queue="email", times=1)
    amqtask_broker.assert_sent(remind, order=1, countdown=7 * 24 * 3600)
    amqtask_broker.assert_not_sent(welcome, "Ada", language="fr")


def test_what_was_sent_can_be_looked_at(amqtask_broker: Sandbox) -> None:
    sign_up("Ada")
    first, second = amqtask_broker.sent()
    assert (first.task, first.args) == ("tasks.welcome", ("Ada",))
    assert second.kwargs == {"order": 1}
    assert [letter.task for letter in amqtask_broker.delayed()] == ["tasks.remind"]
