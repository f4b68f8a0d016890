"""Tables in memory as sources: their rows are the records, their slices what batch steps and workers get."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

from taktline._arrow import stream_of
from taktline._io.splitting import ASK_TABLE, Cut, Cuts
from taktline._segment.tables import ArrowRows, Slice, way_of
from taktline.abc import Source, Splitter, Unread
from taktline.errors import LineError

BYTES = 4 << 20  # of a slice, about: some milliseconds of work, and it crosses within one
LEAST = 1 << 10  # rows of a slice, and
MOST = 1 << 20
LOOKS, TOGETHER = 64, 16  # places that a journal knows a table by, and rows of each


class Tables(Source):
    """The rows of tables that `begin` gives, one after the other. `length`: how many rows, where that is known; `together`:
    each table goes to the steps as it is."""

    columns = True

    def __init__(
        self, what: str, begin: Callable[[], Iterable[Any]], length: int | None, whole: frozenset[str] = frozenset(),
        *, together: bool = False, once: bool = False,
    ) -> None:  # fmt: skip
        self._what = what
        self.once = once  # what is read of them is gone then
        self._begin = begin
        self._length = length
        self.whole = whole
        self._together = together
        self.frame: Any = None  # the DataFrame of pandas, where it is one
        self.read_as: ArrowRows | None = None  # what it was read as, where it is one table

    def describe(self) -> str:
        return self._what if self._length is None else f"{self._what} of {self._length:,} rows"

    def fingerprint(self) -> Any:
        return [self._what, self._length, self._looked_at() if self._length is not None else None]

    def untold(self) -> str:
        return "rows beside a thousand that are looked at" if self._length is not None else "the rows of a stream"

    def _looked_at(self) -> str:
        """A digest of the schema and of some rows all over it."""
        digest = blake2b(digest_size=16)
        for table in self._begin():
            digest.update(str(table.schema).encode())
            for at in range(0, table.num_rows, max(TOGETHER, table.num_rows // LOOKS)):
                rows = table.slice(at, TOGETHER).combine_chunks()
                digest.update(stream_of(rows))
        return digest.hexdigest()

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("how many rows there are is known at its end alone")
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return self._each(None)

    def read(self, unread: list[Unread]) -> Iterator[Any]:
        return self._each(unread)

    def _each(self, unread: list[Unread] | None) -> Iterator[Any]:
        first = 0
        for table in self._begin():
            yield from (rows := Slice(ArrowRows(table, self.whole), first, self._what)).read(unread)
            first += len(rows)

    def split(self, *, exact: bool = False, unread: list[Unread] | None = None) -> Splitter | None:
        return Cut(self._cuts(unread))

    def _cuts(self, unread: list[Unread] | None) -> Cuts:
        wanted, first = (yield None), 0
        for table in self._begin():
            rows, at = ArrowRows(table, self.whole), 0
            each = max(LEAST, min(MOST, BYTES * len(rows) // max(1, rows.size))) if not self._together else len(rows)
            while at < len(rows):
                if wanted:
                    end = at + (each if wanted == ASK_TABLE else wanted)
                    part = Slice(rows[at:end], first + at, self._what)
                    at += len(part)
                    wanted = yield part
                else:
                    reading = _Counted(Slice(rows[at:], first + at, self._what).read(unread))
                    wanted = yield reading
                    at += reading.given
            first += len(rows)


class _Counted(Iterator[Any]):
    """Counts what an iterator gives."""

    def __init__(self, records: Iterator[Any]) -> None:
        self._records = records
        self.given = 0

    def __next__(self) -> Any:
        record = next(self._records)
        self.given += 1
        return record


def table_source(value: Any) -> Tables | None:
    """The source whose records are the rows of this table; None where it is none. Raises LineError where it is a table
    whose rows cannot be records."""
    roots = [each.__module__.partition(".")[0] for each in type(value).__mro__]  # of a class of the user's own too
    root = next((each for each in roots if each in MADE_OF and each in sys.modules), "")
    if root:
        return MADE_OF[root](value, sys.modules[root])
    if isinstance(value, Mapping):
        return _of_arrays(value)
    if hasattr(type(value), "__arrow_c_stream__"):
        return _of_stream(value)
    return None


def _of_pandas(value: Any, pd: Any) -> Tables | None:
    if not isinstance(value, pd.DataFrame):
        return None
    _check_names(list(value.columns), "DataFrame")
    way = way_of("pandas")
    assert way is not None
    rows = way.give(value, None)
    if rows is None:
        for name in value.columns:
            if way.give(value[[name]], None) is None:
                dtype = value[name].dtype
                what = "values of several types" if dtype.name == "object" else f"values of dtype {dtype}"
                raise LineError(
                    f"column {name!r} of the DataFrame holds {what}, which no column of Arrow can: give its rows, "
                    'df.to_dict("records"), or make it another type, such as df[column].astype(str)'
                )
    assert rows is not None
    made = _of_table(rows.table, "DataFrame", rows.whole)
    made.frame = value
    return made


def _of_polars(value: Any, pl: Any) -> Tables | None:
    if isinstance(value, pl.LazyFrame):
        return Tables("LazyFrame", lambda: (_from_polars(each, pl) for each in value.collect_batches()), None)
    return _of_table(_from_polars(value, pl), "DataFrame") if isinstance(value, pl.DataFrame) else None


def _from_polars(frame: Any, pl: Any) -> Any:
    way = way_of("polars")
    assert way is not None
    rows = way.give(frame, None)
    if rows is None:
        raise LineError(
            "the Polars DataFrame has a column that Arrow cannot hold, such as one of objects; cast it first"
        )
    return rows.table


def _of_pyarrow(value: Any, pa: Any) -> Tables | None:
    if isinstance(value, pa.RecordBatch):
        value = pa.Table.from_batches([value])
    if isinstance(value, pa.Table):
        return _of_table(value, "Table")
    if isinstance(value, pa.RecordBatchReader):
        return _once(value, "RecordBatchReader")
    dataset = sys.modules.get("pyarrow.dataset")
    if dataset is not None and isinstance(value, dataset.Dataset):
        _check_names(value.schema.names, "Dataset")
        return Tables("Dataset", lambda: map(_as_table, value.to_batches()), value.count_rows())
    return None


def _of_numpy(value: Any, np: Any) -> Tables | None:
    if not isinstance(value, np.ndarray) or value.ndim != 1 or not value.dtype.names:
        return None
    columns = {name: value[name] for name in value.dtype.names}
    return _of_arrays(columns) if all(each.ndim == 1 for each in columns.values()) else None


MADE_OF: dict[str, Callable[[Any, Any], Tables | None]] = {
    "pandas": _of_pandas, "polars": _of_polars, "pyarrow": _of_pyarrow, "numpy": _of_numpy
}  # fmt: skip


def _of_arrays(value: Mapping[Any, Any]) -> Tables | None:
    """A dict of NumPy's arrays; None where it is none."""
    np = sys.modules.get("numpy")
    if np is None or not any(isinstance(each, np.ndarray) for each in value.values()):
        return None
    if not all(isinstance(each, (np.ndarray, list, tuple)) for each in value.values()):
        return None
    for name, each in value.items():
        if getattr(each, "ndim", None) != 1:
            what = f"an array of {each.ndim} dimensions" if hasattr(each, "ndim") else f"a {type(each).__name__}"
            raise LineError(
                f"column {name!r} of the dict of arrays is {what}: each must be an array of one dimension, with a value for "
                "each row; make it some, such as columns[name][:, 0], or leave it out"
            )
    _check_names(list(value), "dict of arrays")
    lengths = {name: len(each) for name, each in value.items()}
    if len({*lengths.values()}) > 1:
        told = ", ".join(f"{name!r} has {count:,}" for name, count in lengths.items())
        raise LineError(f"the arrays of a dict must be of one length: {told}")
    if not find_spec("pyarrow"):
        raise LineError('the rows of a dict of arrays need the package pyarrow: pip install "taktline[parquet]"')
    way = way_of("numpy")
    assert way is not None
    rows = way.give(dict(value), None)
    if rows is None:
        name = next(name for name, each in value.items() if way.give({name: each}, None) is None)
        kind = "several types" if value[name].dtype == object else value[name].dtype
        what = "a masked array" if isinstance(value[name], np.ma.MaskedArray) else f"an array of {kind}"
        raise LineError(
            f"column {name!r} of the dict of arrays is {what}, which no column of Arrow can hold: make it another one, or "
            "give its rows, such as (dict(zip(columns, row)) for row in zip(*columns.values()))"
        )
    return _of_table(rows.table, "dict of arrays", rows.whole)


