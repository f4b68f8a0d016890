"""Parquet files, read and written a row group at a time, by way of pyarrow."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import NoneType
from typing import IO, Any

from taktline._io import opening, remote
from taktline._io.decode import check_drift
from taktline._recipe.ports import Sink, Source
from taktline.errors import LineError, SourceError, TaktlineError, unwritable

BATCH = 4096  # rows that are made into records at once
GROUP = 65_536  # results a row group: fixed, so that equal results make equal files
FORM = "a row of Parquet"


class ParquetFiles(Source):
    """Parquet files, one after the other, as one stream of dicts."""

    def __init__(self, name: str, paths: list[str], columns: tuple[str, ...] | None) -> None:
        _pyarrow()
        for path in paths:
            if path == opening.STANDARD:
                raise LineError("Parquet is read from its end, which standard input cannot do; name a file")
            _check(path)
        self._name = name
        self._paths = paths
        self._columns = columns

    def describe(self) -> str:
        return remote.shown(self._name)

    def fingerprint(self) -> Any:
        return ["parquet", list(self._columns or ()), [opening.mark(path) for path in self._paths]]

    def __len__(self) -> int:
        if any(remote.is_url(path) for path in self._paths):
            raise TypeError("to count the rows, every file would have to be asked for")
        total = 0
        for path in self._paths:
            with opened(path) as file:
                total += file.metadata.num_rows
        return total

    def __iter__(self) -> Iterator[dict[str, Any]]:
        first: tuple[str, list[str]] | None = None
        for path in self._paths:
            name = remote.shown(path)
            with opened(path) as file:
                header = file.schema_arrow.names
                first = first or (name, header)
                if self._columns is None:
                    check_drift(*first, name, header)
                for group in range(file.num_row_groups):
                    yield from group_records(file, name, group, self._columns)


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """pyarrow's ParquetFile of a path or URL. Raises SourceError where it is none."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    name = remote.shown(path)
    with remote.opened(path) if remote.is_url(path) else nullcontext(path) as place:
        try:
            file = ParquetFile(place)
        except (ArrowException, OSError) as error:
            raise SourceError(f"{name!r} cannot be read as Parquet: {error}", path=name) from error
        with file:
            yield file


