"""What can be read only once is cut into parts too: of the same records, errors and line numbers."""

from __future__ import annotations

import gzip
import os
import sys
from contextlib import closing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from present import present
from test_ranges import check_turns, files, in_parts, numbers, taken

from taktline import read
from taktline._run.reader import Reader
from taktline._wire import serialize

zstandard = pytest.importorskip("zstandard")

PACK = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}
suffixes = pytest.mark.parametrize("suffix", PACK)


@given(
    files, st.lists(st.integers(0, 30), max_size=5), st.booleans(), st.sampled_from([*PACK]), st.integers(1, 99),
    st.sampled_from([0, 0, 0, 1, 9, 40]),
)  # fmt: skip
@settings(max_examples=250)
@example(("csv", [b'a,b\n5" w,6\n7" w,"8\n9"\n']), [7], False, ".gz", 9, 0)
@example(("csv", [b"a,b\n1,2\n\n3,4\n5,6\n"]), [100], False, ".gz", 9, 0)
@example(("csv", [b'a,b\n1,"2\n\n3"\n5,6\n']), [100], False, ".gz", 12, 24)
@example(("csv", [b'a,b\n1,"\n\n"\n3,"4\n\n"\n5,"\n"\n']), [1, 1, 2], True, ".gz", 9, 0)
@example(("jsonl", [b"1\n2\n3\n4\n5\n6\nno\n"]), [2, 0], False, ".gz", 4, 9)
@example(("text", [b"1\n2\n3\n4\n5\n67"]), [2, 0, 99], False, ".gz", 3, 1)
def test_parts_of_packed_files_give_what_reading_in_one_go_gives(
    tmp_path_factory, file, sizes, exact, suffix, member, missing
):
    """`member`: bytes of text in each; `missing`: bytes at the end of the last file."""
    how, datas = file
    folder = tmp_path_factory.mktemp("parts")
    for n, data in enumerate(datas):
        packed = b"".join(PACK[suffix](data[at : at + member]) for at in range(0, len(data), member))
        end = len(packed) - missing if n == len(datas) - 1 else len(packed)
        (folder / f"{n}.txt{suffix}").write_bytes(packed[: max(0, end)])
    source = read(folder, format=how)
    assert taken(in_parts(source, sizes, [], exact=exact)) == taken(source)


@suffixes
def test_plain_lines_are_counted_and_not_decoded(tmp_path, suffix):
    for name, text in [("a.jsonl", '{"n": 1}\n' * 50), ("a.txt", "é\n\n" * 25), ("a.csv", "n,m\n" + '1,"a\nb"\n' * 50)]:
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(PACK[suffix](text.encode()))
        told = []
        assert len(list(in_parts(read(path), [7], told, exact=True))) == 50
        assert told == [7, 1] * 6 + [2]


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=30), st.integers(0, 60), st.sampled_from([*PACK]))
@example([2, -2, 2, 30], 7, ".gz")
def test_records_and_parts_may_be_read_in_turn(tmp_path_factory, turns, bad, suffix):
    """Positive: so many records; negative: a part of at most so many."""
    path = tmp_path_factory.mktemp("turns") / f"a.jsonl{suffix}"
    path.write_bytes(PACK[suffix](numbers(bad).encode()))
    check_turns(path, turns)


def test_lines_of_standard_input_are_parts_as_soon_as_they_are_there(monkeypatch):
    sending, receiving = os.pipe()[::-1]
    monkeypatch.setattr(sys, "stdin", open(receiving, encoding="utf-8"))  # noqa: SIM115
    with closing(present(read("-", "text").split())) as splitter, open(sending, "wb", buffering=0) as typed:
        typed.write(b"a line\n")
        assert list(splitter.part(1)) == ["a line"]
        typed.write(b"1\n2\n3\n4\nno")
        assert list(splitter.part(2)) == ["1", "2"]
        one_by_one = iter(splitter)
        assert next(one_by_one) == "3"
        assert list(splitter.part(1)) == ["4"]
        typed.write(b" end")
        typed.close()
        assert list(splitter.part(9)) == ["no end"]
        assert splitter.part(4) is None
        assert list(splitter) == []
    sys.stdin.close()


def test_a_line_that_is_longer_than_others_is_a_part(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"short\n" * 100 + b"long" * 1_000_000 + b"\nshort\n"))
    assert [len(text) for text in in_parts(read(path), [10], [])] == [5] * 100 + [4_000_000, 5]


def test_many_bytes_travel_beside_the_pickle(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"some text\n" * 10_000))
    part = read(path).split(exact=True).part(5000)
    stream, text = serialize.pack(part)
    assert (len(stream) < 500, len(text)) == (True, part.size)
    assert list(serialize.unpack([stream, text])) == list(part) == ["some text"] * 5000


def test_who_is_told_of_records_gets_them_read(tmp_path):
    (tmp_path / "a.jsonl").write_text("1\n2\n3\n")
    reader, told = Reader(read(tmp_path / "a.jsonl"), split=True), []
    reader.note = lambda index, last: told.append((index, last))
    assert (reader.read_part(2), told) == ([1, 2], [(2, 2)])
