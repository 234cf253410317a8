"""Send what is due: fires become calls, and go out over the leader's own connection.

A fire is sent before the state says so. A leader that dies in between leaves the
instant to its successor, which sends it again under the same id: repeated at times,
and recognised by its id, but never missed. The other way round it would be lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from amqtask.app import App
from amqtask.backends import DirectBackend, RpcBackend
from amqtask.beat.plan import Fire
from amqtask.entries import call_options
from amqtask.errors import AmqtaskError, BackendError, Blocked, Nacked, PublishError, PublishTimeout
from amqtask.options import Options
from amqtask.send import Outgoing
from amqtask.transport import Publication
from amqtask.transport.fenced import Fenced
from amqtask.transport.seat import Seat

log = logging.getLogger(__name__)

#: Seconds that the result backend has to say whether a call has ended.
_LOOK = 5.0
#: Seconds after which a call of which nothing is known counts as ended, where results are kept
#: for ever: its message was lost on the way, or is parked.
_FORGOTTEN = 86400.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the fires of one tick.

    Attributes:
        sent: Confirmed by the broker.
        skipped: Not sent, as the call before still runs.
        failed: Can never be sent as they are, and why.
        late: Could not be sent now, and why; to be tried again.
    """

    sent: tuple[Fire, ...] = ()
    skipped: tuple[Fire, ...] = ()
    failed: tuple[tuple[Fire, AmqtaskError], ...] = ()
    late: tuple[tuple[Fire, AmqtaskError], ...] = ()


class Firing:
    """Sends the fires of one leader.

    Args:
        app: Whose tasks are called.
        seat: The lead; nothing is sent without it.
        fired: Gives the instant of an entry's last fire.
    """

    def __init__(self, app: App, seat: Seat, fired: Callable[[str], datetime | None]) -> None:
        self._app = app
        self._fired = fired
        self._seat = seat
        self._fenced = Fenced(seat.session)
        self._unread = isinstance(app.backend, RpcBackend | DirectBackend)

    async def send(self, fires: Sequence[Fire]) -> Outcome:
        """Send fires, in their order, as far as their entries allow.

        Raises:
            TransportError: The lead is lost. What was sent may have arrived.
        """
        wanted, skipped, late = await self._let_in(fires)
        made: list[tuple[Fire, Outgoing]] = []
        failed: list[tuple[Fire, AmqtaskError]] = []
        for fire in wanted:
            try:
                made.append((fire, self._call(fire)))
            except AmqtaskError as error:
                failed.append((fire, error))
        if made:
            await self._publish([each for _, call in made for each in call.publications])
        sent: list[Fire] = []
        for fire, call in made:
            why = next((each.error for each in call.publications if each.error is not None), None)
            if why is None:
                sent.append(fire)
                self._app.producer.tell(call)
            elif _passes(why):
                late.append((fire, why))
            else:
                failed.append((fire, why))
        return Outcome(tuple(sent), tuple(skipped), tuple(failed), tuple(late))

    async def close(self) -> None:
        """Let go of the channel."""
        await self._fenced.close()

    async def _publish(self, publications: Sequence[Publication]) -> None:
        timeout = self._app.settings.publish_timeout
        # what takes long comes before the proof, which does not keep; what was not ready in time
        # fails in its turn
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._fenced.prepare(publications)
        if not self._seat.may():
            await self._seat.prove()
        await self._fenced.publish(publications, may=self._seat.may, timeout=timeout)
        if self._seat.over.done():  # whatever the outcome says, somebody else goes on from here
            await self._seat.prove()

    def _call(self, fire: Fire) -> Outgoing:
        entry = fire.entry
        task = self._app.tasks.get(entry.task)
        said = _options(fire)
        if self._unread and said.ignore_result is None:
            # such a result comes back to whoever sent the call, and nobody waits for it here
            said = replace(said, ignore_result=True)
        if task is not None:
            said = said.over(task.defaults)
        return self._app.sender.prepare(entry.task, entry.args, entry.kwargs, said, task)

    # -- overlaps -----------------------------------------------------------------

    async def _let_in(
        self, fires: Sequence[Fire]
    ) -> tuple[list[Fire], list[Fire], list[tuple[Fire, AmqtaskError]]]:
        """Tell the fires that may go from those that may not, or of which that is not known."""
        looks = {fire.id: asyncio.ensure_future(self._runs(fire)) for fire in fires if _asks(fire)}
        if looks:
            await asyncio.wait(looks.values())
        wanted: list[Fire] = []
        skipped: list[Fire] = []
        late: list[tuple[Fire, AmqtaskError]] = []
        now: set[str] = set()
        for fire in fires:
            if fire.entry.overlap == "skip" and fire.previous in now:
                skipped.append(fire)  # the one before goes out together with it
                now.add(fire.id)
                continue
            try:
                runs = fire.id in looks and looks[fire.id].result()
            except AmqtaskError as error:
                late.append((fire, error))
                continue
            if runs:
                skipped.append(fire)
            else:
                wanted.append(fire)
            now.add(fire.id)
        await self._cancel(fire.previous for fire in wanted if _cancels(fire))
        return wanted, skipped, late

    async def _runs(self, fire: Fire) -> bool:
        """Return whether the call of the entry's last fire has not ended, as far as is known."""
        backend = self._app.backend
        if backend is None or fire.previous is None:
            return False
        pending = backend.watch(fire.previous)
        try:
            async with asyncio.timeout(_LOOK):
                await backend.arefresh(pending)
        except TimeoutError:
            raise BackendError(
                f"the result backend did not say within {_LOOK:g} s whether {fire.previous} runs"
            ) from None
        if pending.ready or pending.meta is not None:
            return not pending.ready
        # it waits in its queue, or its result has expired, or it never came to an end
        fired, kept = self._fired(fire.entry.name), self._app.settings.result_expires
        age = timedelta.max if fired is None else fire.at - fired
        return age < timedelta(seconds=_FORGOTTEN if kept is None else kept)

    async def _cancel(self, ids: Iterable[str | None]) -> None:
        if known := [id_ for id_ in ids if id_ is not None]:
            await self._app.acancel(known)


def _asks(fire: Fire) -> bool:
    return fire.entry.overlap == "skip" and fire.previous is not None and fire.reason != "run_now"


def _cancels(fire: Fire) -> bool:
    return fire.entry.overlap == "cancel_running" and fire.previous is not None


def _options(fire: Fire) -> Options:
    said = call_options(fire.entry)
    headers = {**(said.headers or {}), **fire.headers()}
    return replace(said, headers=headers, task_id=fire.id)


def _passes(error: AmqtaskError) -> bool:
    """Whether trying again may help."""
    return type(error) is PublishError or isinstance(error, Blocked | Nacked | PublishTimeout)
