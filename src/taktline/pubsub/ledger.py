"""What is owed to the server for each message."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from taktline.pubsub.message import Message

REMEMBERED = 100_000  # ids of delivered messages, some 15 MB: one that comes again is not worked on twice


class Ledger:
    """Every message from its arrival until it is to be acknowledged or given back. No clock, no thread, no network.

    >>> ledger = Ledger()
    >>> a, b = Message(b"a", id="1"), Message(b"b", id="2")
    >>> ledger.arrived("first", a), ledger.arrived("second", b), ledger.arrived("first again", a)
    (True, True, False)
    >>> ledger.take(2) == [a, b], ledger.held, ledger.oldest
    (True, 2, 0.0)
    >>> ledger.safe(1, [], nack=True)
    1
    >>> ledger.arrived("once more", a)  # it was delivered: acknowledged again, not worked on again
    False
    >>> ledger.give_back()
    >>> ledger.acks, ledger.nacks, ledger.held, ledger.oldest
    (['first again', 'once more'], ['second'], 0, None)
    """

    def __init__(self, remembered: int = REMEMBERED, deliveries: int | None = None) -> None:
        self.waiting: deque[Message] = deque()  # arrived and not taken
        self.acks: list[str] = []  # acknowledgement ids to be sent
        self.nacks: list[str] = []
        self.later: list[str] = []  # those of messages that failed, which come again
        self.taken = 0  # in all
        self._safe = 0  # of those that were taken
        self._under_way: deque[str] = deque()  # ids of messages taken and not safe, in order
        self._published: dict[
            str, float
        ] = {}  # id of each message waiting or under way, by its arrival: when it was published
        self._leases: dict[str, str] = {}  # id of each message waiting or under way: its newest acknowledgement id
        self._done: dict[str, None] = {}  # ids of messages that were safe, oldest first
        self._remembered = remembered
        self._deliveries = deliveries  # of a message that fails; None: without end
        self._failed: dict[str, int] = {}  # ids of messages that came again: how often they have failed, oldest first

    @property
    def held(self) -> int:
        """Messages waiting or under way."""
        return len(self._leases)

    @property
    def oldest(self) -> float | None:
        """When the message was published that has been here for longest; None where there is none."""
        return next(iter(self._published.values()), None)

    def leases(self) -> list[str]:
        """The acknowledgement ids to extend."""
        return list(self._leases.values())

    def arrived(self, ack_id: str, message: Message) -> bool:
        """Whether this delivery is the first one that counts, and so waits to be taken."""
        if message.id in self._leases:
            self._leases[message.id] = ack_id
            return False
        if message.id in self._done:
            self.acks.append(ack_id)
            return False
        self._leases[message.id] = ack_id
        self._published[message.id] = message.publish_time
        self.waiting.append(message)
        if self._deliveries is not None and (before := (message.delivery_attempt or 1) - 1) > 0:  # as the server counts
            self._failed[message.id] = max(before, self._failed.get(message.id, 0))
        return True

    def take(self, most: int) -> list[Message]:
        """The next messages, in the order of their arrival."""
        messages = [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]
        self._under_way.extend(message.id for message in messages)
        self.taken += len(messages)
        return messages

    def safe(self, records: int, skipped: Sequence[int], *, nack: bool) -> int:
        """All messages taken before the index `records` are through; give back those at `skipped` where `nack`.

        How many of them were not before."""
        back = {index for index in skipped if self.comes_again(index)} if nack else ()
        news = range(self._safe, records)
        for index in news:
            message = self._under_way.popleft()
            ack_id = self._leases.pop(message)
            del self._published[message]
            if index in back:
                self.later.append(ack_id)
                self._failed[message] = self._failed.get(message, 0) + 1
            else:
                self.acks.append(ack_id)
                self._done[message] = None
                self._failed.pop(message, None)
        self._safe = records
        for known in (self._done, self._failed):
            for old in list(islice(known, max(0, len(known) - self._remembered))):
                del known[old]
        return len(news)

    def comes_again(self, index: int) -> bool:
        """Whether the message taken at this index, which failed and is not safe yet, is given back once more."""
        if self._deliveries is None:
            return True
        return self._failed.get(self._under_way[index - self._safe], 0) + 1 < self._deliveries

    def lost(self, ack_ids: set[str]) -> None:
        """These leases have run out: the messages that still wait will come again, or go to somebody else."""
        gone = {message.id for message in self.waiting if self._leases[message.id] in ack_ids}
        self.waiting = deque(message for message in self.waiting if message.id not in gone)
        for message in gone:
            del self._leases[message], self._published[message]

    def give_back(self) -> None:
        """All that is not safe goes back."""
        self.nacks += self._leases.values()
        self._leases.clear()
        self._published.clear()
        self.waiting.clear()
        self._under_way.clear()
