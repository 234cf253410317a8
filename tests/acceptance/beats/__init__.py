"""Beats that are killed, stopped and cut off, and a ledger of what they fire.

``python -m tests.acceptance.beats --seconds 600`` does so at random for as long as one likes;
`test_beats.py` does each once.
"""
