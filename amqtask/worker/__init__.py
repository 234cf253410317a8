"""The worker: a supervisor and its children, each running tasks off its queues."""

from amqtask.worker.node import Node
from amqtask.worker.supervisor import Supervisor, WorkerSpec

__all__ = ["Node", "Supervisor", "WorkerSpec"]
