"""A consumer group of a stream as a source."""

from __future__ import annotations

import json
import warnings
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, groupby, islice
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from taktline.abc import Health, Live, Unread
from taktline.errors import LineError, SourceError
from taktline.queues.ending import Ending, warn_full
from taktline.queues.filling import Filling
from taktline.redis.lease import Lease
from taktline.redis.message import RedisMessage
from taktline.redis.server import FIRST_PAUSE, LONGEST_PAUSE, StreamUrl, connect, explained, passes

WINDOW, MEMORY = 1000, 100 << 20  # messages and bytes, where the run does not say
LOOK = 1.0  # seconds between two looks for what consumers left that are gone
CAREFUL = 2  # deliveries without an acknowledgement after which a message goes alone, so that only a bad one is counted
IDS = 1000  # acknowledgements in a request
FULL = 0.002  # seconds that a full window is waited for
STANDBY = 0.25  # seconds between two looks whether a stream is free
FLUSH = 15.0  # seconds the last acknowledgements may take
NOBODY = "taktline:given back"  # the consumer that has what others gave back
AGES = 10**9  # milliseconds that it has been idle for then

# A consumer is taken off where it has nothing: what it has not acknowledged would be lost with it.
FORGET = """
for _, found in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  if found[2] == ARGV[2] and found[4] == 0 and redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
  end
end
"""


def subscribe(
    url: str, *, group: str, consumer: str | None = None, sole: bool = False, shards: int | None = None,
    start: str = "0", idle: float | None = None, limit: int | None = None, seconds: float | None = None,
    drain: float = 30.0, lease: float = 30.0, deliveries: int = 5, delete: bool = False, wait: float = 0.0,
) -> Live:  # fmt: skip
    """The messages of a stream ("redis://HOST:PORT/DATABASE/STREAM") that a consumer group gets, as a source of a line.

    A message is acknowledged after its result is safe: the sink has it, or, in a loop, the next result is asked for. All
    that are not go back when the run ends. Stream and group are made where they are not there.

    consumer: a name that a process keeps when it is started again, so that it has at once what it had; without it, each run
    has one of its own. sole: it is the only one of its group at work, and others wait to take over from it: the order of the
    stream is kept, also over kills. shards: the streams are NAME:0, NAME:1 and so on, as `publish(..., shards=)` writes
    them, and this run takes one that nobody has (implies `sole`): start as many as there are shards.
    start: where a group begins that is made now, "0" at the first message, "$" behind the last.
    idle: seconds without a message after which the run ends; time in which the server cannot be reached does not count, and
    as many seconds of that end it in SourceError. limit: messages after which it ends. seconds: time after which it takes no
    more, and ends well once all that it took is safe. drain: seconds that a SIGTERM gives to what is under way; what is not
    done then goes back and SystemExit(143) is raised. lease: seconds without a sign of life after which others get what a
    consumer had. deliveries: how often a message may be delivered to consumers that are killed before it is acknowledged;
    from then on it is a failed record, for `on_error` and `dead_letters`. delete: what is acknowledged is deleted too. wait:
    seconds a batch may wait for more messages, where it is not full.

    Raises LineError for wrong settings; the run raises SourceError where the stream cannot be read.

    >>> subscribe("redis://localhost/0/orders", group="pricing").describe()
    'redis://localhost:6379/0/orders'
    """
    place = StreamUrl.parsed(url)
    for name, text in (("group", group), ("consumer", consumer), ("start", start)):
        if text is not None and (not isinstance(text, str) or not text):
            raise LineError(f"{name}={text!r}: give a name")
    numbers = ("drain", drain, 0), ("lease", lease, 1), ("deliveries", deliveries, 1), ("shards", shards, 1)
    for name, value, low in numbers:
        if value is not None and value < low:
            raise LineError(f"{name}={value!r}: give at least {low}")
    ending = Ending(idle=idle, limit=limit, seconds=seconds)
    return RedisStream(
        place, group, consumer, ending, Filling(wait), sole=sole or shards is not None, shards=shards, start=start,
        drain=drain, lease=lease, deliveries=deliveries, delete=delete,
    )  # fmt: skip


