"""What a batch step is handed: a list, or NumPy arrays, a pandas, Arrow or Polars table. Exact both ways, or refused.

What a column holds follows from each record alone, never from its neighbours, so that a batch gives what its records
give one at a time: a batch that mixes what one column cannot hold exactly (ints and floats, rows with other keys) does
not fit, and whoever called takes a part of it. Libraries are imported where a step asks for their form, not before.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from importlib import import_module
from typing import Any

from taktline._recipe.steps import Step
from taktline._segment.same import kept
from taktline._signals import pass_on
from taktline.errors import FormError

Nothing = type(None)
WIDE = 4  # an array of strings may take so many times the room of its strings; beyond that it is made of fewer records
SMALL = 1 << 20  # characters: below that nobody minds


class Unfit(Exception):
    """These values do not fit into one batch of a form exactly; a part of them may."""


class Misfit(Exception):
    """A step returned something that is not of its form."""


def cannot_stand(step: Step, why: Unfit) -> FormError:
    """What a single record fails with where it does not fit."""
    return FormError(
        step=step.name, form=step.form, why=f"the record cannot stand in it exactly: {why}",
        remedy='change the record in a step before this one, or use another form; form="list" takes anything',
    )  # fmt: skip


def not_of_the_form(step: Step, result: Any, why: Exception) -> FormError:
    """What all records of a batch fail with where the step returned something else than one result each."""
    wanted = f"not {why}" if isinstance(why, Misfit) else f"which gives no plain records: {why}"
    return FormError(
        step=step.name, form=step.form, why=f"it returned {type(result).__name__}, {wanted}",
        remedy="return one result a record in the step's form",
    )  # fmt: skip


class Columns:
    """The results of a batch, a column each: an array of numbers or a list. Crosses to another process as it is, and
    becomes records there.

    >>> Columns(("a", "b"), [[1, 2], ["x", "y"]]).records()
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]
    """

    __slots__ = ("columns", "names")

    def __init__(self, names: tuple[Any, ...] | None, columns: list[Any]) -> None:
        self.names = names  # None: the records are no rows but the values of the only column; (): they are tuples
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def records(self) -> list[Any]:
        """Plain records: dicts, tuples or values, of Python's own types where they have one."""
        lists = [_listed(column) for column in self.columns]
        if self.names is None:
            return lists[0]
        rows = zip(*lists, strict=True)
        if not self.names:
            return list(rows)
        names = self.names
        return [dict(zip(names, row)) for row in rows]  # noqa: B905  # as many values as names: 80 ns a row less


def _listed(column: Any) -> list[Any]:
    if type(column) is list:
        return column
    return column.tolist() if column.ndim == 1 else list(column)  # more dimensions: an array a record


class Form(ABC):
    """One form. `take` makes a batch of it, `checked` looks at what a step made of that, `give` takes it apart."""

    @abstractmethod
    def take(self, values: list[Any]) -> Any:
        """One or more values as a batch. Raises Unfit where that would change one of them."""

    @abstractmethod
    def checked(self, result: Any, given: int) -> tuple[Any, int]:
        """What a step returned, and how many results that is, another number than `given` where a column differs.
        Raises Misfit where it is not of this form."""

    @abstractmethod
    def give(self, result: Any) -> Columns:
        """What `checked` let pass, in columns. Raises Misfit where that would change a value."""


@functools.cache
def form_of(name: str) -> Form:
    """The form of this name; imports its library."""
    forms: dict[str, Callable[[], Form]] = {
        "list": Lists, "numpy": Arrays, "pandas": Frames, "arrow": Arrow, "polars": Polars
    }  # fmt: skip
    return forms[name]()


class Lists(Form):
    """Plain lists: nothing is converted."""

    def take(self, values: list[Any]) -> Any:
        return values

    def checked(self, result: Any, given: int) -> tuple[Any, int]:
        if type(result) is list:
            return result, len(result)
        from taktline._segment.returned import listed  # which stands on the other forms

        return listed(result, given)

    def give(self, result: Any) -> Columns:
        return result if isinstance(result, Columns) else Columns(None, [result])


