"""Which of the joins an app has: by its result backend where that can, by a queue where not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqtask.backends import StoredBackend
from amqtask.workflow.join_queue import QueueJoins
from amqtask.workflow.join_store import StoreJoins
from amqtask.workflow.ports import Joins

if TYPE_CHECKING:
    from amqtask.app import App


def joins_of(app: App) -> Joins:
    """Return what joins an app's chords.

    Whoever sends a chord and whoever runs its members must come to the same answer, so
    they need the same ``backend``, as they do for results.
    """
    backend = app.backend
    if isinstance(backend, StoredBackend) and backend.joins:
        return StoreJoins(app, backend)
    return QueueJoins(app)