class RedisStream(Live):
    """The settings, and while a run reads it, what is owed for each message."""

    forks = False

    def __init__(
        self, url: StreamUrl, group: str, consumer: str | None, ending: Ending, filling: Filling, *, sole: bool,
        shards: int | None, start: str, drain: float, lease: float, deliveries: int, delete: bool,
    ) -> None:  # fmt: skip
        self._filling = filling
        self._url, self._group, self._consumer, self._ending = url, group, consumer, ending
        self._sole, self._shards, self._start = sole, shards, start
        self._seconds, self._deliveries, self._delete = lease, deliveries, delete
        self.drain, self.ends = drain, ending.ends
        self._client: Any = None
        self._ahead = 0.0  # seconds that the server's clock is ahead of this process's, which starts anywhere

    def describe(self) -> str:
        return str(self._url)

    def open(self, window: int | None, memory: int) -> None:
        if self._client is not None:
            raise LineError(f"{self._url} is read by another run; call subscribe() once for each run")
        self._window, self._memory = window or WINDOW, memory
        self._me = self._consumer or uuid4().hex
        self._fresh: deque[RedisMessage] = deque()  # delivered for the first time, and not given yet
        self._waiting: deque[RedisMessage] = deque()  # taken over and not given yet; `deliveries` as they were
        self._out: deque[tuple[str, int]] = deque()  # id and bytes of each message that was given and is not safe
        self._known: set[str] = set()  # ids of those three, and of those that are to be acknowledged
        self._held = 0  # bytes
        self._owed: list[str] = []  # ids to be acknowledged
        self._taken_over: set[str] = set()  # ids of messages under way that others have now,
        self._left_out: set[str] = set()  # and of those whose results are left out
        self._safe = 0  # messages
        self._last = self._behind = ""  # ids: of the last one that was safe, and to be, before this run
        self._alone = False  # one is under way that may kill
        self._look, self._lost_answers = 0.0, True  # when to look for what is left; whether that may be our own
        self._try_at = self._pause = 0.0
        self._reason: Exception | None = None  # why the server cannot be reached
        streams = (
            [self._url.stream] if self._shards is None else [f"{self._url.stream}:{n}" for n in range(self._shards)]
        )
        self._client = connect(self._url)
        try:
            for stream in streams:
                self._make_group(stream)
            seconds, rest = self._client.time()
            self._ahead = seconds + rest / 1e6 - monotonic()
        except BaseException:
            self._hang_up()
            raise
        self._lease = Lease(self._client, self._url, streams, self._group, self._me, self._seconds, sole=self._sole)
        self._ending.begin(monotonic())

    def _make_group(self, stream: str) -> None:
        from redis import RedisError

        try:
            self._client.xgroup_create(stream, self._group, id=self._start, mkstream=True)
        except RedisError as error:
            if not str(error).startswith("BUSYGROUP"):  # else it is there already
                raise explained(error, self._url, SourceError) from error

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # --- take ---

    def take(self, most: int, seconds: float) -> list[Any] | None:
        from redis import RedisError

        if self._client is None:
            self.open(None, MEMORY)
        if self._lease.lost is not None:
            raise self._lease.lost
        ending, now = self._ending, monotonic()
        if ending.is_given_up(now):
            raise self._unreachable()
        if ending.is_over(now):
            return None
        most = min(ending.left(most), self._window - len(self._out))
        if most <= 0 or self._alone or self._held >= self._memory:
            self._acknowledge()
            # A full window tells nothing of what there is to come, while the run still works on it.
            if seconds and ending.is_idle(now):
                warn_full(str(self._url), len(self._out))
                return None
            sleep(min(seconds, FULL))
            return []
        if now < self._try_at:
            sleep(min(seconds, self._try_at - now))
            return []
        try:
            found = self._next(most, seconds)
            self._pause = 0.0
            ending.reached(monotonic())
            if not found and not self._fresh and ending.is_idle(monotonic()) and self._all_is_done():
                return None
        except RedisError as error:
            self._away(error)
            return []
        if found:
            ending.gave(len(found), monotonic())
        return found

    def _away(self, error: Exception) -> None:
        """Raises SourceError where it is of no use to try again."""
        if not passes(error):
            raise explained(error, self._url, SourceError) from error
        now = monotonic()
        self._ending.lost(now)
        self._reason, self._lost_answers = error, True
        self._look = 0.0  # what came with an answer that was lost is older than what is new
        self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
        self._try_at = now + self._pause

    def _unreachable(self) -> Exception:
        if self._reason is None:
            return SourceError(f"{self._url} was not read: no time was left to ask for messages")
        made = explained(self._reason, self._url, SourceError)
        made.__cause__ = self._reason
        return made

    def _next(self, most: int, seconds: float) -> list[Any]:
        """What there is, what others left first. Raises what the client raises."""
        if not self._lease.take():
            sleep(min(seconds, STANDBY))
            return []
        self._acknowledge()
        now = monotonic()
        if not self._waiting and now >= self._look:
            self._take_over()
        if self._waiting:
            return self._of_waiting(most)
        fresh, filling = self._fresh, self._filling
        if not filling.is_due(len(fresh), most, now):
            self._read(most - len(fresh), min(seconds, filling.left(now)) if fresh else seconds)
        if not filling.is_due(len(fresh), most, monotonic()):
            return []
        filling.gave()
        return self._given([fresh.popleft() for _ in range(min(most, len(fresh)))])

    def _read(self, most: int, seconds: float) -> None:
        """What nobody has had yet."""
        block = int(1000 * seconds) or None  # 0 would be for ever
        reply = self._client.xreadgroup(self._group, self._me, {self._stream: ">"}, count=most, block=block)
        found = [self._message(id, fields, 1) for _, rows in reply or () for id, fields in rows]
        self._known.update(message.id for message in found)
        self._fresh.extend(found)

    @property
    def _stream(self) -> str:
        assert self._lease.stream is not None
        return self._lease.stream

    def _message(self, id: bytes, fields: dict[bytes, bytes], deliveries: int) -> RedisMessage:
        named = {name.decode(errors="replace"): value for name, value in fields.items()}
        return RedisMessage(named, id.decode(), self._stream, deliveries)

    def _given(self, messages: list[RedisMessage]) -> list[Any]:
        """These are under way from now on, without those whose results an earlier process has delivered."""
        found: list[Any] = []
        for message in messages:
            self._known.add(message.id)
            if self._behind and _order(message.id) <= _order(self._behind):
                self._owed.append(message.id)
                continue
            size = sum(len(name) + len(value) for name, value in message.fields.items()) + 100
            self._held += size
            self._out.append((message.id, size))
            found.append(message if message.deliveries <= self._deliveries else self._poison(message))
        return found

    def _poison(self, message: RedisMessage) -> Unread:
        fields = {name: value.decode(errors="replace") for name, value in message.fields.items()}
        return Unread(
            json.dumps({"id": message.id, "fields": fields}, ensure_ascii=False),
            SourceError(
                f"message {message.id!r} of {self._url} was delivered {self._deliveries} times, and each time its consumer "
                "was killed before it was acknowledged"
            ),
        )

    # --- what was left ---

    def _take_over(self) -> None:
        """What this consumer was given without knowing it, and what those have left that are gone."""
        found: list[RedisMessage] = []
        whose: list[tuple[str | None, int]] = [(None, 0)]
        if not self._sole:
            whose = [(self._me, 0)] if self._lost_answers else []
            # Others may look at the same moment: who has taken one over is at work on it for a shorter time than that.
            whose += [(name, int(500 * self._seconds)) for name in self._gone()]
        for name, idle in whose:
            room = self._window - len(found)
            unknown = (row for row in self._pending(name) if row[0] not in self._known)
            found += self._claim(list(islice(unknown, max(0, room))), idle)
        found.sort(key=lambda message: _order(message.id))
        self._known.update(message.id for message in found)
        self._waiting.extend(found)
        self._look = 0.0 if found else monotonic() + LOOK
        self._lost_answers = self._lost_answers and bool(found)

    def _gone(self) -> list[str]:
        """The consumers that give no sign of life and have messages."""
        names = [
            row["name"].decode() for row in self._client.xinfo_consumers(self._stream, self._group) if row["pending"]
        ]
        names = [name for name in names if name != self._me]
        signs = self._client.mget([self._lease.alive_key(name) for name in names]) if names else []
        return [name for name, sign in zip(names, signs, strict=True) if sign is None]

    def _pending(self, consumer: str | None) -> Iterator[tuple[str, int]]:
        """Ids of messages that are not acknowledged, in the order of the stream, and how often they were delivered."""
        first = "-"
        while rows := self._client.xpending_range(self._stream, self._group, first, "+", IDS, consumer):
            for row in rows:
                yield row["message_id"].decode(), row["times_delivered"]
            first = f"({rows[-1]['message_id'].decode()}"

    def _claim(self, rows: list[tuple[str, int]], idle: int) -> list[RedisMessage]:
        """They are this consumer's now. A delivery is counted where it is one."""
        found = []
        for times, group in groupby(sorted(rows, key=lambda row: row[1]), key=lambda row: row[1]):
            count = times + 1 if times < CAREFUL else times
            reply = self._client.xclaim(
                self._stream, self._group, self._me, idle, [id for id, _ in group], retrycount=count
            )
            found += [self._message(id, fields, times) for id, fields in reply if id is not None and fields is not None]
        return found

    def _of_waiting(self, most: int) -> list[Any]:
        """Messages that were delivered before: one that may have killed goes alone, with nothing else under way."""
        messages: list[RedisMessage] = []
        while self._waiting and len(messages) < most and self._waiting[0].deliveries < CAREFUL:
            messages.append(self._counted(self._waiting.popleft()))
        if not messages and not self._out:
            message = self._counted(self._waiting[0])
            self._client.xclaim(
                self._stream, self._group, self._me, 0, [message.id], retrycount=message.deliveries, justid=True
            )
            self._waiting.popleft()
            messages, self._alone = [message], True
        given = self._given(messages)
        self._alone = self._alone and bool(given)
        return given

    def _counted(self, message: RedisMessage) -> RedisMessage:
        return RedisMessage(message.fields, message.id, message.stream, message.deliveries + 1)

    def _all_is_done(self) -> bool:
        """Whether a drain may end: what others have may be of one that was killed a moment ago."""
        if self._lease.stream is None or self._ending.idle_for(monotonic()) >= self._seconds:
            return True
        return all(id in self._known for id, _ in self._pending(None))

    def health(self) -> Health:
        """How long the oldest message that is not safe waits since it was added, and why the server cannot be reached. How
        many wait there only the server knows."""
        if self._client is None:
            return Health()
        not_given = (message.id for message in chain(self._waiting, self._fresh))
        oldest = next(chain((id for id, _ in self._out), not_given), None)
        lag = 0.0 if oldest is None else max(0.0, monotonic() + self._ahead - int(oldest.partition("-")[0]) / 1000)
        away = self._pause > 0 and self._reason is not None
        return Health(lag=lag, refused=type(self._reason).__name__ if away else "")

    # --- safe ---

    def safe(self, records: int, skipped: Sequence[int]) -> None:
        if records <= self._safe:
            return
        for _ in range(records - self._safe):
            id, size = self._out.popleft()
            if id in self._left_out:
                self._known.discard(id)
            else:
                self._owed.append(id)
            self._held -= size
            self._last = id
        self._safe, self._alone = records, self._alone and bool(self._out)
        self._ending.moved(monotonic())
        self._acknowledge()

    def elsewhere(self, first: int, records: int) -> Collection[int]:
        lease, at = self._lease, first - self._safe
        if lease.lost is None and lease.was_late:
            self._look_for_taken_over()
        if lease.lost is None and not self._taken_over:
            return ()
        ids = {index: id for index, (id, _) in enumerate(islice(self._out, at, at + records), first)}
        gone = {index: id for index, id in ids.items() if lease.lost is not None or id in self._taken_over}
        self._left_out.update(gone.values())
        return gone

    def _look_for_taken_over(self) -> None:
        from redis import RedisError

        if monotonic() < self._try_at:
            return
        try:
            ours = {id for id, _ in self._pending(self._me)}
        except RedisError:  # which `take` meets too, and tells what it means
            return
        self._lease.looked()
        self._taken_over = {id for id, _ in self._out if id not in ours}
        self._known.difference_update(message.id for message in self._fresh if message.id not in ours)
        self._fresh = deque(message for message in self._fresh if message.id in ours)

    def place(self, records: int) -> Any:
        if not self._sole or self._shards is not None:  # others may have had what lies between
            return None
        ahead = records - self._safe
        return (self._out[ahead - 1][0] if ahead > 0 else self._last) or None

    def resume(self, place: Any) -> None:
        self._behind = self._last = place

    def _acknowledge(self) -> None:
        """Send what is to be acknowledged; what does not go through is kept. Raises SourceError where it never will."""
        from redis import RedisError

        if not self._owed or monotonic() < self._try_at:
            return
        try:
            while lot := self._owed[:IDS]:
                with self._client.pipeline(transaction=False) as requests:
                    requests.xack(self._stream, self._group, *lot)
                    if self._delete:
                        requests.xdel(self._stream, *lot)
                    requests.execute()
                del self._owed[:IDS]
                self._known.difference_update(lot)
        except RedisError as error:
            self._away(error)

    # --- the end ---

    def close(self) -> None:
        from redis import RedisError

        if self._client is None:
            return
        try:
            self._lease.end()
            until = monotonic() + FLUSH
            while self._lease.stream is not None:
                self._try_at = 0.0
                try:
                    self._acknowledge()
                    if not self._owed:
                        self._give_back()
                        break
                except RedisError as error:
                    if not passes(error):  # such as that the group is gone: nobody is owed anything
                        break
                except SourceError:  # likewise
                    break
                if monotonic() > until:
                    break
                sleep(FIRST_PAUSE)
            self._warn()
        finally:
            self._hang_up()

    def _give_back(self) -> None:
        """What is not safe is anybody's, as if it had not been delivered."""
        uncounted = {message.id for message in self._waiting if message.deliveries >= CAREFUL}
        rows = [(times if id in uncounted else max(0, times - 1), id) for id, times in list(self._pending(self._me))]
        for times, group in groupby(sorted(rows), key=lambda row: row[0]):
            ids = [id for _, id in group]
            self._client.xclaim(self._stream, self._group, NOBODY, 0, ids, idle=AGES, retrycount=times, justid=True)
        self._lease.give_up()
        self._client.eval(FORGET, 2, self._stream, self._lease.alive_key(self._me), self._group, self._me)

    def _warn(self) -> None:
        if self._owed:
            warnings.warn(
                f"{len(self._owed):,} acknowledgements to {self._url} were not confirmed: these messages will come again, "
                "though their results are safe",
                RuntimeWarning,
                stacklevel=3,
            )


def _order(id: str) -> tuple[int, int]:
    """Ids in the order of the stream."""
    time, _, number = id.partition("-")
    return int(time), int(number)


subscribe.__module__ = "taktline.redis"
