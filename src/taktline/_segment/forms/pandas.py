"""Batches as tables and columns of pandas."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from importlib import import_module
from typing import Any

from taktline._segment.equality import kept
from taktline._segment.forms.columns import ColumnsForm
from taktline._segment.forms.contract import Columns, Misfit, Unfit
from taktline._segment.forms.numpy import Arrays


class Frames(ColumnsForm):
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
