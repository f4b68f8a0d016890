"""A file is known again by what it is, here and on another machine."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taktline import read
from taktline._io import changing


@pytest.fixture
def elsewhere(monkeypatch):
    """This process becomes one of another machine."""
    return lambda: monkeypatch.setattr(changing, "machine", lambda: "another one")


def part_of(path):
    return next(iter([read(path).split().part(50)]))


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_part_is_read_on_another_machine_where_the_file_is_the_same(tmp_path, elsewhere, form):
    path = tmp_path / f"in.{form}"
    rows = [{"n": n} for n in range(100)]
    if form == "jsonl":
        path.write_text("".join(f'{{"n": {n}}}\n' for n in range(100)))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    packed = pickle.dumps(part := part_of(path))
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    copy.rename(path)  # of the same content, with another inode
    with pytest.raises(Exception, match="was replaced"):
        list(pickle.loads(packed).read())
    elsewhere()
    assert list(pickle.loads(packed).read()) == rows[: len(part)]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_part_is_not_read_there_where_the_file_is_another_one(tmp_path, elsewhere, form):
    path = tmp_path / f"in.{form}"
    if form == "jsonl":
        path.write_text("".join(f'{{"n": {n}}}\n' for n in range(100)))
    else:
        pq.write_table(pa.table({"n": range(100)}), path)
    packed = pickle.dumps(part_of(path))
    elsewhere()
    if form == "jsonl":
        path.write_text("".join(f'{{"m": {n}}}\n' for n in range(100)))
    else:
        pq.write_table(pa.table({"n": range(1, 101)}), path)
    with pytest.raises(Exception, match="was replaced"):
        list(pickle.loads(packed).read())


def test_a_file_that_grows_is_known_there_by_what_it_was(tmp_path, elsewhere):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(100)))
    packed = pickle.dumps(part := part_of(path))
    with open(path, "a") as file:
        file.write('{"n": 100}\n')
    elsewhere()
    assert len(list(pickle.loads(packed).read())) == len(part)
