"""Celery's message protocol, in one place to import from.

Written is protocol 2 only, in its full shape; read are 2, 1 and the hybrid:

    call -> `encode` -> message -> `decode` -> call
                           |
                           +-> `task_name`   a peek at the header
                           +-> `resend`      the next attempt, same id and bytes
                           `-> `park`        the dead letter, same bytes

Each lives in a module of its own, so that what is sent and what is accepted
can be read apart.
"""

from __future__ import annotations

from amqtask.message.decoding import decode, task_name
from amqtask.message.encoding import encode
from amqtask.message.headers import clean_headers, user_headers
from amqtask.message.republish import park, resend

__all__ = ["clean_headers", "decode", "encode", "park", "resend", "task_name", "user_headers"]
