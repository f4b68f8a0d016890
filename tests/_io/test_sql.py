"""SQLite and a real PostgreSQL server: rows come back, appear at once or by marks, and no mark without its rows."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
import servers

from taktline import LineError, ResumeError, SinkError, SourceError, batch, line, read_sql, write_sql
from taktline._io import query as querying
from taktline._io import sql
from taktline._run.reader import Reader
from taktline.abc import Part

RUN = "run-1"


@dataclass
class Shop:
    """A database with a table "orders", and another connection to look at it from outside."""

    url: str
    execute: Callable[..., list[tuple[Any, ...]]]

    def rows(self) -> list[tuple[Any, ...]]:
        return self.execute("SELECT id, name FROM orders ORDER BY id")


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request, tmp_path):
    make = "CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, amount INTEGER CHECK (amount >= 0))"
    if request.param == "sqlite":
        path = tmp_path / "shop.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as outside:
            outside.execute(make)
            yield Shop(f"sqlite:///{path}", lambda query, *values: outside.execute(query, *values).fetchall())
        return
    psycopg = pytest.importorskip("psycopg")
    url = request.getfixturevalue("postgres_server").url
    with psycopg.connect(url, autocommit=True) as outside:
        for table in ("orders", "taktline_marks"):
            outside.execute(f"DROP TABLE IF EXISTS {table}")
        outside.execute(make)

        def execute(query, *values):
            cursor = outside.execute(query, *values)
            return cursor.fetchall() if cursor.description else []

        yield Shop(url, execute)


def orders(ids):
    return [{"id": n, "name": f"n{n}"} for n in ids]


def put(shop, rows, key=None):
    return line(lambda row: row).run(rows, write_sql(shop.url, "orders", key), how="loop")


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(querying, "PAGE", 7)
    monkeypatch.setattr(sql, "LOT", 5)


@pytest.mark.parametrize("makes", [False, True])
def test_tables_are_written_as_their_rows_are(shop, small_pages, makes):
    rows = [
        {"id": n, "name": None if n == 3 else f"n{n}", "day": date(2024, 1, n + 1), "half": n / 2, "is": n % 2 == 0}
        for n in range(23)
    ]
    if makes:  # SQLite has no type for it
        rows = [{name: value for name, value in row.items() if name != "day"} for row in rows]
    outcomes = []
    for tables in (True, False):
        shop.execute("DROP TABLE IF EXISTS orders")
        if not makes:
            shop.execute('CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, day DATE, half REAL, "is" BOOLEAN)')
        sink = write_sql(shop.url, "orders", "id")
        sink.open()
        for some in (rows[:2], rows[2:19], rows[17:]):
            sink.write_table(pa.Table.from_pylist(some)) if tables else sink.write(some)
        sink.commit()
        outcomes.append(shop.execute("SELECT * FROM orders ORDER BY id"))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 23


def test_a_row_of_a_table_that_does_not_fit_is_named(shop, small_pages):
    def put_table(*tables, key="id"):
        sink = write_sql(shop.url, "orders", key)
        sink.open()
        try:
            for table in tables:
                sink.write_table(table)
            sink.commit()
        finally:
            sink.abort()

    good = pa.table({"id": range(20), "name": ["x"] * 20, "amount": [1] * 20})
    with pytest.raises(SinkError, match="result 13"):
        put_table(good.set_column(2, "amount", pa.array([1] * 13 + [-1] + [1] * 6)), key=None)
    with pytest.raises(SinkError, match=r"result 21.*is None"):
        put_table(good, good.slice(0, 5).set_column(0, "id", pa.array([30, None, 31, 32, 33])))
    with pytest.raises(SinkError, match=r"result 20.*'other'"):
        put_table(good, pa.table({"id": [40], "name": ["x"], "other": [1]}))
    assert shop.rows() == []


def test_a_table_in_memory_goes_into_a_database(shop):
    table = pa.table({"id": range(30), "name": [f"n{n}" for n in range(30)]})
    report = line(batch(lambda rows: rows, form="arrow")).run(table, write_sql(shop.url, "orders"))
    assert (report.records_out, len(shop.rows())) == (30, 30)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 14, 40])
def test_rows_come_back_as_they_were_by_key_or_as_a_whole(shop, small_pages, count):
    put(shop, orders(range(count)))
    assert list(read_sql(shop.url, "SELECT id, name FROM orders ORDER BY id;")) == orders(range(count))
    assert list(read_sql(shop.url, "SELECT id, name FROM orders", key="id")) == orders(range(count))


def test_a_line_runs_from_table_to_table_with_workers(shop):
    put(shop, orders(range(300)))
    flow = line(lambda row: {"id": row["id"], "name": row["name"] + "!"})
    flow.run(
        read_sql(shop.url, "SELECT * FROM orders", key="id"), write_sql(shop.url, "orders", "id"), how="line", workers=2
    )
    assert shop.rows() == [(n, f"n{n}!") for n in range(300)]


def test_a_query_keeps_its_own_conditions_and_signs(shop, small_pages):
    put(shop, [{"id": n, "name": "50 %" if n % 2 else "half"} for n in range(40)])
    query = "SELECT id FROM orders WHERE name LIKE '% %%' ORDER BY name -- %s"
    assert list(read_sql(shop.url, query.partition(" --")[0], key="id")) == [{"id": n} for n in range(1, 40, 2)]


def test_reading_goes_on_after_a_key(shop, small_pages):
    put(shop, orders(range(30)))
    source = read_sql(shop.url, "SELECT id, name FROM orders", key=["name", "id"], after=("n27", 27))
    assert [row["id"] for row in source] == [28, 29, 3, 4, 5, 6, 7, 8, 9]


def test_keys_that_would_lose_rows_are_an_error(shop, small_pages):
    put(shop, [{"id": n, "name": "same", "amount": None if n == 5 else 1} for n in range(20)])
    with pytest.raises(SourceError, match="several rows have the key"):
        list(read_sql(shop.url, "SELECT * FROM orders", key="name"))
    with pytest.raises(SourceError, match="the key is null in"):
        list(read_sql(shop.url, "SELECT * FROM orders", key="amount"))


def test_a_key_that_the_query_does_not_give_is_named(shop):
    put(shop, orders(range(5)))
    with pytest.raises(SourceError, match="name"):
        list(read_sql(shop.url, "SELECT id FROM orders", key="name"))


def test_rows_appear_all_at_once(shop, small_pages):
    sink = write_sql(shop.url, "orders")
    sink.open()
    sink.write(orders(range(20)))
    assert shop.rows() == []
    sink.commit()
    assert len(shop.rows()) == 20


def test_a_run_that_fails_leaves_the_table_as_it_was(shop, small_pages):
    put(shop, orders([1]))
    with pytest.raises(ZeroDivisionError):
        line(lambda n: {"id": 2 + n // (n != 90) + 0 * (1 // (n - 90))}).run(range(100), write_sql(shop.url, "orders"))
    assert shop.rows() == [(1, "n1")]


def test_a_key_puts_results_over_the_rows_that_are_there_and_the_last_wins(shop, small_pages):
    put(shop, [{"id": n, "name": "old", "amount": 7} for n in range(4)])
    put(shop, [{"id": n, "name": name} for name in ("new", "newest") for n in range(2, 6)], key="id")
    expected = [
        (0, "old", 7),
        (1, "old", 7),
        (2, "newest", 7),
        (3, "newest", 7),
        (4, "newest", None),
        (5, "newest", None),
    ]
    assert shop.execute("SELECT id, name, amount FROM orders ORDER BY id") == expected
    put(shop, [{"id": 5}, {"id": 6}], key="id")
    assert shop.rows()[-2:] == [(5, "newest"), (6, None)]


@pytest.mark.parametrize("key", [None, "id"])
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"id": 7, "name": {1}}, "result 7 cannot be written as a row of 'orders'"),
        ({"id": 7, "name": "\ud800"}, "result 7 "),
        ({"id": 7}, "lacks 'name', which the first result has"),
        ({"id": 7, "name": "a", "more": 1}, "'more' is not among those of the first"),
        ([7, "a"], "it is list, not dict"),
    ],
)
def test_a_result_that_does_not_fit_is_named(shop, small_pages, key, bad, says):
    with pytest.raises(SinkError, match=says) as caught:
        put(shop, [*orders(range(7)), bad], key)
    assert caught.value.result == 7
    assert shop.rows() == []


def test_a_result_that_the_database_refuses_is_named_and_not_shown_in_full(shop, small_pages):
    rows = [{"id": n, "amount": -1 if n == 7 else n} for n in range(9)]
    with pytest.raises(SinkError, match=r"result 7 .*onstraint") as caught:
        put(shop, rows)
    assert caught.value.result == 7
    with pytest.raises(SinkError, match="onstraint"):
        put(shop, rows, "id")
    assert shop.rows() == []


def test_a_key_that_is_none_is_refused(shop):
    with pytest.raises(SinkError, match="its key 'id' is None"):
        put(shop, [{"id": None, "name": "a"}], "id")


@pytest.mark.parametrize(
    ("table", "key", "says"),
    [("orders", "name", "(?i)unique"), ("orders", "nam", "nam")],
)
def test_a_table_or_key_that_cannot_serve_is_refused_before_any_record_is_read(shop, table, key, says):
    source = iter(range(10))
    with pytest.raises(SinkError, match=says):
        line(lambda n: {"id": n}).run(source, write_sql(shop.url, table, key))
    assert next(source) == 0


def test_a_column_that_is_not_there_is_named_with_the_near_one(shop):
    with pytest.raises(SinkError, match="no column 'nam', but id, name, amount; did you mean 'name'"):
        put(shop, [{"id": 1, "nam": "a"}])


def test_a_query_that_cannot_run_is_told_about(shop):
    for query, says in (
        ("SELEC 1", "syntax error"),
        ("SELECT 1 AS a, 2 AS a", "two columns called 'a'"),
        ("DELETE FROM orders RETURNING id", "read-?only|syntax error"),
    ):
        with pytest.raises(SourceError, match=f"failed after 0 rows: .*({says})"):
            list(read_sql(shop.url, query))


def test_a_row_that_cannot_be_computed_is_an_error_with_its_place(shop):
    put(shop, orders(range(5)))
    divide = "abs(-9223372036854775808 + 0 * id)" if shop.url.startswith("sqlite") else "1 / (3 - id)"
    with pytest.raises(SourceError, match=r"failed after [03] rows"):
        list(read_sql(shop.url, f"SELECT CASE WHEN id = 3 THEN {divide} ELSE id END AS v FROM orders ORDER BY id"))


def test_fingerprints_change_with_the_rows_but_more_may_come_behind_a_key(shop):
    put(shop, orders(range(3)))
    whole, keyed = read_sql(shop.url, "SELECT * FROM orders"), read_sql(shop.url, "SELECT * FROM orders", key="id")
    before = json.dumps([whole.fingerprint(), keyed.fingerprint()])
    assert json.dumps([whole.fingerprint(), keyed.fingerprint()]) == before
    put(shop, orders([3]))
    assert json.loads(before) == [[*whole.fingerprint()[:-1], 3], keyed.fingerprint()]
    assert "hunter2" not in before


# with a journal


def marked(shop, rows, mark, key=None):
    """A sink that has saved `rows` with `mark`; its position."""
    sink = write_sql(shop.url, "orders", key)
    sink.begin(RUN)
    sink.write(rows)
    return sink, sink.save(mark)


def test_rows_appear_with_their_mark_and_the_rest_goes(shop):
    sink, position = marked(shop, orders(range(3)), "three")
    assert len(shop.rows()) == 3
    sink.write(orders([3]))
    sink.suspend()
    assert len(shop.rows()) == 3

    again = write_sql(shop.url, "orders")
    assert not again.finished(RUN, position)
    assert again.resume(RUN, position) == "three"
    again.write(orders([3]))
    again.commit()
    assert shop.rows() == [(n, f"n{n}") for n in range(4)]
    assert again.finished(RUN, position)


def test_the_newest_mark_is_the_databases_own(shop):
    """The process died after the database had taken a mark, and before the journal had."""
    sink, older = marked(shop, orders(range(3)), "three")
    sink.write(orders([3, 4]))
    sink.save("five")
    sink.suspend()
    again = write_sql(shop.url, "orders")
    assert again.resume(RUN, json.loads(json.dumps(older))) == "five"
    assert again.save("five again") == {"results": 5}
    again.suspend()


def test_a_run_without_a_mark_yet_begins_at_its_beginning(shop):
    sink = write_sql(shop.url, "orders")
    sink.begin(RUN)
    sink.suspend()
    again = write_sql(shop.url, "orders")
    assert again.resume(RUN, None) is None
    again.suspend()
    again.begin(RUN)
    again.suspend()


def test_another_database_or_an_older_copy_is_refused(shop):
    sink, position = marked(shop, orders(range(3)), "three")
    sink.suspend()
    again = write_sql(shop.url, "orders")
    with pytest.raises(ResumeError, match="has none"):
        again.resume("run-2", position)
    with pytest.raises(ResumeError, match="was given 4 results of this run and has 3"):
        again.resume(RUN, {"results": 4})
    with pytest.raises(ResumeError, match="already has results"):
        again.begin(RUN)
    again.abort()


KILLED = """
import os, signal, sys
from taktline import write_sql
sink = write_sql(sys.argv[1], "orders", "id")
sink.begin("run-1")
sink.write([{"id": 1, "name": "safe"}])
sink.save("one")
sink.write([{"id": 2, "name": "not yet"}])
sink._flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_inside_a_transaction_the_last_mark_holds(shop):
    killed = subprocess.run([sys.executable, "-c", KILLED, shop.url], env={"PYTHONPATH": ":".join(sys.path)})
    assert killed.returncode == -9
    again = write_sql(shop.url, "orders", "id")
    assert again.resume(RUN, None) == "one"
    again.commit()
    assert shop.rows() == [(1, "safe")]


