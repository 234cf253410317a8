"""The command: ``python -m tests.acceptance.beats [--seconds 600] [--beats 3] [--url URL]``.

Beats fire three entries each second while one of them at a time, mostly the leader, is killed,
stopped, cut off or left in silence, at random. With ``--cluster`` they are on a RabbitMQ cluster of
three nodes of its own, each beat on another one, and nodes are killed too. At the end the ledger of what their queue got is
judged: exit code 0 says that no instant is missing and none has two ids.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.beats.ledger import judge
from tests.acceptance.beats.site import Place, Site, now, site_on
from tests.acceptance.program import workshop_in
from tests.cluster import Node, private_cluster
from tests.embedded import broker_process
from tests.servers import Names

#: Seconds that a fault lasts, at least and at most, and that follow it.
LASTS, PAUSE = (0.5, 8.0), (1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of misfortune: how it begins and ends."""

    name: str
    begin: Callable[[Site, Place], object]
    end: Callable[[Site, Place], object]


FAULTS = (
    Fault("kill -9", lambda site, place: site.kill(place), lambda site, place: site.revive(place)),
    Fault("SIGSTOP", lambda site, place: site.stop(place), lambda site, place: site.go_on(place)),
    Fault("cut", lambda _, place: place.proxy.cut(), lambda _, place: None),
    Fault("down", lambda _, place: place.proxy.down(), lambda _, place: place.proxy.up()),
    Fault("half open", lambda _, place: place.proxy.half_open(), lambda _, place: None),
    Fault(
        "black hole",
        lambda _, place: place.proxy.black_hole(),
        lambda _, place: place.proxy.forward(),
    ),
)


def _node(site: Site, place: Place) -> Node:
    assert site.cluster is not None
    return site.cluster.nodes[site.places.index(place) % len(site.cluster.nodes)]


def _boot(site: Site, place: Place) -> None:
    node = _node(site, place)
    node.start()
    node.await_up()


NODE = Fault("node kill -9", lambda site, place: _node(site, place).kill(), _boot)


def main() -> int:
    """Run, and judge."""
    said = _arguments()
    chance = random.Random(said.seed)
    print(f"seed {said.seed}")
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(private_cluster()) if said.cluster else None
        if cluster is not None:
            urls = cluster.urls
        else:
            urls = [said.url or stack.enter_context(broker_process()).url]
        names = Names()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if said.url:
            stack.callback(names.delete, urls[0])
        workshop = stack.enter_context(workshop_in(folder, urls[0], names))
        site = stack.enter_context(site_on(workshop, *urls, beats=said.beats))
        site.cluster = cluster
        site.wait_for_seconds(3)
        waits = _break(site, chance, said.seconds)
        site.wait_for_seconds(10)
        return _report(site, waits)


def _break(site: Site, chance: random.Random, seconds: float) -> dict[str, list[float]]:
    """Do harm for so long; returns how long it took another beat to fire, by kind of fault."""
    end = time.monotonic() + seconds
    faults = [*FAULTS, NODE, NODE] if site.cluster is not None else [*FAULTS]
    waits: dict[str, list[float]] = {fault.name: [] for fault in faults}
    while time.monotonic() < end:
        fault = chance.choice(faults)
        leader = site.leader()
        victim = leader if chance.random() < 0.8 else chance.choice(site.places)
        lasts, since = chance.uniform(*LASTS), now()
        pid = victim.pid
        fault.begin(site, victim)
        time.sleep(lasts)
        ledger = [each for each in site.ledger.fired if each.at > since]
        fault.end(site, victim)
        if victim is leader:
            took = [each.at - since for each in ledger if each.pid != pid]
            waits[fault.name].append(took[0] if took else float("nan"))
        time.sleep(chance.uniform(*PAUSE))
    return waits


def _report(site: Site, waits: dict[str, list[float]]) -> int:
    fired = site.ledger.fired
    verdict = judge(fired)
    leaders = len({each.pid for each in fired})
    terms = sum(a.pid != b.pid for a, b in itertools.pairwise(fired)) + 1
    faults = sum(len(each) for each in waits.values())
    print(f"instants {verdict.instants}, fires {len(fired)}, by {leaders} processes")
    print(f"faults of a leader {faults}, changes of the one that fires {terms - 1}")
    for name, each in waits.items():
        known = sorted(wait for wait in each if wait == wait)
        if each:
            shown = f"{known[-1]:.2f} s at most" if known else "over before another one fired"
            print(f"  {name}: {len(each)} times, another one fired after {shown}")
    print(f"longest silence {verdict.gap:.2f} s")
    print(f"repeats, under the same id: {verdict.repeats}")
    print(f"missing {len(verdict.missing)}, under two ids {len(verdict.two_ids)}")
    for kind in ("missing", "two_ids"):
        for entry, instant in getattr(verdict, kind)[:5]:
            print(f"  {kind} {entry} {instant.isoformat()}")
    return 1 if verdict.missing or verdict.two_ids else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--beats", type=int, default=3)
    parser.add_argument("--cluster", action="store_true", help="a RabbitMQ cluster of its own")
    parser.add_argument("--url", help="a RabbitMQ; a broker of its own by default")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