def group_records(file: Any, name: str, group: int, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The records of one row group of an open file. Raises SourceError with the row group."""
    from pyarrow import ArrowException

    if missing := [each for each in columns or () if each not in file.schema_arrow.names]:
        raise SourceError(
            f"{name!r} has no column {missing[0]!r}; it has {', '.join(file.schema_arrow.names)}", path=name
        )  # fmt: skip
    done = 0
    try:
        # One thread: beside it all cores are busy with steps.
        batches = file.iter_batches(BATCH, row_groups=[group], columns=columns, use_threads=False)
        for batch in batches:
            records = _in_microseconds(batch).to_pylist()
            yield from records if columns is None else ({key: each[key] for key in columns} for each in records)
            done += len(records)
    except TaktlineError:
        raise
    except (ArrowException, ValueError, OverflowError, OSError) as error:
        raise SourceError(
            f"{name!r}, row group {group}, cannot be read after its row {done:,}: {error}", path=name, group=group
        ) from error


def _in_microseconds(batch: Any) -> Any:
    """Nanoseconds as microseconds, where none are lost: so they are `datetime`, whether pandas is installed or not."""
    import pyarrow as pa

    for at, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            kind = pa.timestamp("us", field.type.tz)
        elif field.type == pa.time64("ns"):
            kind = pa.time64("us")
        elif field.type == pa.duration("ns"):
            kind = pa.duration("us")
        else:
            continue
        try:
            batch = batch.set_column(at, field.name, batch.column(at).cast(kind))
        except pa.ArrowInvalid as error:
            raise ValueError(f"column {field.name!r} has nanoseconds, which no value of Python can hold") from error
    return batch


class ParquetFile(Sink):
    """Results as the rows of a Parquet file; a missing key is a null."""

    def __init__(self, target: str | IO[bytes], schema: Any) -> None:
        pyarrow = _pyarrow()
        if schema is not None and not isinstance(schema, pyarrow.Schema):
            raise LineError(f"schema= must be a pyarrow.Schema, not {type(schema).__name__}")
        if isinstance(target, str):
            _check(target)
        self._given = schema
        self._output = opening.Output(target)
        self._begin()

    def _begin(self) -> None:
        self._schema: Any = self._given
        self._bytes = _Into(self._output)
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._written = 0

    def describe(self) -> str:
        return str(self._output.name)

    def open(self) -> None:
        self._begin()
        self._output.open()

    def write(self, results: Sequence[Any]) -> None:
        self._waiting.extend(results)
        while len(self._waiting) >= GROUP:
            self._write_group()

    def commit(self) -> None:
        if self._waiting or self._writer is None:
            self._write_group()
        self._writer.close()
        self._output.commit()

    def abort(self) -> None:
        self._bytes.wanted = False
        if self._writer is not None:
            self._writer.close()  # it would try to write the file's end when it is collected
        self._output.abort()

    def _write_group(self) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        rows, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
        names = _names(rows, self._schema, self._written)
        kinds = {each.name: each.type for each in self._schema or ()}
        columns = [_column(name, [row.get(name) for row in rows], kinds.get(name), self._written) for name in names]
        if self._schema is None:
            self._schema = pa.schema([(name, column.type) for name, column in zip(names, columns, strict=True)])
        if self._writer is None:
            self._writer = ParquetWriter(self._bytes, self._schema)
        if rows:
            self._check_nulls(rows, columns)
            self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=GROUP)
        self._written += len(rows)

    def _check_nulls(self, rows: list[Any], columns: list[Any]) -> None:
        for field, column in zip(self._schema, columns, strict=True):
            if not field.nullable and column.null_count:
                at = column.is_valid().to_pylist().index(False)
                why = f"its {field.name!r} is missing or None, and the schema says that it never is"
                raise unwritable(self._written + at, rows[at], why, FORM)


class _Into(io.RawIOBase):
    """What pyarrow writes into: the output, for as long as its bytes are wanted."""

    def __init__(self, output: opening.Output) -> None:
        self._output = output
        self._at = 0
        self.wanted = True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        if self.wanted:
            self._output.write(data)
        self._at += len(data)
        return len(data)


def _names(rows: list[Any], schema: Any, first: int) -> list[str]:
    """The columns of a row group: those of the schema, or all keys in the order in which they first came."""
    names = dict.fromkeys(schema.names if schema is not None else ())
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise unwritable(first + at, row, f"it is {type(row).__name__}, not dict", FORM)
        if row.keys() <= names.keys():
            continue
        unknown = next(key for key in row if key not in names)
        if schema is not None:
            why = f"its key {unknown!r} is not among the columns: {', '.join(names)} (name all of them with schema=)"
            raise unwritable(first + at, row, why, FORM)
        if not all(isinstance(key, str) for key in row):
            raise unwritable(first + at, row, "its keys are not all str", FORM)
        names.update(dict.fromkeys(row))
    if rows and not names:
        raise unwritable(first, rows[0], "it has no keys, and so no columns", FORM)
    return list(names)


def _column(name: str, values: list[Any], kind: Any, first: int) -> Any:
    """The values as one column, of the type `kind` where given. Raises SinkError where one does not fit, or would come
    back as something else."""
    import pyarrow as pa

    refused = (pa.ArrowException, OverflowError, TypeError, ValueError)
    try:
        column = pa.array(values, type=kind)
    except refused as error:
        at = _first_that_fails(values, lambda part: pa.array(part, type=kind), refused)
        why = f"its {name!r} does not fit: {error}" + ("" if kind is None else f" (the column is {kind})")
        raise unwritable(first + at, values[at], why + "; schema= says what a column holds", FORM) from error
    if not _surely_kept(values, column.type):
        # pyarrow drops time zones, times of dates, unknown keys of dicts and fractions without a word.
        for at, (value, back) in enumerate(zip(values, column.to_pylist(), strict=True)):
            if not _same(value, back):
                why = f"its {name!r} would come back from {column.type} as {back!r}; schema= says what a column holds"
                raise unwritable(first + at, value, why, FORM)
    return column


def _surely_kept(values: list[Any], kind: Any) -> bool:
    """Whether no look at the values is needed: all of one type that this kind of column holds as it is."""
    from pyarrow import types

    found = {*map(type, values)} - {NoneType}
    holds = {
        str: types.is_string, int: types.is_integer, float: types.is_floating, bool: types.is_boolean,
        bytes: types.is_binary,
    }  # fmt: skip
    return not found or (len(found) == 1 and (only := found.pop()) in holds and holds[only](kind))


def _same(value: Any, back: Any) -> bool:
    """Whether a value came back as it was; a dict may have got None for keys that others have."""
    if hasattr(value, "tolist"):  # of NumPy
        value = value.tolist()
    if isinstance(value, bool) or isinstance(back, bool):
        return value is back
    if isinstance(value, float) and isinstance(back, float):
        return True  # NaN, or as exact as the schema has it
    if isinstance(value, dict) and isinstance(back, dict):
        return value.keys() <= back.keys() and all(_same(value.get(key), back[key]) for key in back)
    if isinstance(value, (list, tuple)) and isinstance(back, (list, tuple)):
        return len(value) == len(back) and all(map(_same, value, back))
    return bool(value == back)


def _first_that_fails(values: list[Any], convert: Any, errors: tuple[type[Exception], ...]) -> int:
    """The index of the value with which the conversion of the values up to it begins to fail."""
    good, bad = 0, len(values)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            convert(values[:middle])
        except errors:
            bad = middle
        else:
            good = middle
    return bad - 1


def _check(path: str) -> None:
    if opening.packing_of(path):
        raise LineError(
            f"{remote.shown(path)!r}: Parquet packs its own columns; write and read it without a second suffix"
        )


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise LineError("Parquet needs the package pyarrow: pip install 'taktline[parquet]'") from None
    return pyarrow
