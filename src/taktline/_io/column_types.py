"""What the columns of a file are: values and tables into the columns that it has, or is to have. Exact, or refused by the
number of the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any

from taktline._arrow import records_of, row_as_text, same_values
from taktline._excerpts import KEPT_CHARACTERS
from taktline._io.plain import PLAIN_TYPES, plain
from taktline.errors import LineError, SinkError, unwritable

COLUMN_ROW = "a row of columns"
SCHEMA_SAYS = "schema= says what a column holds"


def as_schema(schema: Any) -> Any:
    """Raises LineError where it is none of pyarrow."""
    import pyarrow as pa

    if schema is not None and not isinstance(schema, pa.Schema):
        raise LineError(f"schema= must be a pyarrow.Schema, not {type(schema).__name__}")
    return schema


# --- tables ---


def normal(table: Any, first: int) -> Any:
    """A table as files have it: what the numbers of its categories take is not among its types, since another one may have
    more of them. Raises SinkError for columns that no file can have; `first` is the number of its first row."""
    import pyarrow as pa
    from pyarrow import types

    names = table.schema.names
    if len({*names}) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise SinkError(f"the table of result {first:,} has two columns {twice!r}; rename one of them", result=first)
    if table.num_rows and not names:
        raise SinkError(f"the table of result {first:,} has no columns", result=first)
    for at, kind in enumerate(table.schema.types):
        if types.is_dictionary(kind) and kind.index_type != pa.int32():
            field = table.field(at).with_type(pa.dictionary(pa.int32(), kind.value_type, kind.ordered))
            table = table.set_column(at, field, table.column(at).cast(field.type))
    return table


def wider_schema(one: Any, other: Any, first: int, row: Callable[[], Any]) -> Any:
    """The columns that hold the rows of both; metadata are those of the first. Raises SinkError by the other one's first
    row where there are none."""
    import pyarrow as pa

    fields = {field.name: field for field in one}
    for field in other:
        known = fields.get(field.name)
        if known is None:
            fields[field.name] = field.with_nullable(True)
            continue
        kind = wider(known.type, field.type)
        if kind is None:
            why = f"its {field.name!r} is {field.type}, and the column is {known.type}; {SCHEMA_SAYS}"
            raise unwritable(first, row(), why, COLUMN_ROW)
        fields[field.name] = known.with_type(kind).with_nullable(known.nullable or field.nullable)
    lacking = {*one.names} - {*other.names}
    made = [each.with_nullable(True) if each.name in lacking else each for each in fields.values()]
    return pa.schema(made, metadata=one.metadata)


def wider(one: Any, other: Any) -> Any:
    """The type that holds the values of both exactly; None where there is none, or values must tell.

    >>> import pyarrow as pa
    >>> wider(pa.int8(), pa.int32()), wider(pa.list_(pa.null()), pa.list_(pa.string())), wider(pa.string(), pa.binary())
    (DataType(int32), ListType(list<item: string>), None)
    """
    import pyarrow as pa
    from pyarrow import types

    if one.equals(other) or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if types.is_dictionary(one) or types.is_dictionary(other):
        values = [each.value_type if types.is_dictionary(each) else each for each in (one, other)]
        kind = wider(*values)
        both = types.is_dictionary(one) and types.is_dictionary(other)
        return pa.dictionary(pa.int32(), kind, one.ordered and other.ordered) if both and kind is not None else kind
    for family, made in ((is_text, pa.large_string()), (_is_bytes, pa.large_binary())):
        if family(one) or family(other):
            return made if family(one) and family(other) else None
    if _is_list(one) and _is_list(other):
        kind = wider(one.value_type, other.value_type)
        large = types.is_large_list(one) or types.is_large_list(other)
        return kind if kind is None else (pa.large_list if large else pa.list_)(kind)
    if types.is_struct(one) and types.is_struct(other):
        return _wider_struct(one, other)
    if types.is_nested(one) or types.is_nested(other) or types.is_decimal(one) != types.is_decimal(other):
        return None
    try:
        both = [pa.schema([("", each)]) for each in (one, other)]
        return pa.unify_schemas(both, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def is_open(kind: Any) -> bool:
    """Whether all values of this type that came so far, or all that are somewhere in them, are nulls."""
    from pyarrow import types

    return bool(types.is_null(kind)) or any(is_open(kind.field(at).type) for at in range(kind.num_fields))


def _wider_struct(one: Any, other: Any) -> Any:
    import pyarrow as pa

    fields = {each.name: each for each in (one.field(at) for at in range(one.num_fields))}
    for each in (other.field(at) for at in range(other.num_fields)):
        known = fields.get(each.name)
        kind = each.type if known is None else wider(known.type, each.type)
        if kind is None:
            return None
        fields[each.name] = pa.field(each.name, kind)
    return pa.struct(list(fields.values()))


def is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def gathered(tables: Sequence[Any], schema: Any, first: int, *, given: bool) -> Any:
    """Tables as one of the columns that hold the rows of all: `schema` where that is known."""
    import pyarrow as pa

    kinds, at = schema, first
    if schema is None:
        for table in tables:
            row = lambda table=table: table.slice(0, 1).to_pylist()[0]  # noqa: E731
            kinds = table.schema if kinds is None else wider_schema(kinds, table.schema, at, row)
            at += table.num_rows
    made, at = [], first
    for table in tables:
        made.append(in_schema(table, kinds, at, given=given))
        at += table.num_rows
    return pa.concat_tables(made)


def in_schema(table: Any, schema: Any, first: int, *, given: bool) -> Any:
    """The table with just the columns of a file, in their order; one that it lacks is null. Raises SinkError by the number
    of the row where a value would be another one. `given`: the user said what the columns are, how exact floats too."""
    import pyarrow as pa

    if table.schema.equals(schema):
        return table.replace_schema_metadata(schema.metadata)
    for name in table.schema.names:
        if name not in schema.names:
            why = (
                f"its key {name!r} is not among the columns: {', '.join(schema.names)} (name all of them with schema=)"
            )
            raise unwritable(first, row_at(table, 0), why, COLUMN_ROW)
    columns = []
    for field in schema:
        at = table.schema.get_field_index(field.name)
        column = table.column(at) if at >= 0 else pa.chunked_array([pa.nulls(table.num_rows, field.type)])
        if not field.nullable and column.null_count:
            row = column.is_valid().index(False).as_py()
            why = f"its {field.name!r} is missing or None, and the schema says that it never is"
            raise unwritable(first + row, row_at(table, row), why, COLUMN_ROW)
        if not column.type.equals(field.type):
            column = _cast(column, field, table, first, given=given)
        columns.append(column)
    return pa.table(columns, schema=schema)


def _cast(column: Any, field: Any, table: Any, first: int, *, given: bool) -> Any:
    import pyarrow as pa

    errors = (pa.ArrowException, ValueError)
    kind = wider(column.type, field.type)
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), field.type)])
    unlike = not _are_alike(column.type, field.type) if given else kind is None
    if unlike or pa.types.is_null(field.type):
        row = column.is_valid().index(True).as_py()
        why = f"its {field.name!r} is {column.type}, and the column is {field.type}; {SCHEMA_SAYS}"
        raise unwritable(first + row, row_at(table, row), why, COLUMN_ROW)

    def exactly(part: Any) -> Any:
        made = _made(part, field.type)
        if not given and kind != field.type and not same_values(_made(made, column.type), part):
            raise ValueError(f"not all are {field.type}")
        return made

    try:
        return exactly(column)
    except errors as error:
        row = _first_that_fails(column, exactly, errors)
        why = f"its {field.name!r} does not fit: {error} (the column is {field.type}); {SCHEMA_SAYS}"
        raise unwritable(first + row, row_at(table, row), why, COLUMN_ROW) from error


def _are_alike(one: Any, other: Any) -> bool:
    """Whether a value of one type may be one of the other without a change, as Python has them: ints are numbers of the other
    kinds too, but no bools, and a date is no moment, as a moment without a zone is none with one."""
    from pyarrow import types

    one, other = _in_python(one), _in_python(other)
    if types.is_null(one):
        return True
    if types.is_struct(one) and types.is_struct(other):
        fields = [(one.field(at), other.get_field_index(one.field(at).name)) for at in range(one.num_fields)]
        return all(at >= 0 and _are_alike(field.type, other.field(at).type) for field, at in fields)
    if types.is_map(one) and types.is_map(other):
        return _are_alike(one.key_type, other.key_type) and _are_alike(one.item_type, other.item_type)
    if _is_any_list(one) and _is_any_list(other):
        return _are_alike(one.value_type, other.value_type)
    kinds = {_name_in_python(one), _name_in_python(other)}
    return len(kinds) == 1 or kinds in ({"int", "float"}, {"int", "decimal"})


def _in_python(kind: Any) -> Any:
    """The type whose values are those of `kind` in Python."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _in_python(kind.value_type)
    name = getattr(kind, "extension_name", None)
    if name is None or name == "arrow.uuid":
        return kind
    return pa.bool_() if name == "arrow.bool8" else _in_python(kind.storage_type)


