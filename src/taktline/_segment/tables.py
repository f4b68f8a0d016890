"""Rows of a table of Arrow as the values of a batch: into a step's form without making records of them, and back.

What a step is handed is its own: it may write into it, and the batch stays as it was. What it gives goes back into the
types of the source where that changes no value. Where a result has no exact columns here, the way over records is taken.
"""

from __future__ import annotations

import functools
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from taktline._arrow import HAS_NANOSECONDS, coarser, records_of, retyped, row_as_text, stream_of, table_of
from taktline._excerpts import KEPT_CHARACTERS
from taktline._segment.as_before import (
    PANDAS_NOTES,
    TEXT_KINDS,
    as_read,
    is_at,
    is_one,
    is_plain,
    metadata_for,
    places_of,
)
from taktline._segment.forms import Unfit, form_of
from taktline._segment.forms.columns import refuse_change
from taktline._segment.forms.libraries import form_of_library
from taktline._signals import pass_on
from taktline.abc import Part, Unread
from taktline.errors import SourceError

AT_ONCE = 4096  # rows that become records at once
MANY = 100  # columns of a frame from which those of a type are held in one piece
NONE: frozenset[str] = frozenset()
NOTHING: Mapping[str, Any] = MappingProxyType({})


class ArrowRows:
    """Some rows. `whole`: the names of columns that have no null in the whole run, so that each batch of them is alike.
    `made`: of columns the objects of a form, or arrays, that they were made of and share memory with, where those are nobody
    else's.

    >>> import pyarrow
    >>> rows = ArrowRows(pyarrow.table({"n": [1, 2, 3]}))
    >>> len(rows[1:]), rows[1:].records()
    (2, [{'n': 2}, {'n': 3}])
    """

    __slots__ = ("made", "table", "whole")

    def __init__(self, table: Any, whole: frozenset[str] = NONE, made: Mapping[str, Any] = NOTHING) -> None:
        self.table = table
        self.whole = whole
        self.made = made

    @property
    def size(self) -> int:
        """Bytes of the rows."""
        return self.table.nbytes  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return self.table.num_rows  # type: ignore[no-any-return]

    def __getitem__(self, at: Any) -> Any:
        """A slice; or the record of a row, or its text, where it can be none."""
        if not isinstance(at, slice):
            one = self[(at := range(len(self))[at]) : at + 1]
            records, bad = each_record(one)
            return row_as_text(one.table, KEPT_CHARACTERS) if bad else records[0]
        start, stop, _ = at.indices(len(self))
        return ArrowRows(self.table.slice(start, max(0, stop - start)), self.whole)

    def records(self) -> list[Any]:
        """The rows as dicts. Raises what has no value in Python."""
        return records_of(self.table)

    def without(self, start: int, stop: int) -> ArrowRows:
        """All but the rows from `start` to `stop`."""
        import pyarrow as pa

        return ArrowRows(pa.concat_tables([self[:start].table, self[stop:].table]), self.whole)

    def __reduce__(self) -> Any:
        """As a stream of Arrow's own: of a slice that has its rows alone."""
        return _opened, (pickle.PickleBuffer(stream_of(self.table)), self.whole)


def _opened(stream: Any, whole: frozenset[str]) -> ArrowRows:
    return ArrowRows(table_of(stream), whole)


def put_together(pieces: list[ArrowRows]) -> ArrowRows | None:
    """All of them as one; None where their columns differ in more than that some hold nothing but nulls: a row has no
    column that another one has."""
    import pyarrow as pa

    if len(pieces) == 1:
        return pieces[0]
    if any(piece.table.schema.names != pieces[0].table.schema.names for piece in pieces):
        return None
    whole = frozenset.intersection(*(piece.whole for piece in pieces))
    try:
        table = pa.concat_tables([piece.table for piece in pieces], promote_options="default")
    except pa.ArrowException:
        return None
    columns = [_neighbours(column) for column in table.columns]
    return ArrowRows(pa.Table.from_arrays(columns, schema=table.schema), whole)


