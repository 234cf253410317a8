"""What an extended record tells of a call, without its secrets.

Results are read by more people than messages are, and kept for longer: an
argument whose name says that it is a secret is stored as ``***`` unless
``result_secrets`` asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from amqtask.errors import EncodeError
from amqtask.message.serializers import JSON
from amqtask.message.text import brief
from amqtask.settings import Settings
from amqtask.worker.execute import Job

HIDDEN = "***"
#: Names of arguments, and keys in them, that hold what nobody should read.
_SECRET = re.compile(
    r"(?i)passw|pwd|secret|token|api_?key|credential|private_?key|authorization|cookie|\bcvv\b|\bpin\b"
)
#: Characters of the text that stands for a value that is no plain data.
_SHORT = 1024
#: How deep in lists and dicts secrets are looked for.
_DEPTH = 8


def extended_record(job: Job, host: str, settings: Settings) -> Mapping[str, Any]:
    """Return name, arguments, worker, retries and queue as Celery's ``result_extended`` does.

    Returns:
        Nothing unless the setting asks for it.
    """
    call, task = job.call, job.task
    if not settings.result_extended or call is None:
        return {}
    args: list[Any] = list(call.args)
    kwargs: dict[str, Any] = dict(call.kwargs)
    if not settings.result_secrets:
        names = [task.parameter(index) if task is not None else None for index in range(len(args))]
        args = [_hidden(name, value) for name, value in zip(names, args, strict=True)]
        kwargs = {name: _hidden(name, value) for name, value in kwargs.items()}
    return {
        "name": call.task,
        "args": _plain(args),
        "kwargs": _plain(kwargs),
        "worker": host,
        "retries": call.retries,
        "queue": job.delivery.routing_key,
    }


def _hidden(name: object, value: Any, depth: int = _DEPTH) -> Any:
    if isinstance(name, str) and _SECRET.search(name):
        return HIDDEN
    if depth and isinstance(value, Mapping):
        return {key: _hidden(key, inner, depth - 1) for key, inner in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_hidden(None, inner, depth - 1) for inner in value]
    return value


def _plain(value: Any) -> Any:
    """Return a value that JSON takes; a record is never what keeps a result from being stored."""
    try:
        JSON.dumps(value)
    except EncodeError:
        return brief(value, _SHORT)
    return value
