"""Tables of pyarrow as records, and as bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

HAS_NANOSECONDS = "has nanoseconds, which no value of Python can hold"


def records_of(table: Any) -> list[dict[str, Any]]:
    """The rows of a Table or RecordBatch as dicts. Raises ArrowException, ValueError or OverflowError where a value has
    none in Python."""
    return in_microseconds(table).to_pylist()  # type: ignore[no-any-return]


def in_microseconds(table: Any) -> Any:
    """Nanoseconds as microseconds, where none are lost: so they are `datetime`, whether pandas is installed or not."""
    import pyarrow as pa

    for at, field in enumerate(table.schema):
        if (kind := coarser(field.type)) is None:
            continue
        try:
            table = table.set_column(at, field.name, table.column(at).cast(kind))
        except pa.ArrowInvalid as error:
            raise ValueError(f"column {field.name!r} {HAS_NANOSECONDS}") from error
    return table


def coarser(kind: Any) -> Any:
    """What a type with nanoseconds, also somewhere inside of it, is in microseconds; None where it has none.

    >>> import pyarrow as pa
    >>> coarser(pa.list_(pa.timestamp("ns", "UTC"))), coarser(pa.int8())
    (ListType(list<item: timestamp[us, tz=UTC]>), None)
    """
    return retyped(kind, _in_microseconds)


def _in_microseconds(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    return {pa.time64("ns"): pa.time64("us"), pa.duration("ns"): pa.duration("us")}.get(kind)


def retyped(kind: Any, other: Callable[[Any], Any]) -> Any:
    """The type with all that are somewhere inside of it as the `other` that this makes of them, which is None for those that
    stay; None where all do. Categories are what they stand for then."""
    import pyarrow as pa
    from pyarrow import types

    if (made := other(kind)) is not None:
        return made
    if types.is_dictionary(kind):
        return retyped(kind.value_type, other)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return None  # which pyarrow 26 casts to something else
    if not types.is_nested(kind):
        return None
    fields = [kind.field(at) for at in range(kind.num_fields)]
    types_made = [retyped(field.type, other) for field in fields]
    if not any(each is not None for each in types_made):
        return None
    inner = [field.with_type(each or field.type) for field, each in zip(fields, types_made, strict=True)]
    if types.is_struct(kind):
        return pa.struct(inner)
    if types.is_map(kind):
        return pa.map_(*inner[0].type)
    if types.is_fixed_size_list(kind):
        return pa.list_(inner[0], kind.list_size)
    return (pa.large_list if types.is_large_list(kind) else pa.list_)(inner[0])


def same_values(one: Any, other: Any) -> bool:
    """Whether two columns of one type have the same values; NaN is one."""
    import pyarrow.compute as pc
    from pyarrow import types

    if not types.is_floating(one.type):
        return bool(one.equals(other))
    same = pc.or_(pc.equal(one, other), pc.and_(pc.is_nan(one), pc.is_nan(other)))
    return one.null_count == other.null_count and bool(pc.all(same, skip_nulls=True).as_py() is not False)


def rows_at(table: Any, at: Any) -> Any:
    """The rows at these rising positions: of a table, batch or column, whatever its types. pyarrow cannot take views, nor
    what is run-end encoded."""
    import pyarrow as pa

    if isinstance(table, (pa.Table, pa.RecordBatch)):
        columns = [_values_at(column, at) for column in table.columns]
        return type(table).from_arrays(columns, schema=table.schema) if columns else table.take(at)
    return _values_at(table, at)


def _values_at(column: Any, at: Any) -> Any:
    import pyarrow as pa
    from pyarrow import types

    try:
        return column.take(at)
    except pa.ArrowNotImplementedError:
        kind = column.type
    if types.is_string_view(kind) or types.is_binary_view(kind):
        plain = pa.large_string() if types.is_string_view(kind) else pa.large_binary()
        return column.cast(plain).take(at).cast(kind)
    pieces = [column.slice(start, count) for start, count in _neighbours(at)]
    if isinstance(column, pa.Array):
        return pa.concat_arrays(pieces) if pieces else column.slice(0, 0)
    return pa.chunked_array(
        [pa.chunked_array([each for piece in pieces for each in piece.chunks], kind).combine_chunks()]
    )


def _neighbours(positions: Any) -> list[tuple[int, int]]:
    """Rising positions as where each row of neighbours begins, and how many these are.

    >>> _neighbours([0, 1, 5])
    [(0, 2), (5, 1)]
    """
    found: list[tuple[int, int]] = []
    for at in positions.to_pylist() if hasattr(positions, "to_pylist") else positions:
        if found and sum(found[-1]) == at:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((at, 1))
    return found


def row_as_text(row: Any, most: int) -> str:
    """What people see of a table's only row, whatever it holds."""
    import pyarrow as pa

    cells = []
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            text = column.cast(pa.string())[0].as_py()
        except (pa.ArrowException, ValueError):  # lists and the like
            text = " ".join(str(column).split())
        cells.append(f"{name}: {text}")
    return ", ".join(cells)[:most]


def stream_of(table: Any) -> Any:
    """The table as a stream of Arrow's IPC format, in a pyarrow.Buffer: of a slice that has its rows alone."""
    import pyarrow as pa

    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def table_of(stream: Any) -> Any:
    """The table in what `stream_of` made, whose memory it shares."""
    import pyarrow as pa

    return pa.ipc.open_stream(pa.py_buffer(stream)).read_all()
