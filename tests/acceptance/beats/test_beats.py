"""Three beats, and the worst that can happen to the one that leads."""

from __future__ import annotations

from tests.acceptance.beats.ledger import judge
from tests.acceptance.beats.site import ENTRIES, now, site_on
from tests.acceptance.program import Workshop

#: Seconds from a leader's end to the first fire of another one: 4 in which the broker misses two
#: heartbeats at most, and a second until something is due. A loaded machine is granted far more.
SILENT, LOADED = 5.0, 45.0


def test_one_fires_whatever_happens_to_the_leader(workshop: Workshop, broker: str) -> None:
    """Killed, cut off, stopped and woken: every instant is fired, and by one leader."""
    with site_on(workshop, broker) as site:
        site.wait_for_seconds(1)

        leader, since = site.leader(), now()
        site.kill(leader)
        assert site.next_of_another(leader, since).at - since < SILENT + LOADED
        site.revive(leader)

        leader, since = site.leader(), now()
        leader.proxy.down()
        assert site.next_of_another(leader, since).at - since < SILENT + LOADED
        leader.proxy.up()

        leader, since = site.leader(), now()
        site.stop(leader)
        other = site.next_of_another(leader, since)
        assert other.at - since < SILENT + LOADED
        woken = len(site.ledger.fired)
        site.go_on(leader)

        site.wait_for_seconds(1)
        fired = site.ledger.fired
        # it woke up, and fired nothing that it had before it
        assert leader.pid not in {each.pid for each in fired[woken:]}
        verdict = judge(fired)
        assert verdict.missing == []
        assert verdict.two_ids == []
        # what a leader fired and could not write down any more is fired again under the same id
        assert verdict.repeats <= 3 * ENTRIES
