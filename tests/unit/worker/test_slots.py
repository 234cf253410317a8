"""Which queues share slots, and how many there are."""

from __future__ import annotations

from amqtask.worker.slots import QueueSlots, SlotGroup, board_slots, cpus, slot_groups


def test_queues_without_a_number_share():
    """They are the default group; runners are as many as CPUs unless said."""
    assert slot_groups(["a", QueueSlots("b")], slots=16, processes=None) == [
        SlotGroup("", ("a", "b"), 16, cpus())
    ]


def test_a_queue_with_a_number_stands_alone():
    """It has that many of each kind, and the default group is only there when a queue is in it."""
    assert slot_groups(["a", QueueSlots("b", 2)], slots=16, processes=3) == [
        SlotGroup("", ("a",), 16, 3),
        SlotGroup("b", ("b",), 2, 2),
    ]
    assert slot_groups([QueueSlots("b", 2)], slots=16, processes=3) == [
        SlotGroup("b", ("b",), 2, 2)
    ]


def test_a_queue_that_is_named_twice():
    """It is one queue, and the number counts."""
    (only,) = slot_groups(["a", QueueSlots("a", 4), "a"], slots=16, processes=None)
    assert only == SlotGroup("a", ("a",), 4, 4)


def test_the_board_has_room_for_all():
    """Threads and coroutines of each group; runners are accounted for by their node."""
    groups = slot_groups(["a", QueueSlots("b", 2)], slots=16, processes=3)
    assert board_slots(groups) == 36
