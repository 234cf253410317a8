"""Code that sends a task and needs its result at once: the task runs where it is called."""

import pytest
from tasks import ship, sign_up, welcome

from amqtask import EncodeError
from amqtask.testing import Eager


def test_tasks_run_in_place(amqtask_eager: Eager) -> None:
    sign_up("Ada")  # runs welcome, remind, and the welcome that remind sends
    assert len(amqtask_eager.sent(welcome)) == 2
    assert ship.delay(7).get(timeout=0) == "post-7"


def test_what_does_not_serialise_fails_here_too(amqtask_eager: Eager) -> None:
    with pytest.raises(EncodeError, match="cannot encode argument 'name'"):
        welcome.delay(object())
