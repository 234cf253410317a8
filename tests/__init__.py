"""The tests, and what they share: fixtures in `tests.servers`, waiting in `tests.helpers`.

A package, so that tests can import both by name.
"""
