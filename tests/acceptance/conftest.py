"""Fixtures of the acceptance tests."""

from tests.acceptance.program import workshop
from tests.cluster import cluster

__all__ = ["cluster", "workshop"]
