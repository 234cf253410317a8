"""How much work each reading is, and what its contenders are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.bench.rivals import Rival

#: Deliveries held by a consumer that does not choose for itself.
PREFETCH = 500
#: The same where several processes share a queue: what the others hold when one runs the last
#: task is not measured, so it is little.
SHARED = 100
PIKA = "pika"
AIO_PIKA = "aio-pika"
OURS = "amqtask"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each reading does.

    Attributes:
        stream: Messages published in a pipeline, or drained.
        calls: Calls confirmed one at a time, over all threads.
        trips: Calls whose result is waited for.
        flight: Calls under way at once.
        mixed: Tasks of the realistic mix.
        starts: Calls whose way to an idle worker is timed.
        served: Tasks between two looks at a worker's memory.
        payloads: Characters of an argument, and how many tasks carry one.
    """

    stream: int = 30_000
    calls: int = 3_200
    trips: int = 300
    flight: int = 5_000
    mixed: int = 8_000
    starts: int = 200
    served: int = 100_000
    payloads: Mapping[int, int] = field(
        default_factory=lambda: {100: 20_000, 10_000: 6_000, 1_000_000: 60}
    )

    def of(self, rival: Rival) -> int:
        """Return how many messages of the stream a rival handles: a slow one takes long enough."""
        return self.stream // (6 if rival.safe else 2)


QUICK = Sizes(
    stream=6_000,
    calls=800,
    trips=60,
    flight=300,
    mixed=1_000,
    starts=30,
    served=2_000,
    payloads={100: 2_000, 10_000: 600, 1_000_000: 10},
)
