"""The worker: a supervisor and its children, each running tasks off its queues."""

from amqtask.worker.node import Node
from amqtask.worker.spec import WorkerSpec
from amqtask.worker.supervisor import Supervisor

__all__ = ["Node", "Supervisor", "WorkerSpec"]
