"""Cancel calls: put it on record in the broker that a call shall not run.

AMQP cannot take one message out of the middle of a queue. So the record is
what is sent: to the workers that are there, and into a register for those that
start later. A worker drops a call that is on record when it comes up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from amqtask.clock import wall
from amqtask.errors import ConfigurationError
from amqtask.message.cancellation import Cancellation, encode_cancellation
from amqtask.pipeline import Pipeline
from amqtask.settings import Settings
from amqtask.topology.cancelling import cancel_plan, register_name
from amqtask.transport import Publication, Requirement, Session, Transport
from amqtask.transport.declare import declare

_MAX_ID = 255  # bytes; a longer one is no AMQP message id, so no call has it


class Cancels(Protocol):
    """What the handle of a call needs to cancel it."""

    def cancel(
        self, ids: Sequence[str], *, terminate: bool, keep: float | None, eta: datetime | None
    ) -> None:
        """Put calls on record as cancelled, and wait until that is safe."""
        ...

    async def acancel(
        self, ids: Sequence[str], *, terminate: bool, keep: float | None, eta: datetime | None
    ) -> None:
        """As `cancel`, awaited."""
        ...


class Canceller:
    """Sends records of cancelled calls.

    Threads: safe from any thread and any loop.
    """

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport
        name = f"register of cancelled calls {register_name(settings)!r}"
        self._requires = (Requirement(name, partial(_prepare, settings)),)

    def cancel(
        self,
        ids: Sequence[str],
        *,
        terminate: bool,
        keep: float | None = None,
        eta: datetime | None = None,
    ) -> None:
        """Put calls on record as cancelled, and wait until the broker has confirmed it.

        Args:
            ids: Ids of the calls.
            terminate: Also end one that runs and ignores its cancellation.
            keep: Seconds that workers remember it; None takes ``cancel_expires``.
            eta: When the calls are due, if that is known: the time counts from then.

        Raises:
            PublishError: The broker did not confirm it within ``publish_timeout``.
            PipelineError: The same for one or more of several.
        """
        publications = self._publications(ids, terminate, keep, eta)
        if len(publications) == 1:
            self._transport.publish_and_wait(publications[0], self._settings.publish_timeout)
        elif publications:
            with Pipeline(self._transport) as pipeline:
                for publication in publications:
                    pipeline.add([publication])

    async def acancel(
        self,
        ids: Sequence[str],
        *,
        terminate: bool,
        keep: float | None = None,
        eta: datetime | None = None,
    ) -> None:
        """As `cancel`, awaited."""
        publications = self._publications(ids, terminate, keep, eta)
        if len(publications) == 1:
            await self._transport.publish_and_await(publications[0])
        elif publications:
            async with Pipeline(self._transport) as pipeline:
                for publication in publications:
                    await pipeline.aadd([publication])

    def _publications(
        self, ids: Sequence[str], terminate: bool, keep: float | None, eta: datetime | None
    ) -> list[Publication]:
        now = wall()
        due = now if eta is None else max(now, eta.timestamp())
        until = due + (self._settings.cancel_expires if keep is None else _checked(keep))
        deadline = time.monotonic() + self._settings.publish_timeout
        return [
            Publication(
                encode_cancellation(Cancellation(id_, terminate, until), now),
                self._settings.cancel_exchange,
                "",
                requires=self._requires,
                deadline=deadline,
                hint=f"declare queue {register_name(self._settings)!r}; "
                "`amqtask topology` shows how",
            )
            for id_ in dict.fromkeys(ids)
        ]


def as_ids(ids: str | Iterable[str]) -> tuple[str, ...]:
    """Return the ids of calls, given as one or as many.

    Raises:
        ConfigurationError: Something among them is no id.
    """
    given: tuple[Any, ...] = (ids,) if isinstance(ids, str) else tuple(ids)
    for id_ in given:
        if not isinstance(id_, str) or not 0 < len(id_.encode()) <= _MAX_ID:
            raise ConfigurationError(
                f"{id_!r} is no id of a call", hint=f"give text of 1 to {_MAX_ID} bytes"
            )
    return given


def _checked(keep: float) -> float:
    if not keep > 0:
        raise ConfigurationError(f"keep is {keep!r}", hint="accepted: seconds above 0")
    return keep


async def _prepare(settings: Settings, session: Session) -> None:
    await declare(session, cancel_plan(settings))
