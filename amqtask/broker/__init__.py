"""An AMQP 0-9-1 broker in Python, for development, tests and one machine.

Any AMQP client can connect to it: it speaks the wire protocol and behaves as
RabbitMQ 4.0 does, which a contract suite checks on both. It is no mock, so
there is one code path, and no RabbitMQ to install. Production is RabbitMQ.

    server ---- connection ---- channel ---- publishing
       |       (handshake)                       |
       +------- vhost ---- exchanges (topics) ---+
       |          |
       |          +------- queues ---- ready, consumers
       +------- store (with a data folder), faults, clock
"""

from __future__ import annotations

from amqtask.broker.clock import Clock
from amqtask.broker.faults import Faults
from amqtask.broker.server import Broker

__all__ = ["Broker", "Clock", "Faults"]