def _name_in_python(kind: Any) -> str:
    from pyarrow import types

    families = (
        ("bool", types.is_boolean), ("int", types.is_integer), ("float", types.is_floating), ("decimal", types.is_decimal),
        ("str", is_text), ("bytes", _is_bytes), ("bytes", types.is_fixed_size_binary), ("date", types.is_date),
        ("time", types.is_time), ("duration", types.is_duration),
    )  # fmt: skip
    if types.is_timestamp(kind):
        return "moment" if kind.tz is None else "moment in a zone"
    return next((name for name, is_of in families if is_of(kind)), str(kind))


def _is_any_list(kind: Any) -> bool:
    from pyarrow import types

    return _is_list(kind) or bool(types.is_list_view(kind) or types.is_large_list_view(kind))


def _made(column: Any, kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(column.type):
        return column.cast(kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(kind):
        column = column.cast(column.type.value_type)
    if pa.types.is_decimal(kind) and pa.types.is_integer(column.type):
        column = column.cast(pa.decimal128(20))  # room for all of them: a cast at once asks for that of the type
    return column.cast(kind)


def row_at(table: Any, at: int) -> Any:
    """A row of a table as a record."""
    return table.slice(at, 1).to_pylist()[0]


def results_of(table: Any, first: int, form: str = "a record") -> list[Any]:
    """The rows of a table as results. Raises SinkError by the number of one that can be no record."""
    import pyarrow as pa

    errors = (pa.ArrowException, ValueError, OverflowError)
    try:
        return records_of(table)
    except errors as error:
        at = _first_that_fails(table, records_of, errors)
        raise unwritable(first + at, row_as_text(table.slice(at, 1), KEPT_CHARACTERS), str(error), form) from error


# --- results ---


def as_columns(rows: list[Any], schema: Any, so_far: Any, first: int) -> Any:
    """Results, each a dict, as a table of the columns of a file; of all keys where those are not settled, whose types are
    those `so_far`, where it says any."""
    import pyarrow as pa

    names = _names(rows, schema, first)
    known = schema if schema is not None else [each for each in so_far if not is_open(each.type)]
    kinds = {each.name: each.type for each in known}
    columns = [_column(name, [row.get(name) for row in rows], kinds.get(name), first) for name in names]
    if schema is None:
        return pa.table(columns, names)
    _check_nulls(rows, columns, schema, first)
    return pa.table(columns, schema=schema)


def _check_nulls(rows: list[Any], columns: list[Any], schema: Any, first: int) -> None:
    for field, column in zip(schema, columns, strict=True):
        if not field.nullable and column.null_count:
            at = column.is_valid().to_pylist().index(False)
            why = f"its {field.name!r} is missing or None, and the schema says that it never is"
            raise unwritable(first + at, rows[at], why, COLUMN_ROW)


def _names(rows: list[Any], schema: Any, first: int) -> list[str]:
    """The columns of a row group: those of the schema, or all keys in the order in which they first came."""
    names = dict.fromkeys(schema.names if schema is not None else ())
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise unwritable(first + at, row, f"it is {type(row).__name__}, not dict", COLUMN_ROW)
        if row.keys() <= names.keys():
            continue
        unknown = next(key for key in row if key not in names)
        if schema is not None:
            why = f"its key {unknown!r} is not among the columns: {', '.join(names)} (name all of them with schema=)"
            raise unwritable(first + at, row, why, COLUMN_ROW)
        if not all(isinstance(key, str) for key in row):
            raise unwritable(first + at, row, "its keys are not all str", COLUMN_ROW)
        names.update(dict.fromkeys(row))
    if rows and not names:
        raise unwritable(first, rows[0], "it has no keys, and so no columns", COLUMN_ROW)
    return list(names)


def _column(name: str, values: list[Any], kind: Any, first: int) -> Any:
    """The values as one column, of the type `kind` where given. Raises SinkError where one does not fit, or would come
    back as something else."""
    import pyarrow as pa

    refused = (pa.ArrowException, OverflowError, TypeError, ValueError)
    if not PLAIN_TYPES.issuperset(map(type, values)):
        values = [_plain(name, value, first + at) for at, value in enumerate(values)]
    try:
        column = pa.array(values, type=kind)
    except refused as error:
        at = _first_that_fails(values, lambda part: pa.array(part, type=kind), refused)
        why = f"its {name!r} does not fit: {error}" + ("" if kind is None else f" (the column is {kind})")
        raise unwritable(first + at, values[at], f"{why}; {SCHEMA_SAYS}", COLUMN_ROW) from error
    if not _surely_kept(values, column.type):
        # pyarrow drops time zones, times of dates, unknown keys of dicts and fractions without a word.
        for at, (value, back) in enumerate(zip(values, column.to_pylist(), strict=True)):
            if not _same(value, back):
                why = f"its {name!r} would come back from {column.type} as {back!r}; {SCHEMA_SAYS}"
                raise unwritable(first + at, value, why, COLUMN_ROW)
    return column


def _plain(name: str, value: Any, number: int) -> Any:
    try:
        return value if getattr(value, "ndim", 0) else plain(value)  # an array is a list of Arrow's
    except ValueError as error:
        raise unwritable(number, value, f"its {name!r}: {error}", COLUMN_ROW) from error


def _surely_kept(values: list[Any], kind: Any) -> bool:
    """Whether no look at the values is needed: all of one type that this kind of column holds as it is."""
    from pyarrow import types

    found = {*map(type, values)} - {NoneType}
    holds = {
        str: types.is_string, int: types.is_integer, float: types.is_floating, bool: types.is_boolean,
        bytes: types.is_binary,
    }  # fmt: skip
    return not found or (len(found) == 1 and (only := found.pop()) in holds and holds[only](kind))


def _same(value: Any, back: Any) -> bool:
    """Whether a value came back as it was; a dict may have got None for keys that others have."""
    value = value.tolist() if getattr(value, "ndim", 0) else plain(value)
    if isinstance(value, bool) or isinstance(back, bool):
        return value is back
    if isinstance(value, float) and isinstance(back, float):
        return True  # NaN, or as exact as the schema has it
    if isinstance(value, dict) and isinstance(back, dict):
        return value.keys() <= back.keys() and all(_same(value.get(key), back[key]) for key in back)
    if isinstance(value, (list, tuple)) and isinstance(back, (list, tuple)):
        return len(value) == len(back) and all(map(_same, value, back))
    return bool(value == back)


def _first_that_fails(values: Any, convert: Any, errors: tuple[type[Exception], ...]) -> int:
    """The index of the value with which the conversion of the values up to it begins to fail."""
    good, bad = 0, len(values)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            convert(values[:middle])
        except errors:
            bad = middle
        else:
            good = middle
    return bad - 1
