"""Batches as tables and columns of Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from taktline._arrow import coarser
from taktline._segment.forms.columns import ColumnsForm, refuse_change
from taktline._segment.forms.contract import Columns, Misfit


class Arrow(ColumnsForm):
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
        refuse_change(values, array.to_pylist())
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
        if (coarse := coarser(kind)) is not None:
            try:
                column = column.cast(coarse)
            except self.pa.ArrowInvalid:
                raise Misfit("moments of whole microseconds, which Python's datetime can hold") from None
        return column.to_pylist()
