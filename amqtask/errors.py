"""Every exception amqtask raises, in one tree.

A caller catches at the height that suits it: one class for everything,
one for "it was not sent", one for "it cannot be sent like this".

    AmqtaskError
    +-- ConfigurationError            a setting, an option or the app itself is wrong
    |   +-- UnknownSetting            a key no setting has
    |   +-- AppNotFound               the command line found no app
    |   `-- TopologyMismatch          the broker holds an entity with other arguments
    +-- CallError                     this call can never be sent
    |   +-- ArgumentsError            arguments do not fit the task's signature (also a TypeError)
    |   +-- EncodeError               an argument or a result does not serialise
    |   `-- DelayTooLong              countdown or eta beyond what the delay levels hold
    +-- TransportError                the broker, or the way to it
    |   +-- BrokerUnreachable         no broker URL answered in time
    |   +-- AccessRefused             credentials, vhost or permission refused
    |   +-- ConnectionLost            the connection ended while something was under way
    |   +-- ChannelClosed             the broker closed a channel with a reply code
    |   `-- PublishError              a message was not confirmed
    |       +-- PublishTimeout        no confirm before the deadline
    |       +-- Blocked               the broker takes no messages now (memory or disk alarm)
    |       +-- Unroutable            no queue took it
    |       +-- Nacked                a queue refused it (full, or failed)
    |       `-- MessageTooLarge       over the size limit
    +-- PipelineError                 one or more calls of a pipeline failed
    +-- MessageError                  a received message cannot be run
    |   +-- MalformedMessage          not a task message, or broken
    |   +-- ContentDisallowed         its serializer is not in accept_content
    |   +-- DecodedTooLarge           it unpacks to more than is allowed
    |   `-- UnknownTask               no task of that name here
    +-- ControlError                  what runs did not do what was asked
    |   `-- NoAnswer                  nobody answered in time
    `-- ResultError                   what became of a call
        +-- NoBackend                 results are off
        +-- ResultTimeout             no result in time (also a TimeoutError)
        +-- WaitInTask                a task would wait for another one
        +-- ReplyLost                 the connection that the reply was to come over ended
        +-- ResultTooLarge            over result_max_size
        +-- BackendError              the result backend refused, or cannot do this
        |   `-- BackendUnavailable    it does not answer now; trying again may help
        +-- RemoteError               it failed with an exception this process cannot rebuild
        +-- TaskRevoked               it expired or was cancelled
        +-- WorkflowFailed            it was to follow a call that failed
        |   `-- ChordError            it was to get the values of calls of which one failed
        +-- RetriesExhausted          its last retry failed
        +-- SoftTimeLimitExceeded     over its soft time limit; raised in the task itself
        +-- TimeLimitExceeded         over its hard time limit, and ended for it
        `-- WorkerLost                the process that ran it died

    TaskSignal (BaseException)        raised by task code, to the worker
    +-- Retry                         run this again later
    +-- Reject                        park this, or give it back
    +-- Ignore                        done, without an outcome
    +-- Replace                       done, another signature runs in its place
    `-- TaskCancelled                 raised in a plain task that is asked to end

The signals derive from BaseException so that ``except Exception`` in a task
cannot swallow them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any


def near(name: str, known: Sequence[str]) -> str:
    """Return ``", did you mean 'x'?"`` when a known name is close, else ``""``."""
    from difflib import get_close_matches  # only needed where something is wrong

    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""


def _rebuild(cls: type[AmqtaskError], args: tuple[Any, ...], state: dict[str, Any]) -> AmqtaskError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class AmqtaskError(Exception):
    """Base of every error amqtask raises.

    Args:
        message: What happened, where, lower case, no full stop.
        hint: What to do about it; shown as a note under the traceback and
            kept in ``hint``.
    """

    hint: str | None = None

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint:
            self.hint = hint
            self.add_note(hint)

    def __reduce__(self) -> tuple[Any, ...]:
        # keyword-only arguments are kept as attributes, so pickling restores those
        return _rebuild, (type(self), self.args, self.__dict__.copy())


# -- configuration ------------------------------------------------------------


class ConfigurationError(AmqtaskError):
    """A setting, an option or the app itself is wrong; nothing was sent."""


class UnknownSetting(ConfigurationError):
    """A key no setting has."""


class AppNotFound(ConfigurationError):
    """The command line found no app to work with."""


class TopologyMismatch(ConfigurationError):
    """The broker holds an exchange or queue of that name with other arguments.

    Attributes:
        entity: ``"queue 'email'"`` or ``"exchange 'amqtask'"``.
        argument: The argument that differs, or None when the broker named none.
        wanted: Its value here, as the broker spelled it.
        found: Its value on the broker, as the broker spelled it.
    """

    def __init__(
        self,
        message: str,
        *,
        entity: str = "",
        argument: str | None = None,
        wanted: str | None = None,
        found: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.entity = entity
        self.argument = argument
        self.wanted = wanted
        self.found = found


# -- calls --------------------------------------------------------------------


class CallError(AmqtaskError):
    """This call can never be sent as it is; nothing was sent."""


class ArgumentsError(CallError, TypeError):
    """The arguments do not fit the task's signature."""


