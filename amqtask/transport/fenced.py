"""Publish on one session, and never on another.

    open --session ends--> closed: what is not confirmed has failed, and is not sent again

`amqtask.transport.publisher` sends again what a lost connection took along, which
is right for a call and wrong for whoever may only speak as long as the broker
keeps a certain connection: a leader. A broker takes nothing from a connection it
has given up, so what is sent here cannot come after the end of that right.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from pika.spec import Basic, BasicProperties

from amqtask.errors import (
    AmqtaskError,
    Blocked,
    ChannelClosed,
    ConnectionLost,
    PublishError,
    PublishTimeout,
    TransportError,
    Unroutable,
)
from amqtask.transport.publication import REDECLARE, Publication, Requirement, note_return
from amqtask.transport.session import Channel, Session

log = logging.getLogger(__name__)

#: Messages that are sent before their confirms are waited for.
BATCH = 500

_NO_EXCHANGE = re.compile(r"no exchange '(.*)' in vhost")


class Fenced:
    """Publishes on the channels of one session.

    Args:
        session: The only one it ever uses.

    Threads: on the session's loop only, one `publish` at a time.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._channel: Channel | None = None
        self._ready: set[Requirement] = set()
        self._unconfirmed: dict[int, Publication] = {}
        self._tag = 0
        self._settled: asyncio.Future[None] | None = None
        self._one_by_one = False

    async def prepare(self, publications: Sequence[Publication]) -> None:
        """Make what these need, so that sending them takes no longer than that takes.

        Raises:
            TransportError: The session ended.
        """
        for publication in publications:
            await self._prepare(publication)

    async def publish(
        self, publications: Sequence[Publication], *, may: Callable[[], bool], timeout: float
    ) -> None:
        """Send, and wait until each is confirmed or has failed; see `Publication.error`.

        Args:
            may: Asked right before bytes are written; once it returns False nothing more is sent.
            timeout: Seconds for all of it.

        Delivery: what failed with `PublishTimeout` or `ConnectionLost` may have arrived.
        """
        left = [publication for publication in publications if not publication.done]
        try:
            async with asyncio.timeout(timeout):
                while left:
                    left = await self._send(left, may)
        except TimeoutError:
            self._fail(publications, PublishTimeout, f"no confirm came within {timeout:g} s")
        except AmqtaskError as error:
            self._fail(publications, PublishError, str(error))
        finally:
            self._unconfirmed.clear()

    async def close(self) -> None:
        """Close the channel; the session stays its owner's."""
        if self._channel is not None:
            await self._channel.close()

    @staticmethod
    def _fail(publications: Sequence[Publication], kind: type[PublishError], why: str) -> None:
        for publication in publications:
            if not publication.done:
                publication.finish(publication.fail(kind, why))

    async def _send(
        self, publications: list[Publication], may: Callable[[], bool]
    ) -> list[Publication]:
        """Send a part of what is left; returns what is left then."""
        channel = await self._open()
        size = 1 if self._one_by_one else BATCH
        batch, rest = publications[:size], publications[size:]
        for publication in batch:
            await self._prepare(publication)
        if (alarm := self._session.blocked) is not None:
            self._fail(publications, Blocked, f"the broker takes no messages now: {alarm}")
            return []
        if not may():
            raise ConnectionLost("the right to send has lapsed, or could not be shown in time")
        self._write(channel, batch)
        if self._unconfirmed:
            self._settled = asyncio.get_running_loop().create_future()
            ends: list[asyncio.Future[Any]] = [self._settled, channel.closed]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        self._unconfirmed.clear()
        if channel.closed.done() and any(not publication.done for publication in batch):
            self._judge(batch, channel.closed.result())
        return [publication for publication in batch if not publication.done] + rest

    async def _open(self) -> Channel:
        if self._channel is None or not self._channel.is_open:
            if not self._session.is_open:
                raise self._session.closed.result()
            channel = await self._session.channel()
            await channel.confirm(self._on_confirm)
            channel.raw.add_on_return_callback(self._on_return)
            self._channel, self._tag = channel, 0
        return self._channel

    async def _prepare(self, publication: Publication) -> None:
        """Make what a message needs; it fails if that cannot be made."""
        if publication.done:
            return
        again = publication.returned is not None
        for requirement in publication.requires:
            if requirement in self._ready:
                continue
            if again:  # deleted under us
                await asyncio.sleep(REDECLARE)
                again = False
            try:
                await requirement.prepare(self._session)
            except TransportError as error:
                if not self._session.is_open:
                    raise
                publication.finish(publication.fail(PublishError, str(error), hint=error.hint))
                return
            except AmqtaskError as error:
                publication.finish(error)
                return
            self._ready.add(requirement)

    def _write(self, channel: Channel, batch: Sequence[Publication]) -> None:
        pieces: list[bytes | memoryview] = []
        for publication in batch:
            if publication.done:
                continue
            if (frames := publication.frames(channel)) is not None:
                pieces += frames
                self._tag += 1
                self._unconfirmed[self._tag] = publication
        channel.write(pieces)

    # -- outcomes -----------------------------------------------------------------

    def _on_confirm(self, tag: int, multiple: bool, nacked: bool) -> None:
        covered = [sent for sent in self._unconfirmed if sent <= tag] if multiple else [tag]
        for sent in covered:
            publication = self._unconfirmed.pop(sent, None)
            if publication is not None and not publication.done:
                self._confirmed(publication, nacked=nacked)
        if not self._unconfirmed and self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _confirmed(self, publication: Publication, *, nacked: bool) -> None:
        if not publication.judge(nacked=nacked):
            self._ready.difference_update(publication.requires)

    def _on_return(
        self, _: object, method: Basic.Return, props: BasicProperties, __: bytes
    ) -> None:
        note_return(self._unconfirmed.values(), method, props)

    def _judge(self, batch: Sequence[Publication], error: TransportError) -> None:
        """Decide what a closed channel means for what was sent on it and is not confirmed.

        Raises:
            TransportError: The session ended, and with it every chance.
        """
        if not self._session.is_open:
            raise self._session.closed.result()
        found = _NO_EXCHANGE.search(error.text) if isinstance(error, ChannelClosed) else None
        left = [publication for publication in batch if not publication.done]
        guilty = [each for each in left if found is not None and each.exchange == found[1]]
        for publication in guilty or (left if len(left) == 1 else ()):
            if found is not None and publication.requires and publication.sends < 2:
                self._ready.difference_update(publication.requires)
                continue
            kind = Unroutable if found is not None else PublishError
            publication.finish(publication.fail(kind, str(error), hint=publication.hint))
        if not guilty and len(left) > 1:
            # one of them has the broker close the channel: alone it shows which
            self._one_by_one = True
            log.info("fenced.channel_lost error=%r: sending what is left one by one", str(error))
