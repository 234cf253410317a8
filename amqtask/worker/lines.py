"""What supervisor and child tell each other: JSON objects, one a line, over one socketpair a child.

To the child, under ``do``:

    stop                  end warm
    cancel                ask what runs to end, as part of a stop
    now                   give back what runs and end
    stacks                write the stacks of what runs to the log
    suspect  ids, why     run these isolated when they come
    condemn  id, why      settle this one as timed out when it comes

To the supervisor, under ``event``:

    ready                 every queue is consumed
    waiting  reasons      not every queue is
    beat     `Beat`       each second, from the thread that has the connection; each third one
                          while it consumes and there is nothing to do. That of a beat which sends
                          calls has rss, reasons, and besides shown, how it is, and dead, why it
                          does not tick
    stopping running      a stop has begun
    giving_up reason      it ends, and wants to be replaced at once
    stopped  counts       nothing is left; it ends now
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Seconds between two beats of a child.
BEAT = 1.0
#: The same while it consumes, runs nothing, and nothing has changed; well below `rounds.SILENT`.
IDLE_BEAT = 3.0
#: Bytes of the longest line.
MOST = 1024 * 1024
#: Exit code of a child that gave itself up to be rid of a task (EX_TEMPFAIL of sysexits.h).
GAVE_UP = 75


def pack(**fields: Any) -> bytes:
    """Return the line for these fields."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def unpack(line: bytes) -> dict[str, Any]:
    """Return the fields of a line.

    Raises:
        ValueError: It is no JSON object.
    """
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ValueError(f"not an object: {line[:80]!r}")  # noqa: TRY004 - as broken JSON is
    return fields


@dataclass(frozen=True, slots=True)
class Beat:
    """How a child is.

    Attributes:
        running: Tasks whose code runs.
        waiting: Deliveries in hand that have not started.
        finished: Jobs settled since it started.
        rss: Bytes of memory it holds; 0 where the system does not tell.
        lag: Seconds by which the loop of the connection was late.
        blocked: Seconds for which the loop of the async tasks has not answered.
        reasons: Why it does not consume; empty when it does.
    """

    running: int = 0
    waiting: int = 0
    finished: int = 0
    rss: int = 0
    lag: float = 0.0
    blocked: float = 0.0
    reasons: tuple[str, ...] = ()

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Beat:
        """Return the beat in a line's fields; what is missing counts as nothing."""
        return cls(
            running=int(said.get("running", 0)),
            waiting=int(said.get("waiting", 0)),
            finished=int(said.get("finished", 0)),
            rss=int(said.get("rss", 0)),
            lag=float(said.get("lag", 0.0)),
            blocked=float(said.get("blocked", 0.0)),
            reasons=tuple(map(str, said.get("reasons", ()))),
        )
