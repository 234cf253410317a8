"""Dead-letter queues: their names and arguments."""

from __future__ import annotations

from amqtask.topology.deadletter import (
    dead_letter_arguments,
    dead_queue_arguments,
    dead_queue_name,
)


def test_dead_queue():
    """A dead-letter queue never discards: no delivery limit worth the name, no drop."""
    assert dead_queue_name("email") == "email.dead"
    assert dead_queue_arguments("quorum") == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 2147483647,
        "x-overflow": "reject-publish",
    }
    assert dead_queue_arguments("classic") == {"x-queue-type": "classic"}


def test_dead_letter_arguments():
    """Only quorum queues dead-letter at least once; classic ones refuse the argument."""
    classic = {"x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": "email"}
    assert dead_letter_arguments("email", "dead", "classic") == classic
    assert dead_letter_arguments("email", "dead", "quorum") == {
        **classic,
        "x-dead-letter-strategy": "at-least-once",
    }
