"""The first rows of a source that has columns, as tables in memory: for what looks at a line before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from taktline._recipe.plan import takes_tables
from taktline._recipe.steps import Role, Step
from taktline._run.in_memory import Tables
from taktline._run.output import OutputBatch
from taktline._run.reader import Reader
from taktline._segment.tables import ArrowRows, each_record, put_together, rows_of
from taktline._segment.values import records_of
from taktline.abc import Part, Source

STRETCH = 1 << 16  # results that are compared at once


class FirstRows(NamedTuple):
    """Rows as a source of their own, in the tables that a run gets. `behind`: whether the source has more."""

    rows: Tables
    behind: bool


def first_rows(
    steps: Sequence[Step], source: Iterable[Any], limit: int, *, size: int | None = None, first: int = 0,
    exact: bool = False,
) -> FirstRows | None:  # fmt: skip
    """The first tables of a source, from the row `first` on, until they have `limit` rows, or `size` bytes. `exact`, and of
    what is in memory: just so many rows. None where steps get no tables of it, or the first ones cannot be read as such:
    record by record it is told why."""
    if not (isinstance(source, Source) and source.columns and takes_tables(steps)):
        return None
    if any(step.role is Role.EXPAND for step in steps):  # which may give endlessly many results of a row
        return None
    reader = Reader(source, split=True, tables=True, exact=exact)
    limit += first
    found: list[ArrowRows] = []
    with closing(reader):
        while reader.tables and reader.index < limit and not reader.ended:
            part = reader.read_part(limit - reader.index, whole=not (exact or reader.in_memory))
            if not len(part):
                break
            if not isinstance(part, Part) or (rows := rows_of(part)) is None:
                return None
            if reader.index <= first:
                continue
            found.append(rows[max(0, first + len(rows) - reader.index) :])
            if size is not None and sum(rows.size for rows in found) >= size:
                break
        if not found or reader.error is not None:
            return None
        behind = reader.remaining != 0 if reader.remaining is not None else bool(len(reader.read_part(1)))
        together = not reader.in_memory
    if exact:  # in one piece
        if (one := put_together(found)) is None:
            return None
        found = [one]
    tables = [rows.table for rows in found]
    whole = frozenset.intersection(*(rows.whole for rows in found))
    made = Tables("first rows", lambda: tables, sum(map(len, tables)), whole, together=together)
    return FirstRows(made, behind)


def without_rows(rows: Tables, places: Sequence[int]) -> Tables:
    """The rows but those at these rising places, in the same tables."""
    tables: list[Any] = []
    first, left = 0, list(places)
    splitter = rows.split()
    assert splitter is not None
    while (part := splitter.table()) is not None:
        some, end = ArrowRows(part.table()), first + len(part)
        mine = [at - first for at in left if at < end]
        left = left[len(mine) :]
        for at in reversed(mine):
            some = some.without(at, at + 1)
        if len(some):
            tables.append(some.table)
        first = end
    return Tables("first rows", lambda: tables, sum(map(len, tables)), rows.whole, together=True)


def all_here(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Steps as they run in the caller's process alone, where a run gives them batches as it gives them to a worker."""
    return tuple(replace(step, in_caller=True, workers=None) for step in steps)


def came_of(outputs: Iterable[OutputBatch]) -> Iterator[list[Any] | ArrowRows]:
    """The results of output batches, as rows of tables where they are such."""
    for output in outputs:
        if len(output):
            yield output.results if type(output.results) is ArrowRows else records_of(output.results)


def first_unlike(
    one: Iterable[Any], other: Iterable[Any], same: Callable[[Any, Any], bool | None]
) -> tuple[int, Any, Any] | None:
    """The first result that is not the same in two runs, as far as both go: its place, and what it is in each. Both are
    given as what came together, lists or rows of tables."""
    for at, some, others in _side_by_side(one, other):
        if isinstance(some, ArrowRows) and isinstance(others, ArrowRows) and some.table.equals(others.table):
            continue
        for n, (a, b) in enumerate(zip(_records(some), _records(others), strict=True)):
            if not (a is b or same(a, b)):
                return at + n, a, b
    return None


def _records(some: list[Any] | ArrowRows) -> list[Any]:
    return each_record(some)[0] if isinstance(some, ArrowRows) else some


def _side_by_side(one: Iterable[Any], other: Iterable[Any]) -> Iterator[tuple[int, Any, Any]]:
    """Stretches of as many results of each, with the place of the first."""
    ones, others = iter(one), iter(other)
    a: Any = []
    b: Any = []
    at = 0
    while True:
        while not len(a):
            if (a := next(ones, None)) is None:
                return
        while not len(b):
            if (b := next(others, None)) is None:
                return
        count = min(len(a), len(b), STRETCH)
        yield at, a[:count], b[:count]
        a, b, at = a[count:], b[count:], at + count
