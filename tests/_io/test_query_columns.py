"""Queries whose rows go to steps over columns: the rows that the record way gives, in the same order, and the same ends."""

from __future__ import annotations

import contextlib
import json
import pickle
import sqlite3
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest
from present import present

from taktline import SourceError, batch, line, read_sql, write
from taktline._io import query as querying
from taktline._segment.equality import kept

ROWS = 60


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    with contextlib.closing(sqlite3.connect(path)) as outside, outside:
        outside.execute(
            "CREATE TABLE kinds (id INTEGER PRIMARY KEY, n INTEGER, f REAL, t TEXT, b BLOB, none TEXT, odd)"
        )
        outside.executemany(
            "INSERT INTO kinds VALUES (?, ?, ?, ?, ?, NULL, ?)",
            # A cell of SQLite has a type of its own.
            [(n, 2**62 - n, n / 7, "é" * (n % 3), b"\0" * (n % 4), [1, 2.5, "x", None][n // 15]) for n in range(ROWS)],
        )
        outside.execute("UPDATE kinds SET n = NULL, f = NULL, t = NULL WHERE id % 5 = 0")
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def server(postgres_server):
    psycopg = pytest.importorskip("psycopg")
    rows = [
        (
            n, n - 30, n / 7, "é" * (n % 3), b"\0" * (n % 4), date(2024, 1, n % 28 + 1),
            datetime(2024, 1, 1, n % 24, tzinfo=UTC), datetime(2024, 1, 1, n % 24), Decimal(n) / 4,
            Decimal("1.50") if n % 2 else Decimal("3"), json.dumps({"a": n}), UUID(int=n), [n, None],
        )
        for n in range(ROWS)
    ]  # fmt: skip
    with psycopg.connect(postgres_server.url) as outside:
        outside.execute("DROP TABLE IF EXISTS kinds")
        outside.execute(
            "CREATE TABLE kinds (id bigint PRIMARY KEY, n smallint, f float8, t text, b bytea, none date, day date, "
            "at timestamptz, plain timestamp, time time, price numeric(9, 2), odd numeric, j jsonb, u uuid, list int[])"
        )
        values = "%s, %s, %s, %s, %s, NULL, %s, %s, %s, '12:00:00.5', %s, %s, %s, %s, %s"
        with outside.cursor() as cursor:
            cursor.executemany(f"INSERT INTO kinds VALUES ({values})", rows)
        outside.execute("UPDATE kinds SET n = NULL, f = NULL, t = NULL, at = NULL, list = NULL WHERE id % 5 = 0")
    return postgres_server.url


@pytest.fixture(params=["shop", "server"])
def url(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(querying, "PAGE", 7)


def as_it_is(table):
    assert isinstance(table, pa.Table)
    return table


@pytest.mark.parametrize("key", [None, "id"])
@pytest.mark.parametrize(
    "options",
    [
        {"how": "loop"}, {"how": "loop", "window": 5}, {"how": "pool", "workers": 2}, {"how": "line", "workers": 2},
        {"how": "line", "workers": 2, "batch_size": 4}, {"how": "line", "workers": 2, "start": "threads"}, {"how": "auto"},
    ],
    ids=str,
)  # fmt: skip
def test_steps_over_columns_get_the_rows_that_records_have(url, key, options, small_pages):
    columns = "id, n, f, t, b, none" if url.startswith("sqlite") else "*"
    source = read_sql(url, f"SELECT {columns} FROM kinds ORDER BY id", key=key)
    results = list(line(batch(as_it_is, form="arrow"))(source, **options))
    wanted = list(source)
    assert len(results) == ROWS
    assert all(kept(one, other) for one, other in zip(wanted, results, strict=True))


def test_columns_hold_what_the_database_says(url, small_pages):
    types = []

    def seen(frame):
        types.append(frame.dtypes.astype(str).to_dict())
        return frame

    source = read_sql(url, "SELECT id, n, f, t FROM kinds ORDER BY id")
    list(line(batch(seen, form="pandas"))(source, how="line", start="threads"))
    text = "str" if types[0]["t"] == "str" else "object"
    assert types == [{"id": "Int64", "n": "Int64", "f": "Float64", "t": text}] * len(types)
    assert len(types) == -(-ROWS // 7)


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_cells_of_several_types_go_as_records(shop, how):
    source = read_sql(shop, "SELECT odd FROM kinds ORDER BY id")
    assert list(line(batch(as_it_is, form="arrow"))(source, how=how, workers=2)) == list(source)


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_a_query_that_fails_has_given_the_rows_before(shop, how, small_pages):
    failing = (
        "SELECT id, CASE WHEN id = 40 THEN abs(-9223372036854775808 + 0 * id) ELSE id END AS v FROM kinds ORDER BY id"
    )
    source, came = read_sql(shop, failing), []
    with pytest.raises(SourceError, match="failed after") as caught:
        for row in line(batch(as_it_is, form="arrow"))(source, how=how, workers=2):
            came.append(row["id"])
    one_by_one = []
    with pytest.raises(SourceError) as wanted:
        one_by_one.extend(row["id"] for row in source)
    assert str(caught.value) == str(wanted.value)
    assert came == list(range(caught.value.facts["index"]))


@pytest.mark.parametrize("key", [None, "id"])
def test_a_run_goes_on_in_its_journal(shop, key, tmp_path, small_pages):
    def gross(table):
        if (tmp_path / "broken").exists() and 40 in table["id"].to_pylist():
            raise ValueError("broken")
        return table

    flow, source = line(batch(gross, form="arrow")), read_sql(shop, "SELECT id, t FROM kinds ORDER BY id", key=key)
    options = {"how": "line", "workers": 1, "journal": tmp_path / "run.journal"}
    (tmp_path / "broken").touch()
    with pytest.raises(ValueError, match="broken"):
        flow.run(source, write(tmp_path / "out.jsonl"), **options)
    (tmp_path / "broken").unlink()
    report = flow.run(source, write(tmp_path / "out.jsonl"), **options)
    assert report.complete
    rows = [json.loads(row) for row in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == [{"id": row["id"], "t": row["t"]} for row in source]


def test_what_crosses_to_a_worker_is_columns(shop, small_pages):
    splitter = present(read_sql(shop, "SELECT id FROM kinds").split_columns())
    with contextlib.closing(splitter):
        part = present(splitter.table())
        sent = pickle.loads(pickle.dumps(part))
        assert splitter.here
        assert sent.table() == part.table()
        assert part.table().num_rows == len(part) == 7
        assert part[-1] == {"id": 6}
