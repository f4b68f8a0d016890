"""In which lines of a file records begin, for who is told that one of them has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

from taktline._io.pushback import Taken


def numbers(data: Any, count: int, first: int, path: str, records: Callable[..., Iterator[Any]]) -> Sequence[int]:
    """The number of the line in which each record begins, of so many records in whole lines of which the first one has this
    number. `records` makes them of the lines."""
    ends = bytes(data).count(b"\n")
    if count in (ends, ends + 1) and (count == ends) == (bytes(data[-1:]) == b"\n"):
        return range(first, first + count)
    lines = list(BytesIO(data))
    taken, found, at = Taken(lines), [], 0
    for _ in records(taken, path, first, unread=[]):
        while at < taken.count and not lines[at].strip():
            at += 1
        found.append(first + at)
        at = taken.count
    return found


def line_in(path: str, numbers: Sequence[int], n: int) -> str:
    """The place of the record `n` of those that begin in these lines of a file."""
    return f"{path}:{numbers[n]}" if n < len(numbers) else ""
