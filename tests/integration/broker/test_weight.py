"""The broker is light: many connections at once, and nothing left of one that has stopped.

`tests.bench.weight` does the same a thousand times, and tells figures.
"""

from __future__ import annotations

import resource
from contextlib import ExitStack

from pamqp import commands

from amqtask.testing.servers import Server
from tests.contract.broker.wire import Wire
from tests.embedded import lives
from tests.servers import Names

_CONNECTIONS = 500


async def test_stopped_brokers_leave_nothing() -> None:
    """No descriptor, thread or task, with a client that was still connected."""
    assert await lives(40) == (0, 0, 0)


def test_many_connections_at_once(embedded: Server, names: Names) -> None:
    """All of them are served, the first ones as well as the last."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    queue = names.queue()
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(embedded.url)) for _ in range(_CONNECTIONS)]
        for wire in wires:
            wire.login().open_channel()
        wires[0].call(commands.Queue.Declare(queue=queue), commands.Queue.DeclareOk)
        for number, wire in enumerate(wires):
            wire.publish(b"%d" % number, key=queue)
        for wire in reversed(wires):
            wire.call(commands.Confirm.Select(), commands.Confirm.SelectOk)
        bodies = set()
        for wire in wires:
            wire.send(commands.Basic.Get(queue=queue, no_ack=True))
            bodies.add(wire.content(commands.Basic.GetOk).body)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert bodies == {b"%d" % number for number in range(_CONNECTIONS)}
