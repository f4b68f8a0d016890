"""Columns that a step gave, as what they were before it: in the types of the source, where that changes no value; and
whether they are still the memory of the source's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from taktline._arrow import same_values

PANDAS_NOTES = b"pandas"  # what it has noted in the metadata of a schema
TEXT_KINDS = ("is_string", "is_large_string", "is_string_view")
# What a column may have become on the way without its values being others, and is made again what it was.
KINDS = (
    TEXT_KINDS,
    ("is_binary", "is_large_binary", "is_binary_view", "is_fixed_size_binary"),
    ("is_time32", "is_time64"), ("is_date32", "is_date64"), ("is_decimal",), ("is_struct",), ("is_map",), ("is_dictionary",),
    ("is_list", "is_large_list", "is_fixed_size_list"),
)  # fmt: skip


def as_read(columns: dict[str, Any], table: Any, stands_for: Callable[[Any, Any], bool]) -> Any:
    """A table of these columns, with the types and the metadata of those that were there before, in `table`, or None.
    `stands_for`: a Way's."""
    import pyarrow as pa

    before = table.schema if table is not None else pa.schema([])
    fields, arrays = [], []
    for name, column in columns.items():
        at = before.get_field_index(name)
        if (wanted := before.field(at) if at >= 0 else None) is None:
            column = _alike(column, _common(column.type))
        else:
            own = table.column(at)
            if is_wrapped(wanted.type) or stands_for(column.type, wanted.type):
                column = _again(column, own)
            column = _alike(column, wanted.type)
            column = own if is_at(column, own) else column  # nobody has touched it
        if wanted is None or wanted.type != column.type:
            wanted = pa.field(name, column.type)
        elif column.null_count:
            wanted = wanted.with_nullable(True)
        fields.append(wanted)
        arrays.append(column)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata_for(before, fields)))


def metadata_for(before: Any, fields: Iterable[Any]) -> Any:
    """Those of a schema, for a table of these fields. What pandas has noted there of columns that are of another type now, or
    gone, is left out: whoever reads them by it would make of them what they were, or fail."""
    told = before.metadata
    if not told or PANDAS_NOTES not in told:
        return told
    known = dict(zip(before.names, before.types, strict=True))
    same = {field.name for field in fields if known.get(field.name) == field.type}
    noted = json.loads(told[PANDAS_NOTES])
    columns = [each for each in noted["columns"] if each["field_name"] in same]
    if len(columns) == len(noted["columns"]):
        return told
    index = [each for each in noted["index_columns"] if not isinstance(each, str) or each in same]
    return {**told, PANDAS_NOTES: json.dumps({**noted, "columns": columns, "index_columns": index}).encode()}


def _alike(column: Any, kind: Any) -> Any:
    """The column as this type, where only the type differs and no value changes."""
    import pyarrow as pa
    from pyarrow import types

    if column.type == kind:
        return column
    alike = any(is_one(column.type, kinds) and is_one(kind, kinds) for kinds in KINDS)
    if not (alike or types.is_null(column.type)):
        return column
    try:
        return column.cast(kind)
    except pa.ArrowException:
        return column


def _again(column: Any, own: Any) -> Any:
    """The column as what it was before, `own`, of a type for which the form has none; as it is where that changes a value."""
    import pyarrow as pa
    from pyarrow import types

    kind = own.type
    column = pa.chunked_array([column]) if isinstance(column, pa.Array) else column
    try:
        if types.is_dictionary(kind):
            return _in_categories(column, own)
        if is_wrapped(kind):
            return _wrapped(column, kind)
        if types.is_timestamp(kind) and (not types.is_timestamp(column.type) or _zone(kind) != _zone(column.type)):
            return column
        made = column.cast(kind)
        return made if same_values(made.cast(column.type), column) else column
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return column


def is_wrapped(kind: Any) -> bool:
    """Whether its values are stored as those of another type: of forms that have none for it come these."""
    from pyarrow import types

    return hasattr(kind, "storage_type") or bool(types.is_run_end_encoded(kind))


