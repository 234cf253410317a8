"""A site of several beats, each behind a proxy of its own."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.acceptance.beats.ledger import Fired, Ledger
from tests.acceptance.program import Program, Workshop
from tests.cluster import Cluster
from tests.helpers import eventually
from tests.proxy import Proxy, proxied

TASKS = """
from amqtask import App, every

app = App("beats")

@app.task(name="note")
def note(number):
    pass

for number in range(3):
    app.schedule(
        f"tick-{number}", note, every(seconds=1), args=[number], catch_up="all", window=3600
    )
"""
#: Entries that are due each second.
ENTRIES = 3


@dataclass(slots=True)
class Place:
    """Where one beat runs, one after the other if they are killed."""

    proxy: Proxy
    program: Program
    stopped: bool = field(default=False)

    @property
    def pid(self) -> int:
        """The process of now."""
        return self.program.process.pid


class Site:
    """Beats that fire every second, and their ledger."""

    def __init__(
        self, workshop: Workshop, urls: Sequence[str], stack: ExitStack, beats: int
    ) -> None:
        self._workshop = workshop
        #: What they run on, where that is theirs to be broken.
        self.cluster: Cluster | None = None
        workshop.write(TASKS)
        self.ledger = Ledger(urls, workshop.queue)
        stack.callback(self.ledger.close)
        self.places: list[Place] = []
        for number in range(beats):
            proxy = stack.enter_context(proxied(urls[number % len(urls)]))
            self.places.append(Place(proxy, self._start(proxy)))

    def leader(self) -> Place:
        """Return the beat that fired last."""
        eventually(lambda: self.ledger.fired)
        pid = self.ledger.fired[-1].pid
        found = [place for place in self.places if place.pid == pid]
        return found[0] if found else self.places[0]

    def kill(self, place: Place) -> None:
        """Kill a beat; `revive` starts another one in its place."""
        place.program.process.kill()
        place.program.wait()

    def revive(self, place: Place) -> None:
        """Start another beat in the place of one that was killed."""
        place.program = self._start(place.proxy)

    def stop(self, place: Place) -> None:
        """Stop a process in its tracks."""
        place.program.process.send_signal(signal.SIGSTOP)

    def go_on(self, place: Place) -> None:
        """Wake it up."""
        place.program.process.send_signal(signal.SIGCONT)

    def next_of_another(self, place: Place, since: float, timeout: float = 60.0) -> Fired:
        """Wait for a fire of another beat that came after ``since``, and return it."""

        def found() -> Fired | None:
            later = [each for each in self.ledger.fired if each.at > since]
            return next((each for each in later if each.pid != place.pid), None)

        fired = eventually(found, timeout=timeout, message="no other beat fired")
        assert fired is not None
        return fired

    def wait_for_seconds(self, count: int) -> None:
        """Wait until so many more instants of each entry were fired."""
        start = len({(each.entry, each.instant) for each in self.ledger.fired})
        eventually(
            lambda: (
                len({(each.entry, each.instant) for each in self.ledger.fired})
                >= start + count * ENTRIES
            ),
            timeout=60.0 + count,
        )

    def _start(self, proxy: Proxy) -> Program:
        return self._workshop.program("beat", AMQTASK_BROKER=proxy.url)


@contextmanager
def site_on(workshop: Workshop, *urls: str, beats: int = 3) -> Iterator[Site]:
    """Run beats in a workshop for the length of a ``with``, spread over some brokers."""
    with ExitStack() as stack:
        made = Site(workshop, urls, stack, beats)
        try:
            yield made
        finally:
            for place in made.places:
                made.go_on(place)
                place.program.kill()


def now() -> float:
    """Return the seconds that `Fired.at` counts."""
    return time.monotonic()
