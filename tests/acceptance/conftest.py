"""Fixtures of the acceptance tests."""

from tests.acceptance.program import workshop

__all__ = ["workshop"]
