"""Delayed calls whose tasks write down how late they were: for the test, and for the bench."""

from __future__ import annotations

from collections import Counter

from tests.acceptance.program import Workshop

_TASKS = """
import os, time
from amqtask import App, Context

app = App("delay")
ledger = os.open("ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@app.task(name="note", bind=True)
def note(self: Context, number: int) -> None:
    late = time.time() - self.call.eta.timestamp()
    os.write(ledger, f"{number} {late:.6f}\\n".encode())
"""
_SEND = """
import random, sys, time
from tasks import app, note

calls, (shortest, longest, spread) = int(sys.argv[1]), map(float, sys.argv[2:])
chance, begin = random.Random(7), time.monotonic()
with app.pipeline():
    for number in range(calls):
        while time.monotonic() < begin + spread * number / calls:
            time.sleep(0.002)
        note.options(countdown=chance.uniform(shortest, longest)).delay(number)
"""


class Delays:
    """Sends delayed calls in a workshop, and reads what its worker wrote.

    Args:
        workshop: Gets its tasks.py.
    """

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        workshop.write(_TASKS)
        workshop.write(_SEND, "send.py")

    def send(self, calls: int, shortest: float, longest: float, spread: float = 0.0) -> None:
        """Send calls with random delays between two numbers of seconds.

        Args:
            spread: Seconds over which the sending is spread; 0 sends them at once.
        """
        numbers = map(str, (calls, shortest, longest, spread))
        sent = self._workshop.python("send.py", *numbers)
        assert sent.returncode == 0, sent.stderr

    def runs(self) -> Counter[int]:
        """Return how often each call has run."""
        return Counter(int(line.split()[0]) for line in self._workshop.ledger())

    def lateness(self) -> list[float]:
        """Return the seconds that each run came after its eta, in rising order."""
        return sorted(float(line.split()[1]) for line in self._workshop.ledger())
