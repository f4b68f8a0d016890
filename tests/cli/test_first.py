"""The first so many records of a source: the same ones, and the same tables of them, as all of it gives."""

from __future__ import annotations

import pytest

from taktline import batch, line, read, write
from taktline.cli.first import First
from taktline.testing import check_source

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = [{"n": n, "some": None if n > 60 else n, "word": f"w{n}"} for n in range(100)]
TABLE = pa.Table.from_pylist(ROWS, pa.schema([("n", pa.int16()), ("some", pa.int64()), ("word", pa.string())]))


@pytest.fixture(params=["parquet", "arrow", "jsonl", "csv"])
def source(request, tmp_path):
    path = tmp_path / f"in.{request.param}"
    if request.param == "parquet":
        pq.write_table(TABLE, path, row_group_size=30)
    elif request.param == "arrow":
        with pa.ipc.new_file(path, TABLE.schema) as file:
            file.write_table(TABLE, max_chunksize=30)
    else:
        line(dict).run(ROWS, write(path), how="loop")
    return read(path, types={"n": int, "some": int} if request.param == "csv" else None)


def types_of(frame):
    frame["types"] = ",".join(map(str, frame.dtypes))
    return frame


@pytest.mark.parametrize(("how", "limit"), [("loop", 45), ("line", 1), ("line", 45), ("line", 200)])
def test_steps_get_the_tables_that_they_get_of_all(source, how, limit):
    flow = line(batch(types_of, form="pandas"))
    some = list(flow(First(source, limit), how=how, workers=1))
    assert some == list(flow(source, how="line", workers=1))[:limit]
    assert [row["n"] for row in some] == list(range(min(limit, 100)))


@pytest.mark.parametrize("limit", [7, 45, 200])
def test_it_is_a_source_as_any_other(source, limit):
    check_source(First(source, limit), ROWS[:limit])
    parts = First(source, limit).split_columns()
    assert parts is not None
    rows = list(parts.part(3) or [])
    while (part := parts.table()) is not None:
        rows += part.table().to_pylist()
        rows += [record for record, _ in zip(parts, range(2), strict=False)]  # and now and then one by one
    assert [row["n"] for row in rows] == list(range(min(limit, 100)))
