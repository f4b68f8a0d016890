"""A scenario: what is run, what goes wrong, and which verdict each outcome has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from faults.job import Job
from faults.steps import BASE


class Verdict(Enum):
    """The whole set. Worst first: a run that is guilty of several gets the first."""

    HANG = "hang"  # no end within the limit, where the work is a second or two
    LOSS = "silent loss"  # results missing, doubled or wrong, without an error
    ORDER = "wrong order"  # all results, not in input order
    UNBOUNDED = "unbounded"  # reads or holds without limit
    LEFT = "left behind"  # processes, shared memory or files are still there after the end
    UNCLEAR = "unclear error"  # does not say what happened to which record, or comes before results that were due
    PASS = "pass"
    NOT_OFFERED = "not offered"  # the library has nothing for this; no pass
    NOTHING_TO_ASK = "n/a"  # the question does not arise, as that of a killed worker where there is none
    NOT_HERE = "not run here"  # this machine cannot do the fault, such as a file system of its own for the run


@dataclass
class Told:
    """What the caller's process says at its end; written as JSON. What a scenario's consumer fills in."""

    results: int = 0
    due: int = 0  # results that the loop gives without the fault
    same_until: int = 0  # how many of the first results are the loop's
    same_sorted: bool = False  # the same results in another order
    read: list[int] = field(default_factory=list)  # how far the source had been read, at each look
    error: str | None = None  # as a user sees it: the whole traceback, notes and causes
    error_types: list[str] = field(default_factory=list)  # of the error, its bases, and its causes
    wrong: str | None = None  # something else that the scenario found: a verdict, a colon, and why


@dataclass
class Seen:
    """What the guard saw of a run from outside, with what the caller told."""

    ended: bool
    exit_code: int | None
    seconds: float
    told: list[Told]  # of each run that came to its end, as one caller may run the job several times
    left: list[str]
    output: str
    errors: str
    beyond: str  # how it went beyond all bounds and was ended for it; empty where it did not
    folder: Path


class Expect(Protocol):
    """What an outcome means."""

    def judge(self, seen: Seen) -> tuple[Verdict, str]: ...


class Source(Protocol):
    """The source of a run, which says how far it was read."""

    @property
    def read(self) -> int: ...


Consume = Callable[[Iterator[Any], Told, list[Any], Source], None]
Drive = Callable[
    [Callable[[], None]], str | None
]  # given the run; says what is wrong after it: a verdict, a colon, why


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One row of the table."""

    name: str
    fault: str  # what goes wrong, and what is right then, in words
    job: Job
    expect: Expect
    needs: frozenset[str] = frozenset()
    prepare: Callable[[], None] | None = None  # done in the caller before the run
    consume: Consume | None = None  # takes the results; None: all, one after the other
    drive: Drive | None = None  # where it is run from: a thread, a fork, ...
    look: Callable[[Any], Any] | None = None  # makes results comparable
    due: Callable[[], Iterable[Any]] | None = None  # the records of the loop's results, where the source is broken
    without: tuple[int, ...] = ()  # records that are to be left out
    compared: bool = True  # whether the results are compared with the loop's
    attempts: int = 1  # how often the same command is started; the last is judged
    first_code: int | None = None  # the exit code of the first attempt
    between: Callable[[Path], None] | None = None  # what happens to the run's folder between two attempts
    disk: int | None = None  # bytes of a small file system at "disk" in the run's folder
    shared_memory: int | None = None  # bytes of /dev/shm
    most_memory: int | None = None  # bytes that all its processes together may take
    limit: float = 30.0  # seconds; the work itself is a second or two
    fast: bool = True  # part of the slice that runs as a test
    group: str = ""


def names(text: str, index: int) -> bool:
    """Whether a text has the record's index or its value in it; line numbers of tracebacks do not count."""
    number = f"{index:,}".replace(",", ",?")
    return bool(re.search(rf"(?<!line )(?<!\d)(?:{number}|{BASE + index})(?!\d)", text))


def judged(seen: Seen, judge: Callable[[Told], tuple[Verdict, str]]) -> tuple[Verdict, str]:
    """The worst verdict of the runs that the caller told of."""
    if not seen.ended:
        return Verdict.HANG, "no end"
    if not seen.told:
        last = (seen.errors.strip().splitlines() or ["nothing"])[-1][:100]
        return Verdict.UNCLEAR, f"the caller ended with {seen.exit_code}: {last}"
    found = []
    for told in seen.told:
        if told.wrong is not None:
            kind, _, text = told.wrong.partition(": ")
            found.append((Verdict(kind), text))
        else:
            found.append(judge(told))
    return min(found, key=lambda each: list(Verdict).index(each[0]))


def last_line(error: str) -> str:
    """The end of a traceback, short enough for a table's footnote."""
    lines = [line for line in error.strip().splitlines() if line and not line.startswith(" ")]
    return lines[-1][:100] if lines else ""


