"""Results as Celery writes them, and exceptions that cross the wire in them.

An exception travels as the name of its class and its arguments. The reader
builds it only from a class it has already imported, so that a stored result
can never make it import or call anything else.

Source:
    celery 5.7 ``celery/backends/base.py``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime
from typing import Any

from amqtask import errors
from amqtask.errors import ContentDisallowed, EncodeError, MalformedMessage, RemoteError
from amqtask.message.compression import compress, decompress
from amqtask.message.serializers import JSON, Serializer
from amqtask.message.text import brief, show
from amqtask.records import record

#: States after which nothing changes any more.
READY_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
#: States whose ``result`` is an encoded exception.
EXCEPTION_STATES = frozenset({"FAILURE", "RETRY", "REVOKED"})

#: What an extended record tells of the call.
EXTENDED = ("name", "args", "kwargs", "worker", "retries", "queue")

#: Bytes a compressed result may unpack to unless the caller says otherwise.
MAX_DECODED_SIZE = 64 * 1024 * 1024

_COMPRESSED = b"\0celery-compressed\0"

# the same outcome under Celery's name, so that each side meets the class it knows
_CELERY_MODULE = "celery.exceptions"
# where those of Celery's that a pool raises say they come from
_CELERY_MODULES = frozenset({_CELERY_MODULE, "billiard.exceptions"})
_FROM_CELERY: dict[str, type[errors.AmqtaskError]] = {
    "TaskRevokedError": errors.TaskRevoked,
    "MaxRetriesExceededError": errors.RetriesExhausted,
    "NotRegistered": errors.UnknownTask,
    "SoftTimeLimitExceeded": errors.SoftTimeLimitExceeded,
    "TimeLimitExceeded": errors.TimeLimitExceeded,
    "WorkerLostError": errors.WorkerLost,
    "ChordError": errors.ChordError,
}
_TO_CELERY: dict[type[BaseException], str] = {
    errors.TaskRevoked: "TaskRevokedError",
    errors.RetriesExhausted: "MaxRetriesExceededError",
    errors.UnknownTask: "NotRegistered",
    errors.SoftTimeLimitExceeded: "SoftTimeLimitExceeded",
    errors.TimeLimitExceeded: "TimeLimitExceeded",
    errors.WorkerLost: "WorkerLostError",
    errors.ChordError: "ChordError",
}

_ARG_SIZE = 2_000


class RemoteTraceback(Exception):
    """The traceback of an exception in the process that raised it; shown as its cause.

    Args:
        text: As the worker formatted it.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


@record(frozen=True, slots=True)
class ResultMeta:
    """What is known about a call: the document a result backend keeps.

    Attributes:
        status: ``PENDING``, ``STARTED``, ``SUCCESS``, ``FAILURE``, ``RETRY``, ``REVOKED`` or your own.
        result: The returned value; for ``FAILURE``, ``RETRY`` and ``REVOKED`` an
            encoded exception (`encode_exception`, `decode_exception`).
        traceback: Text, for an exception.
        children: Calls it started, in Celery's form ``[[id, parent], nodes]``.
        date_done: When it became ready, aware; None before.
        extended: What an extended record adds, by the names in `EXTENDED`.
    """

    task_id: str
    status: str
    result: Any = None
    traceback: str | None = None
    children: Sequence[Any] = ()
    date_done: datetime | None = None
    group_id: str | None = None
    parent_id: str | None = None
    extended: Mapping[str, Any] = field(default_factory=dict)


def encode_meta(meta: ResultMeta, serializer: Serializer = JSON) -> bytes:
    """Return the document of a result.

    Raises:
        EncodeError: The result does not serialise.
    """
    document: dict[str, Any] = {
        "status": meta.status,
        "result": meta.result,
        "traceback": meta.traceback,
        "children": list(meta.children),
        "date_done": None if meta.date_done is None else meta.date_done.isoformat(),
    }
    if meta.group_id:
        document["group_id"] = meta.group_id
    if meta.parent_id:
        document["parent_id"] = meta.parent_id
    document.update(meta.extended)
    document["task_id"] = meta.task_id
    try:
        return serializer.dumps(document)
    except EncodeError:
        _blame_result(meta, serializer)
        raise


def compressed(data: bytes, method: str) -> bytes:
    """Return a document in the form that Celery 5.7 compresses it to.

    Raises:
        ConfigurationError: No such compression, or its package is not installed.
    """
    mime, packed = compress(method, data)
    return b"".join((_COMPRESSED, mime.encode(), b"\0", packed))


def decompressed(data: bytes, max_decoded_size: int) -> bytes:
    """Return a document that may be `compressed`, in its plain form.

    Raises:
        ContentDisallowed: Its compression is not known here.
        DecodedTooLarge: It unpacks to more than ``max_decoded_size`` bytes.
        MalformedMessage: The bytes are broken.
    """
    if not data.startswith(_COMPRESSED):
        return data
    mime, _, packed = data[len(_COMPRESSED) :].partition(b"\0")
    return decompress(mime.decode("ascii", "replace"), packed, max_decoded_size)


def _blame_result(meta: ResultMeta, serializer: Serializer) -> None:
    """Raise an error whose path starts at what the task returned, if that is what does not encode."""
    try:
        serializer.dumps(meta.result)
    except EncodeError as error:
        named = EncodeError(f"cannot encode the result: {error}", hint=error.hint)
        named.path = error.path
        raise named from error.__cause__