class Gathering:
    """Puts the rows of a run together as they come: numbers that steps have made are copied behind each other into one piece
    of memory a column while they are still in the processor's cache, and what they stood in is used again. What is still a
    column of `read` stays where it is. `most`: how many rows come.

    >>> import pyarrow
    >>> gathering = Gathering(4, None)
    >>> pieces = [gathering.of(ArrowRows(pyarrow.table({"n": some}))) for some in ([1, 2], [3, 4])]
    >>> put_together(pieces).table["n"].num_chunks, gathering.made()["n"].tolist()
    (1, [1, 2, 3, 4])
    """

    def __init__(self, most: int, read: ArrowRows | None) -> None:
        self._most = most
        self._read = read
        self._came = 0
        # By column: its array, the same as Arrow's, and how many rows are in there.
        self._memory: dict[str, tuple[Any, Any, int]] = {}

    def of(self, rows: ArrowRows) -> ArrowRows:
        """These rows in memory that may stay."""
        first, table = not self._came, rows.table
        self._came += len(rows)
        if first and len(rows) == self._most:
            return rows  # all there are
        for at, name in enumerate(table.schema.names):
            column = table.column(at)
            if is_plain(column) and not self._is_read(name, column):
                table = table.set_column(at, table.schema.field(at), self._moved(name, column))
        return ArrowRows(table, rows.whole)

    def made(self) -> Mapping[str, Any]:
        """The columns that stand in one piece of memory as a whole."""
        return {name: array[:filled] for name, (array, _, filled) in self._memory.items() if filled == self._came}

    def _is_read(self, name: str, column: Any) -> bool:
        """Whether it is somewhere in the memory of the source's column."""
        if self._read is None or name not in self._read.table.schema.names:
            return False
        source = self._read.table.column(name)
        wide = column.type.bit_width // 8
        ours = [(at, at + count * wide) for at, _, count in places_of(source)] if source.type == column.type else []
        return all(
            any(start <= at and at + count * wide <= end for start, end in ours) for at, _, count in places_of(column)
        )

    def _moved(self, name: str, column: Any) -> Any:
        import pyarrow as pa

        if name not in self._memory:
            array = import_module("numpy").empty(self._most, column.type.to_pandas_dtype())
            self._memory[name] = array, pa.array(array), 0
        array, whole, filled = self._memory[name]
        end = filled + len(column)
        if whole.type != column.type or end > self._most:
            return column
        at = filled
        for chunk in column.chunks:
            array[at : at + len(chunk)] = chunk.to_numpy()
            at += len(chunk)
        self._memory[name] = array, whole, end
        return pa.chunked_array([whole.slice(filled, len(column))])


def rows_of(part: Part) -> ArrowRows | None:
    """A part of the source that nobody has read, as rows of a table; None where it has to be read record by record, which
    tells why."""
    try:
        table = part.table()
    except Exception as error:  # what is not to be read, or has no columns: of any class
        pass_on(error)
        return None
    return ArrowRows(table, part.whole) if table.num_rows == len(part) else None


class Slice(Part):
    """Rows of a table in memory, as a part of a source; `first`: the index of the first one."""

    __slots__ = ("_first", "_rows", "_what", "size", "whole")

    def __init__(self, rows: ArrowRows, first: int, what: str) -> None:
        self._rows = rows
        self._first = first
        self._what = what
        self.size = max(1, rows.size)
        self.whole = rows.whole

    def __reduce__(self) -> Any:
        return Slice, (self._rows, self._first, self._what)

    def __len__(self) -> int:
        return len(self._rows)

    def table(self) -> Any:
        return self._rows.table

    def read(self, unread: list[Unread] | None = None) -> Iterator[Any]:
        for start in range(0, len(self._rows), AT_ONCE):
            rows = self._rows[start : start + AT_ONCE]
            records, bad = each_record(rows)
            for at, why in bad:
                error = SourceError(f"row {self._first + start + at:,} of the {self._what} can be no record: {why}")
                if unread is None:
                    yield from records[:at]
                    raise error
                records[at] = Unread(rows[at], error)
            if unread is None or not bad:
                yield from records
                continue
            for record in records:
                if type(record) is Unread:
                    unread.append(record)  # not before its turn: who asks for some records has no use for later ones
                yield record


