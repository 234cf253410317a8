"""Schedules: cron expressions, intervals, single instants, Celery's, and your own."""

from amqtask.policy.schedule.base import Schedule, instant, utc
from amqtask.policy.schedule.cron import Cron, cron, zone
from amqtask.policy.schedule.every import Every, every
from amqtask.policy.schedule.once import Once, once
from amqtask.policy.schedule.read import ENTRY_POINTS, read_schedule, schedule_from_plain

__all__ = [
    "ENTRY_POINTS",
    "Cron",
    "Every",
    "Once",
    "Schedule",
    "cron",
    "every",
    "instant",
    "once",
    "read_schedule",
    "schedule_from_plain",
    "utc",
    "zone",
]