def decode_meta(
    data: bytes,
    content_type: str | None,
    accepted: Mapping[str, Serializer],
    *,
    max_decoded_size: int = MAX_DECODED_SIZE,
) -> ResultMeta:
    """Return what a result document says; keys this library does not know are ignored.

    Raises:
        MalformedMessage: It is no result document.
        ContentDisallowed: Its serializer or compression is not accepted.
        DecodedTooLarge: It unpacks to more than ``max_decoded_size`` bytes.
    """
    if not content_type:
        raise MalformedMessage("result has no content type")
    codec = accepted.get(content_type)
    if codec is None:
        raise ContentDisallowed(
            f"content type {show(content_type)} of a result is not accepted",
            hint=f"accept_content allows {', '.join(accepted) or 'nothing'}",
        )
    document = codec.loads(decompressed(data, max_decoded_size))
    if not isinstance(document, dict):
        raise MalformedMessage(f"result is {show(document)}, not a result document")
    return ResultMeta(
        task_id=_text(document, "task_id", needed=True),
        status=_text(document, "status", needed=True),
        result=document.get("result"),
        traceback=_text(document, "traceback") or None,
        children=_children(document.get("children")),
        date_done=_moment(document.get("date_done")),
        group_id=_text(document, "group_id") or None,
        parent_id=_text(document, "parent_id") or None,
        extended={name: document[name] for name in EXTENDED if name in document},
    )


def _text(document: dict[Any, Any], name: str, *, needed: bool = False) -> str:
    value = document.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value):
        raise MalformedMessage(f"{name} of a result is {show(value)}, not text")
    return value


def _children(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return list(value)
    raise MalformedMessage(f"children of a result are {show(value)}, not a list")


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        if moment.utcoffset() is None:
            return moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedMessage(f"date_done of a result is {show(value)}, not a time") from error


# -- exceptions -------------------------------------------------------------------


def encode_exception(exc: BaseException, serializer: Serializer = JSON) -> dict[str, Any]:
    """Return an exception as a result carries it; never fails.

    Arguments that do not serialise become their repr.
    """
    cls = type(exc)
    if isinstance(exc, RemoteError) and exc.exc_type:
        # it came from elsewhere and goes on under its own name
        return {
            "exc_type": exc.exc_type,
            "exc_message": [_carried(arg, serializer) for arg in exc.exc_args],
            "exc_module": exc.exc_module,
        }
    celery_name = _TO_CELERY.get(cls)
    # Celery raises what it finds in the module, SystemExit too; without one it makes an Exception
    module = cls.__module__ if issubclass(cls, Exception) else None
    return {
        "exc_type": celery_name or cls.__qualname__,
        "exc_message": [_carried(arg, serializer) for arg in _args(exc)],
        "exc_module": _CELERY_MODULE if celery_name else module,
    }


def _args(exc: BaseException) -> tuple[Any, ...]:
    try:
        return tuple(exc.args)
    except Exception:  # a class may make a property of it
        return ()


def _carried(arg: Any, serializer: Serializer) -> Any:
    try:
        serializer.dumps(arg)
    except EncodeError:
        return brief(arg, _ARG_SIZE)
    return arg


def decode_exception(document: Any, traceback: str | None = None) -> BaseException:
    """Return the exception a result carries; never fails, and never one that would end the reader.

    A class that this process has imported is built from its arguments; any
    other comes back as a `RemoteError` with the name and arguments of the
    original. So do those that are no `Exception`, such as SystemExit.

    Args:
        document: The ``result`` of a `ResultMeta`.
        traceback: Remote traceback; becomes the exception's cause.
    """
    exc = _rebuilt(document)
    if traceback:
        exc.__cause__ = RemoteTraceback(traceback)
    return exc


def _rebuilt(document: Any) -> Exception:
    if not isinstance(document, dict) or not isinstance(document.get("exc_type"), str):
        return RemoteError(f"it failed with {show(document)}, which is no encoded exception")
    name: str = document["exc_type"]
    module = document.get("exc_module")
    module = module if isinstance(module, str) else None
    message = document.get("exc_message")
    if message is None:
        args: tuple[Any, ...] = ()
    else:  # old writers store text instead of the arguments
        args = tuple(message) if isinstance(message, list | tuple) else (message,)
    cls = _known_class(module, name)
    exc = None if cls is None else _build(cls, args)
    return exc if exc is not None else _remote(name, module, args)


def _known_class(module: str | None, name: str) -> type[Exception] | None:
    """Find an exception class without importing or running anything."""
    if module in _CELERY_MODULES and name in _FROM_CELERY:
        return _FROM_CELERY[name]
    found: Any = sys.modules.get(module) if module else None
    if found is None:
        return None
    for part in name.split("."):
        # static, as a module's or metaclass's __getattr__ is code
        found = inspect.getattr_static(found, part, None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    return None


def _build(cls: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    """Build an exception, without its ``__init__`` when that wants other arguments."""
    try:
        exc = cls(*args)
    except Exception:  # user code that was not made for this call
        try:
            exc = cls.__new__(cls, *args)
            exc.args = args
        except Exception:  # as above, in __new__
            return None
    try:
        str(exc), repr(exc)
    except Exception:  # attributes its __init__ would have set are missing
        return None
    return exc if isinstance(exc, cls) else None


def _remote(name: str, module: str | None, args: tuple[Any, ...]) -> RemoteError:
    text = str(args[0]) if len(args) == 1 else brief(args, _ARG_SIZE) if args else ""
    return RemoteError(
        f"{name}: {text}" if text else name, exc_type=name, exc_module=module, exc_args=args
    )
