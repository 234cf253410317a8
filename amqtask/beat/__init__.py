"""Beat: sends what is due, once, from any number of processes.

What is due is decided without I/O (`plan`, `agenda`); a leader does it.
"""
