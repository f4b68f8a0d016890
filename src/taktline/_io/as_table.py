"""Whole lines of a file as a table of Arrow, read by pyarrow: exactly what their records are, or not at all.

Each function takes the bytes of some lines and the number of the first one, and raises where pyarrow might give other rows
or values than the record way does. Then the lines are read one by one, which is slower and knows what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from typing import Any

from taktline._io.decode import BOM, UTF_8

QUOTE = b'"'
KINDS = (str, int, float, bool, date, datetime, time)  # of cells, for which Arrow has a type that holds exactly those
TRUE, FALSE = ("true", "True", "TRUE", "1"), ("false", "False", "FALSE", "0")


@cache
def is_there() -> bool:
    """Whether pyarrow is installed."""
    return find_spec("pyarrow") is not None


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
