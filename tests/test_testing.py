"""taktline's own sources and sinks pass the checks that strangers use, and the checks find what is wrong."""

from __future__ import annotations

import sqlite3

import pytest
from crews import CrewHere, Dies

from taktline import SinkError, line, read, read_sql, write, write_sql
from taktline.abc import Came, Live, Part, Sink, Source, Splitter
from taktline.testing import check_crew, check_live, check_sink, check_source, same_as_loop

COUNT = 300
ROWS = [{"n": n, "text": f"row {n}, ä\n" * (n % 3)} for n in range(COUNT)]
TEXTS = [f"line {n}, ä" * (n % 3) for n in range(COUNT)]
CELLS = [{"n": str(row["n"]), "text": row["text"]} for row in ROWS]


def file(tmp_path, name, records):
    line(lambda record: record).run(records, write(tmp_path / name), how="loop")
    return read(tmp_path / name)


def folder(tmp_path):
    for n in range(4):
        file(tmp_path, f"{n}.jsonl", ROWS[75 * n : 75 * (n + 1)])
    return read(tmp_path)


def parquet(tmp_path):
    pytest.importorskip("pyarrow")
    return file(tmp_path, "a.parquet", ROWS)


def sqlite(tmp_path, key):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    line(dict).run(ROWS, write_sql(url, "rows", "n"), how="loop")
    return read_sql(url, "SELECT * FROM rows ORDER BY n", key=key)


