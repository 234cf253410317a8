"""The command: ``python -m tests.bench [--quick] [--only publish,drain] [--growth] [--write]``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from amqtask.testing import servers
from tests.bench import report, results
from tests.bench.cases import QUICK, Sizes, cases, check_alike, growing
from tests.bench.measure import Case, Table, measure
from tests.bench.peers import environment
from tests.bench.place import ROOT, Place
from tests.bench.plot import svg

PAGE = Path("docs") / "performance.md"
#: Fewer say nothing about the noise.
LEAST_ROUNDS = 3
#: What ``--only`` calls results beside Celery's, which have tables of their own.
RESULTS = "results"


def main() -> None:
    """Measure and show."""
    said = _arguments()
    console = Console(width=max(Console().width, 150))
    versions = environment.versions() if said.rivals else {}
    with servers.find_or_start(said.broker) as server, Place.at(server.url) as place:
        place.declare()
        check_alike(place)
        chosen = _chosen(said, place)
        loads = [os.getloadavg()[0]]
        tables = _measured(chosen, said.rounds, place, console, loads)
        kept = ""
        # these take as long as all else: `python -m tests.bench.results --write` is their own run
        if said.rivals and not said.growth and RESULTS in said.only.split(","):
            count = results.QUICK if said.quick else results.COUNT
            kept = results.run(console, server.url, count, LEAST_ROUNDS)
        circumstances = report.Circumstances(
            server.version,
            report.is_local(server.url),
            said.rounds,
            (min(loads), max(loads)),
            versions,
        )
    console.print("\n".join(circumstances.lines()), highlight=False)
    if said.write:
        _write(tables, circumstances, growth=said.growth)
        if kept:
            written = ROOT / PAGE
            written.write_text(results.with_section(written.read_text(), kept))
        console.print(f"wrote {PAGE}")


def _chosen(said: argparse.Namespace, place: Place) -> list[Case]:
    sizes = QUICK if said.quick else Sizes()
    if said.growth:
        found = growing.cases(place, 2_000 if said.quick else 20_000, said.most)
    else:
        redis = servers.find("redis") if said.rivals else None
        url = redis.url if redis is not None else ""
        found = cases(place, sizes, rivals=said.rivals, redis=url)
    if not said.only:
        return found
    keys = [key for key in said.only.split(",") if key != RESULTS]
    if unknown := set(keys) - {case.key for case in found}:
        known = ", ".join([*(case.key for case in found), RESULTS])
        sys.exit(f"tests.bench: no case {', '.join(sorted(unknown))}; there are {known}")
    return [case for case in found if case.key in keys]


def _measured(
    chosen: Sequence[Case], rounds: int, place: Place, console: Console, loads: list[float]
) -> list[Table]:
    """Measure one case after the other, and show each."""
    tables: list[Table] = []
    began = time.monotonic()

    def progress(line: str) -> None:
        loads.append(os.getloadavg()[0])
        minutes, seconds = divmod(round(time.monotonic() - began), 60)
        at = f"{minutes:3}:{seconds:02} case {len(tables) + 1}/{len(chosen)}"
        print(f"{at}: {line}", file=sys.stderr, flush=True)

    for case in chosen:
        tables.append(measure(case, rounds, progress, place.clean))
        report.show(console, tables[-1])
    return tables


def _write(tables: Sequence[Table], circumstances: report.Circumstances, *, growth: bool) -> None:
    written = ROOT / PAGE
    before = written.read_text() if written.is_file() else ""
    make: Callable[[Sequence[Table], report.Circumstances], str]
    make, put = (report.growth, report.with_growth) if growth else (report.page, report.with_main)
    written.write_text(put(before, make(tables, circumstances)))
    if not growth:
        written.with_name(report.PLOT).write_text(svg(tables))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="little work a reading: to see that it runs"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument(
        "--no-rivals",
        dest="rivals",
        action="store_false",
        help="without the other libraries, whose environment takes a minute to make",
    )
    parser.add_argument(
        "--only",
        default="",
        help="cases, with commas: publish, drain, rpc, ...; a wrong one lists all",
    )
    parser.add_argument(
        "--growth", action="store_true", help="what becomes of the cost when there is more of all"
    )
    parser.add_argument(
        "--most", type=int, default=1_000_000, help="tasks that wait at most, with --growth"
    )
    parser.add_argument(
        "--broker",
        default="rabbitmq",
        choices=("rabbitmq", "rabbitmq4"),
        help="which one; AMQTASK_TEST_RABBITMQ_URL and AMQTASK_TEST_RABBITMQ4_URL say where",
    )
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    said = parser.parse_args()
    if said.rounds < LEAST_ROUNDS:
        parser.error(f"at least {LEAST_ROUNDS} rounds, or the spread says nothing")
    if said.growth:
        said.rivals = False  # they are no part of it
    elif said.write and not said.rivals:
        parser.error(f"{PAGE} holds the other libraries: --write goes without --no-rivals")
    if said.write and (said.only or said.quick):
        parser.error(f"{PAGE} holds all in full: --write goes without --only and --quick")
    return said


if __name__ == "__main__":
    main()
