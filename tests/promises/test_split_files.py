"""Promise: whether workers read a file themselves or the caller reads it for them makes no difference to what comes out."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
from itertools import product
from time import sleep

import killed
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taktline import (
    Failed,
    SinkError,
    SourceError,
    StepTimeout,
    WorkerDied,
    batch,
    expand,
    keep,
    line,
    read,
    read_dead_letters,
    step,
    write,
)
from taktline._io import opening
from taktline._io.parquet import Rows
from taktline._io.ranges import Range
from taktline.abc import Source
from taktline.views.drawing import plain

WORKERS = {"how": "line", "workers": 2, "start": "fork"}


def number(record):
    return int(record["n"])


def check(n):
    if n % 97 == 5:
        raise ValueError("odd", n)
    return n


def flow(fails=True):
    return line(number, *[check] * fails, keep(lambda n: n % 3), expand(lambda n: [n] * (n % 4)))


def data_of(how, count, odd):
    """The same records as `text_of` has them, in bytes of any format."""
    if how != "parquet":
        return text_of(how, count, odd).encode()
    file, rows = io.BytesIO(), [{"n": n, "text": "é" * (n % odd) * 50} for n in range(count)]
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema), file, row_group_size=odd * odd * 50)
    return file.getvalue()


def text_of(how, count, odd):
    """A file of so many numbers: with line ends inside of quotes, and lines of quite different lengths."""
    if how == "csv":
        lines = [f'{n},"' + "a\n" * (n % odd) + '"\n' for n in range(count)]
        return "n,text\r\n" + "".join(lines)
    return "".join(json.dumps({"n": n, "text": "é" * (n % odd) * 50}, ensure_ascii=False) + "\n" for n in range(count))


class Whole(Source):
    """The same records, which no worker can read."""

    __module__ = "taktline"  # whose readers' errors are SourceErrors

    def __init__(self, path):
        self._source = read(path)

    def __iter__(self):
        return iter(self._source)

    def read(self, unread):
        return self._source.read(unread)


def unsplit(path, **options):
    return lambda flow, **more: flow(Whole(path), **options, **more)


def outcome(run):
    """Results, the exception that ended them with its notes, but for the line of the file that only its own reader knows, and
    what the report counted up to it."""
    results = []
    try:
        for result in run:
            results.append((result.index, result.record) if isinstance(result, Failed) else result)
    except Exception as error:
        return (
            results,
            f"{type(error).__name__}: {error}",
            [re.sub("\n  source  .*", "", note) for note in getattr(error, "__notes__", [])],
        )
    report = run.report
    return results, "", [report.records_in, report.records_out, report.failed, report.skipped, report.complete]


@given(
    st.sampled_from(["jsonl", "csv", "parquet"]), st.integers(0, 3000), st.integers(1, 9), st.booleans(), st.booleans(),
    st.sampled_from(["raise", "skip", "keep"]), st.sampled_from(["line", "auto"]),
    st.sampled_from([{}, {"window": 1}, {"window": 130}, {"batch_size": 50}, {"batch_size": 90, "window": 400}]),
)  # fmt: skip
@settings(max_examples=40)
def test_the_results_of_a_file_that_workers_read(
    tmp_path_factory, how, count, odd, cut, fails, on_error, technique, more
):
    folder = tmp_path_factory.mktemp("split")
    path = folder / f"in.{how}"
    data = data_of(how, count, odd)
    path.write_bytes(data[:-3] if cut else data)
    (folder / f"more.{how}").write_bytes(data_of(how, 100, 3))
    options = {**WORKERS, "how": technique, "on_error": on_error, **more}
    split, model = flow(fails)(read(folder), **options), flow(fails)(Whole(folder), **options)
    assert outcome(split) == outcome(model)


@pytest.mark.parametrize("more", [{}, {"window": 200}, {"batch_size": 40}, {"ordered": False}])
@pytest.mark.parametrize(("how", "kind"), [("jsonl", Range), ("parquet", Rows)])
def test_the_caller_does_not_read_what_workers_read(tmp_path, monkeypatch, how, kind, more):
    path = tmp_path / f"in.{how}"
    path.write_bytes(data_of(how, 5000, 3))
    caller, real = os.getpid(), kind.read

    def decoded(part, unread=None):
        assert os.getpid() != caller
        return real(part, unread)

    monkeypatch.setattr(kind, "read", decoded)
    assert sorted(line(number)(read(path), **more, **WORKERS)) == list(range(5000))


@pytest.mark.parametrize("how", ["jsonl", "csv", "parquet"])
def test_batches_have_the_size_that_was_asked_for(tmp_path, how):
    for name in ("a", "b"):
        (tmp_path / f"{name}.{how}").write_bytes(data_of(how, 1000, 7))
    flow = line(batch(lambda records: [len(records)] * len(records)))
    assert list(flow(read(tmp_path), batch_size=60, **WORKERS)) == ([60] * 960 + [40] * 40) * 2


@pytest.mark.parametrize("how", ["jsonl", "csv"])
def test_no_more_is_under_way_than_the_window_allows(tmp_path, how):
    path = tmp_path / f"in.{how}"
    path.write_bytes(data_of(how, 400, 40))
    with path.open("ab") as file:  # much shorter than those before
        file.writelines(b'{"n": %d}\n' % n if how == "jsonl" else b"%d,\n" % n for n in range(400, 3000))
    run, most = line(number)(read(path), window=200, **WORKERS), 0
    for n, result in enumerate(run):
        assert result == n
        most = max(most, run.snapshot().in_flight, run.snapshot().batch_size)
    assert 50 < most <= 200


@pytest.mark.parametrize("how", ["jsonl", "csv", "parquet"])
def test_it_is_shown_about_how_many_records_a_file_has(tmp_path, how):
    for name, count in (("a", 3000), ("b", 1000)):
        rows = ({"n": 10_000 + n} for n in range(count))
        line(lambda row: row).run(rows, write(tmp_path / f"{name}.{how}"), how="loop")
    shown = []
    run = line(number)(read(tmp_path), window=400, **WORKERS)
    for _ in run:
        shown.append(run.snapshot())
    assert {each.reckoned for each in shown} == {how != "parquet"}
    assert all(each.total == pytest.approx(4000, rel=0.02) for each in shown)
    assert shown[-1].total == run.snapshot().total == 4000
    assert ("of 4,000 records" if how == "parquet" else "of about 4,000 records") in plain(shown[-1])


@pytest.mark.parametrize("bad", [0, 1234])
def test_results_as_they_come_lack_none_before_a_line_that_is_no_record(tmp_path, bad):
    lines = text_of("jsonl", 3000, 3).splitlines(keepends=True)
    lines[bad::40] = ["no record\n"] * len(lines[bad::40])
    path = tmp_path / "in.jsonl"
    path.write_text("".join(lines))
    run = line(number)(read(path), ordered=False, batch_size=40, **WORKERS)
    results = []
    with pytest.raises(SourceError, match=f"line {bad + 1:,}, is no JSON"):
        results.extend(run)
    assert sorted(results)[:bad] == list(range(bad))
    assert len(set(results)) == len(results) == run.report.records_in
    assert not set(range(bad, 3000, 40)) & set(results)


@pytest.mark.parametrize("bad", [0, 1, 1234])
def test_a_line_that_is_no_record_ends_the_run_after_those_before_it(tmp_path, bad):
    lines = text_of("jsonl", 3000, 3).splitlines(keepends=True)
    lines[bad] = "no record\n"
    lines[2000] = "nor this\n"
    path = tmp_path / "in.jsonl"
    path.write_text("".join(lines))
    run = line(number)(read(path), **WORKERS)
    results = []
    with pytest.raises(SourceError) as error:
        results.extend(run)
    assert results == list(range(bad))
    assert (run.report.records_in, run.report.records_out) == (bad, bad)
    with pytest.raises(SourceError) as plain:
        list(read(path))
    assert (str(error.value), error.value.line) == (str(plain.value), bad + 1)


@pytest.mark.parametrize("technique", ["line", "auto"])
@pytest.mark.parametrize("more", [{}, {"journal": "run.journal"}, {"ordered": False}])
@pytest.mark.parametrize(
    ("name", "sink"), [("in.jsonl", "out.jsonl"), ("in.jsonl", "out.txt"), ("in.jsonl.gz", "out.jsonl")]
)
def test_a_line_that_is_no_record_ends_a_run_whose_results_workers_encode(tmp_path, name, sink, more, technique):
    data = text_of("txt", 20_000, 3).splitlines(keepends=True)
    data[9_000] = "no record\n"
    packed = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(packed("".join(data).encode()))
    more = {key: tmp_path / value if key == "journal" else value for key, value in more.items()}

    def slow(record):  # dear enough for auto to move
        return json.dumps(record) if sum(range(600)) else None

    run = line(slow)(read(tmp_path / name), how=technique, workers=2, start="fork", **more)
    with pytest.raises(SourceError, match="line 9,001, is no JSON"):
        run.drain(write(tmp_path / sink))
    assert not (tmp_path / sink).exists()
    assert not run.report.complete
    if "ordered" not in more:
        assert (run.report.records_in, run.report.records_out) == (9_000, 9_000)


@pytest.mark.parametrize("bad", [0, 5, 1500, 1999])
def test_a_row_that_is_no_record_ends_the_run_after_those_before_it(tmp_path, bad):
    at = [n * 1000 for n in range(2000)]
    at[bad] = at[1800] = 1_001  # nanoseconds
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table([list(range(2000)), pa.array(at, pa.timestamp("ns"))], ["n", "at"]), path)
    run = line(number)(read(path), **WORKERS)
    results = []
    with pytest.raises(SourceError) as error:
        results.extend(run)
    assert results == list(range(min(bad, 1800)))
    assert (run.report.records_in, run.report.records_out) == (len(results), len(results))
    with pytest.raises(SourceError) as plain:
        list(read(path))
    assert (str(error.value), error.value.group) == (str(plain.value), 0)


@pytest.mark.parametrize("how", ["jsonl", "parquet"])
def test_a_record_that_kills_its_worker_is_named(tmp_path, how):
    path = tmp_path / f"in.{how}"
    path.write_bytes(data_of(how, 3000, 3))

    def deadly(record):
        if record["n"] in (0, 1700, 2999):
            os.kill(os.getpid(), signal.SIGKILL)
        return record["n"]

    results = list(line(deadly)(read(path), on_error="keep", **WORKERS))
    lost = [each for each in results if isinstance(each, Failed)]
    assert [(each.index, each.record["n"], type(each.error)) for each in lost] == [
        (n, n, WorkerDied) for n in (0, 1700, 2999)
    ]
    assert [each for each in results if not isinstance(each, Failed)] == [
        n for n in range(3000) if n not in (0, 1700, 2999)
    ]


def test_a_record_that_takes_too_long_and_a_line_that_is_no_record_fail_each_by_itself(tmp_path):
    path = tmp_path / "in.txt"
    lines = [f"{n}\n".encode() for n in range(400)]
    lines[200], lines[201] = b"hang\n", b"\xff\n"
    path.write_bytes(b"".join(lines))

    def slow(text):
        return sleep(60) if text == "hang" else text

    run = line(step(slow, timeout=0.3))(read(path), on_error="keep", **WORKERS)
    results = list(run)
    assert results[:200] + results[202:] == [str(n) for n in range(400) if n not in (200, 201)]
    assert [(each.index, type(each.error)) for each in results[200:202]] == [(200, StepTimeout), (201, SourceError)]


def test_a_record_that_takes_too_long_is_named_before_the_place_where_its_file_was_cut_short_meanwhile(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(text_of("jsonl", 400, 3))
    half = len(text_of("jsonl", 201, 3).encode()) + 3

    def slow(record):
        if record["n"] == 200:
            os.truncate(path, half)
            sleep(60)
        return record["n"]

    run = line(step(slow, timeout=0.3))(read(path), on_error="keep", **WORKERS)
    results = []
    with pytest.raises(SourceError, match=f"none is left behind byte {half:,}"):
        results.extend(run)
    assert results[:200] == list(range(200))
    assert [(each.index, each.record["n"], type(each.error)) for each in results[200:]] == [(200, 200, StepTimeout)]


@pytest.mark.parametrize("how", ["csv", "parquet"])
def test_workers_killed_at_random_cost_nothing(tmp_path, how):
    path, once = tmp_path / f"in.{how}", tmp_path / "once"
    path.write_bytes(data_of(how, 4000, 4))
    once.mkdir()

    def fragile(record):
        n = int(record["n"])
        if n % 900 == 450:
            try:
                (once / str(n)).mkdir()
            except FileExistsError:
                return n
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    assert list(line(fragile)(read(path), **WORKERS)) == list(range(4000))
    assert len(os.listdir(once)) == 4


@pytest.mark.parametrize("how", ["jsonl", "parquet"])
def test_a_file_that_is_replaced_meanwhile_is_read_to_its_own_end(tmp_path, how):
    path, other = tmp_path / f"in.{how}", tmp_path / "other"
    path.write_bytes(data_of(how, 3000, 2))
    other.write_text("nothing of that\n" * 3000)
    results = []
    for n in line(number)(read(path), **WORKERS):
        if n == 100:
            os.replace(other, path)
        results.append(n)
    assert results == list(range(3000))


LINES = {"jsonl": b'{"n": %d}\n', "csv": b'%d,"a\n\n"\n', "txt": b"%d\n"}


def numbered(how, count):
    """A file of lines with the numbers of its records."""
    return b"n,text\n" * (how == "csv") + b"".join(LINES[how] % n for n in range(count))


def number_of(record):
    return int(record["n"] if isinstance(record, dict) else record)


def changed_meanwhile(path, change, **options):
    """The results of a run, and the error that ended it, where `change()` is called when 100 records are delivered."""
    run, results = line(number_of)(read(path), window=200, workers=2, start="fork", **options), []
    try:
        for n in run:
            results.append(n)
            if n == 100:
                change()
    except SourceError as error:
        assert (run.report.records_in, run.report.records_out) == (len(results), len(results))
        return results, str(error)
    assert run.report.records_in == len(results)
    return results, ""


@pytest.fixture
def small_reads(monkeypatch):
    monkeypatch.setattr(opening, "BUFFER_BYTES", 512)


@pytest.mark.parametrize("technique", ["loop", "line", "auto"])
@pytest.mark.parametrize("inside", [0, 2])
@pytest.mark.parametrize("how", sorted(LINES))
def test_a_file_that_is_cut_short_meanwhile_gives_its_whole_lines_and_an_error(
    tmp_path, small_reads, how, inside, technique
):
    path, left = tmp_path / f"in.{how}", numbered(how, 2000)
    path.write_bytes(numbered(how, 3000))
    results, error = changed_meanwhile(path, lambda: os.truncate(path, len(left) + inside), how=technique)
    assert results == list(range(2000))
    assert error.startswith(f"{str(path)!r} was cut short while it was read: it had ")
    assert f"none is left behind byte {len(left) + inside:,}. Read a copy" in error


@pytest.mark.parametrize("technique", ["loop", "line", "auto"])
@pytest.mark.parametrize("end", [0, 3, 40, 101, 150, 250])
@pytest.mark.parametrize("how", [*sorted(LINES), "packed"])
def test_however_little_is_left_of_a_file_that_was_cut_short_nothing_is_lost_in_silence(
    tmp_path, small_reads, how, end, technique
):
    if how == "packed":
        path, left = tmp_path / "in.txt.gz", b"".join(gzip.compress(b"%d\n" % n) for n in range(end))
        path.write_bytes(b"".join(gzip.compress(b"%d\n" % n) for n in range(3000)))
    else:
        path, left = tmp_path / f"in.{how}", numbered(how, end)
        path.write_bytes(numbered(how, 3000))
    results, error = changed_meanwhile(path, lambda: os.truncate(path, len(left)), how=technique)
    assert results == list(range(len(results)))
    assert len(results) > 100
    assert "was cut short while it was read" in error


@pytest.mark.parametrize("how", ["jsonl", "parquet"])
def test_results_as_they_come_of_a_file_that_was_cut_short_end_in_an_error_too(tmp_path, small_reads, how):
    path = tmp_path / f"in.{how}"
    path.write_bytes(data_of(how, 3000, 3))
    run, results = line(number)(read(path), window=200, ordered=False, **WORKERS), []
    with pytest.raises(SourceError, match="while it was read: "):
        for n in run:
            results.append(n)
            if len(results) == 100:
                os.truncate(path, 50)
    assert len({*results}) == len(results) == run.report.records_in < 3000


@pytest.mark.parametrize("technique", ["loop", "line", "auto"])
@pytest.mark.parametrize("how", sorted(LINES))
def test_a_file_that_grows_meanwhile_is_read_as_far_as_it_went(tmp_path, small_reads, how, technique):
    path = tmp_path / f"in.{how}"
    path.write_bytes(numbered(how, 3000))

    def grow():
        with path.open("ab") as file:
            file.write(LINES[how] % 3000 + b"30")

    assert changed_meanwhile(path, grow, how=technique) == (list(range(3000)), "")


@pytest.mark.parametrize("end", [0, 100, 5000])
@pytest.mark.parametrize("technique", ["loop", "line", "auto"])
def test_a_parquet_file_that_is_cut_short_meanwhile_is_an_error_that_says_so(tmp_path, technique, end):
    path = tmp_path / "in.parquet"
    table = pa.table({"n": list(range(30_000)), "odd": [os.urandom(20) for _ in range(30_000)]})
    pq.write_table(table, path, row_group_size=500)
    results, error = changed_meanwhile(path, lambda: os.truncate(path, end), how=technique)
    assert results == list(range(len(results)))
    assert 100 < len(results) < 30_000
    assert f"{str(path)!r} was changed while it was read" in error


@pytest.mark.parametrize("technique", ["loop", "line", "auto"])
def test_a_parquet_file_that_is_written_anew_meanwhile_is_never_mixed_with_what_it_was(tmp_path, technique):
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"n": list(range(30_000))}), path, row_group_size=500)
    anew = tmp_path / "anew"
    pq.write_table(pa.table({"n": list(range(30_000, 0, -1))}), anew, row_group_size=500)
    results, error = changed_meanwhile(path, lambda: path.write_bytes(anew.read_bytes()), how=technique)
    assert results == list(range(len(results)))
    assert f"{str(path)!r} was changed while it was read" in error


CHILD = """
import sys
from taktline import line, keep, expand, read, write
def parse(record):
    n = int(record["n"])
    if n % 101 == 7:
        raise ValueError(n)
    return n