def _of_table(table: Any, what: str, whole: frozenset[str] | None = None) -> Tables:
    _check_names(table.schema.names, what)
    if whole is None:
        whole = frozenset(
            name for name, column in zip(table.schema.names, table.columns, strict=True) if not column.null_count
        )
    made = Tables(what, lambda: [table], table.num_rows, whole)
    made.read_as = ArrowRows(table, whole)
    return made


def _once(reader: Any, what: str) -> Tables:
    """Of what can be read once. Small batches are put together."""
    _check_names(reader.schema.names, what)
    left = [reader]

    def begin() -> Iterator[Any]:
        if not left:
            raise LineError(f"this {what} has been read already, and can be read once; make a new one, or give a Table")
        return _together(left.pop())

    return Tables(what, begin, None, once=True)


def _of_stream(value: Any) -> Tables:
    """Of what another library has, which is asked for its rows anew at each pass."""
    import pyarrow as pa

    what, stream = type(value).__name__, pa.RecordBatchReader.from_stream
    first = [stream(value)]
    _check_names(first[0].schema.names, what)

    def begin() -> Iterator[Any]:
        return _together(first.pop() if first else stream(value))

    return Tables(what, begin, None)


def _together(reader: Any) -> Iterator[Any]:
    import pyarrow as pa

    batches, size = [], 0
    for batch in reader:
        batches.append(batch)
        size += batch.nbytes
        if size >= BYTES:
            yield pa.Table.from_batches(batches)
            batches, size = [], 0
    if batches:
        yield pa.Table.from_batches(batches)


def _as_table(batch: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def _check_names(names: list[Any], what: str) -> None:
    """Raises LineError where the columns cannot be keys of records."""
    if not names:
        raise LineError(f"the {what} has no columns, so its rows are no records")
    if any(type(name) is not str for name in names):
        odd = next(name for name in names if type(name) is not str)
        kind = "a MultiIndex" if isinstance(odd, tuple) else f"such as {odd!r}, {type(odd).__name__}"
        raise LineError(f"the columns of the {what} must have names that are text, not {kind}: name them first")
    if len({*names}) < len(names):
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        raise LineError(f"the {what} has two columns named {twice!r}; name one of them differently")