def each_record(rows: ArrowRows) -> tuple[list[Any], list[tuple[int, Unfit]]]:
    """The rows as records, and which of them cannot be any: None stands in their place."""
    import pyarrow as pa

    try:
        return rows.records(), []
    except (pa.ArrowException, ValueError, OverflowError) as error:
        if len(rows) == 1:
            return [None], [(0, Unfit(str(error)))]
    half = len(rows) // 2
    records, bad = each_record(rows[:half])
    more, worse = each_record(rows[half:])
    return records + more, bad + [(half + n, why) for n, why in worse]


def can_be_records(rows: ArrowRows) -> bool:
    """Whether each of the rows can, found without making any where a look at columns tells."""
    import pyarrow as pa

    try:
        for column in rows.table.columns:
            _look_at_values(column)
    except (pa.ArrowException, ValueError, OverflowError, Unfit):
        return False
    return True


def _look_at_values(column: Any) -> None:
    """Raises where one has no value in Python."""
    from pyarrow import compute, types

    kind = column.type
    if types.is_dictionary(kind):
        for chunk in column.chunks:
            _look_at_values(chunk.dictionary)
    elif types.is_temporal(kind):
        ends = compute.min_max(column if (coarse := coarser(kind)) is None else column.cast(coarse))
        ends.as_py()
    elif is_one(kind, TEXT_KINDS):
        column.validate(full=True)
    elif types.is_nested(kind):
        _values(column, "")


# --- into a form and back ---


class Way(ABC):
    """Between tables and one form."""

    @abstractmethod
    def take(self, rows: ArrowRows, first: int, *, lent: bool = False) -> Any:
        """The rows as a batch of the form, which the step may change; `first`: the index of the first one. `lent`: it may
        share the memory of the rows, as long as whoever asks keeps this very batch until all that is made of it is done.
        Raises Unfit."""

    def all_of(self, rows: ArrowRows, source: Any, read: ArrowRows | None) -> Any:
        """The rows of a run as a batch that is the caller's. What is still a column of the frame `source`, which was read as
        `read`, is shared with it, and what a step has made is taken as it is, where who writes into it copies it first."""
        return self.take(rows, 0)

    @abstractmethod
    def give(self, result: Any, rows: ArrowRows | None) -> ArrowRows | None:
        """What a step made of the rows; None where it has no columns of Arrow: then it goes by way of records."""

    def _columns(self, named: Iterable[tuple[Any, Any]], rows: ArrowRows | None) -> dict[str, Any] | None:
        """The columns of a frame or a dict, by their names, as those of Arrow; None where one has none."""
        columns: dict[str, Any] = {}
        kinds = dict(zip(rows.table.schema.names, rows.table.schema.types, strict=True)) if rows is not None else {}
        for name, column in named:
            if type(name) is not str or (given := self._given(column, kinds.get(name))) is None:
                return None
            columns[name] = given
        return columns

    def _as_read(self, columns: dict[str, Any], rows: ArrowRows | None) -> Any:
        """A table of these columns, with the types and the metadata of those that the rows had before."""
        return as_read(columns, rows.table if rows is not None else None, self.stands_for)

    def _given(self, column: Any, kind: Any = None) -> Any:
        """A column of the form as one of Arrow, where it may be of the type `kind` that it had; None where there is none."""
        raise NotImplementedError

    def stands_for(self, made: Any, kind: Any) -> bool:
        """Whether columns of the type `made` are what this form has in the place of those of `kind`, for which it has none:
        a step that has not touched one gives it back as this."""
        return False


