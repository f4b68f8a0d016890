"""How far a run is delivered: the watermark, over lots that need no run and no process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taktline._recipe import plan as plans
from taktline._recipe.options import Options
from taktline._recipe.steps import as_step
from taktline._run.lot import Lost, Lot
from taktline._run.marks import Marks
from taktline._run.meter import Meter
from taktline._run.reader import Reader
from taktline._segment.values import Encoded
from taktline.abc import Live


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
    options = Options(how="loop", progress=False, **options)
    marks = Marks(steps, source, options, Reader(source), Meter("test", plans.here(steps), options, None))
    marks.open(None)
    return marks


def delivered(marks, lots):
    """The results, and what the source was told before each lot was asked for."""
    got = []
    for lot in marks.lots(iter(lots)):
        got.append(list(lot))
    return got


def newest(source):
    return source.told[-1][0]


@given(st.permutations(range(6)))
def test_a_record_is_safe_when_all_before_it_are_whatever_order_lots_come_in(order):
    source = Stream()
    marks = marks_over(source)
    there = set()
    for n, _ in zip(order, marks.lots(Lot([n], first=n, records=1) for n in order), strict=True):
        assert newest(source) == min(set(range(7)) - there)
        there.add(n)
    assert newest(source) == 6
    marks.close()


def test_records_of_which_more_comes_are_safe_with_the_last_of_it():
    source = Stream()
    marks = marks_over(source)
    some = Lot(["a", "b"], first=0, records=2)
    some.more_comes((1, 1))
    delivered(marks, [some])
    assert newest(source) == 0
    delivered(marks, [Lot(["c"], first=0, records=2)])
    assert newest(source) == 2
    marks.close()


def test_failed_records_are_told_as_skipped_once():
    source = Stream()
    marks = marks_over(source, on_error="skip")
    lost = Lost(index=1, step="abs", error=ValueError(), traceback="", record="x")
    delivered(marks, [Lot(["a"], 0, 2, (lost,)), Lot(["b"], 2, 1)])
    assert [skipped for _, skipped in source.told if skipped] == [[1]]
    assert newest(source) == 3
    marks.close()


def test_nothing_is_safe_of_a_lot_that_nobody_asked_beyond():
    source = Stream()
    marks = marks_over(source)
    lots = marks.lots(iter([Lot(["a"], 0, 1), Lot(["b"], 1, 1)]))
    next(lots)
    assert newest(source) == 0
    next(lots)
    assert newest(source) == 1
    lots.close()
    marks.close()


def test_results_that_an_earlier_process_has_delivered_are_left_out_whatever_lots_they_come_in():
    for sizes in ([1, 1, 1, 1], [4], [3, 1], [1, 3]):
        results, lots = iter(range(4)), []
        for size in sizes:
            lots.append(Lot([next(results) for _ in range(size)], 0, 0))
        marks = marks_over(Stream())
        marks._drop = 2
        assert [n for some in delivered(marks, lots) for n in some] == [2, 3]
        marks.close()


class Kept:
    def __init__(self):
        self.written = []

    def write(self, results):
        self.written.append(list(results))

    def write_encoded(self, data, count):
        self.written.append((data, count))


def test_a_lot_goes_into_a_sink_as_results_or_as_the_bytes_that_a_worker_made():
    sink = Kept()
    Lot([1, 2]).into(sink)
    Lot(Encoded(b"1 2", 2)).into(sink)
    assert sink.written == [[1, 2], (b"1 2", 2)]


def test_a_lot_is_cut_to_the_records_that_are_done():
    lot = Lot([1, 2, 3], first=0, records=3)
    lot.upto(2, 2)
    assert (list(lot), lot.records, lot.whole) == ([1, 2, 3], 2, 2)
    lot.cut()
    assert list(lot) == [1, 2]