def complete(told: Told) -> tuple[Verdict, str]:
    """All of the loop's results, in order, and no error."""
    if told.error is not None:
        return Verdict.UNCLEAR, f"fails: {last_line(told.error)}"
    if told.same_until == told.results == told.due:
        return Verdict.PASS, ""
    if told.same_sorted:
        return Verdict.ORDER, f"from result {told.same_until}"
    return Verdict.LOSS, f"{told.results} of {told.due} results, right until {told.same_until}, and no error"


@dataclass(frozen=True)
class Complete:
    """All of the loop's results, in order, and no error."""

    def judge(self, seen: Seen) -> tuple[Verdict, str]:
        return judged(seen, complete)


@dataclass(frozen=True)
class FailsAt:
    """All results before the record, or at least `after` of them, then an error of one of the kinds, which names the
    record where `named`."""

    index: int
    kinds: tuple[str, ...] = ()
    named: bool = True
    after: int | None = None
    travels: bool = False  # without an error all results are right too: where nothing had to travel

    def judge(self, seen: Seen) -> tuple[Verdict, str]:
        return judged(seen, lambda told: failed(told, self))


def failed(told: Told, due: FailsAt) -> tuple[Verdict, str]:
    if told.error is None and due.travels and told.results == told.due:
        return Verdict.PASS, ""
    if told.error is None:
        return Verdict.LOSS, f"{told.results} of {told.due} results and no error"
    short, index = last_line(told.error), due.index
    if due.kinds and not any(kind in told.error_types or kind in told.error for kind in due.kinds):
        return Verdict.UNCLEAR, f"says nothing of {due.kinds[0]}: {short}"
    if told.same_until < (index if due.after is None else due.after):
        return Verdict.UNCLEAR, f"{told.same_until} of the {index} results before it came: {short}"
    if due.named and not names(told.error, index):
        return Verdict.UNCLEAR, f"does not say which record: {short}"
    return Verdict.PASS, ""


@dataclass(frozen=True)
class CompleteOr:
    """All results; or one error that has all of these words in it."""

    words: tuple[str, ...]

    def judge(self, seen: Seen) -> tuple[Verdict, str]:
        return judged(seen, self._one)

    def _one(self, told: Told) -> tuple[Verdict, str]:
        if told.error is None:
            return complete(told)
        missing = [word for word in self.words if word.lower() not in told.error.lower()]
        if missing:
            return Verdict.UNCLEAR, f"says nothing of {missing[0]!r}: {last_line(told.error)}"
        return Verdict.PASS, ""


@dataclass(frozen=True)
class Ends:
    """It ends, and nothing is left; results are not asked for. With codes: in one of these ways."""

    codes: tuple[int, ...] = ()

    def judge(self, seen: Seen) -> tuple[Verdict, str]:
        if not seen.ended:
            return Verdict.HANG, "no end"
        if self.codes and seen.exit_code not in self.codes:
            return Verdict.UNCLEAR, f"the caller ended with {seen.exit_code}"
        return judged(seen, lambda told: (Verdict.PASS, "")) if seen.told else (Verdict.PASS, "")


@dataclass(frozen=True)
class Bounded:
    """No error, and the source read no further than `most` at any look."""

    most: int

    def judge(self, seen: Seen) -> tuple[Verdict, str]:
        return judged(seen, self._one)

    def _one(self, told: Told) -> tuple[Verdict, str]:
        if told.error is not None:
            return Verdict.UNCLEAR, f"fails: {last_line(told.error)}"
        if any(read > self.most for read in told.read):
            return Verdict.UNBOUNDED, f"{max(told.read):,} records read"
        return Verdict.PASS, ""


@dataclass(frozen=True)
class CompleteOrRefused:
    """All results; or an error before the first one, where the library says that it cannot do that."""

    def judge(self, seen: Seen) -> tuple[Verdict, str]:
        return judged(seen, self._one)

    def _one(self, told: Told) -> tuple[Verdict, str]:
        if told.error is not None and not told.results:
            return Verdict.NOT_OFFERED, last_line(told.error)
        return complete(told)


@dataclass(frozen=True)
class Output:
    """All results, and these lines in the caller's standard output, in any order, and nothing else there."""

    lines: tuple[str, ...]

    def judge(self, seen: Seen) -> tuple[Verdict, str]:
        verdict = judged(seen, complete)
        if verdict[0] is not Verdict.PASS or sorted(seen.output.splitlines()) == sorted(self.lines):
            return verdict
        return Verdict.LOSS, "lines of standard output are torn, lost, or not from the steps"


@dataclass(frozen=True)
class Wrote:
    """Looks at what the run wrote: `check` gives a verdict and why, or None where all is well."""

    check: Callable[[Seen], tuple[Verdict, str] | None]

    def judge(self, seen: Seen) -> tuple[Verdict, str]:
        if not seen.ended:
            return Verdict.HANG, "no end"
        if (found := self.check(seen)) is not None:
            return found
        by_command = not seen.told and seen.exit_code == 0
        return (Verdict.PASS, "") if by_command else judged(seen, lambda told: (Verdict.PASS, ""))
