"""pika's asyncio connection, without three slips of pika 1.4 while it opens.

Each of them leaves whoever waits for the connection without an answer, so
that a broker which restarts just then is only tried again after a timeout.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import pika
from pika import exceptions as pika_errors
from pika.adapters.asyncio_connection import AsyncioConnection, _AsyncioIOServicesAdapter
from pika.adapters.utils import connection_workflow


class _Services(_AsyncioIOServicesAdapter):
    """The loop as pika sees it."""

    def create_streaming_connection(
        self,
        protocol_factory: Any,
        sock: Any,
        on_done: Any,
        ssl_context: Any = None,
        server_hostname: Any = None,
    ) -> Any:
        """Set up the transport; a peer that is gone already is an outcome like others.

        pika raises into the loop when the connection was reset between connect and
        here, and never calls ``on_done``.
        """
        try:
            return super().create_streaming_connection(
                protocol_factory, sock, on_done, ssl_context, server_hostname
            )
        except ValueError as error:
            reset = ConnectionResetError("the connection was reset as soon as it was made")
            reset.__cause__ = error
            return self.call_later(0, partial(on_done, reset))


class Connection(AsyncioConnection):
    """A connection on the running loop; making it is what begins to open it."""

    def __init__(
        self,
        parameters: pika.ConnectionParameters,
        *,
        on_open_callback: Any,
        on_open_error_callback: Any,
        on_close_callback: Any,
    ) -> None:
        super().__init__(
            parameters,
            on_open_callback,
            on_open_error_callback,
            on_close_callback,
            custom_ioloop=_Services(asyncio.get_running_loop()),
        )

    def _on_connection_workflow_done(self, conn_or_exc: Any) -> None:
        # pika passes the class instead of an instance here, and then fails on an assert
        if conn_or_exc is connection_workflow.AMQPConnectionWorkflowAborted:
            conn_or_exc = conn_or_exc()
        super()._on_connection_workflow_done(conn_or_exc)

    def give_up(self) -> None:
        """Close it while it opens."""
        if (workflow := self._connection_workflow) is not None:
            # an address that was resolved in this turn of the loop is handed over in the next
            # one, cancelled or not, and pika would connect to it after all
            workflow._try_next_resolved_address = lambda: None
        with suppress(pika_errors.ConnectionWrongStateError):
            self.close()
