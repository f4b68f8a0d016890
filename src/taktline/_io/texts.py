"""Tables as the text of JSON lines and CSV, column by column: the bytes that their rows would give as records, without
making those. What Arrow writes in another way than Python is left to Python, a column at a time."""

from __future__ import annotations

from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any

from taktline._arrow import in_microseconds
from taktline._io import plain
from taktline._io.column_types import is_text

ROWS = 1 << 16  # that become text at once
MOST = 1 << 28  # bytes of so many rows: the text of more might be too much for one array
LEAST, BELOW = 1e-4, 1e9  # between these Arrow writes a float as Python does, but for the ".0" of a whole number
ESCAPED = r'[\x00-\x1f"\\]'  # what JSON writes otherwise


class NotExact(ValueError):
    """A table whose rows as records must tell what its bytes are, or that it has none."""


def json_table(table: Any) -> bytes:
    """The rows as JSON lines. Raises NotExact."""
    if not table.num_columns:
        return b"{}\n" * int(table.num_rows)
    names = [encode_basestring(name) for name in table.schema.names]
    return _joined(table, lambda batch: _json_object(names, batch.columns, "}\n"))


def delimited_table(table: Any, header: list[str], delimiter: str, *, quoting: bool) -> bytes:
    """The rows as CSV or TSV, of the columns of `header`, of which it may lack some. Raises NotExact."""
    if len(header) < 2:
        raise NotExact("a row of one cell that is empty is another one")
    cells = _quoted_cells if quoting else _plain_cells

    def lines(batch: Any) -> Any:
        parts: list[Any] = []
        for number, name in enumerate(header):
            at = batch.schema.get_field_index(name)
            parts += [delimiter if number else "", cells(batch.column(at), delimiter) if at >= 0 else ""]
        return _rows_of([*parts, "\n"], batch.num_rows)

    return _joined(table, lines)


def _joined(table: Any, lines: Callable[[Any], Any]) -> bytes:
    """What `lines` makes of some rows at a time, as bytes."""
    if len({*table.schema.names}) < table.num_columns:
        raise NotExact("two columns have one name")
    made = []
    for batch in table.to_batches(max_chunksize=ROWS):
        if batch.num_rows:
            if batch.nbytes > MOST:
                raise NotExact("its rows are large")
            made.append(_bytes_of(lines(batch)))
    return b"".join(made)


def _bytes_of(texts: Any) -> bytes:
    """The texts of an array, one behind the other."""
    import pyarrow as pa

    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    bounds = memoryview(offsets).cast("q")
    start, end = bounds[texts.offset], bounds[texts.offset + len(texts)]
    return bytes(memoryview(data)[start:end]) if end > start else b""


def _rows_of(parts: list[Any], count: int) -> Any:
    """Arrays of texts and single texts, joined row by row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if all(isinstance(each, str) for each in parts):
        return pa.repeat("".join(parts), count)
    return pc.binary_join_element_wise(*_merged(parts), "")


def _merged(parts: list[Any]) -> list[Any]:
    """With texts that stand beside each other as one: each costs a pass."""
    merged: list[Any] = []
    for each in parts:
        if isinstance(each, str) and merged and isinstance(merged[-1], str):
            merged[-1] += each
        else:
            merged.append(each)
    return merged


# --- JSON ---


def _json_object(names: list[str], columns: list[Any], end: str) -> Any:
    parts: list[Any] = []
    for number, (name, column) in enumerate(zip(names, columns, strict=True)):
        parts += [f"{', ' if number else '{'}{name}: ", _json(column)]
    return _rows_of([*parts, end], len(columns[0]))


def _json(column: Any) -> Any:
    """A column's values as JSON, without nulls."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    kind = column.type
    if types.is_null(kind):
        return pa.repeat("null", len(column))
    if types.is_dictionary(kind):
        return pc.fill_null(_json(column.dictionary).take(column.indices), "null")
    if types.is_boolean(kind):
        return pc.fill_null(pc.if_else(column, "true", "false"), "null")
    if types.is_integer(kind):
        return pc.fill_null(column.cast(pa.string()), "null")
    if types.is_floating(kind):
        return pc.fill_null(_floats(column, {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}), "null")
    if is_text(kind):
        texts = _escaped(column)
        return pc.fill_null(pc.binary_join_element_wise('"', texts, '"', ""), "null")
    if types.is_struct(kind) and kind.num_fields:
        fields = [kind.field(at) for at in range(kind.num_fields)]
        if len({field.name for field in fields}) < len(fields):
            raise NotExact("two fields have one name")
        texts = _json_object([encode_basestring(field.name) for field in fields], column.flatten(), "}")
        return pc.if_else(column.is_valid(), texts, "null")
    if types.is_list(kind) or types.is_large_list(kind):
        return _json_lists(column)
    raise NotExact(f"{kind} has no JSON of its own")


