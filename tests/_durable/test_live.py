"""A live source is told that results are safe only when they are, in rising order, and always told the end."""

from __future__ import annotations

import os

import pytest

from taktline import SinkError, line, write
from taktline.abc import Live, Resumable


class Messages(Live):
    """Some messages, with a note of what was told."""

    def __init__(self, count, seen=lambda: None):
        self._left = list(range(count))
        self.told = []
        self.skipped = []
        self.closed = 0
        self._seen = seen

    def take(self, most, seconds):
        taken, self._left = self._left[:most], self._left[most:]
        return taken or None

    def safe(self, records, skipped):
        self.told.append((records, self._seen()))
        self.skipped += skipped

    def close(self):
        self.closed += 1


class Table(Resumable):
    """Rows that are visible and safe with `save`."""

    visible = True

    def __init__(self):
        self.rows, self.saved, self.ended = [], [], ""

    def open(self):
        raise AssertionError("begin() is for this one")

    def begin(self, run):
        self.rows = []

    def write(self, results):
        self.rows += results

    def save(self, mark):
        self.saved = list(self.rows)
        return len(self.saved)

    def resume(self, run, position):
        self.rows = self.saved[:position]

    def commit(self):
        self.ended += "commit"

    def abort(self):
        self.ended += "abort"

    def suspend(self):
        self.ended += "suspend"

    def finished(self, run, position):
        return False


def odd_fails(n):
    if n % 2:
        raise ValueError(n)
    return n


HOWS = ["loop", "line", "auto"]


@pytest.mark.parametrize("how", HOWS)
def test_a_callable_has_taken_them(how):
    got = []
    source = Messages(100, lambda: len(got))
    line(abs).run(source, got.append, how=how, workers=2)
    assert source.told[-1] == (100, 100)
    assert all(records <= taken for records, taken in source.told)
    assert [records for records, _ in source.told] == sorted(records for records, _ in source.told)
    assert source.closed == 1


@pytest.mark.parametrize("how", HOWS)
def test_rows_of_a_table_are_saved_first(how):
    table = Table()
    source = Messages(100, lambda: len(table.saved))
    line(abs).run(source, table, how=how, workers=2)
    assert source.told[-1] == (100, 100)
    assert all(records <= saved for records, saved in source.told)
    assert table.ended == "commit"


def test_a_file_is_safe_when_it_is_whole(tmp_path):
    source = Messages(100, lambda: os.listdir(tmp_path))
    line(abs).run(source, write(tmp_path / "out.jsonl"), how="loop")
    assert source.told == [(100, ["out.jsonl"])]
    assert source.closed == 1


@pytest.mark.parametrize("ordered", [True, False])
def test_out_of_order_only_what_is_behind_all_others_is_safe(ordered):
    got = []
    source = Messages(200, lambda: sorted(got))
    line(abs).run(source, got.append, how="line", workers=2, batch_size=3, ordered=ordered)
    for records, taken in source.told:
        assert set(range(records)) <= set(taken)
    assert source.told[-1][0] == 200


def test_what_failed_without_a_dead_letter_is_told(tmp_path):
    source = Messages(10)
    line(odd_fails).run(source, how="loop", on_error="skip")
    assert source.skipped == [1, 3, 5, 7, 9]
    kept = Messages(10)
    line(odd_fails).run(kept, how="loop", dead_letters=tmp_path / "f.jsonl")
    assert kept.skipped == []
    assert kept.told[-1][0] == 10


def test_a_sink_that_fails_leaves_the_rest_untold():
    def sink(n):
        if n == 50:
            raise OSError("no")

    source = Messages(100)
    with pytest.raises(SinkError):
        line(abs).run(source, sink, how="loop")
    assert source.told[-1][0] == 50
    assert source.closed == 1
