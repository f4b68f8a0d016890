"""Dead letters in a store: added to those that are there, cut and kept as those of a file are, and read back from there."""

from __future__ import annotations

from uuid import uuid4

import pytest
from present import present

from taktline import LineError, SinkError, SourceNotFound, line, read, read_dead_letters
from taktline._durable import stored_letters
from taktline._durable.dead_letters import replace_rows, rows_of
from taktline._durable.stored_letters import StoredLetters
from taktline._stores import objects_at
from taktline.cli.commands import INCOMPLETE, WRONG_USAGE, run_main

pytest.importorskip("s3fs")


@pytest.fixture
def url(conditional):
    return f"{conditional}/{uuid4().hex}/failed.jsonl"


def inverse(n):
    return 1 // (n % 4)


def failed(url):
    return [letter.index for letter in read_dead_letters(url)]


def letters(url, run="a", **given):
    return StoredLetters(url, run, **{"taken_over": False, "alone": False} | given)


def letter(index, run="a", **more):
    given = {
        "step": "s",
        "error": "E",
        "message": "m",
        "traceback": "t",
        "record": index,
        "encoding": "json",
        "time": "0",
    }
    return {"index": index, **given, "run": run, "key": f"{index:032x}", **more}


@pytest.mark.parametrize("how", ["loop", "line"])
def test_records_that_fail_are_there(url, how):
    report = line(inverse).run(range(10), dead_letters=url, how=how, workers=2)
    assert (report.records_out, report.failed) == (7, 3)
    assert failed(url) == [0, 4, 8]
    assert read_dead_letters(url)[1].record == 4
    line(inverse).run(range(10), dead_letters=url, how=how, workers=2)
    assert failed(url) == [0, 4, 8], "each once"


def test_those_before_a_failure_are_there(url):
    with pytest.raises(SystemError), line(inverse)(range(10), dead_letters=url, how="loop") as run:
        for result in run:
            assert result == 1
            raise SystemError
    assert failed(url) == [0]


def test_a_run_that_goes_on_makes_its_own_anew_and_keeps_those_of_others(url):
    first = letters(url)
    first.write([letter(n) for n in (1, 5)] + [letter(6, run="b")])
    first.sync()
    first.close()
    again = letters(url)
    again.cut(5)
    again.write([letter(5, message="anew"), letter(9)])
    again.sync()
    assert [(each.index, each.run, each.message) for each in read_dead_letters(url)] == [
        (1, "a", "m"), (6, "b", "m"), (5, "a", "anew"), (9, "a", "m"),
    ]  # fmt: skip
    again.forget("b")
    again.sync()
    assert failed(url) == [1, 5, 9]


def test_nothing_is_put_there_where_nothing_failed(url):
    line(abs).run(range(10), dead_letters=url, how="loop")
    with pytest.raises(SourceNotFound, match="nothing at"):
        read_dead_letters(url)


def test_what_two_runs_write_at_once_is_not_lost_silently(url):
    one, other = letters(url), letters(url, run="b")
    one.write([letter(1)])
    one.sync()
    other.write([letter(2, run="b")])
    with pytest.raises(SinkError, match="were replaced while the run was at work"):
        other.sync()
    later = letters(url, taken_over=True)
    one.write([letter(3)])  # of an attempt that has not noticed yet
    one.sync()
    later.write([letter(4)])
    later.sync()
    assert failed(url) == [1, 4]


def test_a_file_of_something_else_is_left_as_it_is(url):
    store, path = objects_at(url)
    store.put(path, b"my notes\n")
    with pytest.raises(LineError, match="its lines are no dead letters"):
        line(inverse).run(range(10), dead_letters=url, how="loop")
    assert present(store.get(path))[0] == b"my notes\n"


def test_more_than_can_be_put_anew_each_time_are_refused(url, monkeypatch):
    monkeypatch.setattr(stored_letters, "MOST", 1000)
    with pytest.raises(SinkError, match="mend what fails, or name a path"):
        line(inverse).run(range(100), dead_letters=url, how="loop")


@pytest.mark.parametrize("place", ["az://b/failed.jsonl", "s3://b/failed.sqlite", "memory://failed.jsonl"])
def test_what_is_refused_at_once(place):
    with pytest.raises(LineError, match="dead_letters="):
        line(abs)([1], dead_letters=place)


def test_where_there_are_none_nothing_is_run_again(url, capsys):
    assert run_main(["retry", url, "builtins:abs", "--out", "more.jsonl"]) == WRONG_USAGE
    assert "there is nothing at" in capsys.readouterr().err


STEPS = """
import os

def half(row):
    if row["n"] % int(os.environ["BAD"]) == 0:
        raise ValueError("bad")
    return row
"""


@pytest.mark.parametrize("with_journal", [False, True])
def test_letters_at_a_url_are_run_again_and_what_still_fails_stays(url, tmp_path, monkeypatch, with_journal):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.py").write_text(STEPS)
    folder = url.rpartition("/")[0]
    given = ["--journal", f"{folder}/j"] if with_journal else []
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(20)))
    monkeypatch.setenv("BAD", "2")
    asked = ["run", "half.py:half", "--in", "in.jsonl", "--out", "out.jsonl", "--quiet", "--dead-letters", url]
    assert run_main(asked) == INCOMPLETE
    assert len(failed(url)) == 10
    monkeypatch.setenv("BAD", "4")
    again = ["retry", url, "half.py:half", "--quiet", *given]
    assert run_main([*again, "--out", f"{folder}/more.jsonl"]) == INCOMPLETE
    assert failed(url) == [0, 4, 8, 12, 16]
    assert [row["n"] for row in read(f"{folder}/more.jsonl")] == [2, 6, 10, 14, 18]
    assert run_main([*again, "--out", f"{folder}/more.jsonl"]) == WRONG_USAGE  # it is there
    monkeypatch.setenv("BAD", "1000")
    assert run_main([*again, "--out", "rest.jsonl"]) == INCOMPLETE  # 0 fails still
    assert failed(url) == [0]
    store, path = objects_at(folder)
    assert sorted(each.removeprefix(path) for each in store.sizes(path)) == ["/failed.jsonl", "/more.jsonl"]


def test_letters_that_another_run_adds_meanwhile_stay(url):
    line(inverse).run(range(10), dead_letters=url)
    before = rows_of(url)
    line(inverse).run(range(100, 105), dead_letters=url)
    replace_rows(url, before[1:2], before)
    assert [letter.record for letter in read_dead_letters(url)] == [4, 100, 104]
    replace_rows(url, [], rows_of(url))
    store, path = objects_at(url)
    assert store.get(path) is None
