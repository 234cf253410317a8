"""Where tasks run: threads for plain functions, the event loop for async ones, runners to isolate.

All pools have the same verbs: `submit` hands a job over, `waiting` lists those
that have not started, `withdraw` takes one of them out, `take_back` all.
"""

from amqtask.worker.pools.loop import LoopPool
from amqtask.worker.pools.process import ProcessPool
from amqtask.worker.pools.threads import ThreadPool

__all__ = ["LoopPool", "ProcessPool", "ThreadPool"]
