"""Files that are added to a folder while a run goes on: each is there once it is whole, and its messages are
safe then."""

from __future__ import annotations

import os
from uuid import uuid4

import pytest

from taktline import LineError, line, read, write
from taktline.abc import Live


class Messages(Live):
    """Numbers that go back where nothing was told of them, at most a window at once; with a note of what was told."""

    ends = False

    def __init__(self, count, seen=lambda: None, waits=False):
        self.left = list(range(count))
        self._seen, self._waits = seen, waits
        self._ahead = []
        self.told, self.window = [], None

    def open(self, window, memory):
        self.window, self._safe = window, 0

    def take(self, most, seconds):
        if not self.left and self._waits and self._ahead:
            return []  # nothing more comes before all that came is safe
        taken, self.left = self.left[:most], self.left[most:]
        self._ahead += taken
        return taken or None

    def safe(self, records, skipped):
        self._ahead = self._ahead[records - self._safe :]
        self._safe = records
        self.told.append((records, self._seen()))

    def close(self):
        self.left, self._ahead = self._ahead + self.left, []


def row(n):
    return {"n": n}


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    if request.param == "local":
        return f"{tmp_path}/out/"
    return f"{request.getfixturevalue('s3')}/{uuid4().hex}/out/"


def rows(folder):
    try:
        return [record["n"] for record in read(folder, "jsonl")]
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("how", ["loop", "line"])
def test_what_is_told_to_be_safe_is_there(folder, how):
    source = Messages(95, lambda: rows(folder))
    line(row).run(source, write(folder, "jsonl", rows=10, roll=3600), how=how, workers=2, batch_size=5)
    assert rows(folder) == [*range(95)]
    assert len(source.told) > 5
    for records, there in source.told:
        assert there == [*range(len(there))]
        assert records <= len(there)
    assert source.window == 20


def test_a_file_is_there_after_its_time_though_nothing_more_comes(folder):
    source = Messages(3, lambda: rows(folder), waits=True)
    line(row).run(source, write(folder, "jsonl", roll=0.1), how="loop")
    assert (3, [0, 1, 2]) in source.told


def test_a_run_that_fails_leaves_whole_files_and_the_rest_comes_again(folder):
    def fails(n):
        if n == 57:
            raise ZeroDivisionError
        return {"n": n}

    source = Messages(95)
    with pytest.raises(ZeroDivisionError):
        line(fails).run(source, write(folder, "jsonl", rows=10, roll=3600), how="loop")
    there = rows(folder)
    assert there == [*range(len(there))]
    assert source.left == [*range(len(there), 95)]
    line(row).run(source, write(folder, "jsonl", rows=10, roll=3600), how="loop")
    assert rows(folder) == [*range(95)]


def test_with_a_journal_what_came_behind_its_mark_is_not_there_twice(folder, tmp_path, monkeypatch):
    from taktline._durable.journal import Journal

    source, real = Messages(95), Journal.write

    def write_some(journal, entry):
        if entry.mark.records > 50:
            raise SystemError
        real(journal, entry)

    with monkeypatch.context() as broken, pytest.raises(SystemError):
        broken.setattr(Journal, "write", write_some)
        line(row).run(source, write(folder, "jsonl", rows=10, roll=3600), how="loop", journal=tmp_path / "j")
    assert len(rows(folder)) > 50
    assert source.left == [*range(50, 95)]
    line(row).run(source, write(folder, "jsonl", rows=10, roll=3600), how="loop", journal=tmp_path / "j")
    assert rows(folder) == [*range(95)]


def test_what_killed_runs_have_left_goes(tmp_path):
    (tmp_path / "out").mkdir()
    left = tmp_path / "out" / ".part-20260101T000000000000Z-0123abcd-00000.jsonl.taktline-0123abcd.part"
    mine = tmp_path / "out" / ".part-mine.jsonl"
    for each in (left, mine):
        each.write_text("{}\n")
    line(row).run([1], write(f"{tmp_path}/out/", "jsonl", roll=1))
    assert not left.exists()
    assert mine.exists()
    assert len(os.listdir(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("format", "given"), [("parquet", {"codec": "zstd"}), ("csv", {"codec": "gzip"}), ("arrow", {})]
)
def test_files_of_any_kind(tmp_path, format, given):
    pytest.importorskip("pyarrow")
    for _ in range(2):  # each process to those that are there
        line(row).run(Messages(25), write(f"{tmp_path}/out/", format, rows=10, roll=3600, **given), how="loop")
    names = sorted(os.listdir(tmp_path / "out"))
    assert len(names) == 6
    assert all(name.endswith({"csv": ".csv.gz"}.get(format, f".{format}")) for name in names)
    assert sorted(int(record["n"]) for record in read(f"{tmp_path}/out/", format)) == sorted([*range(25)] * 2)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"roll": 0}, "roll=0 must be seconds"),
        ({"roll": 5, "mode": "append"}, "mode= is for a folder that is there as a whole"),
        ({"roll": 5, "format": None}, "say what its parts are to be"),
        ({"roll": 5, "path": "out.jsonl"}, "a / at its end"),
        ({"roll": 5, "path": "no/such/out/"}, "there is no folder"),
    ],
)
def test_wrong_use_is_refused(tmp_path, monkeypatch, given, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LineError, match=sentence):
        write(**{"path": "out/", "format": "jsonl"} | given)
