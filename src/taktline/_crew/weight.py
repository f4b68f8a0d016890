"""What steps carry to each launched worker: their closures and defaults, and the globals of a script that they name."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from taktline._recipe.steps import Step
from taktline._wire import serialize

AMONG = " MB to each launched worker"
NOTED_BYTES = 1 << 20  # bytes: below that a worker's own imports cost more
THERE = 1.5  # times as long as to pack them here, all of it takes: to send it, and to make it anew in a worker


class Weight(NamedTuple):
    """`sizes`: bytes that each step adds, about, as what two of them share counts for the first. `seconds`: to pack all.
    Not `whole`: so much was packed when the time was up."""

    sizes: tuple[tuple[str, int], ...]
    seconds: float
    whole: bool = True

    @property
    def size(self) -> int:
        """All bytes."""
        return sum(size for _, size in self.sizes)

    def start_up(self, workers: int, cores: int) -> float:
        """Seconds that it adds until workers take records: packed here, and read by so many workers on these cores."""
        if not self.whole:
            return float("inf")
        return self.seconds * (1 + THERE * max(1.0, workers / max(1, cores)))

    def __str__(self) -> str:
        name, size = max(reversed(self.sizes), key=lambda each: each[1])
        more, over = ("", "") if self.whole else ("more than ", "over ")
        return (
            f"step {name!r} carries {more}{size / 1e6:,.1f}{AMONG} ({over}{self.seconds:.2g} s to pack): "
            'keep that in a module that workers import, build it there with per_worker(), or share it with start="fork"'
        )


class _OverTime(Exception):
    pass


class _Counting(io.RawIOBase):
    """A file that keeps nothing of what is written."""

    def __init__(self, end: float) -> None:
        self.size = 0
        self.end = end

    def write(self, data: Any) -> int:
        self.size += len(data)
        if perf_counter() > self.end:
            raise _OverTime
        return len(data)

    def tell(self) -> int:
        return self.size


def weigh(steps: Sequence[Step], seconds: float) -> Weight | None:
    """What these steps carry, as far as that can be told in so many seconds; None where it cannot be carried at all."""
    try:
        serialize.pack_functions(None)  # loads cloudpickle, which is not what is to be timed
        return pack(steps, tuple(steps), _Counting(perf_counter() + seconds))
    except Exception:  # whatever a reducer of the user's raises: who carries them over tells
        return None


def pack(steps: Sequence[Step], thing: Any, file: Any) -> Weight:
    """Pack a thing with these steps in it into a file. Raises what cloudpickle raises."""
    began, whole = perf_counter(), True
    places: list[tuple[str, int]] = []
    names = {id(step): step.name for step in steps}
    end = getattr(file, "end", None)

    def seen(part: Any) -> None:
        if id(part) in names:
            places.append((names[id(part)], file.tell()))
        if end is not None and perf_counter() > end:
            raise _OverTime

    try:
        serialize.pack_functions_into(file, thing, seen)
    except _OverTime:
        whole = False
    ends = [place for _, place in places[1:]] + [file.tell()]
    sizes = tuple((name, end - place) for (name, place), end in zip(places, ends, strict=True))
    return Weight(sizes or (("", file.tell()),), perf_counter() - began, whole)


def among(reasons: Iterable[str]) -> str:
    """What a run's reasons say of it; empty where that is nothing."""
    return next((reason for reason in reasons if AMONG in reason), "")
