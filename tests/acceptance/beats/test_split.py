"""A RabbitMQ cluster that falls apart between the beat that leads and those that stand by."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.beats.ledger import judge
from tests.acceptance.beats.site import ENTRIES, now, site_on
from tests.acceptance.program import workshop_in
from tests.cluster import Cluster
from tests.servers import Names

#: Seconds for which a leader may go on by the last proof that it leads, and the tick it was in.
UNPROVEN = 2 + 1


def test_a_leader_on_the_smaller_side_is_followed(cluster: Cluster, tmp_path: Path) -> None:
    """Its node is cut off, and comes back: every instant is fired, and under one id."""
    with (
        workshop_in(tmp_path, cluster.urls[0], Names()) as workshop,
        site_on(workshop, *cluster.urls) as site,
    ):
        leader = site.leader()
        node = cluster.nodes[site.places.index(leader)]
        # who writes the ledger is on the larger side
        site.ledger.move([url for url in cluster.urls if url != node.url])
        site.wait_for_seconds(2)
        since = now()
        cluster.split(node)
        other = site.next_of_another(leader, since)
        site.wait_for_seconds(2)
        cluster.heal(node)
        # it finds that it does not lead, drops its connection, and gets in line again
        leader.program.wait_for_count("beat.standby", 2)
        site.wait_for_seconds(1)

        fired = site.ledger.fired
        verdict = judge(fired)
        assert verdict.missing == []
        assert verdict.two_ids == []
        assert verdict.repeats <= UNPROVEN * ENTRIES
        # what it fired by itself after the cut is what its successor fired as well
        late = {each.id for each in fired if each.pid == leader.pid and each.at > other.at}
        assert late <= {each.id for each in fired if each.pid != leader.pid}
