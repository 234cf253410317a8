"""What a child has to know: one value, sent to it as the first line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from amqtask.worker.slots import QueueSlots, SlotGroup, board_slots, slot_groups


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker runs, and how its processes end.

    Attributes:
        app: ``module:attribute`` to import it from.
        queues: Names of the queues to consume, each with the slots of its own
            or None when it shares those of the worker.
        concurrency: Tasks at once in each process.
        prefetch: Deliveries held per queue; None lets it follow the pace.
        name: The worker's name.
        loglevel: Least severity that is logged.
        pool: Where tasks run that do not say; None takes the setting.
        process_slots: Isolated processes of each process; None takes the setting.
        max_tasks_per_child: Tasks after which a process is replaced.
        max_memory_per_child: Bytes above which it is.
        shutdown_timeout: Seconds for what runs to finish; None for as long as it takes.
        cleanup_timeout: Seconds for what is cancelled to clean up.
        beat: Whether it runs a beat, and no task.
        environ: Environment variables that the processes get besides ours.
        path: ``sys.path`` of the supervisor.
    """

    app: str
    queues: tuple[tuple[str, int | None], ...]
    concurrency: int
    prefetch: int | None
    name: str
    loglevel: str
    pool: str | None = None
    process_slots: int | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    shutdown_timeout: float | None = None
    cleanup_timeout: float = 5.0
    beat: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the queues."""
        return tuple(name for name, _ in self.queues)

    @property
    def keeps_processes(self) -> bool:
        """Whether a process is replaced only when something went wrong with it."""
        return self.max_tasks_per_child is None and self.max_memory_per_child is None

    @property
    def slots(self) -> int:
        """Tasks of one kind that a process runs at once, over all of its queues."""
        return sum(group.slots for group in self._groups())

    @property
    def runners(self) -> int:
        """Isolated processes that a process has at once, over all of its queues."""
        return sum(group.processes for group in self._groups())

    @property
    def board_slots(self) -> int:
        """Tasks that its run board has room for."""
        return board_slots(self._groups())

    def _groups(self) -> list[SlotGroup]:
        queues = [QueueSlots(name, slots) for name, slots in self.queues]
        return slot_groups(queues, slots=self.concurrency, processes=self.process_slots)

    def line(self, **more: Any) -> bytes:
        """Return the line for a child, with what concerns this child alone.

        Args:
            more: ``board``, and ``environ`` where the child was not started with it.
        """
        return json.dumps(asdict(self) | {"environ": {}} | more).encode() + b"\n"

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> WorkerSpec:
        """Return the spec in a line's fields."""
        queues = tuple((name, slots) for name, slots in fields["queues"])
        return cls(**{**fields, "queues": queues, "path": tuple(fields["path"])})
