"""Chords in Redis under Celery's keys, so that workers of both kinds may run their members.

    celery-taskset-meta-GROUP.j   parts: [1, id, state, result] by their place in the header
                             .s   members that the chord was sent with
                             .t   members added on the way
                             .d   ids of members that have ended, each with its place
                             .c   who joins it, or ``done``; ours is also ``failed``
                             .b   ours: what is on record of it, see `RedisRegister`

Source: celery 5.7 ``celery/backends/redis.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from amqtask.backends.base import whole_seconds
from amqtask.backends.chords import ON_RECORD, RESERVE, ChordPart, OpenChord, Standing
from amqtask.backends.redis_register import RedisRegister
from amqtask.backends.redis_scripts import Script
from amqtask.clock import wall
from amqtask.errors import MessageError

#: Seconds for which the one who joins is left alone; a Celery worker may try after that.
_LEASE = 60

#: Three keys of each chord, and four words. Where only Celery's workers are nobody takes chords
#: out of the sorted set, so what is long past goes when others come.
_OPEN = Script("""
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[#ARGV])
for n = 0, (#KEYS - 1) / 3 - 1 do
  redis.call('DEL', KEYS[3 * n + 2])
  redis.call('SET', KEYS[3 * n + 3], ARGV[4 * n + 3], 'EX', ARGV[1])
  redis.call('SET', KEYS[3 * n + 4], ARGV[4 * n + 5], 'EX', ARGV[1])
  redis.call('ZADD', KEYS[1], ARGV[4 * n + 4], ARGV[4 * n + 2])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
""")
#: A success takes the place of a failure: the member was sent back from the dead-letter queue.
#: Returns -1 when it is over, -2 when the chord is lost, 0 for waiting, and with all parts 1 for
#: whoever joins, and 2 when it is complete and has failed before.
_ADD = Script("""
local j, t, s, d, c = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, score, body, ok, extra = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local opened, expires, token, lease = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local state = redis.call('GET', c)
if state == 'done' then return -1 end
local size = redis.call('GET', s)
if not size and opened == '1' then
  if state and state ~= token then return -1 end
  redis.call('SET', c, token, 'EX', lease)
  return -2
end
if redis.call('SADD', d, id .. ':' .. score) == 1 then
  redis.call('ZADD', j, score, body)
  if extra > 0 then redis.call('INCRBY', t, extra) end
elseif ok == '1' then
  for _, known in ipairs(redis.call('ZRANGEBYSCORE', j, score, score)) do
    local decoded, part = pcall(cjson.decode, known)
    if decoded and part[2] == id and part[3] ~= 'SUCCESS' then
      redis.call('ZREM', j, known)
      redis.call('ZADD', j, score, body)
    end
  end
end
for _, key in ipairs({j, t, s, d}) do redis.call('EXPIRE', key, expires) end
if not size then return 0 end
-- one that was added on the way may end before the member that has added it
if redis.call('ZCOUNT', j, '-inf', '(+inf') < tonumber(size) then return 0 end
if redis.call('ZCARD', j) < tonumber(size) + tonumber(redis.call('GET', t) or 0) then return 0 end
if not state or state == token then
  redis.call('SET', c, token, 'EX', lease)
  return {1, redis.call('ZRANGE', j, 0, -1)}
end
if state == 'failed' then return {2, redis.call('ZRANGE', j, 0, -1)} end
return -1
""")
_CLAIM = Script("""
if redis.call('GET', KEYS[1]) ~= 'failed' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
""")
#: Returns -1 when it is over, 0 while it waits or somebody else joins it, and 1 for who gives it up.
_GIVE_UP = Script("""
local d, c, s, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local token, lease, reserve, group, now = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local state = redis.call('GET', c)
if state == 'done' or state == 'failed' then return -1 end
-- a Celery worker that has joined it, or failed it, leaves no size
if redis.call('EXISTS', s) == 0 then return -1 end
if state and state ~= token then return 0 end
local left = redis.call('TTL', d) - reserve
if reserve > 0 and left > 1 then
  redis.call('ZADD', due, 'XX', tonumber(now) + left, group)
  return 0
end
redis.call('SET', c, token, 'EX', lease)
return 1
""")


class RedisChords:
    """See `Chords`.

    Args:
        client: Returns the client.
        wrapped: Turns redis-py's errors into ours.
        prefix: Start of the keys of groups.
        decode: Returns the value of a stored document.
        register: Where open chords are on record.
    """

    def __init__(
        self,
        client: Callable[[], Any],
        wrapped: Callable[[], AbstractContextManager[None]],
        prefix: str,
        decode: Callable[[bytes], Any],
        register: RedisRegister,
    ) -> None:
        self._client = client
        self._wrapped = wrapped
        self._prefix = prefix
        self._decode = decode
        self._register = register

    def open(self, sizes: Mapping[OpenChord, int], expires: float) -> None:
        """See `Chords.open`: a chord that is sent once more begins anew."""
        keys: list[str] = [self._register.due]
        said: list[Any] = [whole_seconds(expires + ON_RECORD)]
        for chord, size in sizes.items():
            keys += [self._key(chord.group_id, suffix) for suffix in (".c", ".s", ".b")]
            said += [chord.group_id, size, chord.due, chord.record]
        said.append(wall() - ON_RECORD)
        with self._wrapped():
            _OPEN.run(self._client(), [(keys, said)])

    def add(self, parts: Sequence[ChordPart], expires: float) -> Sequence[tuple[Standing, Any]]:
        """See `Chords.add`."""
        with self._wrapped():
            client = self._client()
            calls = [(self._keys(part), _arguments(part, expires)) for part in parts]
            answers = _ADD.run(client, calls)
            return [
                self._standing(client, part, answer)
                for part, answer in zip(parts, answers, strict=True)
            ]

    def end(self, part: ChordPart, *, sent: bool, expires: float) -> None:
        """See `Chords.end`."""
        # as long as a member that is sent back finds the other parts
        seconds = whole_seconds(expires if sent else expires + RESERVE)
        with self._wrapped(), self._client().pipeline(transaction=True) as pipe:
            pipe.set(self._key(part.group_id, ".c"), "done" if sent else "failed", ex=seconds)
            if part.size is not None:
                self._register.drop_with(pipe, part.group_id)
            if sent:
                pipe.delete(*self._keys(part)[:4], self._key(part.group_id, ""))
            pipe.execute()

    def give_up(
        self, part: ChordPart, expires: float, *, by_hand: bool
    ) -> tuple[Standing, Sequence[Any]]:
        """See `Chords.give_up`."""
        group_id = part.group_id
        keys = [self._key(group_id, suffix) for suffix in (".d", ".c", ".s")]
        reserve = 0 if by_hand else whole_seconds(RESERVE)
        with self._wrapped():
            client = self._client()
            words = [part.token, _LEASE, reserve, group_id, wall()]
            (answer,) = _GIVE_UP.run(client, [([*keys, self._register.due], words)])
            if answer != 1:
                return (Standing.WAITING if answer == 0 else Standing.OVER), ()
            found = client.zrange(self._key(group_id, ".j"), 0, -1, withscores=True)
            added = int(client.get(self._key(group_id, ".t")) or 0)
        said = [
            [*self._read(value)[:4], None if score == math.inf else int(score), 0, ""]
            for value, score in found
        ]
        if said:
            said[0][5] = added  # Celery's keys say how many were added, and not by whom
        return Standing.READY, said

    def came(self, sizes: Mapping[str, int]) -> Mapping[str, int]:
        """See `Chords.came`: one that a Celery worker has ended has no size any more."""
        with self._wrapped(), self._client().pipeline(transaction=False) as pipe:
            for group_id in sizes:
                pipe.exists(self._key(group_id, ".s"))
                pipe.zcard(self._key(group_id, ".j"))
            answers = pipe.execute()
        found = zip(sizes, answers[::2], answers[1::2], strict=True)
        return {group_id: came for group_id, there, came in found if there}

    def _standing(self, client: Any, part: ChordPart, answer: Any) -> tuple[Standing, Any]:
        if isinstance(answer, list):
            claimed, found = answer
            said = [self._read(each) for each in found]
            if claimed == 1 or (all(_ok(each) for each in said) and self._claim(client, part)):
                return Standing.READY, said
            return Standing.OVER, None
        known = {0: Standing.WAITING, -2: Standing.GONE}
        return known.get(int(answer), Standing.OVER), None

    def _claim(self, client: Any, part: ChordPart) -> bool:
        call = ([self._key(part.group_id, ".c")], [part.token, _LEASE])
        return bool(_CLAIM.run(client, [call])[0])

    def _read(self, value: bytes) -> Any:
        try:
            return self._decode(value)
        except MessageError as error:
            # it counts as what it is: a member of which nobody knows the value
            return [
                1,
                "?",
                "FAILURE",
                {"exc_type": "MalformedMessage", "exc_message": [str(error)]},
            ]

    def _keys(self, part: ChordPart) -> list[str]:
        return [self._key(part.group_id, suffix) for suffix in (".j", ".t", ".s", ".d", ".c")]

    def _key(self, group_id: str, suffix: str) -> str:
        return f"{self._prefix}{group_id}{suffix}"


def _arguments(part: ChordPart, expires: float) -> list[Any]:
    score = "+inf" if part.index is None else str(part.index)
    flags = [str(int(part.ok)), part.extra, str(int(part.size is not None))]
    keep = expires if part.size is None else expires + RESERVE
    return [part.id, score, part.body, *flags, whole_seconds(keep), part.token, _LEASE]


def _ok(said: Any) -> bool:
    return isinstance(said, list) and len(said) > 2 and said[2] == "SUCCESS"