@functools.cache
def way_of(form: str) -> Way | None:
    """How this form takes and gives tables; None where it takes lists alone."""
    ways: dict[str, Callable[[], Way]] = {"numpy": _Numpy, "pandas": _Pandas, "arrow": _Arrow, "polars": _Polars}
    return ways[form]() if form in ways else None


class _Pandas(Way):
    def __init__(self) -> None:
        self.np, self.pd, self.form = import_module("numpy"), import_module("pandas"), form_of("pandas")
        # Since version 3 what writes into a frame that shares its memory with another one copies that column first.
        self.lends = int(self.pd.__version__.split(".")[0]) >= 3

    def take(self, rows: ArrowRows, first: int, *, lent: bool = False) -> Any:
        lent = lent and self.lends
        names, index = _names(rows.table.schema), self.pd.RangeIndex(first, first + len(rows))
        blocks = self._blocks(rows) if len(names) > MANY else None
        columns = {
            name: self._column(column, name, whole=name in rows.whole, lent=lent)
            for name, column in zip(names, rows.table.columns, strict=True)
            if blocks is None or name not in blocks
        }
        frame = self.pd.DataFrame(columns, index=index, copy=False)
        if blocks is not None:
            blocks.index = index
            frame = self.pd.concat([blocks, frame], axis=1)[names] if columns else blocks
        if not lent:
            return frame
        shared = frame.copy(deep=False)
        vars(shared)["_taktline"] = frame
        return shared

    def _blocks(self, rows: ArrowRows) -> Any:
        """The columns of numbers that have no nulls as a frame which holds those of a type in one piece. pandas takes some 20
        µs for each piece in whatever it does, and warns of frames of more than a hundred."""
        from pyarrow import types

        plain = [
            name
            for name, kind in zip(rows.table.schema.names, rows.table.schema.types, strict=True)
            if name in rows.whole and (types.is_integer(kind) or types.is_floating(kind))
        ]
        return rows.table.select(plain).to_pandas(ignore_metadata=True)

    def _column(self, column: Any, name: str, *, whole: bool, lent: bool) -> Any:
        from pyarrow import types

        np, kind, made = self.np, column.type, self.pd.arrays
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
            if whole:
                return column.to_numpy() if lent else _own_of(column)
            if types.is_float16(kind):  # pandas has no column of them with nulls
                column = column.cast("float32")
            mask = _own(column.is_null().to_numpy())
            values = _own(column.fill_null(False if types.is_boolean(kind) else 0).to_numpy())
            if types.is_floating(kind) and mask.any() and np.isnan(values).any():
                raise Unfit(f"column {name!r}: a column of pandas cannot hold both NaN and None")
            if types.is_boolean(kind):
                return made.BooleanArray(values, mask)
            return (made.FloatingArray if types.is_floating(kind) else made.IntegerArray)(values, mask)
        if types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind):
            return column.to_pandas().array
        if types.is_timestamp(kind) or types.is_duration(kind):
            array = column.to_pandas().array
            return array if getattr(kind, "tz", None) else _own(array.to_numpy())
        return _exactly(self.form, column, name).array

    def give(self, result: Any, rows: ArrowRows | None) -> ArrowRows | None:
        if not isinstance(result, self.pd.DataFrame):
            return None
        series = list(result.items())
        if (columns := self._columns(series, rows)) is None:
            return None
        whole = {name: each for name, each in series if isinstance(each.dtype, self.np.dtype)}
        table = self._as_read(columns, rows)
        given = ArrowRows(table, frozenset(whole))
        given.made = {name: each for name, each in whole.items() if each.dtype.kind in "iuf"}
        return given

    def all_of(self, rows: ArrowRows, source: Any, read: ArrowRows | None) -> Any:
        names = _names(rows.table.schema)
        if not self.lends or (source is None and len(names) > MANY):
            return self.take(rows, 0)
        index, columns = self.pd.RangeIndex(len(rows)), {}
        for name, column in zip(names, rows.table.columns, strict=True):
            own = read.table.schema.names if source is not None and read is not None else ()
            if read is not None and name in own and is_at(column, read.table.column(name)):
                columns[name] = source[name].set_axis(index)
            elif isinstance(made := rows.made.get(name), self.np.ndarray) and name in rows.whole:
                columns[name] = made
            elif isinstance(made, self.pd.Series) and _may_be_written(made) and is_at(column, self._given(made)):
                columns[name] = made.set_axis(index)
            else:
                columns[name] = self._column(column, name, whole=name in rows.whole, lent=False)
        return self.pd.DataFrame(columns, index=index, copy=False)

    def stands_for(self, made: Any, kind: Any) -> bool:
        from pyarrow import types

        return bool(types.is_float16(kind))  # with nulls

    def _given(self, series: Any, kind: Any = None) -> Any:
        import pyarrow as pa

        dtype, array = series.dtype, series.array
        try:
            if isinstance(dtype, self.pd.SparseDtype):
                array, dtype = self.np.asarray(array), dtype.subtype
            if not isinstance(dtype, self.np.dtype):
                made = pa.array(array, from_pandas=True) if hasattr(array, "__arrow_array__") else pa.array(array)
                # Periods and intervals are of pandas alone.
                return None if isinstance(made.type, pa.BaseExtensionType) else made
            if dtype.kind == "O":
                return _objects(self._with_none(array), kind)
            if dtype.kind not in "biufmM":
                return None
            return pa.array(self.np.asarray(array, dtype.newbyteorder("=")), from_pandas=dtype.kind in "mM")
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return None

    def _with_none(self, objects: Any) -> list[Any]:
        """The values of a column of objects, None for those that are missing: pandas has NaN there too."""
        missing, floats = (None, self.pd.NA, self.pd.NaT), (float, self.np.floating)
        return [
            None if any(value is each for each in missing) or (isinstance(value, floats) and value != value) else value
            for value in objects
        ]


