"""Windows onto a worker: what probes, people and tools see of it."""

from amqtask.monitor.health import HealthServer

__all__ = ["HealthServer"]