JOURNALED = """
import os, signal, sys
from taktline import line, read_sql, write_sql
from taktline._run import checkpointer
checkpointer.EVERY = 0.0
url, journal = sys.argv[1], sys.argv[2]
def named(row):
    if row["id"] == int(sys.argv[3]):  # not a name of its own, which would make it another step
        os.kill(os.getpid(), signal.SIGKILL)
    return {"id": row["id"], "name": "n" + str(row["id"])}
numbers = "WITH RECURSIVE n(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n WHERE id < 199) SELECT id FROM n"
report = line(named).run(read_sql(url, numbers, key="id"), write_sql(url, "orders"), journal=journal, how="loop")
print(report.records_out)
"""


def test_a_run_that_is_killed_and_killed_again_leaves_every_row_once(shop, tmp_path):
    def run(kill_at):
        command = [sys.executable, "-c", JOURNALED, shop.url, tmp_path / "journal", str(kill_at)]
        return subprocess.run(command, env={"PYTHONPATH": ":".join(sys.path)}).returncode

    there = []
    for kill_at in (70, 150):
        assert run(kill_at) == -9
        there.append(len(shop.rows()))
    assert 0 < there[0] <= 70 <= there[1] <= 150
    assert run(-1) == 0
    assert shop.rows() == [(n, f"n{n}") for n in range(200)]
    assert run(-1) == 0
    assert len(shop.rows()) == 200


