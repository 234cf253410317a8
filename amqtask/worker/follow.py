"""Act on what follows the end of a job: pure decisions become messages and results.

    begin --chords opened, messages confirmed--> results of what never runs --> parts --> then

All of it is safe before the job is acked. What is published twice, because a
crash came in between, has the same ids as the first time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from amqtask.app import App
from amqtask.clock import wall
from amqtask.errors import AmqtaskError, ChordError
from amqtask.message import encode_exception
from amqtask.message.model import Call
from amqtask.message.results import ResultMeta
from amqtask.send import Outgoing
from amqtask.transport import Publication
from amqtask.worker.job import Job
from amqtask.worker.keep import Keeper, OnError, Step
from amqtask.workflow.advance import Advance, Ended, body_failed, body_ready
from amqtask.workflow.launch import Launch
from amqtask.workflow.outgoing import prepare
from amqtask.workflow.ports import Done, Opening, Part

log = logging.getLogger("amqtask.task")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ready:
    """What follows a job, encoded: nothing in it can fail but the way to the broker."""

    outgoing: Sequence[Outgoing]
    openings: Sequence[Opening]
    ended: Sequence[Ended]
    parts: Sequence[Part]

    @property
    def is_part(self) -> bool:
        """Whether it is the part of one chord, and nothing else."""
        return len(self.parts) == 1 and not (self.outgoing or self.openings or self.ended)

    @property
    def ids(self) -> list[str]:
        """Ids of the calls that begin."""
        return [each.id for each in self.outgoing]


class Followers:
    """Makes what follows a job safe.

    Threads: `ready` from any thread, `act` on the I/O loop.
    """

    def __init__(self, app: App, keeper: Keeper) -> None:
        self._app = app
        self._keeper = keeper
        self._io = app.transport.io

    def ready(self, call: Call, advance: Advance) -> Ready:
        """Encode what follows.

        Raises:
            EncodeError: An argument of what follows does not serialise.
            ConfigurationError: A bad option or route.
        """
        return Ready(
            self._outgoing(advance.launch, call),
            advance.launch.openings,
            advance.ended,
            advance.parts,
        )

    def act(self, job: Job, ready: Ready, *, then: Step, unsendable: OnError) -> None:
        """Publish and store all of it, then call ``then``; see the module's line.

        Args:
            unsendable: Called in place of ``then`` when a message can never be sent.
        """
        parts = partial(_all, ready.parts, partial(self.part, job), then)
        ended = partial(_all, ready.ended, partial(self._end, job), parts)
        publish = partial(self._publish, job, ready.outgoing, ended, unsendable)
        _all(ready.openings, partial(self._open, job, unsendable), publish)

    def end(self, job: Job, decide: Callable[[], Advance], *, then: Step) -> None:
        """Act on an end that is on record already: what of it cannot be done is left out."""
        assert job.call is not None
        try:
            advance = decide()
        except AmqtaskError as error:  # what was to follow is no signature: nobody waits for it
            log.error("task.followers_malformed id=%s error=%r: left out", job.id, str(error))
            then()
            return
        ready = self.without_unsendable(job.call, advance)

        def unsendable(error: Exception) -> None:
            log.error("task.errback_unsendable id=%s error=%r: left out", job.id, str(error))
            self.act(job, replace(ready, outgoing=()), then=then, unsendable=unsendable)

        self.act(job, ready, then=then, unsendable=unsendable)

    def without_unsendable(self, call: Call, advance: Advance) -> Ready:
        """Encode what follows; what cannot be sent is left out."""
        try:
            return self.ready(call, advance)
        except AmqtaskError as error:
            log.error("task.errback_unsendable id=%s error=%r: left out", call.id, str(error))
            return self.ready(call, replace(advance, launch=Launch()))

    def on_io(self, step: Step) -> None:
        """Run a step on the I/O loop."""
        self._io.post(step)

    def takes(self, task: str) -> int:
        """See `takes`."""
        return takes(self._app, task)

    # -- one after the other ------------------------------------------------------

    def _outgoing(self, launch: Launch, call: Call) -> list[Outgoing]:
        return [
            prepare(
                self._app.sender,
                self._app.tasks,
                start,
                parent_id=call.id,
                reply_to=call.reply_to or "",
            )
            for start in launch.starts
        ]

    def _open(self, job: Job, unsendable: OnError, opening: Opening, then: Step) -> None:
        self._keeper.insist(
            job,
            "the chord that follows it",
            partial(self._app.joins.open, opening),
            then=then,
            unsendable=unsendable,
        )

    def _publish(
        self, job: Job, outgoing: Sequence[Outgoing], then: Step, unsendable: OnError
    ) -> None:
        """Publish them at once, and go on when all are confirmed."""
        errors: list[Exception] = []

        def send(publication: Publication, done: Step) -> None:
            def refused(error: Exception) -> None:
                errors.append(error)
                done()

            self._keeper.publish(job, _maker(publication), then=done, unsendable=refused)

        def sent() -> None:
            if errors:
                unsendable(errors[0])
            else:
                then()

        _all([one for each in outgoing for one in each.publications], send, sent)

    def _end(self, job: Job, ended: Ended, then: Step) -> None:
        """Store how a call ended that never ran."""
        call = _never_run(ended, job)
        backend = self._app.backend_for(call, self._app.tasks.get(call.task))
        if backend is None:
            then()
            return
        meta = ResultMeta(
            task_id=call.id,
            status=ended.state,
            result=encode_exception(ended.error),
            date_done=datetime.fromtimestamp(wall(), UTC),
            group_id=call.group,
            parent_id=call.parent_id,
        )

        def lost(error: Exception) -> None:
            log.error("task.failure_not_stored id=%s error=%r: passed over", call.id, str(error))
            then()

        self._keeper.save(job, backend, meta, call=call, then=then, unsendable=lost)

    def part(self, job: Job, part: Part, then: Step) -> None:
        """Have a part of a chord kept, and go on on the I/O loop; from any thread."""

        def unsendable(error: Exception) -> None:
            if part.error is not None:
                log.error("chord.part_lost id=%s error=%r: passed over", part.id, str(error))
                then()
                return
            # a value that cannot be kept is as good as none: the body must not wait for it
            self.part(job, replace(part, value=None, error=error), then)

        def begin(done: Done) -> None:
            ours = partial(_is_ours, job)
            self._app.joins.part(part, Bodies(self, job), done, ours)

        self._keeper.insist(job, "its part of a chord", begin, then=then, unsendable=unsendable)


def takes(app: App, task: str) -> int:
    """Return how many arguments an errback takes, by its task's name: 1 or 3.

    One that is not here is taken for one that wants to know what happened.
    """
    known = app.tasks.get(task)
    if known is None:
        return 3
    try:
        known.parameters.bind_partial(None, None, None)
    except TypeError:
        return 1
    return 3


class Bodies:
    """What a join does with a complete chord, see `Follow`: it acts in the name of one job."""

    def __init__(self, followers: Followers, job: Job) -> None:
        self._followers = followers
        self._job = job

    def send_body(self, part: Part, values: Sequence[Any], done: Done) -> None:
        """See `Follow.send_body`."""
        try:
            advance = Advance(launch=body_ready(part, values))
            ready = self._followers.ready(part.call, advance)
        except AmqtaskError as error:  # a body that can never be sent ends as failed
            log.error("chord.body_unsendable group=%s error=%r", part.group_id, str(error))
            text = f"the body of chord {part.group_id} cannot be sent: {error}"
            self.fail_body(part, ChordError(text, part.id, part.task), done)
            return
        self._act(ready, done)

    def fail_body(self, part: Part, error: ChordError, done: Done) -> None:
        """See `Follow.fail_body`."""
        advance = body_failed(part, error, self._followers.takes)
        ready = self._followers.without_unsendable(part.call, advance)
        self._act(ready, done)

    def _act(self, ready: Ready, done: Done) -> None:
        act = partial(self._followers.act, self._job, ready)
        self._followers.on_io(partial(act, then=partial(done, None), unsendable=done))


def _never_run(ended: Ended, job: Job) -> Call:
    options, before = ended.step.options, job.call
    assert before is not None
    id_ = str(options["task_id"])
    return Call(
        task=ended.step.task,
        id=id_,
        parent_id=before.id,
        group=options.get("group_id"),
        ignore_result=options.get("ignore_result"),
        reply_to=options.get("reply_to") or before.reply_to,
        correlation_id=id_,
    )


def _is_ours(job: Job) -> bool:
    return job.delivery.is_valid


def _all(items: Sequence[T], do: Callable[[T, Step], object], then: Step) -> None:
    """Do something for all of them at once, and go on when each is done; I/O loop only."""
    left = len(items)
    if not left:
        then()
        return

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            then()

    for item in items:
        do(item, done)


def _maker(first: Publication) -> Callable[[], Publication]:
    """Return what makes a publication anew each time that it is tried."""

    def make() -> Publication:
        return Publication(
            first.message,
            first.exchange,
            first.routing_key,
            address=first.address,
            requires=first.requires,
            task=first.task,
            hint=first.hint,
        )

    return make
