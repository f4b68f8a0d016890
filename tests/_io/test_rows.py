"""Files in and out: what was written is read back, and whatever is wrong is told with its place."""

from __future__ import annotations

import gzip
import json
import os
import re
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import taktline
from taktline import LineError, SinkError, SourceError, line, read, write

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=20)
values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text)
rows = st.lists(st.dictionaries(text, st.one_of(values, st.lists(values, max_size=3)), max_size=4), max_size=20)
suffixes = st.sampled_from(["", ".gz"])


def written(path, results):
    sink = write(path)
    sink.open()
    sink.write(results)
    sink.commit()
    return path


@settings(suppress_health_check=list(HealthCheck))
@given(rows=rows, suffix=suffixes)
def test_json_lines_come_back_as_they_were(tmp_path, rows, suffix):
    assert list(read(written(tmp_path / f"a.jsonl{suffix}", rows))) == rows


@settings(suppress_health_check=list(HealthCheck))
@given(lines=st.lists(text, max_size=20), suffix=suffixes)
def test_text_lines_come_back_as_they_were(tmp_path, lines, suffix):
    path = written(tmp_path / f"a.txt{suffix}", lines)
    if lines and lines[0].startswith("\ufeff"):
        lines[0] = lines[0][1:]
    assert list(read(path)) == lines


@settings(suppress_health_check=list(HealthCheck))
@given(
    cells=st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=9), text)
    )
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
def test_csv_rows_come_back_as_they_were(tmp_path, cells, suffix):
    if suffix == ".tsv":  # which has no form for tabs and line ends
        cells = [(re.sub(r"[\t\r\n]", " ", one), re.sub(r"[\t\r\n]", " ", two)) for one, two in cells]
    found = [{"one": one, "two": two} for one, two in cells]
    assert list(read(written(tmp_path / f"a{suffix}", found))) == found


def test_equal_results_make_equal_gzip_files(tmp_path):
    one, two = (written(tmp_path / f"{name}.jsonl.gz", [{"n": 1}]) for name in "ab")
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("bom.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        ("empty.jsonl", b"", []),
        ("empty.csv", b"", []),
        ("head.csv", b"a,b\n", []),
        ("bom.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n", [{"a": "1", "b": "2"}]),
        ("inner.csv", b'a,b\n"x\ny",2\n', [{"a": "x\ny", "b": "2"}]),
        ("crlf.txt", b"a\r\nb\x0bc\nlast", ["a", "b\x0bc", "last"]),
        ("any.jsonl", b'[1, 2]\n"x"\nnull\n', [[1, 2], "x", None]),
    ],
)
def test_odd_files_are_read_rightly(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert list(read(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2, is no JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "line 2, is no"),
        ("a.txt", b"good\nb\xffd\n", "line 2, is not UTF-8 at byte 1"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "line 3: 3 fields where the header has 2"),
        ("a.csv", b"a,a\n1,2\n", "two columns of the same name"),
        ("a.csv", b'a,b\n"x,2\n', "is no CSV"),
        ("a.csv", b"a,b\n\xff,2\n", "line 2, is not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000)[:-20], "truncated gzip"),
        (
            "a.jsonl.gz",
            b"no gzip at all",
            "is no gzip file, though its name says so: it begins as text does, with 'no gzip at'",
        ),
        ("a.csv.xz", b"name,amount\n1,2\n", "is no xz file"),
    ],
)
def test_bad_files_are_told_about_with_their_place(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        list(read(tmp_path / name))
    assert says in str(caught.value)
    assert name in str(caught.value)


def test_what_comes_before_a_bad_line_is_delivered(tmp_path):
    (tmp_path / "a.jsonl").write_text("1\n2\nx\n")
    got = []
    with pytest.raises(SourceError, match="line 3"):
        for result in line(abs)(read(tmp_path / "a.jsonl"), how="line", workers=2):
            got.append(result)
    assert got == [1, 2]


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("ordrs.jsonl", ""),
        ("on.jsonl", "in.jsonl"),
        ("in.json", "in.jsonl"),
        ("priced.csv", "prices.csv.gz"),
        ("x.jsonl", ""),
    ],
)
def test_only_a_name_that_begins_like_it_is_suggested(tmp_path, asked, near):
    for name in ("in.jsonl", "bad.jsonl", "prices.csv.gz"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError) as caught:
        read(tmp_path / asked)
    assert ("did you mean" in str(caught.value), near in str(caught.value)) == (bool(near), True)


def test_a_file_that_is_not_there_is_refused_at_once_with_the_near_one(tmp_path):
    (tmp_path / "orders.jsonl").touch()
    with pytest.raises(FileNotFoundError, match=r"did you mean .*orders\.jsonl"):
        read(tmp_path / "order.jsonl")
    with pytest.raises(SourceError, match="no file matches"):
        read(tmp_path / "*.csv")
    (tmp_path / "a.xyz").touch()
    with pytest.raises(LineError, match="suffix; say how to read it: format= one of arrow, csv, jsonl, orc, parquet,"):
        read(tmp_path / "a.xyz")