SOURCES = {
    "text": (lambda path: file(path, "a.txt", TEXTS), TEXTS),
    "packed text": (lambda path: file(path, "a.txt.gz", TEXTS), TEXTS),
    "JSON lines": (lambda path: file(path, "a.jsonl", ROWS), ROWS),
    "packed JSON lines": (lambda path: file(path, "a.jsonl.xz", ROWS), ROWS),
    "CSV": (lambda path: file(path, "a.csv", CELLS), CELLS),
    "packed CSV": (lambda path: file(path, "a.csv.bz2", CELLS), CELLS),
    "Parquet": (parquet, ROWS),
    "a folder": (folder, ROWS),
    "SQLite": (lambda path: sqlite(path, None), ROWS),
    "SQLite by key": (lambda path: sqlite(path, "n"), ROWS),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_our_sources(kind, tmp_path):
    make, records = SOURCES[kind]
    check_source(make(tmp_path), records)


@pytest.mark.parametrize("key", [None, "n"])
def test_postgresql_as_a_source(postgres_server, key):
    table = f"source_{key or 'whole'}".lower()
    line(dict).run(ROWS, write_sql(postgres_server.url, table, "n"), how="loop")
    check_source(read_sql(postgres_server.url, f"SELECT * FROM {table} ORDER BY n", key=key), ROWS)


def there(path):
    try:
        return list(read(path))
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "jsonl.gz", "csv", "tsv.bz2", "parquet"])
def test_our_files_as_sinks(suffix, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    rows = [{"n": str(n), "text": f"row {n}"} for n in range(100)]
    check_sink(
        lambda name: write(tmp_path / f"{name}.{suffix}"), lambda name: there(tmp_path / f"{name}.{suffix}"),
        TEXTS if suffix == "txt" else rows,
    )  # fmt: skip


def test_sqlite_as_a_sink(tmp_path):
    def rows(name):
        with sqlite3.connect(tmp_path / f"{name}.db") as database:
            if not database.execute("SELECT name FROM sqlite_master WHERE name = 'out'").fetchall():
                return []
            database.row_factory = sqlite3.Row
            found = [dict(row) for row in database.execute("SELECT * FROM out ORDER BY n")]
        database.close()
        return found

    check_sink(lambda name: write_sql(f"sqlite:///{tmp_path / f'{name}.db'}", "out"), rows)


def test_postgresql_as_a_sink(postgres_server):
    def rows(name):
        (known,) = read_sql(postgres_server.url, f"SELECT to_regclass('out_{name}') IS NOT NULL AS there")
        return list(read_sql(postgres_server.url, f"SELECT * FROM out_{name} ORDER BY n")) if known["there"] else []

    check_sink(lambda name: write_sql(postgres_server.url, f"out_{name}"), rows)


# --- the checks find what is wrong ---


class Numbers(Source):
    """Numbers, split; each fault is one that a check must find."""

    def __init__(self, fault=""):
        self.fault = fault
        self.passes = self.asked = 0
        self.kept = []

    def __iter__(self):
        self.passes += 1
        if self.fault == "leaves files open":
            self.kept.append(open(__file__))  # noqa: SIM115
        return iter(range(self.passes if self.fault == "differs" else 0, 100))

    def __len__(self):
        if self.fault == "differs":
            raise TypeError
        return 99 if self.fault == "length" else 100

    def fingerprint(self):
        self.asked += self.fault == "fingerprint"
        return ["numbers", self.asked]

    def split(self, *, exact=False, unread=None):
        return Cutting(self.fault)


class Cutting(Splitter):
    def __init__(self, fault):
        self.at = 0
        self.fault = fault

    def part(self, records):
        records += self.fault == "too many"
        first, self.at = self.at, min(100, self.at + records)
        if self.fault == "loses":
            self.at = min(100, self.at + (first == 3))
        return Stretch(first, min(100, first + records), self.fault) if first < 100 else None

    def __iter__(self):
        while self.at < 100:
            self.at += 1
            yield self.at - 1


class Stretch(Part):
    __slots__ = ("end", "fault", "first", "size")

    def __init__(self, first, end, fault):
        self.first, self.end, self.fault, self.size = first, end, fault, 8 * (end - first)

    def __reduce__(self):
        return Stretch, (self.first + (self.fault == "pickle"), self.end, self.fault)

    def __len__(self):
        return self.end - self.first + (self.fault == "count")

    def read(self, unread=None):
        return iter(range(self.first, self.end))


def test_a_source_of_a_stranger():
    check_source(Numbers(), range(100))


FAULTS = {
    "differs": "second pass gives other records", "leaves files open": "descriptors open", "length": "its length is 99",
    "fingerprint": "fingerprint", "too many": "has 2 records", "loses": "at 0 there is", "pickle": "pickled and read back",
    "count": "has 2 records|in the place of",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_a_source_is_found(fault):
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check_source(Numbers(fault))


class Tens(Source):
    columns = True
    passes = 0

    def __init__(self, fault=""):
        self.fault = fault

    def __iter__(self):
        return ({"n": n} for n in range(100))

    def split(self, *, exact=False, unread=None):
        Tens.passes += 1
        return TensCut(self.fault)


class TensCut(Cutting):
    def part(self, records):
        first, self.at = self.at, min(100, self.at + records)
        return Ten(first, self.at, self.fault) if first < 100 else None

    def table(self):
        return self.part(10 - self.at % 10 + (Tens.passes % 7 if self.fault == "moves" else 0))

    def __iter__(self):
        return ({"n": n} for n in super().__iter__())


class Ten(Stretch):
    def __reduce__(self):
        return Ten, (self.first, self.end, self.fault)

    def read(self, unread=None):
        return ({"n": n} for n in range(self.first, self.end))

    def table(self):
        pa = pytest.importorskip("pyarrow")
        if self.fault == "refuses" and self.first > 50:
            raise ValueError("no table")
        return pa.table({"n": [n + (self.fault == "others" and n > 70) for n in range(self.first, self.end)]})


def test_a_source_with_columns_of_a_stranger():
    check_source(Tens(), [{"n": n} for n in range(100)])
    check_source(Tens("refuses"))


@pytest.mark.parametrize(("fault", "what"), [("moves", "end elsewhere in a second pass"), ("others", "has other rows")])
def test_what_is_wrong_with_tables_is_found(fault, what):
    with pytest.raises(AssertionError, match=what):
        check_source(Tens(fault))


class Memory(Sink):
    """Results in a dict by name."""

    places = {}

    def __init__(self, name, fault=""):
        self.name, self.fault = name, fault

    def open(self):
        self.results = []

    def write(self, results):
        self.results += results
        if self.fault == "shows too early":
            self.places[self.name] = self.results
        if self.fault == "drops empty writes" and not results:
            self.results = []

    def commit(self):
        self.places[self.name] = self.results[::-1] if self.fault == "order" else self.results

    def abort(self):
        self.results = []


@pytest.mark.parametrize("fault", ["", "shows too early", "order", "drops empty writes"])
def test_what_is_wrong_with_a_sink_is_found(fault):
    def check():
        check_sink(lambda name: Memory(name, fault), lambda name: Memory.places.get(name, []))

    if fault:
        with pytest.raises(AssertionError, match=r"after .* (commit|abort)\(\)"):
            check()
    else:
        check()


class Queue(Live):
    """Messages in a list, those under way apart."""

    def __init__(self, waiting, fault=""):
        self.waiting, self.fault, self.out = waiting, fault, []

    def open(self, window, memory):
        self.told, self.lost = 0, []

    def take(self, most, seconds):
        some = self.waiting[: most + (self.fault == "too many")]
        del self.waiting[: len(some)]
        self.out += some
        return some

    def elsewhere(self, first, records):
        return self.lost[first:][:records] if self.fault != "tells nothing" else []

    def lose(self):
        self.lost = [*range(self.told + len(self.out))]
        self.waiting[:0] = self.out if self.fault != "lost for good" else []
        self.out.clear()

    def safe(self, records, skipped):
        del self.out[: records - self.told]
        self.told = records

    def close(self):
        self.waiting[:0] = [] if self.fault == "loses" else self.out[1:] if self.fault == "one short" else self.out


@pytest.mark.parametrize("fault", ["", "too many", "loses", "one short", "tells nothing", "lost for good"])
def test_what_is_wrong_with_a_live_source_is_found(fault):
    waiting = []

    def check():
        check_live(
            lambda: Queue(waiting, fault), waiting.extend, str, patience=60.0 if not fault else 1.0, lose=Queue.lose
        )

    if fault:
        with pytest.raises(AssertionError, match=r"take|came|elsewhere"):
            check()
    else:
        check()


def test_a_line_that_is_another_one_in_workers_is_found():
    import os

    same_as_loop(line(abs, lambda n: 1 // n), [3, 2, 1, 0, 1])
    with pytest.raises(AssertionError, match="how='line' gives other results than the loop: at 0"):
        same_as_loop(line(lambda n: os.getpid()), [1, 2, 3], hows=["line"], workers=2)
    with pytest.raises(AssertionError, match="used up"):
        same_as_loop(line(abs), iter([1]))


def test_a_sink_that_refuses_says_so(tmp_path):
    with pytest.raises(SinkError):
        check_sink(
            lambda name: write(tmp_path / f"{name}.txt"), lambda name: there(tmp_path / f"{name}.txt"), [{"n": 1}]
        )


class Forgets(CrewHere):
    """A crew that answers with an attempt of its own."""

    def wait(self, seconds):
        return [each._replace(attempt=1) if type(each) is Came else each for each in super().wait(seconds)]


def dies_here():
    raise Dies


def test_a_crew_that_keeps_its_promises_passes():
    check_crew(lambda lanes, goes_on: CrewHere(lanes, goes_on=goes_on), dies=dies_here)


def test_a_crew_that_breaks_one_is_told_which():
    with pytest.raises(AssertionError) as caught:
        check_crew(lambda lanes, goes_on: Forgets(lanes, goes_on=goes_on), dies=dies_here)
    assert "a batch comes back with its number its attempt" in caught.value.__notes__[0]
