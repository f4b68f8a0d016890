"""Folders of parts at URLs: the bytes of a folder here, all there before `_SUCCESS` is, gone on with from any host."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from taktline import LineError, OutputLost, SinkError, line, read, write
from taktline._objects import Objects
from taktline._stores import objects_at

pa = pytest.importorskip("pyarrow")
pytest.importorskip("s3fs")
fsspec = pytest.importorskip("fsspec")
ROWS = [{"n": n, "s": f"{n % 2}", "x": None if n < 15 else n} for n in range(50)]


@pytest.fixture
def folder(conditional):
    return f"{conditional}/{uuid4().hex}"


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files, with nothing in it at the end."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield tmp_path / "tmp"
    assert os.listdir(tmp_path / "tmp") == []


def there(url):
    """The objects below a URL, and what is in them; of `_SUCCESS` nothing, since no two are alike."""
    store, path = fsspec.core.url_to_fs(url)
    store.invalidate_cache()
    found = {each.removeprefix(path).lstrip("/"): store.cat_file(each) for each in store.find(path)}
    for name in found:
        if name.endswith("_SUCCESS"):
            assert set(json.loads(found[name])) == {"run", "attempt"}
            found[name] = b""
    return found


def here(path):
    """What a folder of parts has that is on this machine."""
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def into(sink, pieces):
    for piece in pieces:
        sink.write(piece) if isinstance(piece, list) else sink.write_table(piece)


def whole(path, pieces, *given, **options):
    """What the same results are in a folder on this machine."""
    sink = write(f"{path}/", *given, **options)
    sink.open()
    into(sink, pieces)
    sink.commit()
    return here(path) | {"_SUCCESS": b""}


def resumable(folder, *given, **options):
    sink: Any = write(f"{folder}/out/", *given, **options)
    sink.beside(f"{folder}/j")
    return sink


def opened(folder, *given, journal, **options):
    """A sink that is written to next, with a journal beside it or without."""
    if not journal:
        sink: Any = write(f"{folder}/out/", *given, **options)
        sink.open()
        return sink
    sink = resumable(folder, *given, **options)
    sink.begin("run")
    return sink


@pytest.mark.parametrize(
    ("format", "options"),
    [("parquet", {}), ("arrow", {}), ("jsonl", {"codec": "gzip"}), ("csv", {"partition_by": "s"})],
)
@settings(
    suppress_health_check=list(HealthCheck), max_examples=2, deadline=None, phases=[Phase.explicit, Phase.generate]
)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=3, max_size=8), seen=st.integers(0, 7), more=st.integers(0, 20),
    tables=st.lists(st.booleans(), min_size=9, max_size=9),
)  # fmt: skip
def test_what_goes_on_behind_a_mark_is_byte_by_byte_what_went_through(
    tmp_path_factory, conditional, format, options, sizes, seen, more, tables
):
    """Whatever was written behind the mark, and however often another attempt went on from there."""
    folder = f"{conditional}/{uuid4().hex}"
    pieces, at = [], 0
    for size, table in zip(sizes, tables, strict=False):
        rows = (ROWS * 2)[at : at + size]
        pieces.append(pa.Table.from_pylist(rows) if table else rows)
        at += size
    expected = whole(tmp_path_factory.mktemp("x") / "whole", pieces, format, rows=5, **options)
    first = resumable(folder, format, rows=5, **options)
    first.begin("run")
    into(first, pieces[:seen])
    first.save("an earlier mark")
    position = json.loads(json.dumps(first.save("mark")))
    into(first, pieces[seen:][:more])
    for _ in range(2):  # the first of them, and `first`, are frozen: what they put is of names of their own
        later = resumable(folder, format, rows=5, **options)
        assert not later.finished("run", position)
        later.resume("run", position)
        into(later, pieces[seen:])
        end = later.save("the end")
    assert "out" not in {name.partition("/")[0] for name in there(folder)}
    last = resumable(folder, format, rows=5, **options)
    last.resume("run", json.loads(json.dumps(end)))
    last.commit()
    last.noted()
    assert {name.removeprefix("out/"): data for name, data in there(folder).items()} == expected


def test_a_part_of_many_pieces_is_one_object(folder, tmp_path):
    text = [f"{n:09}" * 1000 for n in range(2500)]  # 22 MB
    expected = whole(tmp_path / "whole", [text], "text", rows=2000)
    first = resumable(folder, "text", rows=2000)
    first.begin("run")
    into(first, [text[:1500]])
    position = first.save("mark")
    second = resumable(folder, "text", rows=2000)
    second.resume("run", position)
    into(second, [text[1500:]])
    second.save("the end")
    second.commit()
    second.noted()
    assert {name.removeprefix("out/"): data for name, data in there(folder).items()} == expected


def test_what_no_mark_needs_any_more_is_taken_away_on_the_way(folder):
    sink = resumable(folder, "jsonl", rows=5)
    sink.begin("run")
    for at in range(0, 50, 8):
        sink.write(ROWS[at : at + 8])
        sink.save("mark")
        kinds = [name.split("/")[2] for name in there(folder) if "/part-" not in name and "/state-" not in name]
        assert len(set(kinds)) <= 3  # parts that are, or were just, open
        assert sum("/state-" in name for name in there(folder)) <= 2
    sink.commit()
    sink.noted()
    assert [name for name in there(folder) if not name.startswith("out/")] == []


def test_an_attempt_that_is_over_takes_away_what_nobody_would(folder):
    store, path = objects_at(f"{folder}/j")
    first = resumable(folder, "jsonl", rows=5)
    first.begin("run")
    first.write(ROWS[:13])
    position = first.save("mark")
    store.put(path, json.dumps(position).encode())  # the journal tells of it
    late = resumable(folder, "jsonl", rows=5)
    late.resume("run", position)
    late.write(ROWS[13:])
    late.save("mark")
    before = there(folder)
    first.suspend()
    assert there(folder) == before
    late.suspend()  # and of that it does not
    assert len(there(folder)) < len(before)
    done = resumable(folder, "jsonl", rows=5)
    done.resume("run", position)
    done.write(ROWS[13:])
    store.put(path, json.dumps({"position": done.save("mark"), "state": "done"}).encode())
    done.commit()
    done.noted()
    assert sorted(there(folder)) == ["j", "out/_SUCCESS", *(f"out/part-{n:05}.jsonl" for n in range(10))]


@pytest.mark.parametrize("which", ["part-00001.jsonl", "state-1", "-rest-1"])
def test_what_is_gone_is_lost(folder, which):
    sink = resumable(folder, "jsonl", rows=5)
    sink.begin("run")
    sink.write(ROWS[:13])
    position = sink.save("mark")
    store, path = objects_at(folder)
    store.take_away([each for each in store.sizes(path) if each.endswith(which)])
    with pytest.raises(OutputLost, match=f"is gone: the object .*{which}"):
        resumable(folder, "jsonl", rows=5).resume("run", position)


def at_request(monkeypatch, number, do):
    """Do this just before the request of this number; whether it came to that many can be asked of what this returns."""
    asked, left, done = Objects._asked, iter(range(number)), []

    def ask(self, path, ask_it):
        if not done and next(left, None) is None:
            done.append(True)
            do()
        return asked(self, path, ask_it)

    monkeypatch.setattr(Objects, "_asked", ask)
    return done


def replaced(url, rows, of=ROWS):
    line(dict).run(of, write(f"{url}/out/", "jsonl", rows=rows, mode="replace"))


def test_an_attempt_that_was_frozen_while_it_put_them_in_place_changes_nothing_more(folder):
    """At whatever request: another attempt has done all of it meanwhile, and the next run has replaced it by what was there
    at first, byte for byte."""
    for at in count():
        url = f"{folder}/{at}"
        replaced(url, 10)
        sink = resumable(url, "jsonl", rows=30, mode="replace")
        sink.begin("run")
        sink.write(ROWS)
        position = sink.save("mark")

        def others(url=url, position=position):
            other = resumable(url, "jsonl", rows=30, mode="replace")
            other.resume("run", position)
            other.commit()
            other.noted()
            replaced(url, 10)

        with pytest.MonkeyPatch.context() as patched:
            came = at_request(patched, at, others)
            with suppress(SinkError):
                sink.commit()
        sink.suspend()
        if not came:
            break
        assert [row["n"] for row in read(f"{url}/out/")] == list(range(50)), at
        assert sorted(there(url)) == ["out/_SUCCESS", *(f"out/part-{n:05}.jsonl" for n in range(5))], at
    assert at > 8


@pytest.mark.parametrize("journal", [True, False])
def test_of_two_runs_that_replace_a_folder_one_is_there_as_a_whole(folder, tmp_path, journal):
    """At whatever request the other one comes and goes: this one ends later, and what is there is its own."""
    mine = whole(tmp_path / "whole", [ROWS], "jsonl", rows=30)
    for at in count():
        url = f"{folder}/{at}"
        replaced(url, 10)
        sink = opened(url, "jsonl", rows=30, mode="replace", journal=journal)
        sink.write(ROWS)
        with pytest.MonkeyPatch.context() as patched:
            came = at_request(patched, at, lambda url=url: replaced(url, 7, of=ROWS[::-1]))
            sink.commit()
        if journal:
            sink.noted()
        if not came:
            break
        assert there(f"{url}/out") == mine, at
        assert {name.partition("/")[0] for name in there(url)} == {"out"}
    assert at > 8


def test_of_runs_that_replace_a_folder_at_the_same_time_one_is_there_as_a_whole(folder, tmp_path, temporary):
    sizes = (3, 5, 11)
    wholes = [whole(tmp_path / str(rows), [ROWS], "jsonl", rows=rows) for rows in sizes]
    with ThreadPoolExecutor(len(sizes)) as pool:
        runs = [pool.submit(replaced, folder, rows) for rows in sizes for _ in range(2)]
        ended = [run.exception() for run in runs]
    assert all(error is None or isinstance(error, SinkError) for error in ended), ended
    assert None in ended
    assert there(f"{folder}/out") in wholes
    for kept in temporary.iterdir():  # of those that gave up
        shutil.rmtree(kept)


def test_what_came_into_the_folder_meanwhile_stays(folder, temporary):
    store, path = objects_at(folder)
    for mode, name, sentence in [
        ("replace", "notes.txt", r"'notes\.txt' is in .* by now, which no run has written"),
        (None, "part-00007.jsonl", r"another run has written 'part-00007\.jsonl' into"),
    ]:
        for journal in (True, False):
            url = f"{folder}/{mode}{journal}"
            sink = opened(url, "jsonl", mode=mode, journal=journal)
            sink.write(ROWS)
            store.put(f"{path}/{mode}{journal}/out/{name}", b"mine")
            with pytest.raises(SinkError, match=sentence):
                sink.commit()
            assert {each: data for each, data in there(url).items() if each.startswith("out/")} == {
                f"out/{name}": b"mine"
            }
            sink.suspend() if journal else sink.abort()
    for kept in temporary.iterdir():
        assert (kept / "part-00000.jsonl").read_text().count("\n") == 50
        shutil.rmtree(kept)


def test_with_a_journal_a_run_is_one_whole_folder(folder, tmp_path):
    flow = line(lambda row: {**row, "twice": row["n"] * 2})
    for how in ("loop", "line"):
        url = f"{folder}/{how}"
        report = flow.run(ROWS, write(f"{url}/out/", "parquet", rows=20), journal=f"{url}/j", how=how, workers=2)
        assert report.records_out == 50
        assert [row["twice"] for row in read(f"{url}/out/")] == list(range(0, 100, 2))
        assert {name for name in there(url) if "part-" not in name} == {"j", "out/_SUCCESS"}
        again = flow.run(ROWS, write(f"{url}/out/", "parquet", rows=20), journal=f"{url}/j", how=how, workers=2)
        assert again.resumed_at == 50
    store, path = objects_at(f"{url}/out/part-00001.parquet")
    store.take_away([path])
    with pytest.raises(OutputLost, match="1 of 3 parts"):
        flow.run(ROWS, write(f"{url}/out/", "parquet", rows=20), journal=f"{url}/j")
    store, path = objects_at(f"{url}/out/_SUCCESS")
    store.take_away([path])
    with pytest.raises(OutputLost, match="_SUCCESS is missing"):
        flow.run(ROWS, write(f"{url}/out/", "parquet", rows=20), journal=f"{url}/j")


@pytest.mark.parametrize("place", ["s3", "memory", "gs"])
def test_without_a_journal_it_is_put_there_at_the_end(request, place, tmp_path):
    folder = "memory://shop" if place == "memory" else request.getfixturevalue(place)
    url = f"{folder}/{uuid4().hex}/out"
    expected = whole(tmp_path / "whole", [ROWS], "parquet", rows=20, partition_by="s")
    with pytest.raises(ZeroDivisionError):
        line(lambda row: row["n"] / 0).run(ROWS, write(f"{url}/", "parquet", rows=20))
    assert there(url) == {}
    line(abs).run([], write(f"{url}/", "jsonl"))
    assert there(url) == {"part-00000.jsonl": b"", "_SUCCESS": b""}
    with pytest.raises(LineError, match='is there already: mode="replace" puts'):
        line(dict).run(ROWS, write(f"{url}/", "parquet"))
    line(dict).run(ROWS, write(f"{url}/", "parquet", rows=20, partition_by="s", mode="replace"))
    assert there(url) == expected


def test_what_is_whole_is_kept_where_the_store_is_away(monkeypatch, temporary):
    fsspec.filesystem("memory").pipe_file("/away/other", b"")
    sink = write("memory://away/out/", "jsonl")
    sink.open()
    sink.write(ROWS)

    def away(*_):
        raise OSError("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(type(fsspec.filesystem("memory")), "put_file", away)
        with pytest.raises(SinkError, match=r"the store is away.* kept in '(.*)'"):
            sink.commit()
    sink.abort()
    (kept,) = temporary.iterdir()
    assert (kept / "part-00000.jsonl").read_text().count("\n") == 50
    again = write("memory://away/out/", "jsonl")
    again.open()
    again.abort()
    assert list(temporary.iterdir()) == []  # the next run takes that away


def test_what_cannot_be_is_refused_before_anything_runs(folder, tmp_path):
    with pytest.raises(LineError, match='say what its parts are to be, such as format="parquet"'):
        write(f"{folder}/out/")
    with pytest.raises(LineError, match="a web server only gives files"):
        write("https://example.org/out/", "jsonl")
    with pytest.raises(LineError, match=r'mode="append" .* added by roll='):
        write(f"{folder}/out/", "jsonl", mode="append")
    with pytest.raises(LineError, match="is on this machine: name a journal in the store of the folder"):
        line(abs).run([1], write(f"{folder}/out/", "jsonl"), journal=tmp_path / "j")
    with pytest.raises(LineError, match="is in another one"):
        line(abs).run([1], write("memory://shop/out/", "jsonl"), journal=f"{folder}/j")
    store, path = objects_at(f"{folder}/out/notes.txt")
    store.put(path, b"mine")
    with pytest.raises(LineError, match=r"would take away 'notes\.txt' in .* which no run has written"):
        line(abs).run([1], write(f"{folder}/out/", "jsonl", mode="replace"), journal=f"{folder}/j")
    assert sorted(there(folder)) == ["j", "out/notes.txt"]
