"""A consumer group of a topic as a source."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Collection, Sequence
from itertools import islice
from time import monotonic, sleep, time
from typing import Any

from taktline.abc import Health, Live, Unread
from taktline.errors import LineError, SourceError
from taktline.kafka.assigned import Assigned, shown
from taktline.kafka.broker import CALL_SECONDS, Config, TopicUrl, config_of, connect, explained, moved, passes
from taktline.kafka.message import KafkaMessage, received
from taktline.queues.ending import Ending, warn_full
from taktline.queues.filling import Filling

WINDOW, MEMORY = 1000, 100 << 20  # messages and bytes, where the run does not say
COMMIT = 0.2  # seconds between two commits: each is a request that the broker writes down
FULL = 0.002  # seconds that a full window is waited for
SERVE = 1.0  # seconds after which the library is served though nothing is to be read: it tells of rebalances then
PROBE = 1.0  # seconds between two looks whether the broker is back
FLUSH = 15.0  # seconds the last commits may take
STARTS = {"earliest", "latest"}


def subscribe(
    url: str, *, group: str, partitions: Sequence[int] | None = None, start: str = "earliest", idle: float | None = None,
    limit: int | None = None, seconds: float | None = None, drain: float = 30.0, lease: float = 45.0, deliveries: int = 5,
    wait: float = 0.0, config: Config = None,
) -> Live:  # fmt: skip
    """The messages of a topic ("kafka://HOST:PORT/TOPIC") that a consumer group gets, as a source of a line.

    A partition's offset is committed behind results that are safe: the sink has them, or, in a loop, the next result is
    asked for. What is not safe when the run ends, or when its partition goes to another consumer, is read again there.

    partitions: read these alone, and always, instead of those that the group gives this consumer. start: where a group
    begins that has committed nothing, "earliest" or "latest".
    idle: seconds without a message after which the run ends; time in which the broker cannot be reached or has given no
    partitions does not count, and as many seconds of that end it in SourceError. limit: messages after which it ends.
    seconds: time after which it takes no more, and ends well once all that it took is safe. drain: seconds that a SIGTERM
    gives to what is under way; what is not done then is read again and SystemExit(143) is raised. lease: seconds without a
    sign of life after which others get the partitions of a consumer (Kafka's session timeout). deliveries: how many
    consumers may be killed by the first message that is not committed; from then on it is a failed record, for `on_error`
    and `dead_letters`. wait: seconds a batch may wait for more messages, where it is not full. config: more settings of
    librdkafka, as a mapping or a file with a `name=value` a line.

    Raises LineError for wrong settings; the run raises SourceError where the topic cannot be read.

    >>> subscribe("kafka://localhost:9092/orders", group="pricing").describe()
    'kafka://localhost:9092/orders'
    """
    place = TopicUrl.parsed(url)
    if not isinstance(group, str) or not group:
        raise LineError(f"group={group!r}: give a name")
    if start not in STARTS:
        raise LineError(f"start={start!r}: choose one of 'earliest', 'latest'")
    for name, value, low in (("drain", drain, 0), ("lease", lease, 1), ("deliveries", deliveries, 1)):
        if value < low:
            raise LineError(f"{name}={value!r}: give at least {low}")
    if partitions is not None and (not partitions or any(not isinstance(n, int) or n < 0 for n in partitions)):
        raise LineError(f"partitions={partitions!r}: give some numbers, from 0 on")
    ending = Ending(idle=idle, limit=limit, seconds=seconds)
    settings = {
        "group.id": group, "auto.offset.reset": start, "session.timeout.ms": int(1000 * lease),
        "heartbeat.interval.ms": max(1, int(1000 * lease / 10)), "max.poll.interval.ms": max(300_000, int(1000 * lease)),
        "partition.assignment.strategy": "cooperative-sticky", "enable.partition.eof": True,
        **config_of(config), "enable.auto.commit": False, "enable.auto.offset.store": False,
    }  # fmt: skip
    filling = Filling(wait)
    return KafkaTopic(place, settings, partitions, ending, filling, start=start, drain=drain, deliveries=deliveries)


class KafkaTopic(Live):
    """The settings, and while a run reads it, what is owed for each partition. All of it in the caller's thread."""

    forks = False

    def __init__(
        self, url: TopicUrl, settings: dict[str, Any], partitions: Sequence[int] | None, ending: Ending, filling: Filling, *,
        start: str, drain: float, deliveries: int,
    ) -> None:  # fmt: skip
        self._filling = filling
        self._url, self._settings, self._fixed, self._ending = url, settings, partitions, ending
        self._start, self._deliveries = start, deliveries
        self.drain, self.ends = drain, ending.ends
        self._consumer: Any = None

    def describe(self) -> str:
        return str(self._url)

    def open(self, window: int | None, memory: int) -> None:
        if self._consumer is not None:
            raise LineError(f"{self._url} is read by another run; call subscribe() once for each run")
        self._window, self._memory = window or WINDOW, memory
        self._parts: dict[int, Assigned] = {}  # that are this consumer's
        self._former: dict[int, Assigned] = {}  # that were, with messages under way
        self._fetched: deque[Any] = deque()  # of the library, not given yet
        self._out: deque[tuple[Assigned, int, int, int]] = deque()  # part, its number, offset behind, bytes
        self._times: deque[float] = deque()  # when each of those was published
        self._held = 0  # bytes
        self._gone = 0  # messages under way whose partitions have gone
        self._safe = 0  # messages
        self._place: dict[str, int] = {}  # by partition, what earlier processes have delivered
        self._alone = False  # a message is under way that may kill
        self._begun = self._standing = False  # partitions were asked for; and given
        self._commit_at = self._serve_at = self._probe_at = 0.0
        self._reason: Any = None  # why the broker cannot be reached
        settings = {
            "queued.max.messages.kbytes": max(1024, min(memory >> 10, 65536)), **self._settings,
            "error_cb": self._erred, "on_commit": self._confirmed,
        }  # fmt: skip
        self._consumer = connect("Consumer", self._url, settings, SourceError)
        self._ending.begin(monotonic())

    # --- partitions come and go; called by the library while it is served ---

    def _ask_for_partitions(self) -> None:
        from confluent_kafka import TopicPartition

        self._begun = True
        if self._fixed is None:
            self._consumer.subscribe(
                [self._url.topic], on_assign=self._given_partitions, on_revoke=self._revoked, on_lost=self._lost
            )
        else:
            self._given_partitions(self._consumer, [TopicPartition(self._url.topic, n) for n in self._fixed])

    def _given_partitions(self, consumer: Any, partitions: list[Any]) -> None:
        from confluent_kafka import KafkaException

        if self._consumer is None:  # it is being closed: they go at once
            return
        try:
            for found in consumer.committed(partitions, timeout=CALL_SECONDS) if partitions else ():
                self._begin(consumer, found)
            for each in partitions:
                each.offset = self._parts[each.partition].next
            if self._fixed is None and "cooperative" in self._settings["partition.assignment.strategy"]:
                consumer.incremental_assign(partitions)
            else:
                consumer.assign(partitions)
        except KafkaException as error:  # out of a callback the library hands on what it holds, which is no exception
            raise explained(error.args[0], self._url, SourceError) from error
        self._commit({each.partition for each in partitions}, begins=True)
        self._standing = True
        self._reached()

    def _begin(self, consumer: Any, found: Any) -> None:
        """Where this partition is read from, by what the group has committed."""
        if found.error is not None:
            raise explained(found.error, self._url, SourceError)
        at, former = found.offset, self._former.pop(found.partition, None)
        if at < 0:
            low, high = consumer.get_watermark_offsets(found, timeout=CALL_SECONDS)
            at = low if self._start == "earliest" else high
        if former is not None and former.under_way and at == former.committed and not former.left_out:
            part = former  # nobody else has got any further: what is under way here is not read again
            part.gone, self._gone = False, self._gone - part.under_way
        else:
            part = Assigned.begun_at(at, getattr(found, "metadata", None), window=self._window)
            part.committed = at
            if (place := self._place.get(str(found.partition), -1)) > at:
                part.next = part.safe = place
        self._parts[found.partition] = part

    def _revoked(self, consumer: Any, partitions: list[Any]) -> None:
        going = {each.partition for each in partitions}
        if self.settle is not None and any(self._parts[number].under_way for number in going & self._parts.keys()):
            self.settle()  # what is delivered is not read again by who gets them
        self._commit(going, ends=True)
        self._let_go(going)

    def _lost(self, consumer: Any, partitions: list[Any]) -> None:
        self._let_go({each.partition for each in partitions})

    def _let_go(self, going: set[int]) -> None:
        """Others have these now: of what is under way nothing more is committed, and what was not given is forgotten."""
        for number in going:
            part = self._parts.pop(number, None)
            if part is not None and part.under_way:
                self._former[number] = part
                part.gone, self._gone = True, self._gone + part.under_way
        self._fetched = deque(each for each in self._fetched if each.partition() not in going)

    def _erred(self, error: Any) -> None:
        if passes(error):
            self._away(error)

    # --- commits ---

    def _commit(self, numbers: set[int] | None = None, *, begins: bool = False, ends: bool = False) -> bool:
        """Commit what is safe, of these partitions and now where they are named. Whether that was confirmed."""
        from confluent_kafka import KafkaException, TopicPartition

        at_once = numbers is not None
        offsets = []
        for number, part in self._parts.items():
            if number in numbers if numbers is not None else part.safe != part.sent:
                offset, metadata = part.to_commit(ends=ends)
                offsets.append(TopicPartition(self._url.topic, number, offset, metadata))
                part.sent = offset
        self._commit_at = monotonic() + COMMIT
        if not offsets:
            return True
        try:
            told = self._consumer.commit(offsets=offsets, asynchronous=not at_once)
        except KafkaException as error:
            self._not_confirmed(error.args[0], offsets)
            return False
        if at_once:
            self._confirmed(None, told)
        return all(each.error is None for each in told or ())

    def _confirmed(self, error: Any, offsets: list[Any]) -> None:
        if error is not None:
            self._not_confirmed(error, offsets)
            return
        for each in offsets:
            part = self._parts.get(each.partition)
            if each.error is not None:
                self._not_confirmed(each.error, [each])
            elif part is not None:
                part.committed = max(part.committed, each.offset)

    def _not_confirmed(self, error: Any, offsets: list[Any]) -> None:
        """Have these offsets told again, unless others have the partitions. Raises SourceError where they never will be."""
        for each in offsets:
            if (part := self._parts.get(each.partition)) is not None:
                part.sent = -1
        if passes(error):
            self._away(error)
        elif self._fixed is not None or not moved(error):
            raise explained(error, self._url, SourceError)

    # --- take ---

    def take(self, most: int, seconds: float) -> list[Any] | None:
        if self._consumer is None:
            self.open(None, MEMORY)
        if not self._begun:
            self._ask_for_partitions()
        ending, now = self._ending, monotonic()
        if ending.is_given_up(now):
            raise self._unreachable()
        if ending.is_over(now):
            return None
        if now >= self._commit_at:
            self._commit()
        most = min(ending.left(most), self._window - len(self._out))
        if most <= 0 or self._alone or self._held >= self._memory:
            # A full window tells nothing of what there is to come, while the run still works on it.
            if seconds and ending.is_idle(now):
                warn_full(str(self._url), len(self._out))
                return None
            self._serve(now)
            sleep(min(seconds, FULL))
            return []
        filling = self._filling
        if not filling.is_due(len(self._fetched), most, now):
            self._fetch(most - len(self._fetched), min(seconds, filling.left(now)) if self._fetched else seconds)
        now = monotonic()
        found: list[Any] = []
        if filling.is_due(len(self._fetched), most, now):
            filling.gave()
            found = self._next(most)
        if found:
            ending.gave(len(found), now)
        elif self._reason is not None and seconds:
            self._probe(now)
        elif not self._fetched and ending.is_idle(now) and self._standing and self._is_at_end():
            return None
        return found

    def _is_at_end(self) -> bool:
        """Whether all there is was read, and nothing comes because there is nothing."""
        return all(part.at_end for part in self._parts.values()) and self._answers()

    def _fetch(self, most: int, seconds: float) -> None:
        """What the library has read; served by that, it tells of partitions and errors too."""
        self._serve_at = monotonic() + SERVE
        some = self._consumer.consume(most, 0)
        if not some and seconds > 0:
            some = self._consumer.consume(1, seconds)
        self._arrived(some)

    def _arrived(self, some: list[Any]) -> None:
        from confluent_kafka import KafkaError

        for each in some:
            error = each.error()
            at_end = error is not None and error.code() == KafkaError._PARTITION_EOF
            if error is not None and not at_end:
                if not passes(error):
                    raise explained(error, self._url, SourceError)
                self._away(error)
            elif (part := self._parts.get(each.partition())) is not None:
                part.at_end = at_end
                self._reached()
                if not at_end:
                    self._fetched.append(each)

    def _serve(self, now: float) -> None:
        """Let the library tell of rebalances though nothing may be read."""
        if now < self._serve_at:
            return
        self._serve_at = now + SERVE
        ours = self._consumer.assignment()
        self._consumer.pause(ours)
        self._arrived(self._consumer.consume(1, 0))
        self._consumer.resume([each for each in ours if each.partition in self._parts])

    def _next(self, most: int) -> list[Any]:
        """Of what was read, the messages that are this consumer's; one that may have killed goes alone."""
        found: list[Any] = []
        while self._fetched and len(found) < most:
            each = self._fetched[0]
            part = self._parts.get(each.partition())
            if part is None or each.offset() < part.next:
                self._fetched.popleft()
                continue
            careful = part.is_careful(each.offset())
            if careful and (found or self._out):
                break
            self._fetched.popleft()
            message, behind = received(each), each.offset() + 1
            size = len(message.value) + len(message.key or b"") + 100
            part.next, part.under_way, self._held = behind, part.under_way + 1, self._held + size
            self._out.append((part, each.partition(), behind, size))
            self._times.append(message.timestamp)
            if careful and part.begun > self._deliveries:
                found.append(self._poison(message))
            else:
                found.append(message)
            if careful:
                self._alone = True
                break
        return found

    def _poison(self, message: KafkaMessage) -> Unread:
        what = shown(self._url, message.partition, message.offset)
        return Unread(
            message.value.decode(errors="replace"),
            SourceError(f"{what}: {self._deliveries} consumers were killed before it was committed"),
        )

    # --- the broker is away ---

    def _away(self, error: Any) -> None:
        self._reason = error
        self._ending.lost(monotonic())

    def _reached(self) -> None:
        self._reason = None
        if self._standing:
            self._ending.reached(monotonic())

    def _probe(self, now: float) -> None:
        """Now and then, see whether it is back."""
        if now >= self._probe_at:
            self._probe_at = now + PROBE
            if self._answers():
                self._reached()

    def _answers(self) -> bool:
        """Whether the broker answers: where it has stopped, nothing comes either."""
        from confluent_kafka import KafkaException

        try:
            error = self._consumer.list_topics(self._url.topic, timeout=PROBE).topics[self._url.topic].error
        except KafkaException as failed:
            error = failed.args[0]
        if error is None:
            return True
        if not passes(error):
            raise explained(error, self._url, SourceError)
        self._away(error)
        return False

    def _unreachable(self) -> Exception:
        if self._reason is None:
            return SourceError(
                f"{self._url} was not read: its broker has given this consumer no partitions in that time"
            )
        return explained(self._reason, self._url, SourceError)

    # --- safe ---

    def safe(self, records: int, skipped: Sequence[int]) -> None:
        if records <= self._safe:
            return
        careful = self._alone
        for _ in range(records - self._safe):
            part, _, behind, size = self._out.popleft()
            self._times.popleft()
            part.done(behind)
            part.under_way -= 1
            self._gone -= part.gone
            self._held -= size
        self._safe, self._alone = records, self._alone and bool(self._out)
        now = monotonic()
        self._ending.moved(now)
        if careful:
            self._commit({number for number, each in self._parts.items() if each is part})
        elif now >= self._commit_at:
            self._commit()

    def elsewhere(self, first: int, records: int) -> Collection[int]:
        if not self._gone:
            return ()
        at = first - self._safe
        gone = {}
        for index, (part, *_) in enumerate(islice(self._out, at, at + records), first):
            if part.gone:
                gone[index] = part
        for part in gone.values():
            part.left_out = True
        return gone

    def place(self, records: int) -> Any:
        found = self._place | {str(number): part.safe for number, part in self._parts.items()}
        for part, number, behind, _ in islice(self._out, records - self._safe):
            if self._parts.get(number) is part:
                found[str(number)] = behind
        return found

    def resume(self, place: Any) -> None:
        self._place = dict(place)

    def health(self) -> Health:
        """How many messages wait by what the broker told with the last ones, how long the oldest that is not safe waits since
        it was published, and why the broker cannot be reached."""
        if self._consumer is None:
            return Health()
        from confluent_kafka import TopicPartition

        backlog = 0
        for number, part in self._parts.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self._url.topic, number), cached=True)
            backlog += max(0, high - part.next)
        lag = max(0.0, time() - self._times[0]) if self._times and self._times[0] else 0.0
        away = self._ending.away_for(monotonic())
        return Health(backlog, lag, "" if away is None else f"{self._reason.name()} since {away:.0f} s")

    # --- the end ---

    def close(self) -> None:
        consumer = self._consumer
        if consumer is None:
            return
        try:
            until = monotonic() + FLUSH
            try:
                while self._begun and not self._commit(set(self._parts), ends=True) and monotonic() < until:
                    consumer.consume(1, COMMIT)  # serves it: the partitions may have gone to others
            except SourceError:  # nothing can be committed any more
                pass
            late = sum(part.committed < part.safe for part in self._parts.values())
            self._let_go(set(self._parts))
        finally:
            self._consumer = None
            consumer.close()
        if late:
            warnings.warn(
                f"the last commits for {late} partitions of {self._url} were not confirmed: messages whose results are safe "
                "will come again",
                RuntimeWarning,
                stacklevel=2,
            )


subscribe.__module__ = "taktline.kafka"