# one kind of database alone


def test_a_server_that_goes_away_is_one_clear_error_and_the_marks_hold(postgres_server):
    import psycopg

    with psycopg.connect(postgres_server.url, autocommit=True) as outside:
        outside.execute("DROP TABLE IF EXISTS away, taktline_marks")
        outside.execute("CREATE TABLE away (id int PRIMARY KEY)")
        outside.execute("INSERT INTO away SELECT generate_series(1, 5000)")
    reading = iter(read_sql(postgres_server.url, "SELECT id FROM away ORDER BY id"))
    assert next(reading) == {"id": 1}
    sink = write_sql(postgres_server.url, "away")
    sink.begin(RUN)
    sink.write([{"id": 5001}])
    position = sink.save("one")
    sink.write([{"id": 5002}])
    postgres_server.stop()
    try:
        with pytest.raises(SourceError, match=r"failed after 1,000 rows"):
            list(reading)
        with pytest.raises(SinkError, match=r"failed after 1 results: .*up to the last mark"):
            sink.save("two")
        sink.suspend()
        with pytest.raises(SinkError, match="cannot be reached"):
            write_sql(postgres_server.url, "away").open()
        with pytest.raises(SourceError, match="cannot be reached"):
            list(read_sql(postgres_server.url, "SELECT 1 AS one"))
    finally:
        postgres_server.start()
    again = write_sql(postgres_server.url, "away")
    assert again.resume(RUN, position) == "one"
    again.write([{"id": 5002}])
    again.commit()
    assert len(list(read_sql(postgres_server.url, "SELECT * FROM away", key="id"))) == 5002


