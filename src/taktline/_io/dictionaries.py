"""Which columns of a table are written with a dictionary in Parquet. pyarrow makes one for each, and for values that hardly
repeat that is more than half of the time and makes the file larger.

Whether one pays is told by how often values come twice in some rows, as an estimate of how many different ones there are; the
test is that of Parquet's Java library (`FallbackValuesWriter`), which makes it of a column's first page. The rows are always
the same ones of as many, so equal tables make equal files.
"""

from __future__ import annotations

from functools import lru_cache
from math import log1p
from typing import Any

SAMPLE = 4096  # rows that are looked at: 0.1 ms a column
LEAST = 4 * SAMPLE  # rows of a table for which that is worth it
FEW = SAMPLE // 8  # of these rows
NARROW = 4  # bytes: Parquet has no narrower numbers
MUCH = 7 / 8  # of what the values take: what saves less is not worth its time
PAGE = 1 << 20  # bytes of a dictionary, beyond which pyarrow goes on without one


def columns_with_dictionary(table: Any) -> bool | list[str]:
    """As pyarrow's `use_dictionary` takes it: for all of the columns, or their paths."""
    from pyarrow import types

    if table.num_rows < LEAST:
        return True
    rows = _some_of(table.num_rows)
    without = {
        field.name for at, field in enumerate(table.schema)
        if not (types.is_nested(field.type) or types.is_dictionary(field.type) or _pays(table.column(at), rows))
    }  # fmt: skip
    if not without:
        return True
    nested = any(types.is_nested(kind) for kind in table.schema.types)
    paths = _paths(table.schema) if nested else table.schema.names
    return [path for path in paths if path not in without]


@lru_cache(8)
def _some_of(count: int) -> Any:
    """Places drawn among so many rows, rising."""
    from pyarrow import compute

    drawn = compute.floor(compute.multiply(compute.random(SAMPLE, initializer=0), count)).cast("int64").unique()
    return drawn.take(compute.sort_indices(drawn))


def _pays(column: Any, rows: Any) -> bool:
    """Whether a dictionary, and its numbers in the place of the values, take less than the values; where it cannot be told,
    it is made."""
    import pyarrow as pa

    try:
        drawn = column.take(rows)
        values = drawn.drop_null()
        if (seen := len(values)) < FEW:
            return True
        wide = max(NARROW, values.nbytes / seen)
        return _is_small(values, len(column) * seen // len(drawn), wide) or _is_sorted(column, drawn, rows, wide)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError):
        return True


def _is_small(values: Any, count: int, wide: float) -> bool:
    """Whether the dictionary saves enough, of the rows before it is full."""
    seen = len(values)
    again = seen - len(values.unique())
    # Of n values of which D differ, d of m that are drawn are expected to have come before: d = m² / 2 · (1/D - 1/n).
    different, most = 1 / (2 * again / seen**2 + 1 / count), PAGE / wide
    if different > most:
        count, different = min(count, int(-different * log1p(-most / different))), most
    return different * wide + count * int(different).bit_length() / 8 < MUCH * count * wide


def _is_sorted(column: Any, drawn: Any, rows: Any, wide: float) -> bool:
    """Whether equal values are neighbours, so that what finds its place in the dictionary saves enough."""
    from pyarrow import compute

    some = len(rows) - 1
    behind = column.slice(1).take(rows.slice(0, some))
    alike = compute.mean(compute.equal(drawn.slice(0, some), behind)).as_py() or 0.0
    return bool(wide * (1 - alike) + int(PAGE / wide).bit_length() / 8 < MUCH * wide)


def _paths(schema: Any) -> list[str]:
    """The paths of all that has values in the columns, as a file of this schema calls them."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile, write_table

    out = pa.BufferOutputStream()
    write_table(pa.Table.from_batches([], schema=schema), out)
    columns = ParquetFile(pa.BufferReader(out.getvalue())).schema
    return [columns.column(at).path for at in range(len(columns))]
