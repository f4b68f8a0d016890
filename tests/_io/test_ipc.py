"""Files of Arrow: what was written, for whoever reads it."""

from __future__ import annotations

import io
import os

import pytest
from pieces import write_pieces

from taktline import LineError, SinkError, batch, line, read, write
from taktline._io import settling
from taktline.testing import check_sink

pa = pytest.importorskip("pyarrow")
polars = pytest.importorskip("polars")
feather = pytest.importorskip("pyarrow.feather")

SCHEMA = pa.schema(
    [
        pa.field("n", pa.int32(), metadata={"unit": "pieces"}),
        ("l", pa.list_(pa.string())),
        ("at", pa.timestamp("s", "UTC")),
    ],
    metadata={"made by": "a test"},
)
TABLE = pa.table({"n": [1, None, 3], "l": [["a"], None, []], "at": [0, None, 10**9]}, schema=SCHEMA)


def written(path, *pieces, **options):
    write_pieces(write(path, **options), pieces)
    return path


@pytest.mark.parametrize("codec", [None, "lz4", "zstd", "none"])
def test_others_read_what_was_written(tmp_path, codec):
    path = written(tmp_path / "a.feather", TABLE, TABLE.to_pylist(), TABLE.slice(1, 1), codec=codec)
    wanted = pa.concat_tables([TABLE, TABLE, TABLE.slice(1, 1)])
    found = feather.read_table(path)
    assert found.equals(wanted)
    assert found.schema.equals(SCHEMA, check_metadata=True)
    assert polars.read_ipc(path)["n"].to_list() == wanted["n"].to_pylist()


def test_tables_are_batches_small_ones_together(tmp_path, monkeypatch):
    monkeypatch.setattr(settling, "FEW", 3)
    two = pa.table({"n": [1, 2]})
    path = written(tmp_path / "a.arrow", two, two, pa.table({"n": range(10)}), [{"n": 1}], row_group=8)
    with pa.ipc.open_file(path) as file:
        assert [file.get_batch(at).num_rows for at in range(file.num_record_batches)] == [4, 8, 2, 1]


def test_categories_are_written_as_what_they_stand_for(tmp_path, monkeypatch):
    monkeypatch.setattr(settling, "FEW", 0)
    one, two = (pa.table({"c": pa.array(values).dictionary_encode()}) for values in (["a", "b"], ["c", None]))
    found = pa.ipc.open_file(written(tmp_path / "a.arrow", one, two)).read_all()
    assert found.equals(pa.table({"c": ["a", "b", "c", None]}))


def test_columns_that_drift_and_what_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(settling, "FEW", 0)
    nothing, text = pa.table({"v": pa.nulls(2)}), pa.table({"v": ["a"]})
    assert pa.ipc.open_file(written(tmp_path / "a.arrow", nothing, text)).read_all()["v"].to_pylist() == [
        None,
        None,
        "a",
    ]
    os.unlink(tmp_path / "a.arrow")
    with pytest.raises(SinkError, match="its 'v' is int64, and the column is string") as caught:
        written(tmp_path / "a.arrow", text, pa.table({"v": [1]}))
    assert caught.value.result == 1
    assert os.listdir(tmp_path) == []


def test_a_stream_of_a_broken_run_does_not_look_whole(monkeypatch):
    monkeypatch.setattr(settling, "GROUP", 10)
    stream = io.BytesIO()
    with pytest.raises(ZeroDivisionError):
        line(lambda n: {"n": 1 // (90 - n)}).run(range(100), write(stream, "arrow"), how="loop")
    assert len(stream.getvalue()) > 100
    with pytest.raises(pa.ArrowInvalid):
        pa.ipc.open_file(stream.getvalue())


def test_no_results_make_a_file_without_rows(tmp_path):
    assert pa.ipc.open_file(written(tmp_path / "a.arrow")).read_all().num_rows == 0
    assert pa.ipc.open_file(written(tmp_path / "b.arrow", TABLE.slice(0, 0))).read_all().schema.equals(SCHEMA)


def test_workers_give_tables(tmp_path):
    written(tmp_path / "in.parquet", pa.table({"n": range(1000)}))
    flow = line(batch(lambda table: table, form="arrow"))
    flow.run(read(tmp_path / "in.parquet"), write(tmp_path / "out.arrow"), how="line", workers=2)
    assert pa.ipc.open_file(tmp_path / "out.arrow").read_all().equals(pa.table({"n": range(1000)}))


def test_what_cannot_be_is_refused_at_once(tmp_path):
    for name, options, says in [
        ("a.arrow", {"codec": "snappy"}, "none of Arrow's: give one of lz4, zstd, none"),
        ("a.arrow", {"codec": "lz4", "level": 3}, 'give codec="zstd", which has 1 to 22'),
        ("a.arrow", {"schema": {"n": "int64"}}, r"pyarrow\.Schema"),
        ("a.arrow.gz", {}, "Arrow packs its own columns"),
        ("a.arrow", {"format": "jsonl"}, "its suffix promises another format"),
        ("a.jsonl", {"format": "arrow"}, "its suffix promises another format"),
    ]:
        with pytest.raises(LineError, match=says):
            write(tmp_path / name, **options)
    with pytest.raises(LineError, match=r"cannot go on from a journal: .*Write a folder of parts"):
        line(dict).run([{"n": 1}], write(tmp_path / "a.arrow"), journal=tmp_path / "journal", how="loop")


def test_files_of_arrow_as_sinks(tmp_path):
    def there(name):
        path = tmp_path / f"{name}.arrow"
        return pa.ipc.open_file(path).read_all().to_pylist() if path.exists() else []

    check_sink(lambda name: write(tmp_path / f"{name}.arrow"), there)
