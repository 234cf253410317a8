"""Whether a process grows: what it had after its warm-up, against what it has at the end."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.acceptance.chaos.workers import Member, Sample, Worker

#: Seconds in which a process makes what it makes once: threads, caches, buffers.
WARM_UP = 20.0
#: Seconds that a process has to be watched after that before it is judged.
LEAST = 30.0
#: Descriptors and threads that may be under way at any look.
PASSING = 3


@dataclass(frozen=True, slots=True)
class Growth:
    """One process, early and late.

    Attributes:
        rss: Median bytes in the first and in the last third.
        fds: Most in the first third, least in the last three looks.
        threads: The same.
    """

    name: str
    seconds: float
    rss: tuple[float, float]
    fds: tuple[int, int]
    threads: tuple[int, int]

    @property
    def percent(self) -> float:
        """Growth of its memory in per cent."""
        return 100.0 * (self.rss[1] / self.rss[0] - 1.0)

    def __str__(self) -> str:
        first, last = (each / 2**20 for each in self.rss)
        return (
            f"{self.name}: {first:.1f} to {last:.1f} MiB ({self.percent:+.1f} %), descriptors "
            f"{self.fds[0]} to {self.fds[1]}, threads {self.threads[0]} to {self.threads[1]}, "
            f"over {self.seconds:.0f} s"
        )


def growths(workers: Sequence[Worker], warm_up: float = WARM_UP) -> list[Growth]:
    """Measure every process that lived to the end and long enough; look before they are stopped.

    Args:
        warm_up: Seconds of a process's life that do not count.
    """
    found = []
    for worker in workers:
        for member in worker.alive():
            growth = _growth(worker.name, member, warm_up)
            if growth is not None:
                found.append(growth)
    return found


def write_samples(workers: Sequence[Worker], path: Path) -> None:
    """Write down every sample, for whoever wants to see how a process grew."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["worker", "role", "pid", "at", "rss", "fds", "threads"])
        for worker in workers:
            for pid, member in sorted(worker.members.items()):
                for sample in list(member.samples):
                    row = (f"{sample.at:.1f}", sample.rss, sample.fds, sample.threads)
                    writer.writerow([worker.name, member.role, pid, *row])


def _growth(name: str, member: Member, warm_up: float) -> Growth | None:
    samples: list[Sample] = list(member.samples)
    begin = samples[0].at + warm_up
    kept = [sample for sample in samples if sample.at >= begin]
    if not kept or kept[-1].at - begin < LEAST:
        return None
    third = max(1, len(kept) // 3)
    first, last = kept[:third], kept[-third:]
    return Growth(
        f"{name} {member.role} {member.process.pid}",
        kept[-1].at - begin,
        (median(each.rss for each in first), median(each.rss for each in last)),
        (max(each.fds for each in first), min(each.fds for each in kept[-3:])),
        (max(each.threads for each in first), min(each.threads for each in kept[-3:])),
    )


def too_much(growth: Growth, percent: float, slack: int) -> list[str]:
    """Say what grew more than it may.

    Args:
        percent: Of its memory.
        slack: Bytes that it may grow by in any case.
    """
    found = []
    if growth.percent > percent and growth.rss[1] - growth.rss[0] > slack:
        found.append(f"memory: {growth}")
    for what, (first, last) in (("descriptors", growth.fds), ("threads", growth.threads)):
        if last > first + PASSING:
            found.append(f"{what}: {growth}")
    return found
