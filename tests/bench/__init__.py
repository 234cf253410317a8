"""How fast it is, beside what it is made of: ``python -m tests.bench``, or ``make bench``.

Never part of a test run: it takes minutes, and its figures say as much about the machine as about
the code. So each figure is measured beside a contender that does the same work on bare pika, in
the same run and in turns, and only their ratio is worth keeping.

`measure` takes turns and sums up, `cases` lists what is compared, `ours` and `bare` are the
programs that are measured, `report` writes it down. `peers` holds the programs of the other
libraries, which run in an environment of their own, and `rivals` the settings they run with.
"""
