"""The sinks that ways are drawn from, and how to find out what came to them."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from faults.ways import sources
from taktline import write, write_sql
from taktline.abc import Sink
from taktline.errors import Failed


class Spilt(Exception):
    """What a sink of the caller's own raises."""


@dataclass(frozen=True)
class Target:
    """A sink, as it was drawn."""

    kind: str
    packing: str = ""
    there: bool = False  # something is there before
    fault: str = ""
    at: int = 0  # results after which the caller leaves, or the sink fails

    def __str__(self) -> str:
        more = f"{self.packing}{', over what is there' if self.there else ''}"
        return f"{self.kind}{more}" + (f"; {self.fault} after {self.at}" if self.fault else "")

    @property
    def name(self) -> str:
        return f"out.{self.kind}{self.packing}"


class Table(Sink):
    """A sink of the caller's own."""

    def __init__(self, target: Target) -> None:
        self.rows: list[Any] = []
        self.ended = ""
        self._target = target

    def open(self) -> None:
        pass

    def write(self, results: Sequence[Any]) -> None:
        self.rows += results

    def commit(self) -> None:
        self.ended += "commit"

    def abort(self) -> None:
        self.ended += "abort"


OLD = b"what was there before\n"


def _path(target: Target, folder: Path) -> Path:
    return folder / target.name


def _file(target: Target, folder: Path) -> Any:
    if target.there and not _path(target, folder).exists():
        _path(target, folder).write_bytes(OLD)
    return write(_path(target, folder))


def _content(target: Target, folder: Path) -> bytes | None:
    path = _path(target, folder)
    if not path.exists():
        return None
    data = path.read_bytes()
    if data == OLD:
        return None if target.there else b"old?"
    return sources.unpacked(data, target.packing)


def _lines(target: Target, folder: Path) -> list[str] | None:
    data = _content(target, folder)
    return None if data is None else data.decode().splitlines(keepends=True)


def _json_lines(target: Target, folder: Path) -> list[str] | None:
    return _told(_lines(target, folder))


def _told(lines: list[str] | None) -> list[str] | None:
    """What stands in the place of a record that failed as `plain` has it: which record, and the step."""
    if lines is None:
        return None
    return [f"{plain(Failed(**_of_a_failed(line)))}\n" if line.startswith('{"failed": ') else line for line in lines]


def _of_a_failed(line: str) -> dict[str, Any]:
    said = json.loads(line)["failed"]
    return {"index": said["index"], "step": said["step"], "record": None, "error": ValueError()}


def _as_json_lines(results: list[Any]) -> list[str]:
    return [(plain(r) if isinstance(r, Failed) else json.dumps(r, ensure_ascii=False)) + "\n" for r in results]


def _csv_lines(results: list[Any]) -> list[str]:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    if results:
        rows.writerow(results[0])
    for result in results:
        rows.writerow(result.values())
    return out.getvalue().splitlines(keepends=True)


def _tsv_lines(results: list[Any]) -> list[str]:
    rows = [list(results[0]), *[result.values() for result in results]] if results else []
    return ["\t".join("" if cell is None else str(cell) for cell in row) + "\n" for row in rows]


def _has_ends(row: Any) -> bool:
    return any(sign in str(value) for value in row.values() for sign in "\t\r\n")


def _parquet_rows(target: Target, folder: Path) -> list[Any] | None:
    import pyarrow.parquet as pq

    if _content(target, folder) is None:
        return None
    rows: list[Any] = pq.read_table(_path(target, folder)).to_pylist()
    return rows


def _arrow_rows(target: Target, folder: Path) -> list[Any] | None:
    import pyarrow as pa

    if _content(target, folder) is None:
        return None
    rows: list[Any] = pa.ipc.open_file(_path(target, folder)).read_all().to_pylist()
    return rows


def _parts(target: Target, folder: Path) -> Any:
    """A folder of parts of three results."""
    path = _path(target, folder)
    if target.there and not path.exists():
        path.mkdir()
        (path / "part-00000.jsonl").write_bytes(OLD)
    return write(f"{path}/", "jsonl", rows=3, mode="replace" if target.there else None)


def _lines_of_parts(target: Target, folder: Path) -> list[str] | None:
    path = _path(target, folder)
    if not path.exists():
        return None
    data = [each.read_bytes() for each in sorted(path.iterdir())]
    if data == [OLD]:
        return None if target.there else ["old?"]
    if any(len(each.splitlines()) != 3 for each in data[:-1]):
        return ["a part of another size"]
    return b"".join(data).decode().splitlines(keepends=True)


def _columns(target: Target) -> str:
    return f"(n integer {'PRIMARY KEY' if target.kind.endswith('by key') else ''}, t text)"


