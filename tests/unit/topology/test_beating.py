"""Where beats stand on the broker."""

from __future__ import annotations

import pytest

from amqtask.errors import ConfigurationError
from amqtask.settings import Settings
from amqtask.topology.beating import beat_key, beat_plan, beat_queue_arguments, beat_queue_name
from amqtask.topology.plan import DeclareExchange, DeclareQueue


def test_an_app_has_a_queue_of_its_own() -> None:
    """Named after the app unless the settings say otherwise; requests go to whoever leads it."""
    assert beat_queue_name(Settings(), "shop") == "amqtask.beat.shop"
    assert beat_key(Settings(), "shop") == "beat.amqtask.beat.shop"
    assert beat_queue_name(Settings(beat_queue="clock"), "shop") == "clock"


def test_a_name_that_makes_no_queue_is_refused() -> None:
    """With the broker's reason."""
    with pytest.raises(ConfigurationError, match="wildcards"):
        beat_queue_name(Settings(), "shop #1")


def test_the_state_outlives_its_leaders() -> None:
    """One consumer at a time, and no limit of deliveries that a broker would set by itself."""
    assert beat_queue_arguments("quorum") == {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
        "x-delivery-limit": 2**31 - 1,
    }
    assert beat_queue_arguments("classic") == {
        "x-queue-type": "classic",
        "x-single-active-consumer": True,
    }


def test_who_declares_it_is_a_setting() -> None:
    """Made, looked at, or left alone."""
    exchange, queue = beat_plan(Settings(), "shop").steps
    assert exchange == DeclareExchange("amqtask.control")
    assert isinstance(queue, DeclareQueue)
    assert queue.name == "amqtask.beat.shop"
    assert not queue.passive
    looked = beat_plan(Settings(declare="passive"), "shop").steps
    assert [step.passive for step in looked if isinstance(step, DeclareQueue)] == [True]
    assert beat_plan(Settings(declare="never"), "shop").steps == ()
