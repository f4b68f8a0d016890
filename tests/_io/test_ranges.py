"""Files cut into parts anywhere give the records, and the error, that reading them in one go gives."""

from __future__ import annotations

import io
import json
import os
import pickle
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taktline import line, read, write
from taktline._crew import envelope
from taktline._io import parquet
from taktline._run.reader import Reader
from taktline.abc import Part

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


moments = st.sampled_from([1_000, None, 1_001])  # the last one has nanoseconds
strings = st.sampled_from(["é".encode(), None, b"\xff"])


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A Parquet file: of several row groups, some with values that no record can have, some that cannot be decoded."""
    count, odd = draw(st.integers(0, 40)), draw(st.lists(st.tuples(st.integers(0, 39), moments, strings), max_size=3))
    rows: list[tuple[int, int | None, bytes | None]] = [(1, 1_000, b"a" * n) for n in range(count)]
    for place, moment, text in odd:
        rows[place : place + 1] = [(2, moment, text)] * (place < count)
    n, at, s = zip(*rows, strict=True) if rows else ((), (), ())
    text = pa.array(s, pa.binary()).view(pa.string())
    names = draw(st.sampled_from([["n", "at", "s"]] * 9 + [["n", "at", "t"]]))
    table = pa.table([pa.array(n, pa.int64()), pa.array(at, pa.timestamp("ns")), text], names)
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=draw(st.integers(1, 15)), compression="zstd", use_dictionary=False)
    data = file.getvalue()
    if rows and draw(st.integers(0, 5)) == 0:
        groups = pq.ParquetFile(io.BytesIO(data)).metadata
        chunk = groups.row_group(draw(st.integers(0, groups.num_row_groups - 1))).column(draw(st.integers(0, 2)))
        end = chunk.data_page_offset + chunk.total_compressed_size
        data = data[: end - 3] + b"\xff\xff\xff" + data[end:]  # a page that zstd refuses
    return data if draw(st.integers(0, 9)) else data[:-1]


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


def all_parts(source, wanted, **how):
    splitter = source.split(**how)
    while (part := splitter.part(wanted)) is not None:
        yield part


def in_parts(source, sizes, told, **how):
    """The records by way of parts of these sizes, over and over; `told` gets the records that were counted, not read."""
    splitter = source.split(**how)
    sizes = [*sizes, 1]
    at, over = 0, False
    while not over:
        wanted = sizes[at % len(sizes)]
        part = splitter.part(wanted) if wanted else None
        at += 1
        if part is not None:
            assert isinstance(part, Part)
            assert 0 < len(part) <= wanted
            assert part.size > 0
            there = pickle.loads(pickle.dumps(part))
            told.append(len(part))
            decoded = taken(there)
            assert decoded == taken(part)
            yield from part
            assert len(decoded[0]) == len(part)
        else:
            over = True
            for record in islice(splitter, 1 + at % 3):
                over = False
                yield record


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parquet, "BATCH", 4)
        yield


@given(files, st.lists(st.integers(0, 30), max_size=5), st.booleans())
@settings(max_examples=250)
@example(("csv", [b'a,b\n5" w,6\n7" w,"8\n9"\n']), [7], False)
@example(("csv", [b"a,b\n1,2\n\n3,4\n5,6\n"]), [100], False)
@example(("csv", [b'a,b\n1,"\n\n"\n3,"4\n\n"\n5,"\n"\n']), [1, 1], True)
@example(("jsonl", [b"1\n2\n \n3\n"]), [100], False)
@example(("jsonl", [b"1\n2\n3\n4\nno\n"]), [0], False)
@example(("jsonl", [b"1\n2\n3\n4\n5\n6\nno\n"]), [2, 0], False)
def test_parts_give_what_reading_in_one_go_gives(tmp_path_factory, file, sizes, exact):
    how, datas = file
    folder = tmp_path_factory.mktemp("parts")
    for n, data in enumerate(datas):
        (folder / f"{n}.txt").write_bytes(data)
    source = read(folder, format=how)
    assert taken(in_parts(source, sizes, [], exact=exact)) == taken(source)


@given(st.lists(tables(), min_size=1, max_size=3), st.lists(st.integers(0, 30), max_size=5), st.booleans())
@settings(max_examples=200)
def test_parts_of_parquet_give_what_reading_in_one_go_gives(tmp_path_factory, datas, sizes, some):
    folder = tmp_path_factory.mktemp("parts")
    for n, data in enumerate(datas):
        (folder / f"{n}.parquet").write_bytes(data)
    source, told = read(folder, columns=["s", "n"] if some else None), []
    records, error = taken(in_parts(source, sizes, told))
    assert (records, error) == taken(source)
    assert error or 0 in sizes or sum(told) == len(source)


def test_no_row_is_decoded_twice_by_a_worker_that_gets_every_second_part(tmp_path, monkeypatch):
    pq.write_table(pa.table({"n": list(range(1000))}), tmp_path / "a.parquet")
    decoded, real = [], pq.ParquetFile.iter_batches

    def counted(file, *args, **options):
        for batch in real(file, *args, **options):
            decoded.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    parts = list(all_parts(read(tmp_path / "a.parquet"), 7))
    there = pickle.loads(pickle.dumps(parts[1::2]))
    assert [[record["n"] for record in part] for part in there] == [[*range(n, n + 7)] for n in range(7, 994, 14)]
    assert sum(decoded) == 996


def test_parts_behind_rows_that_cannot_be_decoded_name_those(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": list(range(100))}), path, data_page_size=1, write_batch_size=10, use_dictionary=False)
    data = path.read_bytes()
    at = data.index((50).to_bytes(8, "little"))
    path.write_bytes(data[: at - 20] + b"\xff" * 20 + data[at:])  # the header of a page of ten
    source, errors = read(path), set()
    for part in all_parts(source, 7):
        for each in (part, pickle.loads(pickle.dumps(part))):
            errors.add(taken(each)[1])
    assert errors == {"", taken(source)[1]}
    assert len(errors) == 2


def test_whole_row_groups_are_parts_where_they_are_small(tmp_path):
    pq.write_table(pa.table({"n": list(range(100))}), tmp_path / "a.parquet", row_group_size=8)
    source = read(tmp_path / "a.parquet")
    assert [len(part) for part in all_parts(source, 20)] == [16] * 5 + [20]
    assert [len(part) for part in all_parts(source, 3)] == [3, 3, 2] * 12 + [3, 1]
    assert [len(part) for part in all_parts(source, 30, exact=True)] == [30, 30, 30, 10]


def test_plain_lines_are_counted_and_not_read(tmp_path):
    for name, text in [("a.jsonl", '{"n": 1}\n' * 50), ("a.txt", "é\n\n" * 25), ("a.csv", "n,m\n" + '1,"a\nb"\n' * 50)]:
        (tmp_path / name).write_text(text)
        told = []
        assert len(list(in_parts(read(tmp_path / name), [60], told))) == 50
        assert sum(told) == 50


@pytest.mark.parametrize("how", ["jsonl", "parquet"])
def test_a_worker_does_not_read_a_file_that_was_replaced(tmp_path, how):
    path, other = tmp_path / f"a.{how}", tmp_path / f"b.{how}"
    for n, name in enumerate((path, other)):
        line(lambda n: {"n": n}).run([n, n + 1], write(name))
    splitter = read(path).split()
    part = splitter.part(100)
    os.replace(other, path)
    assert list(part) == [{"n": 0}, {"n": 1}]
    with pytest.raises(Exception, match="was replaced"):
        list(pickle.loads(pickle.dumps(part)))


def test_a_worker_does_not_take_fewer_records_than_were_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("1\n2\n")
    splitter = read(path).split()
    part = pickle.loads(pickle.dumps(splitter.part(100)))
    path.write_text("1234")
    with pytest.raises(ValueError, match="1 records in the place of 2"):
        envelope.read_part(part, 0, goes_on=False)


@pytest.mark.parametrize(("now", "left"), [("1234", [1234]), ("\n\n1\n", [1]), ("1\n3", [1]), ("1\n2", [1]), ("", [])])
def test_where_a_file_was_cut_it_is_seen_that_it_was_written_anew(tmp_path, now, left):
    path = tmp_path / "a.jsonl"
    path.write_text("1\n2\n")
    splitter = read(path).split()
    part = splitter.part(100)
    path.write_text(now)
    records, error = taken(part)
    assert records == left
    assert f"{str(path)!r} was c" in error
    assert " while it was read: " in error


def test_where_a_file_was_cut_no_more_records_come_than_were_counted(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("12\n")
    splitter = read(path).split()
    part = splitter.part(100)
    path.write_text("1\n2")
    records, error = taken(part)
    assert records == ["1"]
    assert "from line 1 on, records have come or gone since they were counted" in error


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="no files of the kernel's here")
def test_a_file_that_tells_no_size_is_read_to_its_end():
    assert list(read("/proc/version", format="text")) == list(
        line(str)(read("/proc/version", format="text"), how="line")
    )


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=30), st.integers(0, 60))
@example([2, -2, 2, 30], 7)
def test_records_and_parts_may_be_read_in_turn(tmp_path_factory, turns, bad):
    """Positive: so many records; negative: a part of about so many."""
    path = tmp_path_factory.mktemp("turns") / "a.jsonl"
    path.write_text(numbers(bad))
    check_turns(path, turns)


def numbers(bad):
    """50 lines, one of which may be no number."""
    return "".join(f"{n}\n" if n != bad else "no\n" for n in range(50))


def check_turns(path, turns):
    """Records, and parts of at most so many, read in turn are those of the file, to its end or its error."""
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


def test_what_is_left_is_reckoned_by_bytes(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("line\n" * 500)
    reader = Reader(read(tmp_path), split=True)
    assert reader.about_left is None
    part: Any = reader.read_part
    some: Any = reader.read
    for read_on, left in [(part, 900), (some, 800), (part, 700), (some, 600), (some, 500), (some, 400), (part, 300)]:
        assert len(read_on(100)) == 100
        assert (reader.about_left, reader.remaining) == (left, None)
    reader.stop()
    assert reader.about_left == 0


def test_what_cannot_be_read_twice_or_sent_is_not_split(tmp_path):
    (tmp_path / "a.csv").write_text("n\n1\n")
    assert read(tmp_path / "a.csv", types={"n": lambda text: text}).split() is None
    assert read(tmp_path / "a.csv", types={"n": int}).split() is not None