def test_what_is_read_only_is_not_named_for_writing(tmp_path):
    with pytest.raises(LineError, match="suffix; say how to write it: format= one of arrow, csv, jsonl, parquet,"):
        write(tmp_path / "a.xyz")
    with pytest.raises(LineError, match="no format 'orcs'; choose one of arrow, csv, jsonl, parquet,"):
        write(tmp_path / "a", "orcs")
    with pytest.raises(LineError, match="ORC is read and not written"):
        write(tmp_path / "a.orc")


@pytest.mark.parametrize("make", [read, write])
def test_a_database_is_answered_with_what_reads_and_writes_it(make):
    with pytest.raises(LineError) as refused:
        make("postgresql://me:hunter2@host/shop")
    assert "hunter2" not in str(refused.value)
    for each in re.findall(r"taktline\.(\w+)\(", str(refused.value)):
        assert hasattr(taktline, each)
    assert "taktline.read_sql(" in str(refused.value)


def test_a_glob_is_one_stream_in_sorted_order(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    source = read(str(tmp_path / "*.txt"))
    assert list(source) == list(source) == ["a", "b", "c"]


def test_a_pipe_that_nobody_named_is_refused_and_never_waited_for(tmp_path):
    (tmp_path / "a.jsonl").write_text("1\n")
    os.mkfifo(tmp_path / "b.jsonl")
    for path in (tmp_path, tmp_path / "*.jsonl", [tmp_path / "a.jsonl", tmp_path]):
        with pytest.raises(SourceError, match=r"b.jsonl' is no file but a pipe"):
            list(read(path))
    writer = threading.Thread(target=(tmp_path / "b.jsonl").write_text, args=("2\n",))
    writer.start()
    assert list(read([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])) == [1, 2]
    writer.join()


def test_columns_are_chosen(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,c\n1,2,3\n")
    assert list(read(tmp_path / "a.csv", columns=["c", "a"])) == [{"c": "3", "a": "1"}]
    with pytest.raises(SourceError, match="no column 'd'"):
        list(read(tmp_path / "a.csv", columns=["d"]))


def test_long_lines_and_fields_are_read(tmp_path):
    long = "x" * 10_000_000
    (tmp_path / "a.jsonl").write_text(json.dumps({"a": long}) + "\n")
    (tmp_path / "a.csv").write_text(f"a\n{long}\n")
    assert list(read(tmp_path / "a.jsonl")) == list(read(tmp_path / "a.csv")) == [{"a": long}]


@pytest.mark.parametrize(
    ("name", "result", "says"),
    [
        ("a.jsonl", {"when": {1, 2}}, "cannot be written as JSON"),
        ("a.csv", [1, 2], "not dict"),
        ("a.csv", {"n": 1, "more": 2}, "'more' is not among the first row's"),
        ("a.txt", 7, "not str"),
        ("a.txt", "two\nlines", "line end inside"),
    ],
)
def test_a_result_that_cannot_be_written_is_named_and_no_file_is_left(tmp_path, name, result, says):
    good = "text" if name == "a.txt" else {"n": 1}
    with pytest.raises(SinkError) as caught:
        line(lambda n: result if n == 3 else good).run(range(10), write(tmp_path / name))
    assert "result 3" in str(caught.value)
    assert says in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_broken_run_leaves_the_old_file_as_it_was(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    with pytest.raises(ZeroDivisionError):
        line(lambda n: 1 // (50 - n)).run(range(100), write(path))
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_a_full_disk_is_one_clear_error():
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(SinkError, match="No space left"):
        line(str).run(range(10), write(full, "text"))


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(LineError, match="there is no folder"):
        write(tmp_path / "no" / "a.jsonl")
    with pytest.raises(LineError, match="is a folder"):
        write(tmp_path)


@pytest.fixture
def a_shut_folder(tmp_path, monkeypatch):
    """Gives the folder `shut`, beside `open`, a mode for a user who may not do everything: this process, in this test."""
    for name in ("open", "shut"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").write_text('{"n": 1}\n')
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    before = os.geteuid()

    def shut(mode):
        (tmp_path / "shut").chmod(mode)
        if before == 0:
            os.seteuid(65534)

    yield shut
    os.seteuid(before)
    (tmp_path / "shut").chmod(0o755)


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111], ids=["shut", "listed only", "passed only"])
@pytest.mark.parametrize("path", ["**/*.jsonl", "*/*.jsonl", "shut/*.jsonl", "shut", "s*t/a.jsonl", "shut/a.jsonl"])
def test_a_folder_that_cannot_be_looked_into_is_never_passed_over(a_shut_folder, path, mode):
    a_shut_folder(mode)
    if path.endswith("t/a.jsonl") and mode == 0o111:
        read(path)  # no name has to be known
        return
    with pytest.raises(SourceError, match=r"the folder 'shut' cannot be read: Permission denied"):
        read(path)


def test_a_line_of_json_is_the_same_whatever_is_written_with_it(tmp_path):
    whole = written(tmp_path / "a.jsonl", [{"name": "Zürich"}, {"half": "ü\ud800"}, {"name": "東京"}])
    assert whole.read_bytes() == '{"name": "Zürich"}\n{"half": "\\u00fc\\ud800"}\n{"name": "東京"}\n'.encode()
