"""Files of ORC are read as those of Parquet are."""

from datetime import datetime

import pyarrow as pa
import pytest
from pyarrow import orc

import taktline
from taktline import LineError, SourceError, batch, line
from taktline.testing import check_source

ROWS = [
    {"s": None if n % 5 == 0 else f"text {n % 7}", "n": n, "x": [n, None], "at": datetime(2024, 1, 1, n % 24, n % 60)}
    for n in range(2_500)
]
TABLE = pa.Table.from_pylist(ROWS)


def written(path, table=TABLE):
    orc.write_table(table, str(path), stripe_size=1, batch_size=1_000)  # stripes of a thousand rows
    return path


def test_it_is_a_source_as_any_other(tmp_path):
    check_source(taktline.read(written(tmp_path / "a.orc", TABLE.slice(0, 20))), ROWS[:20])


def test_its_stripes_are_what_is_read_at_once(tmp_path):
    path = written(tmp_path / "a.orc")
    source = taktline.read(path)
    assert list(source) == ROWS
    assert source.columns
    splitter, tables = source.split(), []
    while (part := splitter.part(1_200)) is not None:
        tables.append(part.table())
    assert [table.num_rows for table in tables] == [1_000, 1_000, 500] == [
        orc.ORCFile(path).read_stripe(n).num_rows for n in range(3)
    ]  # fmt: skip
    assert [row for table in tables for row in table.to_pylist()] == ROWS
    some = taktline.read(path, columns=["n", "s"], filters=[("s", "=", "text 1"), ("n", ">", 20)])
    assert list(some) == [{"n": row["n"], "s": row["s"]} for row in ROWS if row["s"] == "text 1" and row["n"] > 20]


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_steps_get_its_tables(tmp_path, how):
    flow = line(batch(lambda table: table.select(["n"]), form="arrow"))
    report = flow.run(taktline.read(written(tmp_path / "a.orc")), taktline.write(tmp_path / "b.parquet"), how=how)
    assert (report.records_in, report.records_out) == (2_500, 2_500)
    assert list(taktline.read(tmp_path / "b.parquet")) == [{"n": n} for n in range(2_500)]


def test_what_is_cut_short_or_none_is_told_and_none_is_written(tmp_path):
    path = written(tmp_path / "a.orc")
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(SourceError, match=r"a\.orc' cannot be read as ORC"):
        list(taktline.read(path))
    assert list(taktline.read(written(tmp_path / "none.orc", TABLE.slice(0, 0)))) == []
    for target, format in ((tmp_path / "b.orc", None), (f"{tmp_path}/parts/", "orc")):
        with pytest.raises(LineError, match="ORC is read and not written"):
            taktline.write(target, format)
