"""The command: ``python -m tests.acceptance.chaos [--seconds N] [--seed S] [--only FAULT,...]``.

Exit code 0: nothing was lost, nothing repeated without a cause, no worker deaf, no process left
behind, none grown. 1: something was, with the evidence. 2: it could not be run.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from amqtask.errors import ConfigurationError
from amqtask.testing import servers
from tests.acceptance.chaos.faults import CATALOGUE
from tests.acceptance.chaos.run import Outcome, rolling, soak, storm
from tests.acceptance.chaos.site import Brokers, brokers

#: Seconds of faults by default, and calls through rolling restarts; the short form has fewer.
SECONDS = 1200.0
LONG, SHORT = 100_000, 10_000
#: Violations that are printed; the rest is counted.
SHOWN = 30


def main() -> None:
    """Run, and tell what it came to."""
    said = _arguments()
    begun = time.monotonic()

    def say(line: str) -> None:
        at = time.strftime("%H:%M:%S")
        print(f"{at} {time.monotonic() - begun:7.1f}  {line}", flush=True)

    print(f"seed {said.seed}: --seed {said.seed} does the same again", flush=True)
    outcomes: list[Outcome] = []
    try:
        with ExitStack() as stack:
            at = _brokers(stack, said.shared, say)
            for run in _runs(said, at, say):
                outcomes.append(run())
                _report(outcomes[-1])
    finally:
        # after all else: of a build's output the last lines are what is read
        for outcome in outcomes:
            _judgement(outcome, said.keep)
    sys.exit(1 if any(outcome.violations for outcome in outcomes) else 0)


def _runs(
    said: argparse.Namespace, at: Brokers, say: Callable[[str], None]
) -> list[Callable[[], Outcome]]:
    if said.soak:
        return [lambda: soak(at, said.soak, said.seed, say)]
    only = [name for name in said.only.split(",") if name]
    count = said.rolling
    if count is None:
        count = 0 if only else LONG if said.seconds >= SECONDS else SHORT
    runs: list[Callable[[], Outcome]] = []
    if said.seconds:
        runs.append(lambda: storm(at, said.seconds, said.seed, only, say))
    if count:
        runs.append(lambda: rolling(at, count, said.seed, say))
    return runs


def _brokers(stack: ExitStack, shared: bool, say: Callable[[str], None]) -> Brokers:
    """Start a cluster; where that cannot be, take a broker that runs, unless one is required."""
    if not shared:
        say("starting a cluster of three nodes")
        try:
            at = stack.enter_context(brokers(private=True))
        except ConfigurationError as error:
            if servers.CLUSTER in servers.required():
                sys.exit(f"AMQTASK_REQUIRE names {servers.CLUSTER}, but {error}")
            say(f"skipped: all that disturbs a broker, because {error}")
        else:
            say(f"RabbitMQ {at.version}: {', '.join(at.urls)}")
            return at
    at = stack.enter_context(brokers(private=False))
    say(f"RabbitMQ {at.version} on {', '.join(at.urls)}, which is not ours to disturb")
    return at


def _report(outcome: Outcome) -> None:
    print(f"\n== {outcome.title}")
    for line in outcome.facts:
        print(f"   {line}")
    for growth in outcome.growths:
        print(f"   {growth}")
    if outcome.violations:
        for log in sorted(outcome.folder.glob("*.log")):
            tail = log.read_text(errors="replace").splitlines()[-40:]
            print(f"\n-- the end of {log}\n" + "\n".join(tail))
    sys.stdout.flush()


def _judgement(outcome: Outcome, keep: bool) -> None:
    print(f"\n== {outcome.title}: {'FAILED' if outcome.violations else 'passed'}")
    for line in outcome.violations[:SHOWN]:
        print(f"   VIOLATION {line}")
    if (more := len(outcome.violations) - SHOWN) > 0:
        print(f"   and {more} more")
    if outcome.violations or keep:
        print(f"   kept: {outcome.folder}")
    else:
        shutil.rmtree(outcome.folder)
        print("   nothing lost, no repeat without a cause, nobody deaf, nothing left behind")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.acceptance.chaos",
        description="Faults at random under load; proves that nothing is lost.",
        epilog=f"faults: {', '.join(CATALOGUE)}",
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of faults; 0 for none (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="a random one")
    parser.add_argument("--only", default="", help="these faults, with commas; all by default")
    parser.add_argument(
        "--rolling",
        type=int,
        default=None,
        help=f"calls through rolling restarts ({LONG:,}, less than {SECONDS:.0f} s: {SHORT:,})",
    )
    parser.add_argument(
        "--soak", type=float, default=0.0, help="seconds of a soak, instead of all that"
    )
    parser.add_argument(
        "--shared", action="store_true", help="on a broker that runs: only links and workers suffer"
    )
    parser.add_argument("--keep", action="store_true", help="keep ledger and logs in any case")
    said = parser.parse_args()
    unknown = set(filter(None, said.only.split(","))) - set(CATALOGUE)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; see --help")
    return said


if __name__ == "__main__":
    main()