@pytest.fixture
def numbers(postgres_server):
    """A connection to a table of numbers, and a source of them by key."""
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(postgres_server.url, autocommit=True) as outside:
        outside.execute("DROP TABLE IF EXISTS numbers")
        outside.execute("CREATE TABLE numbers (a int, b int, text text, PRIMARY KEY (a, b))")
        outside.execute("INSERT INTO numbers SELECT n / 10, n % 10, 'n' || n FROM generate_series(0, 299) AS n")
        yield outside, read_sql(postgres_server.url, "SELECT * FROM numbers", key=["a", "b"])


def taken(records):
    got = []
    try:
        got.extend(records)
    except SourceError as error:
        return got, str(error)
    return got, ""


@pytest.mark.parametrize("turns", [[-7], [3, -1], [3, -90, 2, -5], [-9, 0], [295, -9], [300, -9], [-100_000]])
@pytest.mark.parametrize("condition", ["", " WHERE a = 99", " WHERE a < 12"])
def test_ranges_of_keys_give_what_reading_in_one_go_gives(numbers, small_pages, turns, condition):
    """Positive: so many records; negative: a part of so many, or of all that are left."""
    _, source = numbers
    source = read_sql(source._url, source._query + condition, key=["a", "b"], after=(0, 4))
    reader, records = Reader(source, split=True), []
    while not reader.ended:
        for turn in turns:
            got = reader.read(turn + 1) if turn >= 0 else reader.read_part(-turn)
            assert (isinstance(got, Part) and len(got) <= -turn) or turn >= 0 or not got
            records += pickle.loads(pickle.dumps(got))
            assert reader.index == len(records)
    assert (records, reader.error) == (list(source), None)


def test_workers_read_ranges_of_keys_whatever_is_changed_meanwhile(numbers, monkeypatch):
    outside, source = numbers
    rows, caller, real = list(source), os.getpid(), querying.Query.within

    def within(*args):
        assert os.getpid() != caller
        return real(*args)

    monkeypatch.setattr(querying.Query, "within", within)
    results = line(lambda row: row)(source, how="line", workers=2, start="fork")
    first = next(results)
    outside.execute("DELETE FROM numbers WHERE a > 20")
    outside.execute("INSERT INTO numbers SELECT 5, n, 'new' FROM generate_series(10, 30) AS n")
    assert [first, *results] == rows