class _Tables(Form):
    """What all forms with columns share: dicts are rows, anything else is a column of its own."""

    tuples = False  # tuples are rows too

    def take(self, values: list[Any]) -> Any:
        kinds = {*map(type, values)}
        if kinds == {dict}:
            names = {*map(tuple, values)}
            if not all(type(name) is str for name in next(iter(names))):
                raise Unfit("a column's name is not a str")
            return self._rows(names, map(dict.values, values))
        if kinds == {tuple} and self.tuples:
            return self._rows({(*range(width),) for width in {*map(len, values)}}, values)
        if dict in kinds or (tuple in kinds and self.tuples):
            raise Unfit("some of neighbouring records are rows and some are not")
        return self.column(values, "")

    def _rows(self, shapes: set[tuple[Any, ...]], rows: Iterable[Iterable[Any]]) -> Any:
        if len(shapes) > 1:
            raise Unfit("neighbouring rows have other columns, or in another order")
        names = shapes.pop()
        if not names:
            raise Unfit("a row has no columns")
        columns = zip(*rows, strict=True)
        return self.table(
            names, [self.column(column, f"column {name!r}: ") for name, column in zip(names, columns, strict=True)]
        )

    def column(self, values: Sequence[Any], where: str) -> Any:
        """One column. Raises Unfit where it cannot hold the values exactly."""
        kinds = {*map(type, values)}
        if len(kinds - {Nothing}) > 1 or (Nothing in kinds and len(kinds) > 1 and not self.missing):
            raise Unfit(f"{where}neighbouring records mix {' and '.join(sorted(kind.__name__ for kind in kinds))}")
        try:
            return self.exactly(values, next(iter(kinds - {Nothing}), Nothing), missing=Nothing in kinds)
        except Unfit as unfit:
            raise Unfit(f"{where}{unfit}") from None
        except Exception as error:  # the library's own reasons, of many classes
            pass_on(error)
            raise Unfit(f"{where}{type(error).__name__}: {error}") from error

    missing = True  # a column may hold None beside other values

    @abstractmethod
    def exactly(self, values: Sequence[Any], kind: type, *, missing: bool) -> Any:
        """A column of values that are all of one `kind`, or None where some are `missing`."""

    @abstractmethod
    def table(self, names: tuple[Any, ...], columns: list[Any]) -> Any:
        """Columns side by side."""