class EncodeError(CallError):
    """An argument, a header or a result does not serialise.

    Attributes:
        path: Indexes and keys that lead to the value, from the outside in.
    """

    path: tuple[str | int, ...] = ()


class DelayTooLong(CallError):
    """The countdown or eta lies beyond what the delay levels hold."""


# -- transport ----------------------------------------------------------------


class TransportError(AmqtaskError):
    """The broker, or the way to it, failed."""


class BrokerUnreachable(TransportError):
    """No broker URL answered in time."""


class AccessRefused(TransportError):
    """The broker refused the credentials, the vhost or a permission."""


class ConnectionLost(TransportError):
    """The connection ended while something was under way on it."""


class ChannelClosed(TransportError):
    """The broker closed a channel.

    Attributes:
        code: AMQP reply code (404, 406, ...).
        text: The broker's reply text.
    """

    def __init__(self, message: str, *, code: int, text: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.text = text


class PublishError(TransportError):
    """A message was not confirmed by the broker.

    Attributes:
        task: Name of the task, or None for a message that is not a call.
        task_id: Its id.
        exchange: Where it was published to.
        routing_key: Its routing key.
    """

    task: str | None = None
    task_id: str | None = None
    exchange: str = ""
    routing_key: str = ""


class PublishTimeout(PublishError):
    """No confirm came before the deadline; a message that was sent may still arrive."""


class Blocked(PublishError):
    """The broker takes no messages now: a memory or disk alarm is on."""


class Unroutable(PublishError):
    """No queue took the message."""


class Nacked(PublishError):
    """A queue refused the message: it is full, or it failed."""


class MessageTooLarge(PublishError):
    """The message is over the size limit of the settings or of the broker."""


class PipelineError(AmqtaskError):
    """One or more calls of a pipeline failed; the others were confirmed.

    Attributes:
        failures: ``(task id, error)`` of every call that failed.
        confirmed: How many calls were confirmed.
    """

    def __init__(
        self, message: str, *, failures: Sequence[tuple[str, Exception]] = (), confirmed: int = 0
    ) -> None:
        super().__init__(message)
        self.failures = list(failures)
        self.confirmed = confirmed


# -- received messages --------------------------------------------------------


class MessageError(AmqtaskError):
    """A received message cannot be run.

    Attributes:
        reason: Short machine word that goes into the dead-letter header.
    """

    reason = "malformed"


class MalformedMessage(MessageError):
    """It is not a task message, or a broken one."""


class ContentDisallowed(MessageError):
    """Its serializer or compression is not in ``accept_content``."""

    reason = "content_disallowed"


class DecodedTooLarge(MessageError):
    """It unpacks to more bytes than ``max_decoded_size`` allows."""

    reason = "too_large"


class UnknownTask(MessageError):
    """No task of that name is registered in this worker."""

    reason = "unknown_task"


# -- control ------------------------------------------------------------------


class ControlError(AmqtaskError):
    """What runs, a beat for one, did not do what it was asked for."""


class NoAnswer(ControlError):
    """Nobody answered a request in time; one that was heard may have been done."""


# -- results ------------------------------------------------------------------


class ResultError(AmqtaskError):
    """What became of a call."""


class NoBackend(ResultError):
    """Results are off for this app or this call."""


class ResultTimeout(ResultError, TimeoutError):
    """No result came in time; the task may still run."""


class WaitInTask(ResultError):
    """A running task would wait for another one; with every slot waiting, nothing would run."""


class ReplyLost(ResultError):
    """The connection that the reply was to come over ended; the task may still run."""


class ResultTooLarge(ResultError):
    """The encoded result is over ``result_max_size``."""


class BackendError(ResultError):
    """The result backend refused, or cannot do what it was asked for."""


class BackendUnavailable(BackendError):
    """The result backend does not answer now; trying again may help."""


class RemoteError(ResultError):
    """The task failed with an exception whose class this process does not have.

    Attributes:
        exc_type: Qualified name of the remote class.
        exc_module: Its module, or None.
        exc_args: Its arguments, as far as they were serialisable.
    """

    def __init__(
        self,
        message: str,
        *,
        exc_type: str = "",
        exc_module: str | None = None,
        exc_args: Sequence[Any] = (),
    ) -> None:
        super().__init__(message)
        self.exc_type = exc_type
        self.exc_module = exc_module
        self.exc_args = tuple(exc_args)


class TaskRevoked(ResultError):
    """The task expired or was cancelled before it ended."""


class WorkflowFailed(ResultError):
    """The call never ran: one that it was to follow failed, which the text names.

    Args:
        message: What failed, and with what.
        task_id: Id of the call that failed.
        task: Its task.

    Attributes:
        task_id: Id of the call that failed.
        task: Name of its task.
    """

    def __init__(
        self, message: str = "", task_id: str = "", task: str = "", *, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        # all of it: results carry the arguments of an exception, and build it anew of them
        self.args = (message, task_id, task) if task_id else (message,)
        self.task_id = task_id
        self.task = task

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ChordError(WorkflowFailed):
    """The body of a chord never ran: a member of its header failed."""


class RetriesExhausted(ResultError):
    """The task asked for a retry after its last one, and gave no exception of its own."""


class SoftTimeLimitExceeded(ResultError):
    """The task ran over its soft time limit.

    Raised in the task itself, wherever it is, so that it can clean up and end.
    """


class TimeLimitExceeded(ResultError):
    """The task ran over its hard time limit and was ended."""


class WorkerLost(ResultError):
    """The process that ran the task died, more than once, so the task is taken for the cause.

    Attributes:
        signal: Name of the signal that ended the process, or None.
        exit_code: Its exit code, or None.
        peak_memory: Bytes of memory it had at most, or None when that is not known.
        runtime: Seconds that the task had been running.
    """

    def __init__(
        self,
        message: str,
        *,
        signal: str | None = None,
        exit_code: int | None = None,
        peak_memory: int | None = None,
        runtime: float | None = None,
    ) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = exit_code
        self.peak_memory = peak_memory
        self.runtime = runtime


# -- signals from task code ---------------------------------------------------


class TaskSignal(BaseException):
    """Base of what a task raises to tell the worker how to go on."""


class Retry(TaskSignal):
    """Run this task again later, with the same id.

    Args:
        reason: Text for logs and the result's traceback.
        countdown: Seconds to wait; None takes the task's back-off.
        eta: An aware datetime instead of a countdown.
        exc: The error that made it necessary; it becomes the outcome when
            no retry is left.
        max_retries: Overrides the task's limit for this delivery.
    """

    def __init__(
        self,
        reason: str = "",
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        exc: BaseException | None = None,
        max_retries: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.countdown = countdown
        self.eta = eta
        self.exc = exc
        self.max_retries = max_retries


class Reject(TaskSignal):
    """Park this delivery in the dead-letter queue, or give it back.

    Args:
        reason: Text that goes with it.
        requeue: True gives it back to its queue (it counts as a failed
            delivery); False, the default, parks it.
    """

    def __init__(self, reason: str = "", *, requeue: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.requeue = requeue


class Ignore(TaskSignal):
    """Acknowledge this delivery without storing a result."""


class Replace(TaskSignal):
    """End this run, and have a signature run in its place; raised by `Context.replace`.

    Args:
        signature: In its JSON form.
    """

    def __init__(self, signature: dict[str, Any]) -> None:
        super().__init__("replaced by another signature")
        self.signature = signature


class TaskCancelled(TaskSignal):
    """Raised in a plain task that is asked to end: it was cancelled, or its worker stops.

    Async tasks get `asyncio.CancelledError` instead. Clean up and let it pass.
    """
