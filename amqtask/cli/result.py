"""``amqtask result``: what became of a call."""

from __future__ import annotations

import json
from typing import Any

import click

from amqtask.app import App
from amqtask.backends import DirectBackend, RpcBackend
from amqtask.errors import ConfigurationError, ResultTimeout
from amqtask.message.results import READY_STATES, ResultMeta
from amqtask.message.serializers import JSON

#: Exit codes by what is known: ended well, ended otherwise, not ended.
WELL, BADLY, OPEN = 0, 1, 3


def show_result(app: App, task_id: str, *, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Print what is known of a call, and return the exit code.

    Raises:
        ConfigurationError: The app has no backend that another process can read.
    """
    backend = app.backend
    if backend is None or isinstance(backend, RpcBackend | DirectBackend):
        kind = "no result backend" if backend is None else f"the backend {backend.scheme}://"
        raise ConfigurationError(
            f"app {app.name!r} has {kind}, so only the process that sent a call knows its result",
            hint="set a backend that stores, such as redis://localhost or db+sqlite:////path",
        )
    result = app.result(task_id)
    try:
        if wait and not result._need().wait(timeout):
            raise ResultTimeout(f"call {task_id} did not end within {timeout:g} s")
        meta = result.meta
    finally:
        app.close(1.0)
    click.echo(_json(task_id, meta) if as_json else _text(task_id, meta))
    if meta is None or meta.status not in READY_STATES:
        return OPEN
    return WELL if meta.status == "SUCCESS" else BADLY


def _document(task_id: str, meta: ResultMeta | None) -> dict[str, Any]:
    if meta is None:
        return {"task_id": task_id, "status": "PENDING"}
    return {
        "task_id": meta.task_id,
        "status": meta.status,
        "result": meta.result,
        "traceback": meta.traceback,
        "date_done": None if meta.date_done is None else meta.date_done.isoformat(),
        "children": list(meta.children),
        **meta.extended,
    }


def _json(task_id: str, meta: ResultMeta | None) -> str:
    # by our own writer first: a result may hold dates and the like
    return json.dumps(json.loads(JSON.dumps(_document(task_id, meta))), indent=2)


def _text(task_id: str, meta: ResultMeta | None) -> str:
    document = _document(task_id, meta)
    if meta is None:
        return f"{task_id}  PENDING: nothing is known of it; it waits, runs, or never was"
    lines = [f"{task_id}  {meta.status}"]
    shown = dict(document, children=len(meta.children) or None)
    names = ("name", "args", "kwargs", "worker", "queue", "retries", "date_done", "children")
    lines += [f"  {name:<10}{shown[name]}" for name in names if shown.get(name) is not None]
    lines.append(f"  {'result':<10}{_value(meta)}")
    if meta.traceback:
        lines.append(meta.traceback.rstrip())
    return "\n".join(lines)


def _value(meta: ResultMeta) -> str:
    found = meta.result
    if isinstance(found, dict) and isinstance(found.get("exc_type"), str):
        words = found.get("exc_message")
        text = ", ".join(map(str, words)) if isinstance(words, list) else str(words)
        return f"{found['exc_type']}: {text}" if text else found["exc_type"]
    return repr(found)
