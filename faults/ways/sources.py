"""The sources that ways are drawn from, what goes wrong in them, and what they give as records."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from faults.ways.steps import row_of
from taktline import read, read_sql
from taktline.abc import Live

LIVELY = 7  # records that a live source gives at once


class Torn(Exception):
    """What a source of the caller's own raises."""


@dataclass(frozen=True)
class Origin:
    """A source, as it was drawn."""

    kind: str
    count: int
    first: int = 0
    stride: int = 1
    packing: str = ""
    files: int = 1
    odd: str = ""  # something about it that is no fault
    fault: str = ""
    at: int = 0  # the record at which it goes wrong
    share: float = 0.5  # of the bytes, where it is cut short
    safe: int = 0  # records that a live source does not give again
    repeat: int = 1  # neighbours that have one number

    def __str__(self) -> str:
        more = f"{self.packing}{f', {self.files} files' if self.files > 1 else ''}{f', {self.odd}' if self.odd else ''}"
        wrong = f"; {self.fault} at record {self.at}" if self.fault else ""
        again = f", each {self.repeat} times" if self.repeat > 1 else ""
        return f"{self.kind}{more}, {self.count} records from {self.first} by {self.stride}{again}{wrong}"

    def number(self, index: int) -> int:
        return self.first + index // self.repeat * self.stride

    def sizes(self, indexes: Iterable[int]) -> Counter[int]:
        """How many of these records have each number."""
        return Counter(map(self.number, indexes))

    def key_begins(self, index: int) -> int:
        """The first record with the number of this one."""
        return index - index % self.repeat

    def record(self, index: int) -> Any:
        """The record that the source gives at this index."""
        gives, row = SOURCES[self.kind].gives, row_of(self.number(index))
        if gives == "number":
            return row["n"]
        if gives == "text":
            return str(row["n"])
        if gives == "cells":
            row = tabbed(row) if self.kind == "tsv" else row
            return {"n": str(row["n"]), "t": row["t"]}
        return row | {"at": None} if self.fault in ("has nanoseconds", "its query fails") else row


class Broken(NamedTuple):
    """How a source must end that goes wrong."""

    records: int  # that it gives before
    errors: tuple[str, ...]
    line: int | None = None
    fewer: bool = False  # it may have given fewer
    text: str | None = None  # of the record that alone cannot be read: a run that goes on leaves it out
    last: bool = False  # there is none behind it


# --- files ---


def _jsonl(origin: Origin, index: int) -> str:
    return json.dumps(row_of(origin.number(index)), ensure_ascii=False) + "\n"


def _text(origin: Origin, index: int) -> str:
    return f"{origin.number(index)}\n"


def _delimited(origin: Origin, index: int) -> str:
    cells = io.StringIO()
    csv.writer(cells, lineterminator="\n").writerow(row_of(origin.number(index)).values())
    return cells.getvalue()


def _tabbed(origin: Origin, index: int) -> str:
    return "\t".join(map(str, tabbed(row_of(origin.number(index))).values())) + "\n"


def tabbed(row: dict[str, Any]) -> dict[str, Any]:
    """A row as TSV has a form for it."""
    return row | {"t": " ".join(re.split(r"[\t\r\n]", row["t"]))}


class Lines(NamedTuple):
    """A format of lines: each record's, the first one, and one that is no record."""

    of: Callable[[Origin, int], str]
    bad: bytes
    header: str = ""


LINES = {
    "jsonl": Lines(_jsonl, b"{no record\n"),
    "txt": Lines(_text, b"\xff\n"),
    "csv": Lines(_delimited, b"1,2,3\n", "n,t\n"),
    "tsv": Lines(_tabbed, b"1\t2\t3\n", "n\tt\n"),
}


def packed(data: bytes, packing: str) -> bytes:
    """Some bytes as several members where they are many, as one else."""
    if not packing:
        return data
    pieces = [data[at : at + 3000] for at in range(0, len(data), 3000)] or [b""]
    return b"".join(map(PACK[packing], pieces))


def unpacked(data: bytes, packing: str) -> bytes:
    """As far as it goes."""
    if not packing:
        return data
    text = b""
    while data:
        member = UNPACK[packing]()
        text += member.decompress(data)
        data = member.unused_data
    return text


def _zstd() -> Any:
    import zstandard

    return zstandard


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, 1, mtime=0),
    ".zst": lambda data: _zstd().ZstdCompressor(1).compress(data),
    ".bz2": lambda data: bz2.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
}
UNPACK: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(31),
    ".zst": lambda: _zstd().ZstdDecompressor().decompressobj(),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
}


