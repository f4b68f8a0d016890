"""Dead letters: a record comes back exactly as it was, order and reasons are kept, and no half letter is left."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import sqlite3
from contextlib import closing
from datetime import datetime
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taktline import (
    DeadLetter,
    LineError,
    SinkError,
    SourceError,
    batch,
    expand,
    keep,
    line,
    read,
    read_dead_letters,
    serial,
    step,
    write,
)
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


# --- the record as it was read ---


def takes_apart(order):
    order["lines"].pop()
    order["id"] = -1
    order.setdefault("by", []).append("takes_apart")
    return order


def takes_all_apart(orders):
    return [takes_apart(order) for order in orders]


async def takes_apart_waiting(order):
    return takes_apart(order)


def gives_its_lines(order):
    while order["lines"]:
        yield {"line": order["lines"].pop(), "by": order}


def refuses(order):
    raise ValueError("refused")


CHANGING = {
    "map": line(takes_apart, refuses),
    "itself": line(lambda order: refuses(takes_apart(order))),
    "keep": line(keep(takes_apart), refuses),
    "expand": line(expand(gives_its_lines), refuses),
    "batch": line(batch(takes_all_apart, size=4), refuses),
    "async": line(takes_apart_waiting, refuses),
    "threads": line(step(takes_apart, tasks=3), refuses),
    "serial": line(serial(takes_apart), refuses),
    "inline": line(step(takes_apart, kind="inline"), step(refuses, kind="inline")),
    "here and there": line(serial(takes_apart), takes_apart, serial(refuses)),
}


def orders():
    return [{"id": n, "lines": [{"sku": n}, {"sku": n + 1}]} for n in range(12)]


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
@pytest.mark.parametrize("kind", CHANGING)
def test_a_letter_and_a_mark_hold_the_record_as_it_was_read(tmp_path, kind, how):
    path = tmp_path / "failed.jsonl"
    options = {"how": how, "workers": 1, "dead_letters": path, "on_error": "keep"}
    marks = list(CHANGING[kind](orders(), **options))
    assert [letter.record for letter in read_dead_letters(path)] == orders()
    assert [mark.record for mark in marks] == orders()
    assert [mark.record for mark in CHANGING[kind](orders(), **options | {"dead_letters": None})] == orders()


def test_a_record_that_cannot_be_pickled_is_kept_as_it_was_read_all_the_same():
    class Basket:  # of no module, with a function inside
        def __init__(self, items):
            self.items, self.price = items, lambda: len(items)

        def __eq__(self, other):
            return self.items == other.items

    def empties(basket):
        basket.items.clear()
        raise ValueError

    (mark,) = line(empties)([Basket([1, 2])], on_error="keep", how="loop")
    assert mark.record == Basket([1, 2])


# --- only ever added, to letters alone, and once ---


def state_of(path):
    """What a file is, and what is in it; for links too."""
    known = os.lstat(path)
    return path.read_bytes() if path.is_file() else None, known.st_mode, known.st_ino, known.st_mtime_ns


def a_letter(path):
    list(line(fails)([0], dead_letters=path, how="loop"))
    return path.read_bytes()


def database(path, statement):
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(statement)


OTHERS = {
    "config.jsonl": b'{"workers": 4}',
    "one.jsonl": b'{"id": 1}\n',
    "index.jsonl": b'{"index": 5}',
    "blank.jsonl": b"\n",
    "half.jsonl": b'{"index": 5, "title": "a b',
    "text.ndjson": b"notes of mine\nand more",
    "list.jsonl": b"[]\n",
    "packed.jsonl": gzip.compress(b'{"id": 1}\n'),
    "text.db": b"not a database at all, but as long as the header of one is and longer, so that it is looked at" * 9,
}


@pytest.mark.parametrize(
    "name", [*OTHERS, "letters and more.jsonl", "more and letters.jsonl", "shop.db", "same.sqlite"]
)
def test_letters_are_not_added_to_a_file_of_something_else(tmp_path, name):
    path = tmp_path / name
    if name == "shop.db":
        database(path, "CREATE TABLE orders (id INTEGER)")
    elif name == "same.sqlite":  # a table of that name, of somebody else
        database(path, "CREATE TABLE dead_letters (id INTEGER, who TEXT)")
    elif "letters" in name:
        letter = a_letter(tmp_path / "l.jsonl")
        (tmp_path / "l.jsonl").unlink()
        path.write_bytes(letter + b'{"id": 1}\n' if name.startswith("letters") else b'{"id": 1}\n' + letter)
    else:
        path.write_bytes(OTHERS[name])
    before, calls = state_of(path), []
    for how in ("loop", "line"):
        with pytest.raises(LineError, match=r"only added to a file that is empty or holds some|file is not a database"):
            line(calls.append).run(range(3), write(tmp_path / "out.jsonl"), dead_letters=path, how=how, workers=1)
    assert calls == []
    assert state_of(path) == before
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("cut", range(1, 40))
def test_any_beginning_of_a_letter_is_cut_and_a_whole_one_without_line_end_stays(tmp_path, cut):
    path = tmp_path / "f.jsonl"
    letter = a_letter(path)
    path.write_bytes(letter + letter[:cut])
    list(line(odd_fails)([1], dead_letters=path, how="loop"))
    path.write_bytes(path.read_bytes()[:-1])
    assert [each.record for each in read_dead_letters(path)] == [0, 1]
    list(line(odd_fails)([0, 3], dead_letters=path, how="loop"))
    assert [each.record for each in read_dead_letters(path)] == [0, 1, 3]


def test_an_empty_file_and_the_target_of_a_link_are_filled_and_stay(tmp_path):
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "real.jsonl").touch()
    (tmp_path / "f.jsonl").symlink_to("to/real.jsonl")
    list(line(odd_fails)([2], dead_letters=tmp_path / "f.jsonl", how="loop"))
    assert (tmp_path / "to" / "real.jsonl").exists()  # it is not the run's own
    list(line(odd_fails)([1], dead_letters=tmp_path / "f.jsonl", how="loop"))
    dead_letters.replace_rows(str(tmp_path / "f.jsonl"), dead_letters.rows_of(str(tmp_path / "f.jsonl")) * 2)
    assert (tmp_path / "f.jsonl").is_symlink()
    assert len(read_dead_letters(tmp_path / "to" / "real.jsonl")) == 2


@pytest.mark.parametrize("name", ["fifo", "device"])
def test_letters_are_not_written_into_what_is_no_plain_file(tmp_path, name):
    path = tmp_path / "f.jsonl"
    if name == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(LineError, match="no plain file"):
        list(line(fails)([1], dead_letters=path, how="loop"))


def numbers_odd_fails(record):
    return odd_fails(record["n"])


@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.parametrize("source", ["list", "generator", "file"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_run_that_begins_anew_adds_each_letter_once(tmp_path, suffix, source, journal):
    path = tmp_path / f"failed{suffix}"
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(12)))
    sources = {
        "list": lambda: [{"n": n} for n in range(12)],
        "generator": lambda: ({"n": n} for n in range(12)),
        "file": lambda: read(tmp_path / "in.jsonl"),
    }
    flow = line(numbers_odd_fails)
    for number, left in enumerate([3, 5, 99, 99]):
        options = {"journal": tmp_path / f"{number}.journal"} if journal else {}
        options["how"] = "loop" if number % 2 else "line"
        with flow(sources[source](), dead_letters=path, workers=1, batch_size=2, **options) as run:
            list(islice(run, left))
    assert sorted(letter.index for letter in read_dead_letters(path)) == [1, 3, 5, 7, 9, 11]
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(12, 24)))
    list(flow(sources["file"](), dead_letters=path, how="loop"))
    assert len(read_dead_letters(path)) == 12


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_run_that_goes_on_leaves_the_letters_of_others_alone(tmp_path, suffix):
    path = tmp_path / f"failed{suffix}"
    opened = dead_letters.open_dead_letters(str(path), "mine")
    row = lambda index, run: dead_letters.row_of(index, "s", ValueError(), "t", [index], run, "")  # noqa: E731
    opened.write([row(1, "mine"), row(2, "mine")])
    opened.close()
    other = dead_letters.open_dead_letters(str(path), "other")
    other.write([row(5, "other")])
    other.close()
    opened = dead_letters.open_dead_letters(str(path), "mine")
    opened.cut(2)
    opened.write([row(3, "mine"), row(5, "mine")])
    opened.close()
    assert [(each.run, each.index) for each in read_dead_letters(path)] == [("mine", 1), ("other", 5), ("mine", 3)]


def test_letters_of_an_earlier_version_are_read_and_added_to(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"failed{suffix}"
        list(line(odd_fails)([1], dead_letters=path, how="loop"))
        if suffix == ".sqlite":
            database(path, 'ALTER TABLE dead_letters DROP COLUMN "key"')
        else:
            row = json.loads(path.read_text())
            del row["key"]
            path.write_text(json.dumps(row) + "\n")
        assert len(read_dead_letters(path)) == 1
        list(line(odd_fails)([0, 3], dead_letters=path, how="loop"))
        assert [letter.record for letter in read_dead_letters(path)] == [1, 3]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_letters_stay_where_they_were_opened(tmp_path, monkeypatch, suffix):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / f"f{suffix}").write_text("mine")
    monkeypatch.chdir(tmp_path / "one")

    def moves(n):
        os.chdir(tmp_path / "two")
        return odd_fails(n)

    for records in ([0, 2], [0, 1]):
        list(line(moves)(records, dead_letters=f"f{suffix}", how="loop"))
        os.chdir(tmp_path / "one")
    assert [letter.record for letter in read_dead_letters(f"f{suffix}")] == [1]
    assert (tmp_path / "two" / f"f{suffix}").read_text() == "mine"
