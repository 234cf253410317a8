"""Decisions about running tasks, as pure values: retries, schedules, limits.

They decide and do nothing, so that worker, beat and tests share one answer.
"""