class Arrays(_Tables):
    """NumPy: an array for plain values, a dict of arrays for dicts, a tuple of arrays for tuples. NumPy has no missing
    value: None stands, as all that NumPy has no type for, in an array of objects."""

    tuples = True
    missing = False

    def __init__(self) -> None:
        self.np = import_module("numpy")

    def exactly(self, values: Sequence[Any], kind: type, *, missing: bool) -> Any:
        try:
            array = self.native(values, kind)
        except (OverflowError, Unfit):
            if len(values) > 1:  # some of them may fit
                raise Unfit(f"some values do not fit into an array of {kind.__name__}") from None
            array = None
        return self.objects(values) if array is None else array

    def native(self, values: Sequence[Any], kind: type) -> Any:
        """An array of NumPy's own type; None where it has none for this kind. Raises Unfit or OverflowError."""
        np = self.np
        plain = {int: "int64", float: "float64", bool: "bool", date: "M8[D]", datetime: "M8[us]", timedelta: "m8[us]"}
        if kind is str:
            return self._strings(values)
        if kind is datetime and any(value.tzinfo is not None or value.fold for value in values):
            raise Unfit
        if kind in plain:
            array = np.array(values, plain[kind])
            if array.dtype.kind in "Mm" and array.tolist() != list(values):
                raise Unfit
            return array
        if issubclass(kind, (np.number, np.bool_)):
            return np.array(values)
        if kind is np.ndarray and values[0].ndim and not values[0].dtype.hasobject:
            if len({(value.shape, value.dtype) for value in values}) > 1:
                raise Unfit
            return np.stack(values)
        return None

    def _strings(self, values: Sequence[str]) -> Any:
        total, most = sum(map(len, values)), max(map(len, values))
        if most * len(values) > WIDE * total + SMALL or "\0" in "".join(values):  # NumPy drops NULs at a string's end
            raise Unfit
        return self.np.array(values, "U")

    def objects(self, values: Sequence[Any]) -> Any:
        """The values themselves in an array."""
        array = self.np.empty(len(values), object)
        for n, value in enumerate(values):  # a slice would look into sequences
            array[n] = value
        return array

    def table(self, names: tuple[Any, ...], columns: list[Any]) -> Any:
        return tuple(columns) if names == (*range(len(columns)),) else dict(zip(names, columns, strict=True))

    def checked(self, result: Any, given: int) -> tuple[Any, int]:
        columns = list(result.values()) if isinstance(result, dict) else result
        columns = columns if isinstance(columns, (tuple, list)) and type(result) is not list else [columns]
        if not columns or not all(isinstance(column, self.np.ndarray) and column.ndim for column in columns):
            raise Misfit("NumPy arrays, or a dict or tuple of them")
        return result, next((len(column) for column in columns if len(column) != given), given)

    def give(self, result: Any) -> Columns:
        if isinstance(result, dict):
            return Columns((*result,), [self.out(column) for column in result.values()])
        if isinstance(result, tuple):
            return Columns((), [self.out(column) for column in result])
        if result.dtype.names:
            return Columns(result.dtype.names, [self.out(result[name]) for name in result.dtype.names])
        return Columns(None, [self.out(result)])

    def out(self, array: Any) -> Any:
        """A column on its way out: numbers stay an array, the rest becomes a list of Python's own values."""
        if array.ndim > 1:
            return self.np.asarray(array)
        if isinstance(array, self.np.ma.MaskedArray):
            return array.tolist()  # None where it is masked
        kind = array.dtype.kind
        if kind in "Mm":
            return self._moments(array)
        if kind == "O":
            return [value.item() if isinstance(value, self.np.generic) else value for value in array]
        return array if kind in "biufc" else array.tolist()

    def _moments(self, array: Any) -> list[Any]:
        np = self.np
        days = np.datetime_data(array.dtype)[0] in ("D", "W", "M", "Y") and array.dtype.kind == "M"
        coarse = array.astype(f"{array.dtype.kind}8[{'D' if days else 'us'}]")
        values: list[Any] = coarse.tolist()
        same = (coarse == array) | np.isnat(array)
        if not same.all() or any(type(value) is int for value in values):
            raise Misfit(
                f"values of {array.dtype} that Python's datetime can hold: whole microseconds, years 1 to 9999"
            )
        return values


