"""Batches as tables and columns of Polars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from importlib import import_module
from typing import Any

from taktline._segment.forms.columns import ColumnsForm, refuse_change
from taktline._segment.forms.contract import Columns, Misfit, Unfit


class Polars(ColumnsForm):
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
        refuse_change(values, series.to_list())
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