def _bodies(origin: Origin) -> tuple[list[bytes], Broken | None]:
    """The bytes of each file, not packed, and how they end where they go wrong."""
    lines, broken = LINES[origin.kind], None
    share = -(-max(1, origin.count) // origin.files)
    bodies = []
    for first in range(0, max(1, origin.count), share):
        body = ("\ufeff" if origin.odd == "BOM" else "").encode() + lines.header.encode()
        for index in range(first, min(first + share, origin.count)):
            if origin.odd == "blank lines" and index % 5 == 2:
                body += b"\n"
            line = lines.of(origin, index).encode()
            if origin.odd == "CRLF":
                line = line[:-1] + b"\r\n"
            if index == origin.at and origin.fault == "is no record" and broken is None:
                line = lines.bad
                text = line.decode(errors="backslashreplace").rstrip("\n")
                broken = Broken(index, ("SourceError",), body.count(b"\n") + 1, text=text)
            if index == origin.at and origin.fault == "is cut" and not origin.packing:
                begun = line.rstrip(b"\r\n")[:1]
                bodies.append(body + begun)
                return bodies, Broken(index, ("SourceError",), body.count(b"\n") + 1, text=begun.decode(), last=True)
            body += line
        if origin.odd == "no last line end":
            body = body.rstrip(b"\n")
        bodies.append(body)
    return bodies, broken


def _file(origin: Origin, folder: Path) -> tuple[Any, Broken | None]:
    bodies, broken = _bodies(origin)
    for number, body in enumerate(bodies):
        data = packed(body, origin.packing)
        if origin.fault == "is cut" and origin.packing:
            data = data[: max(1, int(len(data) * origin.share))]
            whole = unpacked(data, origin.packing)
            heads = LINES[origin.kind].header.count("\n")
            rows = _rows_in(origin, whole) if origin.kind in ("csv", "tsv") else whole.count(b"\n")
            broken = Broken(max(0, rows - heads), ("SourceError",), fewer=True)
        (folder / f"in-{number}.{origin.kind}{origin.packing}").write_bytes(data)
    name = f"in-*.{origin.kind}{origin.packing}" if origin.files > 1 else f"in-0.{origin.kind}{origin.packing}"
    return read(folder / name), broken


def _rows_in(origin: Origin, whole: bytes) -> int:
    """How many rows of a table are whole: cells may have line ends in them."""
    text, rows = LINES[origin.kind].header.encode(), 1
    for index in range(origin.count):
        text += LINES[origin.kind].of(origin, index).encode()
        if len(text) > len(whole):
            return rows
        rows += 1
    return rows


def _parquet(origin: Origin, folder: Path) -> tuple[Any, Broken | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row_of(origin.number(index)) for index in range(origin.count)]
    table = pa.Table.from_pylist(rows, pa.schema([("n", pa.int64()), ("t", pa.string())]))
    broken = None
    if origin.fault == "has nanoseconds":
        moments = [1 if index == origin.at else None for index in range(origin.count)]
        table = table.append_column("at", pa.array(moments, pa.timestamp("ns")))
        row = rows[origin.at]
        text = f"n: {row['n']}, t: {row['t']}, at: 1970-01-01 00:00:00.000000001"
        broken = Broken(origin.at, ("SourceError",), text=text)
    path = folder / "in-0.parquet"
    pq.write_table(table, path, row_group_size=max(1, origin.count // 3 + 1))
    if origin.fault == "is cut":
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * origin.share)])
        broken = Broken(0, ("SourceError",))
    return read(path), broken


