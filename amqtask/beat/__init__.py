"""Beat: sends what is due, once, from any number of processes.

What is due is decided without I/O (`plan`, `agenda`). Which of several beats sends it
is decided by `leader`, what one hands on to the next is in `state`, and `service` is
the whole of one beat.
"""