class Frames(_Tables):
    """pandas: a DataFrame for dicts and tuples, a Series for plain values. A column with a missing value has the
    nullable type (Int64, Float64, boolean), a column of nothing else holds pd.NA as objects."""

    tuples = True

    def __init__(self) -> None:
        self.pd = import_module("pandas")
        self.arrays = Arrays()

    def exactly(self, values: Sequence[Any], kind: type, *, missing: bool) -> Any:
        try:
            column = self._native(values, kind, missing)
        except Exception:  # pandas has many reasons, of many classes; as an object it stands in any case
            if len(values) > 1:
                raise
            column = None
        if column is None:
            objects = self.arrays.objects([self.pd.NA if value is None else value for value in values])
            return self.pd.Series(objects, dtype=object)  # or pandas would guess a type
        return self.pd.Series(column)

    def _native(self, values: Sequence[Any], kind: type, missing: bool) -> Any:
        np, masked = self.arrays.np, self.pd.arrays
        if kind is str:
            return self.pd.array(values, dtype="str") if self._has_str else None
        if kind is datetime and any(value is not None and value.tzinfo is not None for value in values):
            return self._zoned(values)
        if kind is date or kind is np.ndarray:  # pandas has no type for either
            return None
        if not missing:
            return self.arrays.native(values, kind)
        if kind in (int, float, bool):
            mask = np.array([value is None for value in values])
            array = self.arrays.native([kind(0) if value is None else value for value in values], kind)
            if kind is float and np.isnan(array).any():
                raise Unfit("a column of pandas cannot hold both NaN and None")
            made = {int: masked.IntegerArray, float: masked.FloatingArray, bool: masked.BooleanArray}
            return made[kind](array, mask)
        if kind in (datetime, timedelta):
            array = self.arrays.native([value for value in values if value is not None], kind)
            spread = np.full(len(values), "NaT", array.dtype)
            spread[[value is not None for value in values]] = array
            return spread
        return None

    @functools.cached_property
    def _has_str(self) -> bool:
        return int(self.pd.__version__.split(".")[0]) >= 3

    def _zoned(self, values: Sequence[Any]) -> Any:
        column = self.pd.Series(list(values))
        if column.dtype == object or not kept(list(values), self.out(column)):
            raise Unfit("other time zones, or a moment that pandas would change")
        return column

    def table(self, names: tuple[Any, ...], columns: list[Any]) -> Any:
        return self.pd.DataFrame(dict(zip(names, columns, strict=True)), copy=False)

    def checked(self, result: Any, given: int) -> tuple[Any, int]:
        if isinstance(result, self.arrays.np.ndarray):  # what models return for a DataFrame
            return self.arrays.checked(result, given)
        if not isinstance(result, (self.pd.DataFrame, self.pd.Series)):
            raise Misfit("a DataFrame, a Series or a NumPy array")
        if isinstance(result, self.pd.DataFrame) and not result.columns.is_unique:
            twice = result.columns[result.columns.duplicated()][0]
            raise Misfit(f"one with each name once: it has two columns named {twice!r}")
        if isinstance(result, self.pd.DataFrame) and not len(result.columns):
            raise Misfit("a DataFrame with columns")
        index = result.index
        if len(index) == given and index.dtype.kind == "i" and not index.is_monotonic_increasing and index.is_unique:
            raise Misfit("the rows in the order in which they were given, as the index says (or call reset_index)")
        return result, len(result)

    def give(self, result: Any) -> Columns:
        if isinstance(result, self.arrays.np.ndarray):
            return self.arrays.give(result)
        if isinstance(result, self.pd.Series):
            return Columns(None, [self.out(result)])
        names = (*result.columns,)
        rows_are_tuples = names == (*range(len(names)),)
        return Columns(() if rows_are_tuples else names, [self.out(column) for _, column in result.items()])

    def out(self, series: Any) -> Any:
        """A column on its way out."""
        np, dtype = self.arrays.np, series.dtype
        if isinstance(dtype, np.dtype) and dtype.kind != "O":
            return self.arrays.out(series.to_numpy())
        if dtype.kind in "biuf" and not series.isna().any():
            return self.arrays.out(series.to_numpy(dtype.numpy_dtype))
        missing = dtype.kind != "O" or not isinstance(
            dtype, np.dtype
        )  # in a column of objects NaN is a value of its own
        return [self._plain(value, missing) for value in series.astype(object).array]

    def _plain(self, value: Any, missing: bool) -> Any:
        pd = self.pd
        if value is None or value is pd.NA or value is pd.NaT or (missing and value != value):
            return None
        if isinstance(value, pd.Timestamp):
            if value.nanosecond:
                raise Misfit("moments of whole microseconds, which Python's datetime can hold")
            return value.to_pydatetime()
        if isinstance(value, pd.Timedelta):
            if value.nanoseconds:
                raise Misfit("durations of whole microseconds, which Python's timedelta can hold")
            return value.to_pytimedelta()
        return value.item() if isinstance(value, self.arrays.np.generic) else value


