"""How far a run is delivered: the watermark, over output batches that need no run and no process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from table import Table

from taktline import line
from taktline._recipe import plan as plans
from taktline._recipe.options import Options
from taktline._recipe.steps import as_step
from taktline._run.checkpointer import Checkpointer
from taktline._run.meter import Meter
from taktline._run.output import FailedRecord, OutputBatch
from taktline._run.reader import Reader
from taktline._segment.values import Encoded
from taktline.abc import Live
from taktline.errors import SinkError


class Stream(Live):
    """A live source that remembers what it was told to be safe."""

    def __init__(self):
        self.told = []

    def take(self, most, seconds):
        return None

    def safe(self, records, skipped):
        self.told.append((records, [*skipped]))


def marks_over(source, **options):
    steps = (as_step(abs),)
    checked = Options(how="loop", progress=False, **options)
    checkpointer = Checkpointer(steps, source, checked, Reader(source), Meter("test", plans.here(steps), checked, None))
    checkpointer.open(None)
    return checkpointer


def delivered(checkpointer, outputs):
    """The results, and what the source was told before each output batch was asked for."""
    got = []
    for output in checkpointer.outputs(iter(outputs)):
        got.append(list(output))
    return got


def newest(source):
    return source.told[-1][0]


@given(st.permutations(range(6)))
def test_a_record_is_safe_when_all_before_it_are_whatever_order_lots_come_in(order):
    source = Stream()
    checkpointer = marks_over(source)
    there = set()
    for n, _ in zip(order, checkpointer.outputs(OutputBatch([n], first=n, records=1) for n in order), strict=True):
        assert newest(source) == min(set(range(7)) - there)
        there.add(n)
    assert newest(source) == 6
    checkpointer.close()


def test_records_of_which_more_comes_are_safe_with_the_last_of_it():
    source = Stream()
    checkpointer = marks_over(source)
    some = OutputBatch(["a", "b"], first=0, records=2)
    some.more_comes((1, 1))
    delivered(checkpointer, [some])
    assert newest(source) == 0
    delivered(checkpointer, [OutputBatch(["c"], first=0, records=2)])
    assert newest(source) == 2
    checkpointer.close()


def test_failed_records_are_told_as_skipped_once():
    source = Stream()
    checkpointer = marks_over(source, on_error="skip")
    lost = FailedRecord(index=1, step="abs", error=ValueError(), traceback="", record="x")
    delivered(checkpointer, [OutputBatch(["a"], 0, 2, (lost,)), OutputBatch(["b"], 2, 1)])
    assert [skipped for _, skipped in source.told if skipped] == [[1]]
    assert newest(source) == 3
    checkpointer.close()


def test_failures_in_the_first_parts_of_a_batch_count_in_the_journal(tmp_path):
    path = tmp_path / "run.journal"
    checkpointer = marks_over(range(4), on_error="skip", journal=path)
    first, second = (FailedRecord(n, "abs", ValueError(), "", n) for n in (0, 2))
    begun = OutputBatch(["a"], 0, 3, (first,))
    begun.more_comes((1, 1))
    delivered(checkpointer, [begun, OutputBatch(["b"], 0, 3, (second,)), OutputBatch(["c"], 3, 1)])
    checkpointer.mark()
    checkpointer.close()
    again = marks_over(range(4), on_error="skip", journal=path)
    assert (again._meter.failed, again._meter.skipped, again._meter.records_in) == (2, 2, 4)
    again.close()


def test_nothing_is_safe_of_a_lot_that_nobody_asked_beyond():
    source = Stream()
    checkpointer = marks_over(source)
    outputs = checkpointer.outputs(iter([OutputBatch(["a"], 0, 1), OutputBatch(["b"], 1, 1)]))
    next(outputs)
    assert newest(source) == 0
    next(outputs)
    assert newest(source) == 1
    outputs.close()
    checkpointer.close()


def test_results_that_an_earlier_process_has_delivered_are_left_out_whatever_lots_they_come_in():
    for sizes in ([1, 1, 1, 1], [4], [3, 1], [1, 3]):
        results, outputs = iter(range(4)), []
        for size in sizes:
            outputs.append(OutputBatch([next(results) for _ in range(size)], 0, 0))
        checkpointer = marks_over(Stream())
        checkpointer._drop = 2
        assert [n for some in delivered(checkpointer, outputs) for n in some] == [2, 3]
        checkpointer.close()


class Kept:
    encoded_in_place = False

    def __init__(self):
        self.written = []

    def write(self, results):
        self.written.append(list(results))

    def write_encoded(self, data, count):
        self.written.append((data, count))


def test_a_lot_goes_into_a_sink_as_results_or_as_the_bytes_that_a_worker_made():
    sink = Kept()
    OutputBatch([1, 2]).into(sink)
    OutputBatch(Encoded(b"1 2", 2)).into(sink)
    assert sink.written == [[1, 2], (b"1 2", 2)]


def test_a_lot_is_cut_to_the_records_that_are_done():
    output = OutputBatch([1, 2, 3], first=0, records=3)
    output.upto(2, 2)
    assert (list(output), output.records, output.whole) == ([1, 2, 3], 2, 2)
    output.cut()
    assert list(output) == [1, 2]


class Full(Table):
    """One that can make nothing safe."""

    def save(self, mark):
        raise SinkError("the disk is full", path="")


def test_a_sink_that_has_begun_is_let_go_of_where_no_first_mark_can_be_made(tmp_path):
    sink = Full()
    with pytest.raises(SinkError, match="the disk is full"):
        line(abs).run(range(3), sink, journal=tmp_path / "journal", how="loop")
    assert sink.ended == "suspend"


def test_a_sink_is_let_go_of_where_its_records_are_not_there_any_more(tmp_path):
    def records(count):
        yield from range(count)
        raise KeyboardInterrupt

    sink, journal = Table(), tmp_path / "journal"
    with pytest.raises(KeyboardInterrupt):
        line(abs).run(records(9), sink, journal=journal, how="loop")
    assert (sink.saved, sink.ended) == ([*range(9)], "suspend")
    with pytest.raises(KeyboardInterrupt):
        line(abs).run(records(3), sink, journal=journal, how="loop")
    assert sink.ended == "suspendsuspend"