def _sqlite(target: Target, folder: Path) -> Any:
    path = folder / "out.db"
    if not path.exists():
        with closing(sqlite3.connect(path)) as shop, shop:
            shop.execute(f"CREATE TABLE rows {_columns(target)}")
    return write_sql(f"sqlite:///{path}", "rows", "n" if target.kind.endswith("by key") else None)


def _sqlite_rows(target: Target, folder: Path) -> list[Any] | None:
    with closing(sqlite3.connect(folder / "out.db")) as shop:
        order = "n" if target.kind.endswith("by key") else "rowid"
        return [{"n": n, "t": t} for n, t in shop.execute(f"SELECT n, t FROM rows ORDER BY {order}")]


def _table(folder: Path) -> str:
    return f"out_{folder.name.replace('-', '_')}"


def _postgres(target: Target, folder: Path) -> Any:
    if not sources.POSTGRES:
        return _sqlite(target, folder)
    import psycopg

    with psycopg.connect(sources.POSTGRES) as shop:
        shop.execute(f"CREATE TABLE IF NOT EXISTS {_table(folder)} {_columns(target)}")
    return write_sql(sources.POSTGRES, _table(folder), "n" if target.kind.endswith("by key") else None)


def _postgres_rows(target: Target, folder: Path) -> list[Any] | None:
    if not sources.POSTGRES:
        return _sqlite_rows(target, folder)
    import psycopg

    order = "ORDER BY n" if target.kind.endswith("by key") else ""
    with psycopg.connect(sources.POSTGRES) as shop:
        return [{"n": n, "t": t} for n, t in shop.execute(f"SELECT n, t FROM {_table(folder)} {order}").fetchall()]


def _over_the_same(results: list[Any]) -> list[Any]:
    """What is left where a row takes the place of the one with its key."""
    rows = {row["n"]: row for row in results}
    return [rows[n] for n in sorted(rows)]


class Kind(NamedTuple):
    """One kind of sink. `make`: it, for a run; None: the caller takes results himself. `found`: what is there after the
    run, None where nothing is; `wanted`: what is to be there of some results, in comparable pieces."""

    shape: str = "as it is"
    make: Callable[[Target, Path], Any] | None = None
    found: Callable[[Target, Path], list[Any] | None] = lambda target, folder: None
    wanted: Callable[[list[Any]], list[Any]] = list
    file: bool = False
    marks: bool = False  # what it has is seen at each mark
    refuses: bool = True  # what is not of its shape
    takes: tuple[type, ...] = ()  # other types than those of its shape
    cannot: Callable[[Any], bool] = lambda result: False  # nor this
    faults: tuple[str, ...] = ()
    packings: tuple[str, ...] = ("",)
    drawn: int = 4


PACKED = ("", "", "", "", *sources.PACK)
SINKS: dict[str, Kind] = {
    "loop": Kind(refuses=False, faults=("is left", "is stopped"), drawn=12),
    "stream": Kind(refuses=False, faults=("is left",), drawn=6),
    "callable": Kind(refuses=False, faults=("raises",), drawn=6),
    "none": Kind(refuses=False),
    "table": Kind(make=lambda target, folder: Table(target), refuses=False, drawn=3),
    "jsonl": Kind(
        "as it is", _file, _json_lines, _as_json_lines, file=True, packings=PACKED, takes=(int, str, dict, Failed), drawn=12,
    ),
    "txt": Kind("as text", _file, _lines, lambda rs: [f"{r}\n" for r in rs], file=True, packings=PACKED),
    "csv": Kind("as row", _file, _lines, _csv_lines, file=True, packings=PACKED),
    "tsv": Kind("as row", _file, _lines, _tsv_lines, file=True, cannot=_has_ends, drawn=1),
    "parquet": Kind("as row", _file, _parquet_rows, file=True),
    "arrow": Kind("as row", _file, _arrow_rows, file=True),
    "jsonl parts": Kind(
        "as it is", _parts, lambda target, folder: _told(_lines_of_parts(target, folder)), _as_json_lines,
        file=True, takes=(int, str, dict, Failed),
    ),
    "SQLite": Kind("as row", _sqlite, _sqlite_rows, marks=True, drawn=3),
    "SQLite by key": Kind("as row", _sqlite, _sqlite_rows, _over_the_same, marks=True, drawn=2),
    "PostgreSQL": Kind("as row", _postgres, _postgres_rows, marks=True, drawn=1),
    "PostgreSQL by key": Kind("as row", _postgres, _postgres_rows, _over_the_same, marks=True, drawn=1),
}  # fmt: skip


def same(one: list[Any], other: list[Any], *, ordered: bool) -> bool:
    """Whether two lists hold the same values, of the same types."""
    a, b = [plain(each) for each in one], [plain(each) for each in other]
    return a == b if ordered else Counter(a) == Counter(b)


def plain(value: Any) -> str:
    """A value as text that tells its types too."""
    if isinstance(value, Failed):
        return f"Failed({value.index}, {value.step})"
    return repr(value)
