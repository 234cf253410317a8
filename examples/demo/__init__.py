"""The demo: a worker, a mix of calls, and a table of what became of them. ``make demo`` runs it."""
