"""Faults at random under load, and an independent ledger that proves what came of them.

    load ------> broker (a cluster of three nodes) <--proxies-- workers
      |                 ^                              ^           |
      |                 `------------ faults ----------'           |
      `--what was confirmed--> judge <--what ran-- ledger <--------'

`ledger` is written by the tasks themselves, `load` keeps what was confirmed to a client, `faults`
says what was done to whom and when. `judge` has these three and nothing else: it takes no
worker's word for anything.

Run it with ``python -m tests.acceptance.chaos`` or ``make chaos``.
"""
