"""Dead letters: a record comes back exactly as it was, order and reasons are kept, and no half letter is left."""

from __future__ import annotations

import errno
import json
import os
import signal
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taktline import DeadLetter, LineError, SinkError, SourceError, line, read_dead_letters, write
from taktline._durable import dead_letters

SUFFIXES = [".jsonl", ".sqlite"]


def fails(record):
    raise KeyError("no such thing", record)


def odd_fails(n):
    if n % 2:
        raise ValueError(f"odd: {n}")
    return n


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and other.x == self.x


class Sly(int):
    pass


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner), st.dictionaries(st.integers(), inner)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=25, deadline=None)
@given(records=st.lists(plain, max_size=4))
def test_records_come_back_exactly(tmp_path_factory, suffix, records):
    path = tmp_path_factory.mktemp("letters") / f"failed{suffix}"
    records = [*records, Point(3), Sly(4), (1, [2]), {1: 2}, {"a": (1,)}, float("nan"), "\ud800"]
    assert list(line(fails)(records, dead_letters=path, how="loop")) == []
    letters = read_dead_letters(path)
    assert [repr(letter.record) for letter in letters if not isinstance(letter.record, Point)] == [
        repr(record) for record in records if not isinstance(record, Point)
    ]
    assert [type(letter.record) for letter in letters] == [type(record) for record in records]
    assert [letter.index for letter in letters] == list(range(len(records)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_a_letter_says_what_happened(tmp_path, suffix, how):
    path = tmp_path / f"failed{suffix}"
    run = line(odd_fails)(range(10), dead_letters=path, how=how, workers=2)
    assert list(run) == [0, 2, 4, 6, 8]
    assert (run.report.failed, run.report.skipped, run.report.dead_lettered) == (5, 0, 5)
    assert f"5 dead-lettered ({path})" in " ".join(str(run.report).split())
    letters = read_dead_letters(path)
    assert all(isinstance(letter, DeadLetter) for letter in letters)
    assert [(each.index, each.step, each.error, each.message, each.record) for each in letters] == [
        (n, "odd_fails", "ValueError", f"odd: {n}", n) for n in (1, 3, 5, 7, 9)
    ]
    assert all('raise ValueError(f"odd: {n}")' in letter.traceback for letter in letters)
    assert len({letter.run for letter in letters}) == 1
    assert datetime.fromisoformat(letters[0].time).tzinfo is not None


def test_a_record_that_kills_is_a_letter_too(tmp_path):
    def deadly(n):
        if n == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    path = tmp_path / "failed.jsonl"
    assert list(line(deadly)(range(10), dead_letters=path, workers=2)) == [n for n in range(10) if n != 5]
    assert [(each.index, each.error) for each in read_dead_letters(path)] == [(5, "WorkerDied")]


def test_a_mark_stands_in_its_place_where_that_is_wanted(tmp_path):
    results = list(line(odd_fails)(range(3), dead_letters=tmp_path / "f.jsonl", on_error="keep", how="loop"))
    assert [getattr(each, "index", None) for each in results] == [None, 1, None]
    assert len(read_dead_letters(tmp_path / "f.jsonl")) == 1


def test_what_can_be_no_bytes_at_all_is_described(tmp_path):
    import threading

    list(line(fails)([threading.Lock()], dead_letters=tmp_path / "f.jsonl", how="loop"))
    (letter,) = read_dead_letters(tmp_path / "f.jsonl")
    assert "lock" in letter.record.text


def test_json_is_json_for_everybody(tmp_path):
    list(line(fails)([{"name": "Zoë"}, np.float64(2)], dead_letters=tmp_path / "f.jsonl", how="loop"))
    rows = [json.loads(text) for text in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert rows[0]["record"] == {"name": "Zoë"}
    assert [row["encoding"] for row in rows] == ["json", "pickle"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_letters_are_added_and_an_empty_file_is_taken_away(tmp_path, suffix):
    path = tmp_path / f"failed{suffix}"
    list(line(odd_fails)([2], dead_letters=path, how="loop"))
    assert os.listdir(tmp_path) == []
    for n in (1, 3):
        list(line(odd_fails)([n], dead_letters=path, how="loop"))
    list(line(odd_fails)([2], dead_letters=path, how="loop"))
    assert [letter.record for letter in read_dead_letters(path)] == [1, 3]


def test_half_a_line_of_a_killed_run_is_cut(tmp_path):
    path = tmp_path / "f.jsonl"
    list(line(odd_fails)([1], dead_letters=path, how="loop"))
    with open(path, "ab") as file:
        file.write(b'{"index": 7, "st')
    assert len(read_dead_letters(path)) == 1
    list(line(odd_fails)([3], dead_letters=path, how="loop"))
    assert [letter.record for letter in read_dead_letters(path)] == [1, 3]


def test_a_disk_that_gets_full_leaves_no_half_line(tmp_path, monkeypatch):
    path, real = tmp_path / "f.jsonl", os.pwrite
    writes = []

    def getting_full(file, data, at):
        writes.append(at)
        if len(writes) == 1:
            return real(file, data, at)
        if len(writes) == 2:
            return real(file, data[: len(data) // 2], at)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", getting_full)
    with pytest.raises(SinkError, match=r"f.jsonl' cannot be written: No space left on device"):
        line(odd_fails).run(range(9), write(tmp_path / "out.jsonl"), dead_letters=path, how="loop")
    assert [letter.record for letter in read_dead_letters(path)] == [1]
    assert path.read_bytes().endswith(b"\n")
    assert os.listdir(tmp_path) == ["f.jsonl"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_is_not_there_is_told_before_anything_runs(tmp_path, suffix):
    calls = []
    with pytest.raises(LineError, match=r"the dead letters .* cannot be written"):
        list(line(calls.append)([1], dead_letters=tmp_path / "no" / f"f{suffix}", how="loop"))
    assert calls == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_something_else_is_refused(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    path.write_text('{"id": 1}\n[]\n')
    with pytest.raises(SourceError, match="something else than dead letters"):
        read_dead_letters(path)
    assert path.read_text() == '{"id": 1}\n[]\n'


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_are_replaced_as_a_whole(tmp_path, suffix):
    path = str(tmp_path / f"f{suffix}")
    list(line(fails)(range(4), dead_letters=path, how="loop"))
    dead_letters.replace_rows(path, dead_letters.rows_of(path)[1:3])
    assert [letter.record for letter in read_dead_letters(path)] == [1, 2]
    dead_letters.replace_rows(path, [])
    assert os.listdir(tmp_path) == []