class _Numpy(Way):
    def __init__(self) -> None:
        self.np, self.form = import_module("numpy"), form_of("numpy")

    def take(self, rows: ArrowRows, first: int, *, lent: bool = False) -> Any:
        names = _names(rows.table.schema)
        return {name: self._column(column, name) for name, column in zip(names, rows.table.columns, strict=True)}

    def _column(self, column: Any, name: str) -> Any:
        from pyarrow import types

        kind = column.type
        if column.null_count:
            return self.form.objects(_values(column, name))  # type: ignore[attr-defined]
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
            return _own(column.to_numpy())
        if types.is_duration(kind) or (types.is_timestamp(kind) and kind.tz is None):
            return _own(column.to_numpy())
        return _exactly(self.form, column, name)

    def give(self, result: Any, rows: ArrowRows | None) -> ArrowRows | None:
        if not isinstance(result, dict) or (columns := self._columns(result.items(), rows)) is None:
            return None
        whole = {name for name, array in result.items() if array.dtype.kind in "biuf"}
        if rows is not None:  # beside this batch there may be others with nulls in a column of the source
            whole -= {*rows.table.schema.names} - rows.whole
        table = self._as_read(columns, rows)
        return ArrowRows(table, frozenset(whole))

    def stands_for(self, made: Any, kind: Any) -> bool:
        from pyarrow import types

        return bool(types.is_dictionary(kind))

    def _given(self, array: Any, kind: Any = None) -> Any:
        import pyarrow as pa

        if array.ndim != 1 or isinstance(array, self.np.ma.MaskedArray):
            return None
        try:
            if array.dtype.kind in "biufmM":
                return pa.array(array)
            return _objects(self.form.give(array).records(), kind) if array.dtype.kind in "OUS" else None
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            return None


