"""Batches as arrays of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from importlib import import_module
from typing import Any

from taktline._segment.forms.columns import ColumnsForm
from taktline._segment.forms.contract import Columns, Misfit, Unfit

WIDE = 4  # an array of strings may take so many times the room of its strings; beyond that it is made of fewer records
SMALL = 1 << 20  # characters: below that nobody minds


class Arrays(ColumnsForm):
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