def _json_lists(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    made = (pa.LargeListArray if pa.types.is_large_list(column.type) else pa.ListArray).from_arrays(
        _from_zero(column.offsets), _json(column.values[column.offsets[0].as_py() : column.offsets[-1].as_py()])
    )
    texts = pc.binary_join_element_wise("[", pc.binary_join(made, ", ").cast(pa.string()), "]", "")
    return pc.if_else(column.is_valid(), texts, "null") if column.null_count else texts


def _from_zero(offsets: Any) -> Any:
    import pyarrow.compute as pc

    return pc.subtract(offsets, offsets[0])


def _escaped(column: Any) -> Any:
    """Texts as JSON has them between quotes; nulls stay."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _checked(column)
    odd = pc.fill_null(pc.match_substring_regex(column, ESCAPED), False)
    if not pc.any(odd).as_py():
        return column
    texts = [encode_basestring(text)[1:-1] for text in column.filter(odd).to_pylist()]
    return pc.replace_with_mask(column, odd, pa.array(texts, column.type))


def _checked(column: Any) -> Any:
    """Text whose bytes are UTF-8, of the one kind that all functions of Arrow take."""
    import pyarrow as pa

    try:
        column.validate(full=True)
        return column.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise NotExact(str(error)) from error


def _floats(column: Any, names: dict[str, str]) -> Any:
    """As `repr` writes them, in which what is no number has `names`; nulls stay."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = column.cast(pa.float64())
    size = pc.abs(column)
    usual = pc.fill_null(pc.and_(pc.greater_equal(size, LEAST), pc.less(size, BELOW)), True)
    texts = column.cast(pa.string())
    whole = pc.and_(usual, pc.fill_null(pc.equal(column, pc.trunc(column)), False))
    if pc.any(whole).as_py():
        texts = pc.if_else(whole, pc.binary_join_element_wise(texts, ".0", ""), texts)
    odd = pc.invert(usual)
    if not pc.any(odd).as_py():
        return texts
    own = [names.get(text, text) for text in map(repr, column.filter(odd).to_pylist())]
    return pc.replace_with_mask(texts, odd, pa.array(own, pa.string()))


# --- CSV and TSV ---


def _quoted_cells(column: Any, delimiter: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts, free = _cells(column)
    if not free:
        return texts
    odd = pc.match_substring_regex(texts, f'[{delimiter}"\r\n]')
    if not pc.any(odd).as_py():
        return texts
    quoted = ['"' + text.replace('"', '""') + '"' for text in texts.filter(odd).to_pylist()]
    return pc.replace_with_mask(texts, odd, pa.array(quoted, texts.type))


def _plain_cells(column: Any, delimiter: str) -> Any:
    import pyarrow.compute as pc

    texts, free = _cells(column)
    if free and pc.any(pc.match_substring_regex(texts, "[\t\r\n]")).as_py():
        raise NotExact("a cell has a tab or a line end")
    return texts


def _cells(column: Any) -> tuple[Any, bool]:
    """A column's values as `str` writes them, without nulls; and whether any signs may be in them."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    kind = column.type
    if types.is_null(kind):
        return pa.repeat("", len(column)), False
    if types.is_dictionary(kind):
        texts, free = _cells(column.dictionary)
        return pc.fill_null(texts.take(column.indices), ""), free
    if types.is_boolean(kind):
        return pc.fill_null(pc.if_else(column, "True", "False"), ""), False
    if types.is_integer(kind):
        return pc.fill_null(column.cast(pa.string()), ""), False
    if types.is_floating(kind):
        return pc.fill_null(_floats(column, {}), ""), False
    if is_text(kind):
        return pc.fill_null(_checked(column), ""), True
    if (types.is_temporal(kind) and not types.is_interval(kind)) or types.is_decimal(kind):
        return _as_python(column), True
    raise NotExact(f"{kind} has no text of its own")


def _as_python(column: Any) -> Any:
    import pyarrow as pa

    try:
        (values,) = in_microseconds(pa.record_batch([column], [""])).columns
        texts = ["" if value is None else str(plain.plain(value)) for value in values.to_pylist()]
    except (ValueError, OverflowError) as error:
        raise NotExact(str(error)) from error
    return pa.array(texts, pa.string())
