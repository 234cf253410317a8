"""The command: ``python -m tests.bench [--quick] [--only publish,drain] [--write]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from amqtask.testing import servers
from tests.bench import results
from tests.bench.cases import QUICK, Sizes, cases, check_alike
from tests.bench.measure import Table, measure
from tests.bench.peers import environment
from tests.bench.place import ROOT, Place
from tests.bench.report import Circumstances, idle_of, is_local, page, show, with_idle

PAGE = Path("docs") / "performance.md"
#: Fewer say nothing about the noise.
LEAST_ROUNDS = 3


def main() -> None:
    """Measure and show."""
    said = _arguments()
    console = Console(width=max(Console().width, 150))
    with servers.find_or_start(said.broker) as server, Place.at(server.url) as place:
        place.declare()
        check_alike(place)
        chosen = cases(place, QUICK if said.quick else Sizes(), rivals=said.rivals)
        if said.only:
            chosen = [case for case in chosen if case.key in said.only.split(",")]
        with_results = not said.only or "results" in said.only.split(",")
        if not chosen and not with_results:
            sys.exit("tests.bench: --only names none of the cases")
        loads: list[float] = []
        tables: list[Table] = []

        def progress(line: str) -> None:
            loads.append(os.getloadavg()[0])
            print(line, file=sys.stderr, flush=True)

        for case in chosen:
            tables.append(measure(case, said.rounds, progress))
            show(console, tables[-1])
        kept = ""
        if with_results and said.rivals:
            count = results.QUICK if said.quick else results.COUNT
            kept = results.run(console, server.url, count, LEAST_ROUNDS)
        circumstances = Circumstances(
            server.version,
            is_local(server.url),
            said.rounds,
            (min(loads, default=0.0), max(loads, default=0.0)),
            environment.versions() if said.rivals else {},
        )
    console.print("\n".join(circumstances.lines()), highlight=False)
    if said.write:
        written = ROOT / PAGE
        idle = idle_of(written.read_text()) if written.is_file() else ""
        text = results.with_section(page(tables, circumstances), kept)
        written.write_text(with_idle(text, idle) if idle else text)
        console.print(f"wrote {PAGE}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="little work a reading: to see that it runs"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument(
        "--no-rivals",
        dest="rivals",
        action="store_false",
        help="without the other libraries, whose environment takes a minute to make",
    )
    parser.add_argument(
        "--only",
        default="",
        help="cases, with commas: publish, calls, drain, rpc, import, ready, results",
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
    if said.write and (said.only or said.quick or not said.rivals):
        parser.error(f"{PAGE} holds all in full: --write goes without --only, --quick, --no-rivals")
    return said


if __name__ == "__main__":
    main()
