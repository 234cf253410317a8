"""A process's id and the ids it makes: what is cached is right after a fork as well."""

from __future__ import annotations

import os
import signal
import threading
import uuid

from amqtask import process
from tests.helpers import TIMEOUT


def test_pid() -> None:
    """It is the one that the system tells."""
    assert process.pid() == os.getpid()


def test_a_forked_child_has_its_own_pid() -> None:
    """Or its messages would be said to come from its parent, and a pipeline would be open in it."""
    child = os.fork()
    if not child:
        os._exit(0 if process.pid() == os.getpid() else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_lock_that_another_thread_held_is_free_in_a_forked_child() -> None:
    """That thread is not there to give it back; in the parent it still holds it."""
    lock = process.Lock()
    with lock:
        child = os.fork()
        if not child:
            signal.alarm(int(TIMEOUT))
            taken = threading.Thread(target=lock.__enter__)
            taken.start()
            taken.join()
            os._exit(0)
        assert lock._lock.locked()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with lock:
        pass


def test_new_ids_are_random_uuids() -> None:
    """Version and variant stand where a reader of UUIDs looks for them, and none comes twice."""
    ids = [process.new_id() for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    assert all(str(uuid.UUID(each)) == each for each in ids)
    assert {uuid.UUID(each).version for each in ids} == {4}
    assert {uuid.UUID(each).variant for each in ids} == {uuid.RFC_4122}
    assert {each[19] for each in ids} == set("89ab")
