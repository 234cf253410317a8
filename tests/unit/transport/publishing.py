"""What the tests of the publisher share: its channel, an outcome, a requirement that is watched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from amqtask.errors import AmqtaskError
from amqtask.transport import Publication, Requirement, Session
from tests.helpers import aeventually
from tests.unit.transport.fakes import FakeChannel, FakeLink

WHAT = "task 't.add' (id id-q) to exchange 'x' with routing key 'q' was not published: "


async def channel_of(link: FakeLink, number: int = 0) -> FakeChannel:
    """Return the publisher's channel of the current session, once it publishes there."""
    session = link.session or link.connect()

    def found() -> FakeChannel | None:
        publishing = [each for each in session.channels if each.on_confirm is not None]
        return publishing[number] if len(publishing) > number else None

    channel = await aeventually(found)
    assert channel is not None
    await asyncio.sleep(0)  # the publisher takes it right after confirm.select
    return channel


async def failure_of(sent: Publication) -> AmqtaskError:
    await aeventually(lambda: sent.done)
    assert sent.error is not None
    return sent.error


def requirement(
    prepare: Callable[[Session], Awaitable[None]] | None = None, name: str = "queue 'q'"
) -> tuple[Requirement, list[Session]]:
    """Return a requirement, and the list of sessions it was met on."""
    met: list[Session] = []

    async def note(session: Session) -> None:
        met.append(session)
        if prepare is not None:
            await prepare(session)

    return Requirement(name, note), met