class Arrow(_Tables):
    """Arrow: a pyarrow Table for dicts, an Array for plain values. None is null; types that Arrow cannot hold exactly
    are refused."""

    def __init__(self) -> None:
        self.pa = import_module("pyarrow")
        pa = self.pa
        self.types = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string(), bytes: pa.binary()}

    def exactly(self, values: Sequence[Any], kind: type, *, missing: bool) -> Any:
        if kind in self.types:
            return self.pa.array(values, self.types[kind])
        array = self.pa.array(values)
        _refuse_change(values, array.to_pylist())
        return array

    def table(self, names: tuple[Any, ...], columns: list[Any]) -> Any:
        return self.pa.Table.from_arrays(columns, names=list(names))

    def checked(self, result: Any, given: int) -> tuple[Any, int]:
        pa = self.pa
        if isinstance(result, (pa.Table, pa.RecordBatch)):
            names = result.schema.names
            if twice := next((name for n, name in enumerate(names) if name in names[:n]), None):
                raise Misfit(f"one with each name once: it has two columns named {twice!r}")
            if not names:
                raise Misfit("a Table with columns")
            return result, result.num_rows
        if not isinstance(result, (pa.Array, pa.ChunkedArray)):
            raise Misfit("a pyarrow Table, RecordBatch, Array or ChunkedArray")
        return result, len(result)

    def give(self, result: Any) -> Columns:
        if isinstance(result, (self.pa.Array, self.pa.ChunkedArray)):
            return Columns(None, [self.out(result)])
        return Columns((*result.schema.names,), [self.out(column) for column in result.columns])

    def out(self, column: Any) -> Any:
        """A column on its way out."""
        types, kind = self.pa.types, column.type
        if not column.null_count and (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
            return column.to_numpy() if isinstance(column, self.pa.ChunkedArray) else column.to_numpy(False)
        if (types.is_timestamp(kind) or types.is_duration(kind)) and kind.unit == "ns":
            coarse = self.pa.timestamp("us", kind.tz) if types.is_timestamp(kind) else self.pa.duration("us")
            column = column.cast(coarse)  # refuses to lose nanoseconds
        return column.to_pylist()


class Polars(_Tables):
    """Polars: a DataFrame for dicts, a Series for plain values. None is null; what Polars cannot hold exactly is refused."""

    def __init__(self) -> None:
        self.pl = import_module("polars")
        pl = self.pl
        self.types = {int: pl.Int64, float: pl.Float64, bool: pl.Boolean, str: pl.String, bytes: pl.Binary}

    def exactly(self, values: Sequence[Any], kind: type, *, missing: bool) -> Any:
        if kind in self.types:
            return self.pl.Series(values, dtype=self.types[kind])
        if kind is datetime and len({value.tzinfo for value in values if value is not None}) > 1:
            raise Unfit("neighbouring records have other time zones")
        if hasattr(kind, "is_finite") and not all(value.is_finite() for value in values if value is not None):
            raise Unfit("Polars has no decimals that are not finite")
        try:
            series = self.pl.Series(values)
        except self.pl.exceptions.PanicException as error:  # no Exception, and nothing that must end a worker
            raise Unfit(str(error)) from None
        _refuse_change(values, series.to_list())
        return series

    def table(self, names: tuple[Any, ...], columns: list[Any]) -> Any:
        return self.pl.DataFrame(dict(zip(names, columns, strict=True)))

    def checked(self, result: Any, given: int) -> tuple[Any, int]:
        if not isinstance(result, (self.pl.DataFrame, self.pl.Series)):
            raise Misfit("a Polars DataFrame or Series")
        if isinstance(result, self.pl.DataFrame) and not result.width:
            raise Misfit("a DataFrame with columns")
        return result, len(result)

    def give(self, result: Any) -> Columns:
        if isinstance(result, self.pl.Series):
            return Columns(None, [self.out(result)])
        return Columns((*result.columns,), [self.out(column) for column in result.get_columns()])

    def out(self, series: Any) -> Any:
        """A column on its way out."""
        kind = series.dtype
        if not series.null_count() and (kind.is_integer() or kind.is_float()) and not str(kind).endswith("128"):
            return series.to_numpy()
        if getattr(kind, "time_unit", "") == "ns" and (series.to_physical() % 1000 != 0).any():
            raise Misfit("moments of whole microseconds, which Python's datetime can hold")
        return series.to_list()


def _refuse_change(values: Sequence[Any], back: list[Any]) -> None:
    """Raises Unfit where a column gives back other values than it took."""
    for value, returned in zip(values, back, strict=True):
        if not kept(value, returned):
            raise Unfit(f"it would be changed from {value!r:.60} to {returned!r:.60}")