def work(n):
    return {"n": n, "sum": sum(range(n % 5000))}
flow = line(parse, keep(lambda n: n % 3), expand(lambda n: [n] * (n % 4)), work)
path = "in." + sys.argv[2]
source = read(path) if sys.argv[1] == "split" else (record for record in read(path))
options = dict(how="line", workers=2, on_error="skip", dead_letters="failed.jsonl")
flow.run(source, write("out.jsonl"), journal="run.journal" if sys.argv[1] == "split" else None, **options)
"""


@pytest.mark.parametrize("how", ["csv", "parquet"])
def test_killed_at_random_moments_a_run_goes_on_in_the_middle_of_a_part(tmp_path, how):
    (tmp_path / "job.py").write_text(CHILD)
    (tmp_path / f"in.{how}").write_bytes(data_of(how, 20_000, 3))
    whole = tmp_path / "whole"
    whole.mkdir()
    os.link(tmp_path / f"in.{how}", whole / f"in.{how}")
    killed.until_done(whole, "../job.py", "plain", how, kills=0)
    killed.until_done(tmp_path, "job.py", "split", how, kills=5)
    assert (tmp_path / "out.jsonl").read_bytes() == (whole / "out.jsonl").read_bytes()
    letters = [[(each.index, each.record) for each in read_dead_letters(p / "failed.jsonl")] for p in (tmp_path, whole)]
    assert letters[0] == letters[1]


@pytest.mark.parametrize(
    ("name", "on_error"),
    [
        *product(["out.jsonl", "out.txt", "out.csv", "out.jsonl.gz"], ["raise", "skip"]),
        *product(["out.jsonl", "out.jsonl.gz"], ["keep"]),
    ],
)
def test_what_is_written_is_the_same(tmp_path, name, on_error):
    (tmp_path / "in.jsonl").write_text(text_of("jsonl", 3000, 3))
    written = []
    for source in (read(tmp_path / "in.jsonl"), (r for r in read(tmp_path / "in.jsonl"))):
        rows = line(number, *[check] * (on_error == "skip"), str if "txt" in name else lambda n: {"n": n, "é": "ü\n"})
        report = rows.run(source, write(tmp_path / name), on_error=on_error, **WORKERS)
        written.append(((tmp_path / name).read_bytes(), report.records_in, report.records_out, report.skipped))
    assert written[0] == written[1]


def test_the_caller_does_not_encode_what_workers_encode(tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_text(text_of("jsonl", 5000, 3))
    sink = write(tmp_path / "out.jsonl")
    monkeypatch.setattr(sink, "write", None)
    report = line(number)(read(tmp_path / "in.jsonl"), **WORKERS).drain(sink)
    assert (tmp_path / "out.jsonl").read_text() == "".join(f"{n}\n" for n in range(5000))
    assert (report.records_in, report.records_out, report.complete) == (5000, 5000, True)


@pytest.mark.parametrize("source", ["split", "iterator"])
def test_a_result_that_cannot_be_written_is_named_as_ever(tmp_path, source):
    path = tmp_path / "in.jsonl"
    path.write_text(text_of("jsonl", 3000, 3))
    flow = line(number, lambda n: {n} if n == 1234 else n)
    records = read(path) if source == "split" else range(3000)
    flow = flow if source == "split" else line(lambda n: {n} if n == 1234 else n)
    with pytest.raises(SinkError, match="result 1,234") as error:
        flow.run(records, write(tmp_path / "out.jsonl"), **WORKERS)
    with pytest.raises(SinkError) as plain:
        flow.run(records, write(tmp_path / "out.jsonl"), how="loop")
    assert str(error.value) == str(plain.value)
    assert os.listdir(tmp_path) == ["in.jsonl"]


@pytest.mark.parametrize("technique", ["loop", "line", "auto"])
@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.csv", "in.txt.gz"])
def test_a_file_of_nothing_but_a_byte_order_mark_has_no_records(tmp_path, name, technique):
    data = "\ufeff".encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    report = line(str)(read(tmp_path / name), how=technique, workers=1).drain(write(tmp_path / "out.txt"))
    assert (report.records_in, report.complete, (tmp_path / "out.txt").read_bytes()) == (0, True, b"")


@pytest.mark.parametrize("source", ["list", "generator", "file"])
def test_results_are_encoded_behind_a_move_whatever_is_read(tmp_path, source):
    caller = os.getpid()

    def dear(n):
        sum(range(200_000 if os.getpid() == caller else 20_000))  # the caller is not done before workers have started
        return {"n": n["n"], "twice": 2 * n["n"]}

    rows = [{"n": n} for n in range(3_000)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {"list": rows, "generator": (row for row in rows), "file": read(tmp_path / "in.jsonl")}
    report = line(dear).run(sources[source], write(tmp_path / "out.jsonl"), how="auto", workers=2)
    assert report.workers == 2
    wanted = [{"n": n, "twice": 2 * n} for n in range(3_000)]
    assert [json.loads(text) for text in (tmp_path / "out.jsonl").open()] == wanted
