"""Chords in Redis under Celery's keys, so that workers of both kinds may run their members.

    celery-taskset-meta-GROUP.j   parts: [1, id, state, result] by their place in the header
                             .s   members that the chord was sent with
                             .t   members added on the way
                             .d   ids of members that have ended, each with its place
                             .c   who joins it, or ``done``; ours is also ``failed``

Source: celery 5.7 ``celery/backends/redis.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from amqtask.backends.base import whole_seconds
from amqtask.backends.chords import ChordPart, Standing
from amqtask.backends.redis_scripts import Script
from amqtask.errors import MessageError

#: Seconds for which the one who joins is left alone; a Celery worker may try after that.
_LEASE = 60

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


class RedisChords:
    """See `Chords`.

    Args:
        client: Returns the client.
        wrapped: Turns redis-py's errors into ours.
        prefix: Start of the keys of groups.
        decode: Returns the value of a stored document.
    """

    def __init__(
        self,
        client: Callable[[], Any],
        wrapped: Callable[[], AbstractContextManager[None]],
        prefix: str,
        decode: Callable[[bytes], Any],
    ) -> None:
        self._client = client
        self._wrapped = wrapped
        self._prefix = prefix
        self._decode = decode

    def open(self, sizes: Mapping[str, int], expires: float) -> None:
        """See `Chords.open`: a chord that is sent once more begins anew."""
        seconds = whole_seconds(expires)
        with self._wrapped(), self._client().pipeline(transaction=True) as pipe:
            pipe.delete(*(self._key(group_id, ".c") for group_id in sizes))
            for group_id, size in sizes.items():
                pipe.set(self._key(group_id, ".s"), size, ex=seconds)
            pipe.execute()

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
        seconds = whole_seconds(expires)
        with self._wrapped(), self._client().pipeline(transaction=True) as pipe:
            pipe.set(self._key(part.group_id, ".c"), "done" if sent else "failed", ex=seconds)
            if sent:
                pipe.delete(*self._keys(part)[:4], self._key(part.group_id, ""))
            pipe.execute()

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
    return [part.id, score, part.body, *flags, whole_seconds(expires), part.token, _LEASE]


def _ok(said: Any) -> bool:
    return isinstance(said, list) and len(said) > 2 and said[2] == "SUCCESS"
