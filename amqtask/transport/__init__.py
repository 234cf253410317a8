"""The data plane: the only room that knows pika.

`Transport` is its front door: an application's connections, owned by one
I/O thread, safe to use from any thread, any event loop and after a fork.
"""

import logging

from amqtask.transport import fields
from amqtask.transport.consumer import Consumer, Delivery
from amqtask.transport.hub import Transport
from amqtask.transport.link import Link
from amqtask.transport.publication import Publication, Requirement
from amqtask.transport.publisher import Publisher
from amqtask.transport.replies import ReplyQueue
from amqtask.transport.session import Channel, Session
from amqtask.transport.threads import IOThread
from amqtask.transport.url import BrokerURL

fields.install()

# pika logs every lost connection with a traceback at ERROR; amqtask says the same
# in one line and what it does next. A level set by the application stays.
_pika = logging.getLogger("pika")
if _pika.level == logging.NOTSET:
    _pika.setLevel(logging.CRITICAL + 1)

__all__ = [
    "BrokerURL",
    "Channel",
    "Consumer",
    "Delivery",
    "IOThread",
    "Link",
    "Publication",
    "Publisher",
    "ReplyQueue",
    "Requirement",
    "Session",
    "Transport",
]
