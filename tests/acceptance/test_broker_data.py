"""``amqtask broker --data``: what it says is on disk is on disk."""

from __future__ import annotations

import os
from pathlib import Path

from tests.acceptance.broker_kills import data_broker, killed, kills


def test_kill_9_at_any_moment_loses_nothing_confirmed(tmp_path: Path) -> None:
    """No confirmed message is lost, and none whose ack was committed comes again."""
    seed = int(os.environ.get("AMQTASK_KILLS_SEED", "7"))
    with data_broker(tmp_path / "data") as broker:
        account = killed(broker, kills(), seed)
    print(
        f"{kills()} kills: {account.published} published, {len(account.confirmed)} confirmed, "
        f"{len(account.safe)} acks committed, {account.again} came again that were acked after it"
    )
    assert account.confirmed
    assert account.safe
    account.check()