@pytest.mark.parametrize("late", [False, True], ids=["", "after a minute"])
@pytest.mark.parametrize("turns", [[1], [5, 3], [-3], [-20], [3, -4], [-5, 2, -50, 1], [200, -9]])
def test_each_page_by_key_is_of_one_moment_whoever_reads_it(numbers, monkeypatch, turns, late):
    """All rows change after each turn. Positive: so many records; negative: a part of so many."""
    monkeypatch.setattr(querying, "PAGE", 20)
    monkeypatch.setattr(querying, "SECTION", 3)
    if late:
        monkeypatch.setattr(querying, "SECONDS", -1.0)
    outside, source = numbers
    outside.execute("UPDATE numbers SET text = '0'")
    reader, records, turn = Reader(source, split=True), [], 0
    while not reader.ended:
        for size in turns:
            got = reader.read(size) if size > 0 else reader.read_part(-size)
            records += pickle.loads(pickle.dumps(got))
            turn += 1
            outside.execute(f"UPDATE numbers SET text = '{turn}'")
    assert reader.error is None
    assert [(row["a"], row["b"]) for row in records] == [(n // 10, n % 10) for n in range(300)]
    moments = [{int(row["text"]) for row in records[at : at + 20]} for at in range(0, 300, 20)]
    assert all(len(each) == 1 for each in moments), moments
    assert moments == sorted(moments, key=min)
    if max(turns) < 20:  # else many pages are read between two changes
        views = 1 if late else 3
        assert all(moments[at] != moments[at + views] for at in range(len(moments) - views))


def test_a_range_is_read_again_after_its_worker_was_killed(numbers, tmp_path):
    _, source = numbers

    def fragile(row):
        if row["a"] == 17:
            with contextlib.suppress(FileExistsError):
                (tmp_path / "once").mkdir()
                os.kill(os.getpid(), signal.SIGKILL)
        return row

    for start in ("fork", "launch"):
        assert list(line(fragile)(source, how="line", workers=2, start=start)) == list(source)
        (tmp_path / "once").rmdir()


def test_a_query_that_gives_other_rows_each_time_is_an_error(numbers):
    _, source = numbers
    odd = "SELECT * FROM numbers WHERE random() < 0.5"
    with pytest.raises(SourceError, match=r"failed after \d+ rows: \d+ rows where \d+ were counted: it gives others"):
        list(line(dict)(read_sql(source._url, odd, key=["a", "b"]), how="line", workers=1))


def test_keys_that_are_no_keys_are_an_error_for_workers_too(numbers, small_pages):
    _, source = numbers
    twice = read_sql(source._url, "SELECT a FROM numbers", key="a")
    with pytest.raises(SourceError, match="several rows have the key"):
        list(line(dict)(twice, how="line", workers=1))


def test_no_snapshot_is_left_behind(numbers):
    outside, source = numbers
    reader = Reader(source, split=True)
    assert list(reader.read_part(100))
    assert list(reader.read_part(300))
    held = "SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()"
    assert outside.execute(held).fetchone() == (1,)
    reader.read(1)
    while outside.execute(held).fetchone() != (0,):  # the server sees a little later that a connection has ended
        pass


def test_the_callers_process_keeps_no_connection(numbers):
    """Of a part that it reads as a worker would, and of what only looks at the first rows."""
    outside, source = numbers
    others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    before = outside.execute(others).fetchone()
    reader = Reader(source, split=True)
    part = pickle.loads(pickle.dumps(reader.read_part(100)))
    assert len(list(part)) == 100
    reader.close()
    flow = line(batch(lambda table: table, form="arrow"))
    assert flow.check(source).fine
    assert flow.plan(source).tried == 300
    del part, reader
    while outside.execute(others).fetchone() != before:  # the server sees a little later that a connection has ended
        pass


# where no view can be shared

BY_KEY = "SELECT * FROM numbers"


def who_read(monkeypatch, tmp_path):
    """What notes who reads ranges: a function that tells whether the caller did, and whether workers did."""
    caller, real = os.getpid(), querying.Query.within

    def within(*args):
        rows = real(*args)
        (tmp_path / ("caller" if os.getpid() == caller else "worker")).touch()
        return rows

    monkeypatch.setattr(querying.Query, "within", within)
    return lambda: ((tmp_path / "caller").exists(), (tmp_path / "worker").exists())


def by_workers(url):
    """Some rows a part, so that there are many."""
    source = read_sql(url, BY_KEY, key=["a", "b"])
    return line(dict)(source, how="line", workers=2, start="fork", batch_size=40)


@pytest.fixture
def nobody(numbers, postgres_server):
    """A role of the server, and its URL."""
    outside, _ = numbers
    outside.execute("DROP ROLE IF EXISTS nobody")
    outside.execute("CREATE ROLE nobody LOGIN PASSWORD 'hunter2'")
    outside.execute("GRANT SELECT ON numbers TO nobody")
    yield outside, postgres_server.url.replace("taktline:", "nobody:")
    outside.execute("REVOKE ALL ON numbers FROM nobody")


def test_a_server_that_shares_no_view_is_read_by_the_caller(numbers, nobody, monkeypatch, tmp_path):
    _, source = numbers
    outside, url = nobody
    outside.execute("REVOKE EXECUTE ON FUNCTION pg_export_snapshot() FROM PUBLIC")
    who = who_read(monkeypatch, tmp_path)
    try:
        assert list(by_workers(url)) == list(source)
    finally:
        outside.execute("GRANT EXECUTE ON FUNCTION pg_export_snapshot() TO PUBLIC")
    assert who() == (False, False)


def test_pages_that_the_caller_reads_for_workers_are_asked_for_once(numbers, nobody, small_pages, monkeypatch):
    _, source = numbers
    outside, url = nobody
    outside.execute("REVOKE EXECUTE ON FUNCTION pg_export_snapshot() FROM PUBLIC")
    asked, real = [], querying.Query._select
    monkeypatch.setattr(querying, "PAGE", 100)
    monkeypatch.setattr(querying.Query, "_select", lambda *args: asked.append(args[-1]) or real(*args))
    try:
        assert list(by_workers(url)) == list(source)
    finally:
        outside.execute("GRANT EXECUTE ON FUNCTION pg_export_snapshot() TO PUBLIC")
    assert asked == ["LIMIT 101"] * 6  # three pages, and three of the run that is compared with


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_a_role_that_may_have_few_connections_is_read_by_whom_it_may(numbers, nobody, monkeypatch, tmp_path, most):
    _, source = numbers
    outside, url = nobody
    outside.execute(f"ALTER ROLE nobody CONNECTION LIMIT {most}")
    who = who_read(monkeypatch, tmp_path)
    assert list(by_workers(url)) == list(source)
    if most < 3:
        assert who() == (False, False)


def test_parts_whose_view_a_worker_cannot_have_are_read_by_the_caller(numbers, monkeypatch, tmp_path):
    """A stand-in for a pooler that takes workers to another server than the caller: the view they ask for is not there."""
    _, source = numbers
    caller, real = os.getpid(), querying.Query.within

    def within(query, bounds, before, snapshot, cut_by):
        return real(query, bounds, before, snapshot if os.getpid() == caller else "00000009-00000009-9", cut_by)

    monkeypatch.setattr(querying.Query, "within", within)
    who = who_read(monkeypatch, tmp_path)
    assert list(by_workers(source._url)) == list(source)
    assert who() == (True, False)


def test_workers_read_through_a_pooler_and_leave_its_connections_as_they_were(
    numbers, postgres_server, small_pages, monkeypatch, tmp_path
):
    import psycopg

    outside, source = numbers
    outside.execute("DROP TABLE IF EXISTS pooled")
    outside.execute("CREATE TABLE pooled (id int)")
    with servers.pooler(postgres_server) as url:
        who = who_read(monkeypatch, tmp_path)
        assert list(by_workers(url)) == list(source)
        assert who() == (False, True)
        assert list(read_sql(url, BY_KEY, key=["a", "b"])) == list(source)
        assert list(read_sql(url, BY_KEY + " ORDER BY a, b")) == list(source)
        with psycopg.connect(url, autocommit=True) as other:
            for _ in range(9):  # whichever of the server's connections it gets
                other.execute("INSERT INTO pooled VALUES (1)")


def test_a_pool_without_a_connection_for_workers_is_read_by_the_caller(numbers, postgres_server, monkeypatch, tmp_path):
    _, source = numbers
    with servers.pooler(postgres_server, pool_size=1) as url:
        who = who_read(monkeypatch, tmp_path)
        assert list(by_workers(url)) == list(source)
        assert who() == (False, False)


def test_two_servers_behind_one_pooler_are_read_by_the_caller(numbers, postgres_server, monkeypatch, tmp_path):
    import psycopg

    _, source = numbers
    with servers.postgres() as second:
        with psycopg.connect(second.url, autocommit=True) as outside:
            outside.execute("CREATE TABLE numbers (a int, b int, text text, PRIMARY KEY (a, b))")
            outside.execute("INSERT INTO numbers SELECT n / 10, n % 10, 'n' || n FROM generate_series(0, 299) AS n")
        with servers.pooler(postgres_server, host=f"{postgres_server.folder},{second.folder}") as url:
            who = who_read(monkeypatch, tmp_path)
            assert list(by_workers(url)) == list(source)
            assert who() == (False, False)


def test_values_of_postgresql_come_back_as_they_were(postgres_server):
    import psycopg

    with psycopg.connect(postgres_server.url, autocommit=True) as outside:
        outside.execute("DROP SCHEMA IF EXISTS odd CASCADE")
        outside.execute("CREATE SCHEMA odd")
        outside.execute(
            'CREATE TABLE odd."the ""best"" %s" ("a b%" bigint PRIMARY KEY, n numeric, f float8, t text, b bytea, ok bool, '
            "d date, at timestamptz, u uuid, j jsonb, l int[])"
        )
    rows = [
        {
            "a b%": 2**62 + n, "n": Decimal("1.50"), "f": float("inf"), "t": 'tab\t\\N "quoted"\n', "b": b"\0\xff",
            "ok": n % 2 == 0, "d": date(2024, 2, 29), "at": datetime(2024, 1, 1, tzinfo=UTC), "u": UUID(int=n),
            "j": {"a": [1, None]}, "l": [1, 2],
        }
        for n in range(5)
    ]  # fmt: skip
    table = 'odd.the "best" %s'
    for key in (None, "a b%"):
        line(lambda row: row).run(rows, write_sql(postgres_server.url, table, key), how="loop")
        back = read_sql(postgres_server.url, 'SELECT * FROM odd."the ""best"" %s"', key=key)
        assert list(back) == rows


def test_a_query_may_end_with_a_comment(shop):
    put(shop, orders(range(5)))
    query = "SELECT id, name FROM orders -- all of them"
    for key in (None, "id"):
        assert list(read_sql(shop.url, query, key)) == orders(range(5))
        source = read_sql(shop.url, query, key)
        flow = line(lambda row: {**row, "id": row["id"] + 5})
        assert flow.run(source, write_sql(shop.url, "orders", "id"), how="line", workers=1).records_out
        shop.execute("DELETE FROM orders WHERE id >= 5")


DOCUMENTS = [
    [],
    {},
    "5",
    '{"a": 1}',
    "",
    ["1", "2", None],
    [{"a": 1}, {"a": 2}],
    "x",
    True,
    0,
    2.5,
    {"a": ["5", "[]"]},
    None,
]
TEXTS = [value if value is None else json.dumps(value) for value in DOCUMENTS]


@pytest.mark.parametrize("key", [None, "id"])
@pytest.mark.parametrize("by", ["records", "tables"])
def test_whatever_goes_into_a_column_of_json_is_json_there(postgres_server, key, by):
    psycopg = pytest.importorskip("psycopg")
    steps = [batch(lambda table: table, form="arrow")] if by == "tables" else [lambda row: row]
    url = postgres_server.url
    with psycopg.connect(url, autocommit=True) as outside:
        outside.execute(
            "DROP TABLE IF EXISTS papers, copies; DROP DOMAIN IF EXISTS paper; CREATE DOMAIN paper AS jsonb"
        )
        columns = "(id int PRIMARY KEY, a jsonb, b json, c paper, d jsonb[])"
        for table in ("papers", "copies"):
            outside.execute(f"CREATE TABLE {table} {columns}")
        for at, text in enumerate(TEXTS):
            outside.execute(
                "INSERT INTO papers VALUES (%s, %s, %s, %s, %s::jsonb[])", (at, text, text, text, [text] * 2)
            )
        for at in range(len(TEXTS)):  # one by one: together they are no column of Arrow
            source = read_sql(url, f"SELECT * FROM papers WHERE id = {at}")
            line(*steps).run(source, write_sql(url, "copies", key), how="loop")
        told = "SELECT a::text, b::text, c::text, d::text FROM {} ORDER BY id"
        assert outside.execute(told.format("copies")).fetchall() == outside.execute(told.format("papers")).fetchall()


def test_values_behind_the_first_dicts_of_a_table_that_is_made_are_json_too(postgres_server):
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(postgres_server.url, autocommit=True) as outside:
        outside.execute("DROP TABLE IF EXISTS copies")
    documents = [{}] * 2 * sql.LOT + DOCUMENTS
    sink = write_sql(postgres_server.url, "copies")
    line(lambda value: {"doc": value}).run(documents, sink, how="line", workers=1, batch_size=1000)
    assert [row["doc"] for row in read_sql(postgres_server.url, "SELECT * FROM copies")] == documents


def test_what_is_no_json_is_named_with_its_result(postgres_server):
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(postgres_server.url, autocommit=True) as outside:
        outside.execute("DROP TABLE IF EXISTS copies; CREATE TABLE copies (doc jsonb)")
    for bad in (b"a", [b"a"], {"a": {1}}, float("nan"), [float("nan")]):
        with pytest.raises(SinkError, match="result 1 cannot be written"):
            line(lambda value: {"doc": value}).run([1, bad], write_sql(postgres_server.url, "copies"), how="loop")


def test_sqlite_keeps_its_kinds_of_values(tmp_path):
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as outside:
        outside.execute('CREATE TABLE "my rows" (v)')
    values = [1, 2.5, "ä", b"\0", None, 2**63 - 1]
    line(lambda v: {"v": v}).run(values, write_sql(f"sqlite:///{path}", "my rows"), how="loop")
    assert [row["v"] for row in read_sql(f"sqlite:///{path}", 'SELECT * FROM "my rows"')] == values
    with pytest.raises(SinkError, match=r"result 1 .*too large"):
        line(lambda v: {"v": v}).run([1, 2**63], write_sql(f"sqlite:///{path}", "my rows"), how="loop")
    with contextlib.closing(sqlite3.connect(path)) as outside:
        outside.execute("INSERT INTO \"my rows\" VALUES (CAST(x'ff' AS TEXT))")
        outside.commit()
    with pytest.raises(SourceError, match=r"failed after 0 rows: .*UTF-8"):
        list(read_sql(f"sqlite:///{path}", 'SELECT v FROM "my rows" ORDER BY rowid DESC'))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: read_sql("mysql://a/b", "SELECT 1"), "sqlite:///path or postgresql://"),
        (lambda: read_sql("sqlite:////no/such.db", "SELECT 1"), "there is no database"),
        (lambda: write_sql("sqlite:////no/such.db", "t"), "there is no folder for the database"),
        (lambda: read_sql("postgresql://a/b", ""), "a URL and a query"),
        (lambda: read_sql("postgresql://a/b", "SELECT 1", after=3), "a value for each column"),
        (lambda: read_sql("postgresql://a/b", "SELECT 1", key=list[Any]([1])), "names one or several columns"),
        (lambda: write_sql("postgresql://a/b", "a..b"), "no name of a table"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(make, says):
    pytest.importorskip("psycopg")
    with pytest.raises((LineError, FileNotFoundError), match=says):
        make()


def test_postgresql_without_its_package_is_refused_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LineError, match=r"taktline\[postgres\]"):
        read_sql("postgresql://a/b", "SELECT 1")


# --- one SQLite file as source and sink ---

MANY = 30_000  # rows of 200 bytes: more than SQLite keeps in memory of what is not committed


@pytest.fixture
def large(tmp_path, monkeypatch):
    from taktline._io import sqlite

    monkeypatch.setattr(sqlite, "PATIENCE", 0.2)  # nobody else holds a lock, so nobody is to be waited for
    path = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(path)) as shop, shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT)")
        shop.executemany("INSERT INTO orders VALUES (?, ?)", ((n, f"{n:0200}") for n in range(MANY)))
    return path


