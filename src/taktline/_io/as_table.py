"""Whole lines of a file as a table of Arrow, read by pyarrow, and rows of a database: exactly what their records are, or
not at all.

Those of lines take the bytes of some of them and the number of the first one, and raise where pyarrow might give other rows
or values than the record way does. Then the lines are read one by one, which is slower and knows what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from itertools import chain
from types import NoneType
from typing import Any

from taktline._io.decode import BOM, UTF_8, json_loads

QUOTE = b'"'
LINES = 10_000  # of JSON, that the types of its columns are told from
# Those for which Arrow has a type that holds exactly those.
CELL_TYPES = (str, int, float, bool, date, datetime, time)
TRUE, FALSE = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")


@cache
def is_there() -> bool:
    """Whether pyarrow is installed."""
    return find_spec("pyarrow") is not None


def refused() -> tuple[type[Exception], ...]:
    """What is raised where rows have no columns that hold them exactly."""
    import pyarrow as pa

    return pa.ArrowException, ValueError, TypeError, OverflowError


def of_rows(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows, one or more, that have the same keys in the same order. Raises what `refused` gives."""
    import pyarrow as pa

    columns = [_column_of(values) for values in zip(*map(dict.values, rows), strict=True)]
    return pa.Table.from_arrays(columns, names=list(rows[0]))


def _column_of(values: Sequence[Any]) -> Any:
    import pyarrow as pa

    kinds = {*map(type, values)} - {NoneType}
    if len(kinds) > 1:
        raise ValueError("values of several types")
    kind = kinds.pop() if kinds else NoneType
    holding = {
        int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string(), bytes: pa.binary(), date: pa.date32(),
        NoneType: pa.null(),
    }  # fmt: skip
    if kind in holding:
        return pa.array(values, holding[kind])
    column = pa.array(values)
    # As text they tell the zeros at the end of a decimal, the offset of a zone and the order of keys.
    for value, back in zip(values, column.to_pylist(), strict=True):
        if type(value) is not type(back) or value != back or str(value) != str(back):
            raise ValueError("a value that a column would change")
    return column


def text_of(data: Any, number: int, encoding: str, *, whole: bool) -> bytes:
    """Lines in UTF-8, without a mark at their beginning. `whole`: whoever reads on looks at each byte."""
    text = bytes(data)
    if encoding == UTF_8:
        text = text.removeprefix(BOM) if number == 1 else text
        if not whole and not text.isascii():
            text.decode()
    elif not text.isascii():
        text = text.decode(encoding).encode()
    if text.startswith(BOM):
        raise ValueError("pyarrow would take it for a mark")
    return text


def csv_table(
    data: Any, number: int, *, header: Sequence[str], names: Sequence[str], types: Mapping[str, Any], delimiter: str,
    quoting: bool, encoding: str,
) -> Any:  # fmt: skip
    """Rows of delimited text. `header`: of the file; `names`: of the columns that are wanted, in this order."""
    import pyarrow as pa
    from pyarrow import compute, csv

    text = text_of(data, number, encoding, whole=len(names) == len(header))
    if b"\r" in text and text.count(b"\r") > text.count(b"\r\n"):
        raise ValueError("a line end of its own, for pyarrow")
    quoted = quoting and QUOTE in text
    kinds = {name: types.get(name, str) for name in names}

    def columns(types: Mapping[str, Any]) -> Any:
        return csv.read_csv(
            BytesIO(text),
            # One block, so that a column is one array; one thread, for beside it all cores are busy.
            csv.ReadOptions(use_threads=False, column_names=list(header), block_size=len(text) + 1),
            csv.ParseOptions(delimiter=delimiter, quote_char=QUOTE.decode() if quoting else False, newlines_in_values=quoted),
            csv.ConvertOptions(
                include_columns=list(types), column_types=types, null_values=[""], strings_can_be_null=False,
                true_values=TRUE, false_values=FALSE, auto_dict_encode=False,
            ),
        )  # fmt: skip

    # Dates as text, for pyarrow takes blanks around them.
    plain = {
        int: pa.int64(), float: pa.float64(), bool: pa.bool_(), datetime: pa.timestamp("us"), time: pa.time64("us"),
    }  # fmt: skip
    table = columns({name: plain.get(kind, pa.string()) for name, kind in kinds.items()})
    for name in [name for name, kind in kinds.items() if kind is date]:
        cells = table[name]
        days = compute.if_else(compute.equal(cells, ""), None, cells).cast(pa.date32())
        table = table.set_column(table.schema.get_field_index(name), name, days)
    for kind, first in ((date, pa.scalar(date.min)), (datetime, pa.scalar(datetime.min, pa.timestamp("us")))):
        for name in [name for name, each in kinds.items() if each is kind]:
            if compute.any(compute.less(table[name], first)).as_py():
                raise ValueError("before the years that Python knows")
    for odd, suspects in _odd_cells(text, table, kinds):
        again = columns(dict.fromkeys(suspects, pa.string()))
        if any(compute.any(compute.match_substring_regex(again[name], odd)).as_py() for name in suspects):
            raise ValueError("a cell that Python refuses")
    return table