class _Arrow(Way):
    def take(self, rows: ArrowRows, first: int, *, lent: bool = False) -> Any:
        return rows.table

    def give(self, result: Any, rows: ArrowRows | None) -> ArrowRows | None:
        import pyarrow as pa

        if isinstance(result, pa.RecordBatch):
            result = pa.Table.from_batches([result])
        if not isinstance(result, pa.Table):
            return None
        if rows is not None and (told := result.schema.metadata) and PANDAS_NOTES in told:
            result = result.replace_schema_metadata(metadata_for(rows.table.schema.with_metadata(told), result.schema))
        return ArrowRows(result, _untouched(result, rows))


class _Polars(Way):
    def __init__(self) -> None:
        self.pl = import_module("polars")

    def take(self, rows: ArrowRows, first: int, *, lent: bool = False) -> Any:
        import pyarrow as pa

        table = rows.table
        for at, field in enumerate(table.schema):
            if pa.types.is_decimal256(field.type):  # it would panic, with a page of its own stack on standard error
                raise Unfit(f"column {field.name!r}: Polars has no decimals of more than 38 digits")
            if (kind := retyped(field.type, _in_polars)) is not None:
                table = table.set_column(at, field.with_type(kind), _cast(table.column(at), kind, field.name))
            elif pa.types.is_fixed_size_list(field.type) and table.column(at).null_count:
                # Of some rows of such a column it would read the mask of all.
                alone = table_of(stream_of(table.select([field.name])))
                table = table.set_column(at, field, alone.column(0))
        frame, why = self._frame(table)
        if frame is None:
            at_fault = [name for name in table.schema.names if self._frame(table.select([name]))[0] is None]
            raise Unfit(f"column {at_fault[0]!r}: {why}" if at_fault else why)
        return frame

    def _frame(self, table: Any) -> tuple[Any, str]:
        """The table as a DataFrame; None, and why, where Polars has none."""
        import pyarrow as pa

        polars = self.pl.exceptions
        try:
            frame = self.pl.from_arrow(table)
            if frame.columns != table.schema.names:  # it gives a column without a name one
                frame.columns = table.schema.names
            return frame, ""
        # Its PanicException is no Exception.
        except (polars.PolarsError, polars.PanicException, pa.ArrowException, TypeError) as error:
            return None, str(error)

    def stands_for(self, made: Any, kind: Any) -> bool:
        from pyarrow import types

        if types.is_timestamp(kind):
            return kind.unit == "s" or (kind.tz is not None and kind.tz[:1] in "+-")
        if types.is_dictionary(kind):  # of text the order is another one
            return types.is_dictionary(made) or not is_one(kind.value_type, TEXT_KINDS)
        return bool(types.is_duration(kind) and kind.unit == "s")

    def give(self, result: Any, rows: ArrowRows | None) -> ArrowRows | None:
        import pyarrow as pa

        if not isinstance(result, self.pl.DataFrame):
            return None
        try:
            table = result.to_arrow(compat_level=self.pl.CompatLevel.oldest())
        except (self.pl.exceptions.PanicException, pa.ArrowException):
            return None
        columns = dict(zip(table.schema.names, table.columns, strict=True))
        made = self._as_read(columns, rows)
        return ArrowRows(made, _untouched(made, rows))