def doubled(row):
    return {"id": row["id"], "name": row["name"] * 2}


def moved(row):
    return {"id": row["id"] + MANY, "name": row["name"]}


@pytest.mark.parametrize("journal", [False, True], ids=["", "journal"])
@pytest.mark.parametrize("key", [None, "id"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_file_of_sqlite_is_source_and_sink_of_one_run(large, tmp_path, how, mode, key, journal):
    with contextlib.closing(sqlite3.connect(large)) as shop:
        shop.execute(f"PRAGMA journal_mode = {mode}")
    options = {"journal": str(tmp_path / "a.journal")} if journal else {}
    source = read_sql(f"sqlite:///{large}", "SELECT * FROM orders WHERE id >= 0", key)
    sink = write_sql(f"sqlite:///{tmp_path}/../{tmp_path.name}/shop.db", "twice", key)
    report = line(doubled).run(source, sink, how=how, workers=1, **options)
    assert report.records_out == MANY
    with contextlib.closing(sqlite3.connect(large)) as shop:
        assert shop.execute("SELECT count(*), sum(length(name) = 400), max(id) FROM twice").fetchone() == (
            MANY, MANY, MANY - 1,
        )  # fmt: skip
        assert shop.execute("SELECT count(*) FROM orders").fetchone() == (MANY,)


@pytest.mark.parametrize("key", [None, "id"])
def test_a_table_that_is_read_and_written_is_read_as_it_was_at_the_beginning(large, key):
    url = f"sqlite:///{large}"
    assert (
        line(moved).run(read_sql(url, "SELECT * FROM orders", key), write_sql(url, "orders"), how="loop").records_in
        == MANY
    )
    rows = [row["id"] for row in read_sql(url, "SELECT id FROM orders ORDER BY id")]
    assert rows == list(range(2 * MANY))
    # Over the same rows: each once more, from what it was.
    line(doubled).run(read_sql(url, "SELECT * FROM orders", key), write_sql(url, "orders", "id"), how="loop")
    assert list(read_sql(url, "SELECT count(*) AS n, min(length(name)) AS a, max(length(name)) AS b FROM orders")) == [
        {"n": 2 * MANY, "a": 400, "b": 400}
    ]


def test_with_a_journal_the_table_that_is_read_is_not_written_also_behind_a_view(large, tmp_path):
    with contextlib.closing(sqlite3.connect(large)) as shop, shop:
        shop.execute('CREATE VIEW dear AS SELECT * FROM "orders" WHERE id > 10')
    source = read_sql(f"sqlite:///{large}", "SELECT * FROM dear", "id")
    with pytest.raises(LineError, match="writes to the table that it reads"):
        line(moved).run(source, write_sql(f"sqlite:///{large}", "Orders", "id"), journal=str(tmp_path / "a.journal"))


def test_a_run_between_tables_of_one_file_goes_on_from_its_journal(large, tmp_path):
    url, journal = f"sqlite:///{large}", str(tmp_path / "a.journal")

    def run(until):
        def fails(row):
            if row["id"] == until:
                raise RuntimeError
            return row

        return line(fails).run(
            read_sql(url, "SELECT * FROM orders", "id"), write_sql(url, "copy", "id"), journal=journal, how="loop",
            if_changed="continue",
        )  # fmt: skip

    with pytest.raises(RuntimeError):
        run(20_000)
    assert run(-1).records_out
    assert list(read_sql(url, "SELECT count(*) AS n, sum(id) AS s FROM copy")) == [
        {"n": MANY, "s": MANY * (MANY - 1) // 2}
    ]


def test_rows_put_aside_keep_their_values(tmp_path):
    path = tmp_path / "a.db"
    values = [1, 1.0, "1", b"1", None, 2**62, "", "x"]
    with contextlib.closing(sqlite3.connect(path)) as shop, shop:
        shop.execute("CREATE TABLE v (a, b TEXT, c REAL, d NUMERIC)")
        shop.executemany("INSERT INTO v VALUES (?, ?, ?, ?)", [[value] * 4 for value in values])
    source = read_sql(f"sqlite:///{path}", "SELECT a, b, c, d, a || 'x' AS \"e f\" FROM v")
    got = []
    aside = source.beside(write_sql(f"sqlite:///{path}", "w"), journal=False)
    for row in aside:
        got.append(row)
    assert repr(got) == repr(list(source))


# --- tables of the first results ---


@pytest.fixture
def anew(shop):
    shop.execute("DROP TABLE IF EXISTS made")
    return shop


@pytest.mark.parametrize("key", [None, "id"])
def test_a_table_is_made_of_the_first_results(anew, key):
    rows = [
        {"id": n, "x": n / 2 if n else None, "name": f"n{n}" if n % 2 else None, "raw": b"\0", "none": None}
        for n in range(9)
    ]
    line(lambda row: row).run(rows, write_sql(anew.url, "made", key), how="loop")
    assert list(read_sql(anew.url, "SELECT * FROM made ORDER BY id")) == rows
    line(lambda row: row).run(rows, write_sql(anew.url, "made", key), how="loop")
    assert len(list(read_sql(anew.url, "SELECT * FROM made"))) == (9 if key else 18)


def test_a_run_that_fails_leaves_no_table_and_no_result_no_table(anew):
    with pytest.raises(SinkError, match=r"result 2.*'b' is not among"):
        line(lambda row: row).run([{"a": 1}, {"a": 2}, {"a": 3, "b": 4}], write_sql(anew.url, "made"), how="loop")
    line(lambda row: row).run([], write_sql(anew.url, "made"), how="loop")
    with pytest.raises(SourceError):
        list(read_sql(anew.url, "SELECT * FROM made"))


@pytest.mark.parametrize(
    "rows", [[{"a": 1}, {"a": "x"}], [{}], [{1: 2}], [{"a": 1}, {"b": 1}], [{"a": 1, "b": 1}, {"a": 1}]], ids=str
)
def test_results_that_make_no_table_are_named(anew, rows):
    with pytest.raises(SinkError, match=f"result {len(rows) - 1} cannot be written"):
        line(lambda row: row).run(rows, write_sql(anew.url, "made"), how="loop")


def test_types_of_postgresql_are_made_of_the_first_results(postgres_server):
    pytest.importorskip("psycopg")
    row = {
        "id": 2**70, "yes": True, "at": datetime(2024, 1, 2, tzinfo=UTC), "local": datetime(2024, 1, 2),
        "day": date(2024, 1, 2),
        "price": Decimal("1.20"), "who": UUID(int=7), "tags": ["a", "b"], "about": {"k": [1]}, "raw": b"\0\xff",
    }  # fmt: skip
    url = postgres_server.url
    import psycopg

    with psycopg.connect(url, autocommit=True) as outside:
        outside.execute("DROP TABLE IF EXISTS made")
    line(lambda row: row).run([row], write_sql(url, "made"), how="loop")
    assert list(read_sql(url, "SELECT * FROM made")) == [row]


def test_dates_are_iso_text_in_a_table_of_sqlite_whoever_has_made_it(tmp_path):
    rows = [
        {"day": date(2024, 1, 2), "at": datetime(2024, 1, 2, 3, 4, tzinfo=UTC)},
        {"day": None, "at": datetime(2024, 1, 2, 3, 4, 5, 60)},
    ]
    texts = [
        {"day": "2024-01-02", "at": "2024-01-02 03:04:00+00:00"}, {"day": None, "at": "2024-01-02 03:04:05.000060"},
    ]  # fmt: skip
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as shop, shop:
        shop.execute("CREATE TABLE there (day, at)")
    for table in ("there", "made"):
        line(lambda row: row).run(rows, write_sql(url, table), how="loop")
        assert list(read_sql(url, f"SELECT * FROM {table}")) == texts


def test_a_file_of_sqlite_is_made_where_there_is_none_and_goes_where_the_run_fails(tmp_path):
    path = tmp_path / "new.db"
    with pytest.raises(ZeroDivisionError):
        line(lambda n: {"n": 1 // n}).run([0], write_sql(f"sqlite:///{path}", "made"), how="loop")
    assert not path.exists()
    line(lambda n: {"n": n}).run([1, 2], write_sql(f"sqlite:///{path}", "made"), how="loop")
    assert list(read_sql(f"sqlite:///{path}", "SELECT * FROM made")) == [{"n": 1}, {"n": 2}]
    path.unlink()
    line(lambda n: {"n": n}).run(
        [1, 2], write_sql(f"sqlite:///{path}", "made"), how="loop", journal=str(tmp_path / "a.journal")
    )
    assert list(read_sql(f"sqlite:///{path}", "SELECT * FROM made")) == [{"n": 1}, {"n": 2}]
