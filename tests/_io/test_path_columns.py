"""What the place of a file adds to its records: the same by every way, in every format that has columns."""

import gzip
import json
import shutil

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import taktline
from taktline import LineError, SourceError, line

FORMATS = ["jsonl", "csv", "tsv", "parquet"]
PLACES = {"year=2023/month=2": (2023, "2"), "year=2024/month=2": (2024, "2"), "year=2024/month=a%20b": (2024, "a b")}


def put(path, records):
    """A file of these records, which have integers alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(records), path, row_group_size=2)
        case ".jsonl":
            path.write_text("".join(json.dumps(each) + "\n" for each in records))
        case ".csv" | ".tsv":
            sign = "," if path.suffix == ".csv" else "\t"
            rows = [list(records[0]), *(map(str, each.values()) for each in records)]
            path.write_text("".join(sign.join(row) + "\n" for row in rows))
    return str(path)


def tables_of(source):
    splitter = source.split()
    while (part := splitter.table()) is not None:
        yield part.table()


def every_way(source):
    """The records, on which all ways must agree."""
    records = list(source)
    assert list(line(dict)(source, how="line", workers=2)) == records
    parts = source.split()
    assert [record for part in iter(lambda: parts.part(2), None) for record in part] == records
    assert list(source.split()) == records
    tables = list(tables_of(source))
    assert [record for table in tables for record in table.to_pylist()] == records
    assert all(table.schema == tables[0].schema for table in tables)
    return records


def options(form, columns=("n",)):
    return {"types": dict.fromkeys(columns, int)} if form in ("csv", "tsv") else {}


@pytest.mark.parametrize("form", FORMATS)
def test_folders_give_columns_and_the_file_its_name(tmp_path, form):
    wanted = []
    for folder, (year, month) in PLACES.items():
        records = [{"n": n, "m": n} for n in range(3)]
        path = put(tmp_path / folder / f"part.{form}", records)
        wanted += [{**each, "year": year, "month": month, "file": path} for each in records]
    (tmp_path / "_SUCCESS").touch()
    source = taktline.read(tmp_path, path_column="file", **options(form, ("n", "m")))
    assert every_way(source) == wanted
    plain = taktline.read(tmp_path, **options(form, ("n", "m")))
    assert source.fingerprint() != plain.fingerprint()
    assert every_way(plain) == [{key: each[key] for key in ("n", "m", "year", "month")} for each in wanted]
    some = taktline.read(tmp_path, columns=["n", "month"], **options(form))
    assert every_way(some) == [{key: each[key] for key in ("n", "month")} for each in wanted]
    assert list(taktline.read(tmp_path / "**" / f"*.{form}", **options(form, ("n", "m")))) == [
        {"n": each["n"], "m": each["m"]} for each in wanted
    ]
    assert every_way(taktline.read(path, path_column="file", **options(form, ("n", "m")))) == [
        {"n": n, "m": n, "file": path} for n in range(3)
    ]
    assert source.reads(str(tmp_path / "year=2025" / f"new.{form}"))
    assert not source.reads(str(tmp_path / "old" / f"new.{form}"))


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_of_nulls_and_one_that_is_no_number(tmp_path, form):
    put(tmp_path / "k=1" / f"a.{form}", [{"n": 1}])
    put(tmp_path / "k=__HIVE_DEFAULT_PARTITION__" / f"a.{form}", [{"n": 2}])
    assert every_way(taktline.read(tmp_path, **options(form))) == [{"n": 1, "k": 1}, {"n": 2, "k": None}]
    put(tmp_path / "k=007" / f"a.{form}", [{"n": 3}])
    assert [each["k"] for each in every_way(taktline.read(tmp_path, **options(form)))] == ["007", "1", None]


@pytest.mark.parametrize("form", FORMATS)
def test_a_column_that_is_there_already_is_refused(tmp_path, form):
    put(tmp_path / "n=1" / f"a.{form}", [{"n": 1}])
    with pytest.raises(SourceError, match=r"a column 'n' of its own, beside n=1 of its folder\. Read it by a pattern"):
        list(taktline.read(tmp_path))
    with pytest.raises(SourceError, match="a column 'n' of its own: give path_column= another name"):
        list(taktline.read(tmp_path / "*" / f"a.{form}", path_column="n"))
    put(tmp_path / "hive" / "k=1" / f"a.{form}", [{"n": 1}])
    with pytest.raises(SourceError, match="a column 'n' of its own: give path_column= another name"):
        list(taktline.read(tmp_path / "hive", path_column="n"))
    shutil.rmtree(tmp_path / "hive")
    with pytest.raises(LineError, match="path_column='n': a folder has that name"):
        taktline.read(tmp_path, path_column="n")


def test_what_cannot_have_columns_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n[2]\n{"n": 3}\n')
    with pytest.raises(SourceError, match=r"line 2: no column can be beside \[2\]"):
        list(taktline.read(tmp_path / "a.jsonl", path_column="file"))
    assert len(list(line(dict)(taktline.read(tmp_path / "a.jsonl", path_column="file"), on_error="skip"))) == 2
    with pytest.raises(LineError, match="is the name of a column"):
        taktline.read(tmp_path / "a.jsonl", path_column=True)
    (tmp_path / "k=1").mkdir()
    (tmp_path / "k=1" / "a.txt").write_text("a\n")
    with pytest.raises(SourceError, match="has folders inside"):
        taktline.read(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(LineError, match="text lines have none; read them by a pattern"):
        taktline.read(tmp_path)
    with pytest.raises(LineError, match="path_column= has no meaning for text lines"):
        taktline.read(tmp_path / "k=1", path_column="file")
    put(tmp_path / "other=1" / "a.txt", [])
    (tmp_path / "other=1" / "a.txt").touch()
    with pytest.raises(SourceError, match=r"name other, those of .* k: read them apart"):
        taktline.read(tmp_path)


def test_folders_of_a_store_give_columns_too():
    store = fsspec.filesystem("memory")
    for year in (2023, 2024):
        store.pipe(f"/placed/year={year}/a.csv.gz", gzip.compress(b"n\n1\n"))
    records = every_way(taktline.read("memory://placed", types={"n": int}, path_column="file"))
    assert [(each["n"], each["year"]) for each in records] == [(1, 2023), (1, 2024)]
    assert records[0]["file"].endswith("/placed/year=2023/a.csv.gz")
    assert list(taktline.read("memory://placed/year=2023", types={"n": int})) == [{"n": 1}]
