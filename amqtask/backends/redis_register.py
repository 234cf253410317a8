"""Open chords in Redis: a sorted set of when each is given up, and a value for each.

    PREFIXamqtask.due.HOME  groups, by Unix seconds
    PREFIX GROUP .b         what is on record of one
    PREFIX GROUP .d         there while members end, see `RedisChords`: how long it lives yet
                            tells when the last part came

A part that comes does not touch the set; whoever takes what is due looks then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from amqtask.backends.base import whole_seconds
from amqtask.backends.chords import RESERVE, OpenChord

log = logging.getLogger("amqtask.chord")

#: Nobody else gets what it returns before the time is over.
_TAKE = """
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, group in ipairs(found) do redis.call('ZADD', KEYS[1], ARGV[2], group) end
return found
"""


class RedisRegister:
    """See `Register`.

    Args:
        client: Returns the client.
        wrapped: Turns redis-py's errors into ours.
        prefix: Start of the keys of groups.
        home: Tells the chords of one broker's apps from others in the same store.
    """

    def __init__(
        self,
        client: Callable[[], Any],
        wrapped: Callable[[], AbstractContextManager[None]],
        prefix: str,
        home: str,
    ) -> None:
        self._client = client
        self._wrapped = wrapped
        self._prefix = prefix
        #: The key of the sorted set.
        self.due = f"{prefix}amqtask.due.{home}"

    def note(self, chord: OpenChord, keep: float) -> None:
        """See `Register.note`."""
        with self._wrapped(), self._client().pipeline(transaction=False) as pipe:
            self.note_with(pipe, chord, keep)
            pipe.execute()

    def note_with(self, pipe: Any, chord: OpenChord, keep: float) -> None:
        """Note a chord along with what else is in a pipeline."""
        pipe.set(self._record(chord.group_id), chord.record, ex=whole_seconds(keep))
        pipe.zadd(self.due, {chord.group_id: chord.due})

    def drop(self, group_id: str) -> None:
        """See `Register.drop`."""
        with self._wrapped(), self._client().pipeline(transaction=False) as pipe:
            self.drop_with(pipe, group_id)
            pipe.execute()

    def drop_with(self, pipe: Any, group_id: str) -> None:
        """Drop a chord along with what else is in a pipeline."""
        pipe.zrem(self.due, group_id)
        pipe.delete(self._record(group_id))

    def take(self, now: float, until: float, most: int) -> Sequence[OpenChord]:
        """See `Register.take`."""
        with self._wrapped():
            # no script object: a cluster's client runs a single key's as it runs any command
            found = [
                each.decode() for each in self._client().eval(_TAKE, 1, self.due, now, until, most)
            ]
            taken = []
            for chord in self._read([(group_id, until) for group_id in found]):
                late = self._left(chord.group_id)
                if late > 1:  # a part came meanwhile
                    self.put_off([chord.group_id], now + late)
                else:
                    taken.append(chord)
            return taken

    def put_off(self, group_ids: Sequence[str], until: float) -> None:
        """See `Register.put_off`."""
        if group_ids:
            with self._wrapped():
                self._client().zadd(self.due, dict.fromkeys(group_ids, until), xx=True)

    def list(self, most: int) -> Sequence[OpenChord]:
        """See `Register.list`."""
        with self._wrapped():
            found = self._client().zrange(self.due, 0, most - 1, withscores=True)
            return self._read([(group_id.decode(), due) for group_id, due in found])

    def find(self, group_id: str) -> OpenChord | None:
        """See `Register.find`."""
        with self._wrapped():
            due = self._client().zscore(self.due, group_id)
            return None if due is None else next(iter(self._read([(group_id, due)])), None)

    def _left(self, group_id: str) -> float:
        """Return for how many seconds the last part of a chord puts off that it is given up."""
        return float(self._client().ttl(f"{self._prefix}{group_id}.d")) - RESERVE

    def _read(self, found: Sequence[tuple[str, float]]) -> Sequence[OpenChord]:
        client = self._client()
        chords = []
        for group_id, due in found:
            record = client.get(self._record(group_id))
            if record is None:
                log.error("chord.off_record group=%s: no worker gave it up in time", group_id)
                client.zrem(self.due, group_id)
            else:
                chords.append(OpenChord(group_id, record, due))
        return chords

    def _record(self, group_id: str) -> str:
        return f"{self._prefix}{group_id}.b"
