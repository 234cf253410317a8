"""Slot groups: which queues share slots, and how many each group has.

A queue with a number of its own has a pool set to itself, so a slow queue
never takes the slots of a quick one. All others share the default set.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueSlots:
    """A queue to consume.

    Attributes:
        name: The queue's name.
        slots: Tasks of each kind that may run at once, for this queue alone;
            None shares the default slots.
    """

    name: str
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class SlotGroup:
    """Queues that share slots.

    Attributes:
        name: Shown in the names of threads; empty for the default group.
        queues: Names of its queues.
        slots: Threads, and as many coroutines.
        processes: Runners.
    """

    name: str
    queues: tuple[str, ...]
    slots: int
    processes: int


def slot_groups(
    queues: Iterable[str | QueueSlots], *, slots: int, processes: int | None
) -> list[SlotGroup]:
    """Return the groups that these queues make; the default one only if a queue is in it.

    Args:
        slots: Size of the default group.
        processes: Runners of the default group; None takes the number of CPUs.
    """
    said: dict[str, int | None] = {}
    for queue in queues:
        each = QueueSlots(queue) if isinstance(queue, str) else queue
        said[each.name] = each.slots or said.get(each.name)
    shared = tuple(name for name, own in said.items() if own is None)
    groups = [SlotGroup(name, (name,), own, own) for name, own in said.items() if own is not None]
    if shared:
        groups.insert(0, SlotGroup("", shared, slots, processes or cpus()))
    return groups


def board_slots(groups: Sequence[SlotGroup]) -> int:
    """Return how many tasks these groups may run in a process's threads and on its loop."""
    return sum(2 * group.slots for group in groups)


def cpus() -> int:
    """Return the number of CPUs this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
