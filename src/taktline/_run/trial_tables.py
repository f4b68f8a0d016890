"""What a line costs whose first step takes tables: tried on the first rows of the first table, at two sizes.

A call of a step over columns costs some part of a millisecond whatever it is given. From a few thousand rows, which have
been through workers before, and from some of them, it is told what each row of a whole table costs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from time import perf_counter_ns, process_time_ns
from typing import Any, NamedTuple

from taktline._observe import memory
from taktline._planner.costs import Costs, Move, StepCost, Ways
from taktline._planner.sample import COPY_NS
from taktline._recipe.steps import Step
from taktline._run.reader import Reader
from taktline._segment.batch import Batch
from taktline._segment.segment import Segment
from taktline._segment.tables import ArrowRows, rows_of
from taktline._signals import pass_on
from taktline.abc import Part, Sink

TIMES = 5  # each size is tried, the first of which counts for nothing: it may have imported
FEWER = 8  # times as many rows has the larger size


def try_tables(steps: tuple[Step, ...], source: Any, sink: Any, most: int) -> Costs | None:
    """What rows cost in tables, seen on `most` at most; None where the first table cannot be read, or a row fails."""
    reader = Reader(source, split=True, tables=True)
    with closing(reader):
        began = perf_counter_ns()
        part = reader.read_part(most, whole=True)
        rows = rows_of(part) if isinstance(part, Part) and len(part) else None
        read_ns = float(perf_counter_ns() - began)
    if rows is None:
        return None
    whole, many = len(rows), min(most, len(rows))
    segment = Segment(steps, goes_on=False)
    segment.keeps_interrupt = True
    segment.make()
    with closing(segment):
        sized = [_ran(segment, rows[: max(1, size)]) for size in (many // FEWER, many)]
    fewer, more = sized
    if fewer is None or more is None:
        return None
    both = zip(fewer.steps, more.steps, strict=True)
    each = [_a_row((fewer.rows, few), (more.rows, many_ns), whole) for few, many_ns in both]
    size = more.results.size / many if type(more.results) is ArrowRows else 100.0
    encode = None
    if isinstance(sink, Sink) and sink.table_encoder is not None and type(more.results) is ArrowRows:
        encode = _encoding(sink.table_encoder, more.results, whole)
    copying = size * COPY_NS
    moves = (Move(), *(Move(copying, copying, size) for _ in steps[1:]), Move(2 * copying, copying, size))
    computing = min(1.0, more.computing)
    return Costs(
        (whole,), read_ns / whole,
        tuple(
            StepCost(step.name, (ns * whole,), computing) for step, ns in zip(steps, each, strict=True)
        ),
        moves, read_ns / whole + sum(each), Ways(hub_record_ns=0.0), float(memory.held_here()),
        Move(2_000 / whole, 0.0, 200 / whole), encode, whole,
    )  # fmt: skip


class _Ran(NamedTuple):
    rows: int
    steps: list[float]  # nanoseconds of each, the least of several times
    results: Any
    computing: float  # share of the time on the processor


def _ran(segment: Segment, rows: ArrowRows) -> _Ran | None:
    least: list[float] | None = None
    spent = computed = 0
    results: Any = None
    for _ in range(TIMES):
        segment.count_anew()
        began, cpu = perf_counter_ns(), process_time_ns()
        came = segment.run(Batch(rows), formed=True)
        spent, computed = spent + perf_counter_ns() - began, computed + process_time_ns() - cpu
        if came.failures:
            return None
        results = came.values
        taken = [float(ns) for ns in segment.timed_ns]
        least = taken if least is None else [min(pair) for pair in zip(least, taken, strict=True)]
    assert least is not None
    return _Ran(len(rows), least, results, computed / max(1, spent))


def _a_row(fewer: tuple[int, float], more: tuple[int, float], whole: int) -> float:
    """Nanoseconds a row of a whole table, by what so many rows have taken and so many more.

    >>> _a_row((100, 1_000.0), (900, 5_000.0), 10_000)
    5.05
    """
    (few, least), (many, most) = fewer, more
    slope = max(0.0, (most - least) / (many - few)) if many > few else most / max(1, many)
    return slope + max(0.0, least - slope * few) / whole


def _encoding(encoder: Callable[[Any], bytes | memoryview], results: ArrowRows, whole: int) -> Move | None:
    """What making the sink's bytes of a row costs, in a table of so many; None where they cannot be made."""
    import pyarrow as pa

    table = pa.concat_tables([results.table] * -(-whole // len(results))).slice(0, whole).combine_chunks()
    began = perf_counter_ns()
    try:
        size = len(encoder(table))
    except Exception as error:  # the sink's reasons: the run meets them
        pass_on(error)
        return None
    return Move((perf_counter_ns() - began) / whole, 0.0, size / whole)
