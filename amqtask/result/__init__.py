"""The handles of calls: `AsyncResult` for one, `ResultSet` and `GroupResult` for many.

handle     one call
news       what it reports while it runs
many       several calls, as one
completed  in the order of their ends
tally      how many have ended
"""

from __future__ import annotations

from amqtask.result.completed import as_completed
from amqtask.result.handle import AsyncResult, remember
from amqtask.result.many import GroupResult, ResultSet
from amqtask.result.tally import Tally

__all__ = ["AsyncResult", "GroupResult", "ResultSet", "Tally", "as_completed", "remember"]
