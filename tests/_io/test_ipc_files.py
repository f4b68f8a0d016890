"""Files and streams of Arrow are read as those of Parquet are."""

from datetime import datetime

import pyarrow as pa
import pyarrow.feather
import pytest

import taktline
from taktline import LineError, SourceError, batch, line
from taktline.testing import check_source

ROWS = [
    {"n": n, "s": None if n % 5 == 0 else f"text {n % 7}", "x": [n, None], "at": datetime(2024, 1, 1, 0, n)}
    for n in range(50)
]
TABLE = pa.Table.from_pylist(ROWS).append_column("k", pa.array([f"{n % 3}" for n in range(50)]).dictionary_encode())
ROWS = [{**row, "k": f"{n % 3}"} for n, row in enumerate(ROWS)]


def written(path, table=TABLE, *, codec=None, kind=pa.ipc.new_file):
    with kind(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table, max_chunksize=7)
    return path


def tables_of(source):
    splitter = source.split()
    while (part := splitter.table()) is not None:
        yield part.table()


WAYS = [
    {}, {"codec": "zstd"}, {"codec": "lz4"}, {"kind": pa.ipc.new_stream}, {"kind": pa.ipc.new_stream, "codec": "zstd"},
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=["plain", "zstd", "lz4", "stream", "packed stream"])
def test_it_is_a_source_as_any_other(tmp_path, way):
    source = taktline.read(written(tmp_path / "a.arrow", **way))
    assert list(source) == ROWS
    if "codec" not in way:
        check_source(source, ROWS)
    assert source.columns
    tables = list(tables_of(source))
    assert pa.concat_tables(tables).equals(TABLE)
    some = taktline.read(tmp_path / "a.arrow", columns=["s", "n"], filters=[("k", "=", "1"), ("n", ">", 20)])
    wanted = [{"s": row["s"], "n": row["n"]} for row in ROWS if row["k"] == "1" and row["n"] > 20]
    assert list(some) == wanted
    assert [row for table in tables_of(some) for row in table.to_pylist()] == wanted


def test_feather_is_read_and_its_first_version_refused(tmp_path):
    pyarrow.feather.write_feather(TABLE, tmp_path / "a.feather", chunksize=20)
    assert list(taktline.read(tmp_path / "a.feather")) == ROWS
    with pytest.warns(DeprecationWarning, match="V1"):
        pyarrow.feather.write_feather(TABLE.select(["n"]), tmp_path / "old.feather", version=1)
    with pytest.raises(SourceError, match="cannot be read as Arrow: it is of the first version of Feather"):
        list(taktline.read(tmp_path / "old.feather"))


def test_steps_get_its_tables(tmp_path):
    source = taktline.read(written(tmp_path / "a.arrow"))
    flow = line(batch(lambda table: table.select(["n"]), form="arrow"))
    assert list(flow(source, how="line", workers=2)) == [{"n": n} for n in range(50)]


@pytest.mark.parametrize("way", [WAYS[0], WAYS[3]], ids=["file", "stream"])
def test_what_is_cut_short_or_no_file_of_arrow_is_told(tmp_path, way):
    path = written(tmp_path / "a.arrow", **way)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(SourceError, match=r"a\.arrow' cannot be read as Arrow"):
        list(taktline.read(path))
    path.write_text("none at all")
    with pytest.raises(SourceError, match=r"a\.arrow' cannot be read as Arrow"):
        list(taktline.read(path))
    empty = written(tmp_path / "b.arrow", TABLE.schema.empty_table(), **way)
    assert list(taktline.read(empty)) == []
    with pytest.raises(LineError, match="Arrow packs its own columns"):
        taktline.read([written(tmp_path / "c.arrow.gz", **way)])