def _in_memory(origin: Origin, folder: Path) -> tuple[Any, Broken | None]:
    import pyarrow as pa

    rows = [row_of(origin.number(index)) for index in range(origin.count)]
    table = pa.Table.from_pylist(rows, pa.schema([("n", pa.int64()), ("t", pa.string())]))
    if origin.kind == "DataFrame":
        return table.to_pandas(), None
    return (table if origin.kind == "Arrow table" else table.to_reader(max_chunksize=max(1, origin.count // 3))), None


# --- databases ---

POSTGRES = os.environ.get("TAKTLINE_WAYS_POSTGRES", "")  # the URL of a server, where there is one


def _query(origin: Origin, table: str, failing: str) -> tuple[str, Broken | None]:
    more, broken = "", None
    if origin.fault == "its query fails":
        more = f", CASE WHEN n = {origin.number(origin.at)} THEN {failing} END AS at"
        broken = Broken(origin.at, ("SourceError",), fewer=True)
    return f"SELECT n, t{more} FROM {table}", broken


def _sqlite(origin: Origin, folder: Path) -> tuple[Any, Broken | None]:
    path, keyed = folder / "in.db", origin.kind.endswith("by key")
    if not path.exists():
        with closing(sqlite3.connect(path)) as shop, shop:
            shop.execute("CREATE TABLE rows (n INTEGER PRIMARY KEY, t TEXT)")
            shop.executemany(
                "INSERT INTO rows VALUES (:n, :t)", [row_of(origin.number(i)) for i in range(origin.count)]
            )
    query, broken = _query(origin, "rows", "json_extract('{', '$')")
    return read_sql(f"sqlite:///{path}", query + ("" if keyed else " ORDER BY n"), "n" if keyed else None), broken


def _postgres(origin: Origin, folder: Path) -> tuple[Any, Broken | None]:
    import psycopg

    if not POSTGRES:
        return _sqlite(Origin(**vars(origin) | {"kind": origin.kind.replace("PostgreSQL", "SQLite")}), folder)
    table, keyed = f"in_{folder.name.replace('-', '_')}", origin.kind.endswith("by key")
    with psycopg.connect(POSTGRES) as shop:
        made = shop.execute("SELECT to_regclass(%s)", (table,)).fetchone()
        if made is None or made[0] is None:
            shop.execute(f"CREATE TABLE {table} (n bigint PRIMARY KEY, t text)")
            with shop.cursor() as cursor:
                rows = [row_of(origin.number(index)) for index in range(origin.count)]
                cursor.executemany(f"INSERT INTO {table} VALUES (%(n)s, %(t)s)", rows)
    query, broken = _query(origin, table, "1 / (n - n)")
    return read_sql(POSTGRES, query + ("" if keyed else " ORDER BY n"), "n" if keyed else None), broken


# --- the caller's own ---


def SEEN(index: int) -> None:
    """Told of each record that is asked for; who kills the caller puts his own here."""


def _records(origin: Origin) -> Iterator[Any]:
    """The records, and what goes wrong between them."""
    row: dict[str, Any] = {}
    for index in range(origin.safe, origin.count):
        SEEN(index)
        if origin.fault == "raises" and index == origin.at:
            raise Torn(index)
        record = origin.record(index)
        if origin.fault == "gives one row again and again":
            row.update(record)
            yield row
            continue
        yield record
        if origin.fault == "clears what it gave":
            record.clear()


def _own(make: Callable[[Iterator[Any]], Any]) -> Callable[[Origin, Path], tuple[Any, Broken | None]]:
    def source(origin: Origin, folder: Path) -> tuple[Any, Broken | None]:
        return make(_records(origin)), Broken(origin.at, ("Torn",)) if origin.fault == "raises" else None

    return source


class Messages(Live):
    """A live source that gives some records at a time, and notes what it is told."""

    def __init__(self, records: Iterator[Any]) -> None:
        self._records = records
        self._turn = 0
        self._error: Exception | None = None  # behind the records that were given
        self.told: list[int] = []
        self.closed = 0

    def take(self, most: int, seconds: float) -> list[Any] | None:
        self._turn += 1
        if self._turn % 3 == 0:
            return []
        some: list[Any] = []
        if self._error is not None:
            raise self._error
        try:
            for record in self._records:
                some.append(record)
                if len(some) >= min(most, LIVELY):
                    break
        except Torn as error:
            if not some:
                raise
            self._error = error
        return some or None

    def safe(self, records: int, skipped: Any) -> None:
        self.told.append(records)

    def close(self) -> None:
        self.closed += 1


class _Async:
    def __init__(self, records: Iterable[Any]) -> None:
        self._given = records

    async def __aiter__(self) -> AsyncIterator[Any]:
        for record in self._given:
            yield record


class Kind(NamedTuple):
    """One kind of source: what its records are, how it is made, and what may go wrong with it."""

    make: Callable[[Origin, Path], tuple[Any, Broken | None]]
    gives: str = "row"
    faults: tuple[str, ...] = ()
    oddities: tuple[str, ...] = ()
    packings: tuple[str, ...] = ("",)
    again: bool = True  # a later process can make it again
    drawn: int = 4


PACKED = ("", "", "", "", *PACK)
FILE = ("is no record", "is cut")
HOW_IT_ENDS = ("no last line end", "BOM")
SOURCES: dict[str, Kind] = {
    "list": Kind(_own(list), "number", drawn=8),
    "list of rows": Kind(_own(list)),
    "generator": Kind(_own(iter), "number", ("raises",), drawn=6),
    "generator of rows": Kind(_own(iter), "row", ("raises", "gives one row again and again", "clears what it gave")),
    "iterator": Kind(_own(lambda records: iter(list(records))), "number"),
    "jsonl": Kind(_file, "row", FILE, ("blank lines", "CRLF", *HOW_IT_ENDS), PACKED, drawn=10),
    "txt": Kind(_file, "text", FILE, ("CRLF", *HOW_IT_ENDS), PACKED),
    "csv": Kind(_file, "cells", FILE, ("blank lines", *HOW_IT_ENDS), PACKED),
    "tsv": Kind(_file, "cells", FILE, HOW_IT_ENDS, PACKED, drawn=1),
    "parquet": Kind(_parquet, "row", ("has nanoseconds", "is cut"), drawn=8),
    "DataFrame": Kind(_in_memory, drawn=3),
    "Arrow table": Kind(_in_memory, drawn=2),
    "Arrow stream": Kind(_in_memory, again=False, drawn=1),
    "SQLite": Kind(_sqlite, "row", ("its query fails",), drawn=2),
    "SQLite by key": Kind(_sqlite, "row", ("its query fails",), drawn=2),
    "PostgreSQL": Kind(_postgres, "row", ("its query fails",), drawn=1),
    "PostgreSQL by key": Kind(_postgres, "row", ("its query fails",), drawn=1),
    "live": Kind(_own(Messages), "number", ("raises",), again=False),
    "live rows": Kind(_own(Messages), "row", again=False, drawn=2),
    "async": Kind(_own(_Async), "number", ("raises",), again=False, drawn=0),
}
