"""Tables of pyarrow as records, and as bytes."""

from __future__ import annotations

from typing import Any


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
            raise ValueError(f"column {field.name!r} has nanoseconds, which no value of Python can hold") from error
    return table


def coarser(kind: Any) -> Any:
    """What a type of nanoseconds is in microseconds; None where it is no such type."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    return {pa.time64("ns"): pa.time64("us"), pa.duration("ns"): pa.duration("us")}.get(kind)


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