def _odd_cells(text: bytes, table: Any, kinds: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What pyarrow makes values of and Python does not, with the columns that may have such cells."""
    from pyarrow import compute

    found = []

    def look(kind: type, odd: str, may: Callable[[str], Any]) -> None:
        if suspects := [name for name, each in kinds.items() if each is kind and may(name)]:
            found.append((odd, suspects))

    if b"0x" in text or b"0X" in text:
        look(int, "[xX]", lambda name: True)
    if b"(" in text:  # nan(…)
        look(float, r"\(", lambda name: compute.any(compute.is_nan(table[name])).as_py())
    if b" " in text or b"\t" in text:
        look(time, r"^\s|\s$", lambda name: True)
    return found


_no_json = re.compile(rb"[\[:,]\s*-?(?:NaN|Inf)").search  # of which pyarrow takes more than Python does
_in_a_pattern = re.compile(r"[^\s:,\"\\\\/]+").fullmatch  # a name that, in quotes before a colon, is nothing else


class JsonTables:
    """Makes tables of JSON lines that all have the keys and types of the first ones. It travels with them."""

    def __init__(self, columns: Sequence[str] | None) -> None:
        self._columns = columns
        self._schema: Any = None
        self._seen = False

    def learn(self, data: bytes) -> None:
        """Tell the schema from the first lines."""
        if self._seen:
            return
        self._seen = True
        lines = data.removeprefix(BOM).split(b"\n", LINES)[:LINES]
        try:
            self._schema = _schema_of([json_loads()(line) for line in lines if line.strip()])
        except (ValueError, RecursionError):
            self._schema = None

    def __call__(self, data: Any, number: int) -> Any:
        """Lines as a table. Raises where their records have other keys, or values that it would not have."""
        from pyarrow import json

        if self._schema is None:
            raise ValueError("the lines have no schema in common")
        text = text_of(data, number, UTF_8, whole=False)
        rows = text.count(b"\n") + (not text.endswith(b"\n"))
        borders = text.count(b"}\n{") + (text.count(b"}\r\n{") if b"\r" in text else 0)
        if borders < rows - 1 or not text.startswith(b"{") or not text.rstrip(b"\r\n").endswith(b"}"):
            raise ValueError("there may be others than one object a line")
        if (b"NaN" in text or b"Inf" in text) and _no_json(text):
            raise ValueError("a number that is none")
        table = json.read_json(
            BytesIO(text),
            json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            json.ParseOptions(
                explicit_schema=self._schema, newlines_in_values=False, unexpected_field_behavior="error"
            ),
        )
        inner = set(chain.from_iterable(map(_names_in, self._schema.types)))
        for name, column in zip(table.column_names, table.columns, strict=True):
            whole = _has_whole(column)
            if not column.null_count and not whole:
                continue
            # A key that is missing gives a null too, and an integer among floats is made one: so it must be seen that each
            # line has this key in this spelling, and that no integer stands behind it.
            if name in inner or not _in_a_pattern(name):
                raise ValueError("a key that cannot be looked for")
            key = f'"{name}":'.encode()
            if text.count(key) != rows or (whole and re.search(re.escape(key) + rb"\s*-?[0-9]+\s*[,}]", text)):
                raise ValueError("a key is missing, or a number of another type")
        return table if self._columns is None else table.select(list(self._columns))


def _schema_of(records: list[Any]) -> Any:
    """Raises ValueError where not all have the same keys and types."""
    import pyarrow as pa

    return pa.schema(list(_struct_of(records)))


def _struct_of(records: list[Any]) -> Any:
    import pyarrow as pa

    if (
        not records
        or not records[0]
        or any(type(each) is not dict or each.keys() != records[0].keys() for each in records)
    ):
        raise ValueError("no objects with the same keys")
    return pa.struct([(name, _type_of([each[name] for each in records])) for name in records[0]])


def _type_of(values: list[Any]) -> Any:
    """Of values from JSON. Raises ValueError where Arrow has none that holds exactly those."""
    import pyarrow as pa

    kinds = {*map(type, values)} - {NoneType}
    if len(kinds) > 1:
        raise ValueError("values of several types")
    kind = kinds.pop() if kinds else NoneType
    there = [value for value in values if value is not None]
    if kind is list:
        return pa.list_(_type_of(list(chain.from_iterable(there))))
    if kind is dict:
        return _struct_of(there)
    return {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string(), NoneType: pa.null()}[kind]


def _names_in(kind: Any) -> Iterator[str]:
    """The names of all fields inside of a type."""
    for at in range(kind.num_fields):
        field = kind.field(at)
        yield field.name
        yield from _names_in(field.type)


def _has_whole(column: Any, *, inside: bool = False) -> bool:
    """Whether one of these floats is a whole number, and so may have been written as an integer. Raises ValueError where that
    is so inside of another value, or where a key may be missing there."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_floating(column.type):
        whole = bool(compute.any(compute.equal(column, compute.floor(column))).as_py())
        if whole and inside:
            raise ValueError("an integer, or a float that looks like one")
        return whole
    if pa.types.is_list(column.type):
        if (
            pa.types.is_null(column.type.value_type)
            and compute.any(compute.greater(compute.list_value_length(column), 0)).as_py()
        ):
            raise ValueError("nulls in a list of nothing else, of which pyarrow loses track")
        _has_whole(compute.list_flatten(column), inside=True)
    elif pa.types.is_struct(column.type):
        for at in range(column.type.num_fields):
            field = compute.struct_field(column, [at])
            if field.null_count > column.null_count:
                raise ValueError("a null, or a key that is missing")
            _has_whole(field, inside=True)
    return False