def _in_polars(kind: Any) -> Any:
    """What a type is to be before Polars takes its columns: of dates in milliseconds it would make moments, and of seconds
    milliseconds, without a look whether these are too many. None where it takes them as they are."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    return {pa.date64(): pa.date32(), pa.duration("s"): pa.duration("ms")}.get(kind)


def _cast(column: Any, kind: Any, name: str) -> Any:
    """Raises Unfit where a value would be another one."""
    import pyarrow as pa

    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        raise Unfit(f"column {name!r}: {error}") from error


def _names(schema: Any) -> list[str]:
    names: list[str] = schema.names
    if len({*names}) < len(names):
        raise Unfit("two columns have the same name")
    if not names:
        raise Unfit("a row has no columns")
    return names


def _own_of(column: Any) -> Any:
    """The numbers of a column in memory of their own: where they stand in several chunks, they are copied for that anyway."""
    array = column.to_numpy()
    return array if column.num_chunks > 1 and array.flags.writeable else _own(array)


def _may_be_written(series: Any) -> bool:
    """Whether the memory of a column of pandas is no other library's."""
    array = getattr(getattr(series, "array", None), "_ndarray", None)
    return array is not None and bool(array.flags.writeable)


def _own(array: Any) -> Any:
    """Memory that may be written into and is nobody else's."""
    return array if array.flags.writeable and array.flags.owndata else array.copy()


def _exactly(form: Any, column: Any, name: str) -> Any:
    """A column of the form by way of Python's values."""
    import pyarrow as pa

    try:
        return form.column(_values(column, name), f"column {name!r}: ")
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise Unfit(f"column {name!r}: {error}") from error


def _values(column: Any, name: str) -> list[Any]:
    """A column as Python's values, which are those of records. Raises Unfit."""
    import pyarrow as pa

    try:
        if (kind := coarser(column.type)) is not None:
            column = column.cast(kind)
        return column.to_pylist()  # type: ignore[no-any-return]
    except pa.ArrowInvalid as error:
        raise Unfit(f"column {name!r} {HAS_NANOSECONDS}") from error
    except (ValueError, OverflowError) as error:
        raise Unfit(f"column {name!r}: {error}") from error


def _objects(values: list[Any], kind: Any) -> Any:
    """A column of Arrow that holds Python's values exactly, of the type `kind` where that does; None where there is none."""
    import pyarrow as pa

    if kind is not None and not pa.types.is_dictionary(kind):
        try:
            column = pa.array(values, kind)
            if not _holds(kind, {*map(type, values)}):
                refuse_change(values, _values(column, ""))
            return column
        except (pa.ArrowException, TypeError, ValueError, OverflowError, Unfit):
            pass  # a step has made something else of it
    try:
        return form_of_library("arrow").column(values, "")
    except Unfit:
        return None


def _holds(kind: Any, types: set[type]) -> bool:
    """Whether a column of this type holds values of these exactly, without a look at them."""
    from pyarrow import types as arrow

    types = types - {type(None)}
    return (types <= {str} and is_one(kind, TEXT_KINDS)) or (
        types <= {bytes} and (arrow.is_binary(kind) or arrow.is_large_binary(kind))
    )


def _neighbours(column: Any) -> Any:
    """A column of numbers whose chunks are neighbours in one buffer, as one chunk, without a copy."""
    import pyarrow as pa
    from pyarrow import types

    chunks = column.chunks
    number = types.is_integer(column.type) or types.is_floating(column.type)
    if len(chunks) < 2 or not number or any(chunk.null_count for chunk in chunks):
        return column
    buffers = chunks[0].buffers()
    places = [(chunk.buffers()[1].address, chunk.offset) for chunk in chunks if len(chunk)]
    at = places[0][1]
    for (address, offset), chunk in zip(places, (each for each in chunks if len(each)), strict=True):
        if address != places[0][0] or offset != at:
            return column
        at += len(chunk)
    whole = pa.Array.from_buffers(column.type, len(column), [None, buffers[1]], 0, places[0][1])
    return pa.chunked_array([whole])


def _untouched(table: Any, rows: ArrowRows | None) -> frozenset[str]:
    """Names of the columns that have no null in the whole run since they are still the same memory."""
    if rows is None:
        return NONE
    names = rows.table.schema.names
    return frozenset(
        name
        for name in rows.whole.intersection(table.schema.names)
        if name in names and places_of(table.column(name)) == places_of(rows.table.column(name))
    )
