"""What a new leader makes of the records it finds.

    some that can be read -----------------------> the state they make together
    none, queue just made -----------------------> a new state: entries begin now
    none, but one that led remembers ------------> its memory is the state
    none at all, in a queue that was there ------> a new state, and a warning
    damaged ones ---> parked in QUEUE.dead ------> the state of the others, or a new one
    one of a later version ----------------------> left alone: `LaterVersion`

A new state catches nothing up: what was fired before is not known, and firing all
of it again would be a storm.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from amqtask.beat.state import LaterVersion, Record, State, fold, read
from amqtask.clock import wall
from amqtask.errors import AccessRefused, ChannelClosed, MalformedMessage
from amqtask.message.republish import park
from amqtask.topology.deadletter import dead_queue_arguments, dead_queue_name
from amqtask.topology.plan import DeclareQueue, Plan
from amqtask.transport import Publication, Requirement, Session
from amqtask.transport.declare import declare
from amqtask.transport.fenced import Fenced
from amqtask.transport.seat import Held, Seat

log = logging.getLogger(__name__)

#: Seconds that a new leader without a state waits for one that led before and remembers it.
REMEMBER = 1.5
#: Seconds that parking a damaged record may take.
_PARK = 10.0


async def take_over(seat: Seat, *, queue_type: str, existed: bool, host: str) -> State:
    """Return the state that a new leader goes on from.

    Args:
        queue_type: ``quorum`` or ``classic``, for the queue of what is damaged.
        existed: Whether the queue was there before this beat came.
        host: Name of the beat, for what it parks.

    Raises:
        LaterVersion: A later amqtask wrote it.
        TransportError: The lead is lost.
    """
    state, damaged = await _found(seat, queue_type, host)
    if state is None:
        await _wait_for_news(seat)
        state, more = await _found(seat, queue_type, host)
        damaged += more
    seat.news.clear()
    if state is not None:
        return state
    if damaged:
        log.error(
            "beat.state_new queue=%r: what it held was damaged, so a new state begins: entries of "
            "the code fire from now on, what was added or paused at run time is forgotten",
            seat.queue,
        )
    elif existed:
        log.warning(
            "beat.state_new queue=%r: it is there, and empty; was it purged? A new state begins: "
            "entries of the code fire from now on, what was added or paused at run time is "
            "forgotten",
            seat.queue,
        )
    else:
        log.info("beat.state_new queue=%r: entries fire from now on", seat.queue)
    return State()


async def exists(session: Session, queue: str) -> bool:
    """Return whether the broker has a queue; True where it does not tell."""
    channel = await session.channel()
    try:
        await channel.declare_queue(queue, passive=True)
    except ChannelClosed as error:
        return error.code != 404
    except AccessRefused:
        return True  # RabbitMQ 4.3.0 wants the right to configure a queue of whoever looks at it
    finally:
        await channel.close()
    return True


async def _wait_for_news(seat: Seat) -> None:
    waiting = asyncio.ensure_future(seat.news.wait())
    ends: list[asyncio.Future[Any]] = [waiting, seat.over]
    try:
        await asyncio.wait(ends, timeout=REMEMBER, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _found(seat: Seat, queue_type: str, host: str) -> tuple[State | None, int]:
    """Read what is held; returns the state, and how many records were damaged."""
    records: list[Record] = []
    damaged: list[tuple[Held, MalformedMessage]] = []
    for held in list(seat.held.values()):
        try:
            records.append(read(held.message))
        except LaterVersion:
            raise
        except MalformedMessage as error:
            damaged.append((held, error))
    for held, why in damaged:
        await _park(seat, held, why, queue_type, host)
    return fold(records), len(damaged)


async def _park(
    seat: Seat, held: Held, error: MalformedMessage, queue_type: str, host: str
) -> None:
    """Put a damaged record aside, or into the log where that cannot be: schedules go on."""
    name = dead_queue_name(seat.queue)
    message = park(
        held.message,
        reason="malformed_state",
        queue=seat.queue,
        exception=error,
        traceback=None,
        attempts=0,
        host=host,
        now=wall(),
    )
    plan = Plan((DeclareQueue(name, arguments=dead_queue_arguments(queue_type)),))
    requirement = Requirement(f"queue {name!r}", partial(_declare, plan))
    publication = Publication(message, "", name, requires=(requirement,))
    fenced = Fenced(seat.session)
    await fenced.publish([publication], may=lambda: True, timeout=_PARK)
    await fenced.close()
    if publication.error is None:
        log.error(
            "beat.state_damaged queue=%r error=%r: parked in %r", seat.queue, str(error), name
        )
    else:
        log.error(
            "beat.state_damaged queue=%r error=%r: it could not be parked (%s); it was %r",
            seat.queue,
            str(error),
            publication.error,
            held.message.body[:4000],
        )
    seat.drop(held.tag)


async def _declare(plan: Plan, session: Session) -> None:
    await declare(session, plan)
