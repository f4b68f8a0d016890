"""That a consumer is alive, and where it is to be the only one, that it is."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any
from zlib import crc32

from taktline.errors import SourceError
from taktline.redis.server import StreamUrl, explained, passes

# A sign of life: kept up where it is this consumer's own, or nobody's. 0: somebody else has this name.
ALIVE = """
local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# The hold on a stream, and its term, which each new holder raises. Kept up, or taken again where nobody had it meanwhile,
# by who gives its term; taken by who gives 0 where it is free. The term; 0: another one has it; -1: or had it meanwhile.
HOLD = """
local holder, term = redis.call('GET', KEYS[1]), tonumber(redis.call('GET', KEYS[2]) or '0')
if holder and holder ~= ARGV[1] then return ARGV[3] == '0' and 0 or -1 end
if ARGV[3] ~= '0' then
  if term ~= tonumber(ARGV[3]) then return -1 end
else
  term = redis.call('INCR', KEYS[2])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return term
"""

DROP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"


class Lease:
    """Signs of life from a thread of its own, every third of `seconds`, from `take` until `end`.

    `sole`: one of the `streams` is held by this consumer alone; else there is one stream, which is anybody's.
    """

    def __init__(
        self,
        client: Any,
        url: StreamUrl,
        streams: Sequence[str],
        group: str,
        consumer: str,
        seconds: float,
        *,
        sole: bool,
    ) -> None:
        self._client = client
        self._url = url
        at = crc32(consumer.encode()) % len(streams)  # so that consumers do not all ask for the first one first
        self._streams = [*streams[at:], *streams[:at]]
        self._group = group
        self._consumer = consumer
        self._token = f"{consumer} {id(self)} {monotonic()}"
        self._seconds = seconds
        self._sole = sole
        self._term = 0
        self._renewed = 0.0
        self._late = False  # it was renewed after its time
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="taktline-redis-lease", daemon=True)
        self.stream: str | None = None  # that is read
        self.lost: Exception | None = None  # why no more may be read

    def key(self, what: str, stream: str | None = None) -> str:
        """A key of our own beside a stream; in a cluster both are in one place."""
        return f"taktline:{{{stream or self.stream}}}:{self._group}:{what}"

    def alive_key(self, consumer: str) -> str:
        """Where a consumer gives its signs of life."""
        return self.key(f"alive:{consumer}")

    def take(self) -> bool:
        """Whether a stream may be read now. Raises what the client raises."""
        if self.stream is None:
            self._begin()
        # Frozen for so long, another one may have it: the thread finds out.
        return self.stream is not None and (not self._sole or monotonic() < self._renewed + self._seconds)

    @property
    def was_late(self) -> bool:
        """Whether it gave no sign of life for so long that others may have taken over what this consumer had."""
        return self._late or monotonic() >= self._renewed + self._seconds

    def looked(self) -> None:
        """What they have taken over is known."""
        self._late = False

    def _begin(self) -> None:
        now = monotonic()
        for stream in self._streams:
            if self._sole and (term := self._hold(stream, 0)) <= 0:
                continue
            self.stream, self._term, self._renewed = stream, term if self._sole else 0, now
            # The newest one of a name is the one that counts: it may have been killed and begun again.
            self._client.set(self.alive_key(self._consumer), self._token, px=self._milliseconds)
            self._thread.start()
            return

    @property
    def _milliseconds(self) -> int:
        return int(1000 * self._seconds)

    def _hold(self, stream: str, term: int) -> int:
        keys = self.key("sole", stream), self.key("term", stream)
        return int(self._client.eval(HOLD, 2, *keys, self._token, self._milliseconds, term))

    def _keep(self) -> None:
        from redis import RedisError

        while not self._over.wait(self._seconds / 3):
            now = monotonic()
            try:
                if not self._client.eval(ALIVE, 1, self.alive_key(self._consumer), self._token, self._milliseconds):
                    self._fail(
                        f"another consumer named {self._consumer!r} reads {self._url}: each needs a name of its own"
                    )
                elif self._sole and self._hold(self.stream or "", self._term) != self._term:
                    self._fail(
                        f"another consumer has taken over {self._url}: this one gave no sign of life for {self._seconds:g} s"
                    )
                else:
                    self._late = self._late or now >= self._renewed + self._seconds
                    self._renewed = now
            except RedisError as error:
                if not passes(error):
                    self.lost = explained(error, self._url, SourceError)
            if self.lost is not None:
                return

    def _fail(self, why: str) -> None:
        self.lost = SourceError(why)

    def end(self) -> None:
        """No more signs of life. May be called again."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def give_up(self) -> None:
        """Let others have what this consumer held, at once. Raises what the client raises."""
        if self.stream is not None:
            self._client.eval(DROP, 1, self.alive_key(self._consumer), self._token)
            if self._sole:
                self._client.eval(DROP, 1, self.key("sole"), self._token)
