"""Files cut into parts anywhere give the records, and the error, that reading them in one go gives."""

from __future__ import annotations

import json
import os
import pickle
from itertools import islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taktline import read
from taktline._crew import worker
from taktline._io import opening
from taktline._recipe.ports import Part
from taktline._run.reader import Reader

ends = st.sampled_from(["\n", "\n", "\r\n"])
values = st.one_of(st.integers(-9, 10**20), st.text(max_size=8), st.floats(allow_nan=False), st.just("long" * 300))
json_text = st.one_of(
    values.map(lambda v: json.dumps({"n": v})),
    values.map(json.dumps),
    st.sampled_from(["", " ", "\t", '{"n":', " 1", "1 "]),
)
cell = st.one_of(
    st.text("abc é", max_size=4), st.integers(0, 99).map(str),
    st.sampled_from(['"a\nb"', '""', '"a""b"', '"a,\r\n""\n"', '5" wide', ' "x"', "a\rb", '"open', "long" * 300]),
)  # fmt: skip
plain_cell = st.one_of(st.text("abc", max_size=4), st.sampled_from(['"a\nb"', '""', '"""\n\n"""', "é"]))
row = st.lists(plain_cell, min_size=2, max_size=2).map(",".join)
odd_row = st.one_of(row, row, row, st.lists(cell, min_size=1, max_size=3).map(",".join), st.sampled_from(["", "\r"]))


def contents(line: st.SearchStrategy[str], header: str = "") -> st.SearchStrategy[bytes]:
    """A file of such lines: with either line end, with and without a BOM, whole or cut off."""

    def made(lines: list[tuple[str, str]], bom: bool, cut: int, bad: bool) -> bytes:
        text = "".join(line + end for line, end in [(header, "\n")] * bool(header) + lines)
        data = b"\xef\xbb\xbf" * bom + text.encode("utf-8", "surrogatepass") + b"\xff\n" * bad
        return data[: len(data) - cut]

    return st.builds(
        made, st.lists(st.tuples(line, ends), max_size=20), st.booleans(), st.integers(0, 3),
        st.integers(0, 9).map(lambda n: n == 0),
    )  # fmt: skip


files = st.one_of(
    st.tuples(st.just("jsonl"), st.lists(contents(json_text), min_size=1, max_size=3)),
    st.tuples(st.just("text"), st.lists(contents(st.text(max_size=8)), min_size=1, max_size=3)),
    st.tuples(st.just("csv"), st.lists(contents(row, "a,b"), min_size=1, max_size=3)),
    st.tuples(st.just("csv"), st.lists(contents(odd_row, "a,b"), min_size=1, max_size=3)),
)


def taken(records):
    """All records, and the text of the error that ended them."""
    got = []
    try:
        for record in records:
            got.append(record)
    except Exception as error:
        return got, f"{type(error).__name__}: {error}"
    return got, ""


def in_parts(source, sizes, told):
    """The records by way of parts of these sizes, over and over; `told` gets the records that were counted, not read."""
    parts = source.parts()
    next(parts)
    sizes = [*sizes, 1]
    at = 0
    while True:
        try:
            part = parts.send(sizes[at % len(sizes)])
        except StopIteration:
            return
        at += 1
        if isinstance(part, Part):
            there = pickle.loads(pickle.dumps(part))
            told.append(len(part))
            decoded = taken(there)
            assert decoded == taken(part)
            yield from part
            assert len(decoded[0]) == len(part)
        else:
            yield from islice(part, 1 + at % 3)


@given(files, st.lists(st.integers(0, 300), max_size=5))
@settings(max_examples=200)
@example(("csv", [b'a,b\n5" w,6\n7" w,"8\n9"\n']), [7])
@example(("csv", [b"a,b\n1,2\n\n3,4\n5,6\n"]), [100])
@example(("jsonl", [b"1\n2\n \n3\n"]), [100])
@example(("jsonl", [b"1\n2\n3\n4\nno\n"]), [0])
@example(("jsonl", [b"1\n2\n3\n4\n5\n6\nno\n"]), [2, 0])
def test_parts_give_what_reading_in_one_go_gives(tmp_path_factory, file, sizes):
    how, datas = file
    folder = tmp_path_factory.mktemp("parts")
    for n, data in enumerate(datas):
        (folder / f"{n}.txt").write_bytes(data)
    source, told = read(folder, format=how), []
    assert taken(in_parts(source, sizes, told)) == taken(source)


def test_plain_lines_are_counted_and_not_read(tmp_path):
    for name, text in [("a.jsonl", '{"n": 1}\n' * 50), ("a.txt", "é\n\n" * 25), ("a.csv", "n,m\n" + '1,"a\nb"\n' * 50)]:
        (tmp_path / name).write_text(text)
        told = []
        assert len(list(in_parts(read(tmp_path / name), [60], told))) == 50
        assert sum(told) == 50


def test_a_worker_does_not_read_a_file_that_was_replaced(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("1\n2\n")
    parts = read(path).parts()
    next(parts)
    part = parts.send(100)
    (tmp_path / "b.jsonl").write_text("3\n4\n")
    os.replace(tmp_path / "b.jsonl", path)
    assert list(part) == [1, 2]
    with pytest.raises(Exception, match="was replaced"):
        list(pickle.loads(pickle.dumps(part)))


def test_a_worker_does_not_take_fewer_records_than_were_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("1\n2\n")
    parts = read(path).parts()
    next(parts)
    part = pickle.loads(pickle.dumps(parts.send(100)))
    path.write_text("1234")
    with pytest.raises(ValueError, match="1 records in the place of 2"):
        worker._decoded(part)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=30), st.integers(0, 60))
@example([2, -2, 2, 30], 7)
def test_records_and_parts_may_be_read_in_turn(tmp_path_factory, turns, bad):
    """Positive: so many records; negative: a part of about so many."""
    path = tmp_path_factory.mktemp("turns") / "a.jsonl"
    path.write_text("".join(f"{n}\n" if n != bad else "no\n" for n in range(50)))
    reader, records = Reader(read(path), split=True), []
    while not reader.ended:
        for turn in turns:
            got = reader.read(turn + 1) if turn >= 0 else reader.read_part(-turn)
            decoded, error = taken(got)
            records += decoded
            if error:  # of a line in a part
                assert (records, error) == taken(read(path))
                return
    wanted, error = taken(read(path))
    assert records == wanted
    assert (f"{type(reader.error).__name__}: {reader.error}" if reader.error else "") == error


def test_what_cannot_be_read_twice_or_sent_is_not_split(tmp_path):
    (tmp_path / "a.csv").write_text("n\n1\n")
    assert read("-").parts() is None
    assert read(tmp_path / "a.csv", types={"n": lambda text: text}).parts() is None
    assert read(tmp_path / "a.csv", types={"n": int}).parts() is not None
    assert not opening.is_plain("a.jsonl.gz")