def _wrapped(column: Any, kind: Any) -> Any:
    """Values of a kind with what is stored for the type `kind`, as this; others as they are."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if column.type == kind:
        return column
    if hasattr(column.type, "storage_type"):  # of the same name, with a larger store
        if column.type.extension_name != getattr(kind, "extension_name", ""):
            return column
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    runs = types.is_run_end_encoded(kind)
    stored = kind.value_type if runs else kind.storage_type
    truth = types.is_boolean(column.type) and getattr(kind, "extension_name", "") == "arrow.bool8"
    if not (truth or types.is_null(column.type) or _are_kin(column.type, stored)):
        return column
    made = column.cast(stored)
    if not same_values(made.cast(column.type), column):
        return column
    if runs:
        return pa.chunked_array([pc.run_end_encode(chunk, kind.run_end_type) for chunk in made.chunks], kind)
    return pa.chunked_array([pa.ExtensionArray.from_storage(kind, chunk) for chunk in made.chunks], kind)


def _are_kin(one: Any, other: Any) -> bool:
    from pyarrow import types

    if types.is_timestamp(one) and types.is_timestamp(other):
        return bool(_zone(one) == _zone(other))
    kinds = (*KINDS, ("is_integer",), ("is_floating",), ("is_duration",), ("is_boolean",))
    return any(is_one(one, each) and is_one(other, each) for each in kinds)


def _in_categories(column: Any, own: Any) -> Any:
    """Values in the categories of `own`; as they are where one is none of these."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, categories = own.type, own.unify_dictionaries().chunk(0).dictionary
    at = pc.index_in(column.cast(categories.type), categories)
    if at.null_count != column.null_count:
        return column
    numbers = at.cast(kind.index_type).combine_chunks()
    return pa.chunked_array([pa.DictionaryArray.from_arrays(numbers, categories, ordered=kind.ordered)])


def _zone(kind: Any) -> Any:
    """The zone of moments, an offset by how far it is from UTC: libraries write one in several ways."""
    if (offset := re.fullmatch(r"([+-])(\d\d):(\d\d)", kind.tz or "")) is not None:
        sign, hours, minutes = offset.groups()
        return (int(hours) * 60 + int(minutes)) * (-1 if sign == "-" else 1)
    if (offset := re.fullmatch(r"Etc/GMT([+-])(\d+)", kind.tz or "")) is not None:
        sign, hours = offset.groups()
        return int(hours) * 60 * (1 if sign == "-" else -1)
    return 0 if kind.tz == "UTC" else kind.tz


def is_one(kind: Any, kinds: tuple[str, ...]) -> bool:
    from pyarrow import types

    return any(getattr(types, is_kind)(kind) for is_kind in kinds)


def _common(kind: Any) -> Any:
    """The type that others read too, of a column that was not there before."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    return pa.binary() if types.is_large_binary(kind) or types.is_binary_view(kind) else kind


def is_plain(column: Any) -> bool:
    """Whether a column is of numbers without nulls: nothing but its values in memory."""
    from pyarrow import types

    return (types.is_integer(column.type) or types.is_floating(column.type)) and not column.null_count


def is_at(column: Any, other: Any) -> bool:
    """Whether two columns of numbers without nulls are the same memory."""
    return column.type == other.type and is_plain(column) and is_plain(other) and places_of(column) == places_of(other)


def places_of(column: Any) -> list[tuple[Any, int, int]]:
    """Where the values of a column are: of each chunk its memory, the first value in there, and how many there are. Of
    numbers it is told where the first one is."""
    from pyarrow import types

    wide = column.type.bit_width // 8 if types.is_integer(column.type) or types.is_floating(column.type) else 0
    places: list[tuple[Any, int, int]] = []
    for chunk in getattr(column, "chunks", [column]):
        memory = [0 if buffer is None else buffer.address for buffer in chunk.buffers()]
        if wide:
            places.append((memory[1] + chunk.offset * wide, 0, len(chunk)))
        else:  # of nested values all that they are made of: the first of it may be nowhere
            places.append((tuple(memory), chunk.offset, len(chunk)))
    return places
