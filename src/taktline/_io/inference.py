"""Which types the cells of delimited text have, told from some rows of it: types="infer"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any

INFERENCE_ROWS = 10_000  # at the beginning of the first file, that the types are told from
LARGEST = 1 << 63  # from here on an integer has more than 64 bits
NO_NUMBERS = frozenset(("nan", "NaN", "inf", "-inf"))  # as NumPy and pandas write floats

_whole = re.compile(r"-?(?:0|[1-9][0-9]{0,18})").fullmatch
_number = re.compile(
    r"-?(?:0|[1-9][0-9]{0,14}|(?:0|[1-9][0-9]*)?\.[0-9]+|(?:0|[1-9][0-9]*)\.)(?:[eE][+-]?[0-9]+)?"
).fullmatch
_day = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
_moment = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?").fullmatch


def is_integer(text: str) -> bool:
    """Whether this is an integer of 64 bits, written as one.

    >>> is_integer("-7"), is_integer("007"), is_integer("1.0"), is_integer("9223372036854775808")
    (True, False, False, False)
    """
    return _whole(text) is not None and -LARGEST <= int(text) < LARGEST


def types_of(rows: Iterable[Sequence[str]], header: Sequence[str]) -> dict[str, Any]:
    """The types of columns that are no text, by name. Rows of another width have no say, and empty cells neither.

    >>> rows = [["1", "007", "", "2024-02-29", "nan"], ["-2", "8", "true", "2024-03-01", "1e-7"]]
    >>> {name: kind.__name__ for name, kind in types_of(rows, "abcde").items()}
    {'a': 'int', 'c': 'bool', 'd': 'date', 'e': 'float'}
    """
    columns = zip(*(row for row in rows if len(row) == len(header)), strict=True)
    found = {name: _kind({*cells} - {""}) for name, cells in zip(header, columns, strict=False)}
    return {name: kind for name, kind in found.items() if kind is not None}


def _kind(cells: set[str]) -> Any:
    """The first type that all cells have, in the form that is written so and only so; None: they are text."""
    tests: tuple[tuple[Any, Callable[[set[str]], bool]], ...] = (
        (int, lambda cells: all(map(is_integer, cells))),
        (float, lambda cells: all(map(_number, cells - NO_NUMBERS)) and not cells <= NO_NUMBERS),
        (bool, lambda cells: cells <= {"true", "false", "True", "False", "TRUE", "FALSE"}),
        (date, lambda cells: all(map(_day, cells)) and _are(date.fromisoformat, cells)),
        (datetime, lambda cells: all(map(_moment, cells)) and _are(datetime.fromisoformat, cells)),
    )
    return next((kind for kind, fits in tests if fits(cells)), None) if cells else None


def _are(make: Callable[[str], Any], cells: set[str]) -> bool:
    with suppress(ValueError):
        return all(make(cell) for cell in cells)
    return False
