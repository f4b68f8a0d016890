"""What a journal says, and how it is written down, wherever it lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import blake2b
from typing import Any

from taktline.errors import ResumeError

JOURNAL_PAGE = 1 << 14  # bytes of the header, and of the word's part: a multiple of every machine's page
JOURNAL_FORM = 2  # of the file; another number is another form
STEP_ORDER = "the order of the steps"  # a name among the prints
RUNNING, DELIVERED, DONE = "running", "delivered", "done"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far the results are delivered."""

    records: int = 0  # index of the first record whose results are not all delivered
    results: int = 0  # of the records before it
    delivered: int = 0  # in all: some may be of the records from there on
    failed: int = 0  # of the records before it
    retried: int = 0
    seen: int = 0  # an index up to there, and the fingerprint of the record before that one, to know the source by
    print: str = ""
    state: Any = None  # where the journal keeps the states of serial steps behind the records before it
    place: Any = None  # where a live source stands there, as it tells it

    def to_text(self) -> str:
        """For a sink that keeps marks itself."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_told(told: dict[str, Any]) -> Checkpoint:
        """From its fields, of a journal of an earlier version too."""
        return Checkpoint(**{each.name: told[each.name] for each in fields(Checkpoint) if each.name in told})

    @staticmethod
    def from_text(text: str) -> Checkpoint:
        """What `to_text` gave. Raises ResumeError where it is something else."""
        try:
            return Checkpoint.from_told(json.loads(text))
        except (ValueError, TypeError) as error:
            raise ResumeError(f"the mark that the sink keeps cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal says: the mark, the sink's position there, and the state of the run."""

    mark: Checkpoint = Checkpoint()
    position: Any = None  # None: nothing was written yet
    state: str = RUNNING  # then DELIVERED: only the sink's commit is left; then DONE


FIRST_ENTRY = Entry()


@dataclass(frozen=True, slots=True)
class About:
    """What the header says."""

    run: str
    prints: dict[str, Any]
    even: bool  # every record gives one result
    changes: list[list[Any]] = field(default_factory=list)
    instead: str = ""

    def line(self) -> bytes:
        header = as_line({"journal": JOURNAL_FORM, **asdict(self)})
        if len(header) > JOURNAL_PAGE:  # very many steps: say less
            header = as_line(
                {"journal": JOURNAL_FORM, **asdict(self), "prints": _short(self.prints), "changes": self.changes[-9:]}
            )
        return header

    @staticmethod
    def told(header: Mapping[str, Any]) -> About:
        return About(*(header[each.name] for each in fields(About)))

    def same_as(self, now: About) -> bool:
        plain = json.loads(json.dumps(now.prints))
        return self.prints in (plain, _short(now.prints))


def as_line(said: dict[str, Any]) -> bytes:
    text = json.dumps(said).encode()
    return digest_of(text) + b" " + text + b"\n"


def said_in(data: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is not whole."""
    digest, _, text = data.partition(b"\n")[0].partition(b" ")
    if not text or digest_of(text) != digest:
        return None
    said = json.loads(text)
    return said if isinstance(said, dict) else None


def digest_of(data: bytes) -> bytes:
    return blake2b(data, digest_size=12).hexdigest().encode()


def _short(prints: Mapping[str, Any]) -> dict[str, Any]:
    return {"the run": digest_of(json.dumps(dict(prints)).encode()).decode()}


def differing(told: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of what differs, for people."""
    plain = json.loads(json.dumps(dict(now)))
    names = [name for name in dict.fromkeys((*told, *plain)) if told.get(name) != plain.get(name)]
    if told.keys() != plain.keys() and len(names) > 1:  # that their order is another one too says nothing then
        names = [name for name in names if name != STEP_ORDER]
    return names
