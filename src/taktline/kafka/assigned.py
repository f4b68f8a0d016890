"""One partition while it is this consumer's: what is committed, and what a broker is told for the next one. No network."""

from __future__ import annotations

import json
from dataclasses import dataclass

from taktline.kafka.broker import TopicUrl

CAREFUL = (
    2  # consumers that were killed at one offset, after which messages go alone, so that only a bad one is counted
)
MARK = "taktline "


@dataclass(slots=True)
class Assigned:
    """How far one partition is.

    Kafka counts no deliveries. So each commit says in its metadata how many consumers have begun at this offset, the one
    that commits among them, and up to which offset messages go alone. One that is killed leaves its count to the next; one
    that ends takes itself off again.

    >>> part = Assigned.begun_at(500, MARK + '{"begun": 2}', window=1000)
    >>> part.begun, part.is_careful(700), part.is_careful(1500)
    (3, True, False)
    >>> part.done(501)
    >>> part.to_commit()
    (501, 'taktline {"begun": 1, "careful": 1500}')
    >>> part.to_commit(ends=True)
    (501, 'taktline {"begun": 0, "careful": 1500}')
    """

    next: int  # offset behind the newest message that was given
    safe: int  # offset behind the results that are safe
    begun: int = 1  # consumers that have begun at `safe`
    careful: int = 0  # an offset, before which messages go alone
    sent: int = -1  # offset of the newest commit that was sent,
    committed: int = -1  # and of the newest that was confirmed
    at_end: bool = False  # nothing is there behind the newest one that came
    under_way: int = 0  # messages
    gone: bool = False  # others have it, or nobody
    left_out: bool = False  # results of what was under way then

    @classmethod
    def begun_at(cls, offset: int, metadata: str | None, *, window: int) -> Assigned:
        """A partition that has come to this consumer, with what was committed for it."""
        told = {}
        if metadata and metadata.startswith(MARK):
            try:
                told = json.loads(metadata.removeprefix(MARK))
            except ValueError:  # of some other program, though it begins alike
                told = {}
        begun, careful = int(told.get("begun", 0)), int(told.get("careful", 0))
        if begun >= CAREFUL:
            careful = max(careful, offset + window)
        return cls(offset, offset, begun + 1, careful)

    def is_careful(self, offset: int) -> bool:
        """Whether this message is to go alone."""
        return offset < self.careful

    def done(self, offset: int) -> None:
        """The results of all before this offset are safe."""
        self.safe, self.begun = offset, 1

    def to_commit(self, *, ends: bool = False) -> tuple[int, str]:
        """Offset and metadata. `ends`: this consumer was not killed."""
        told = {"begun": self.begun - ends}
        if self.careful > self.safe:
            told["careful"] = self.careful
        return self.safe, MARK + json.dumps(told)


def shown(url: TopicUrl, partition: int, offset: int) -> str:
    """What a message is called."""
    return f"message {partition}/{offset} of {url}"
