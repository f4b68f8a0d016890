"""Results' values as plain Python ones, for every sink alike: NumPy's scalars, what pandas has for dates and for nothing,
enums of a plain type. What has no such value is refused with its reason, never written as whatever its bytes or repr are."""

from __future__ import annotations

import sys
from enum import Enum
from types import NoneType
from typing import Any

from taktline._excerpts import excerpt, masked
from taktline.errors import Failed

PLAIN_TYPES = frozenset({str, bytes, int, float, bool, NoneType})


def plain(value: Any) -> Any:
    """The plain value that this one stands for; itself where it is of no such kind. Raises ValueError where that would be
    another one.

    >>> import numpy
    >>> plain(numpy.int32(3)), plain(numpy.bool_(True)), plain(numpy.array(0.5)), plain("as it is")
    (3, True, 0.5, 'as it is')
    """
    if isinstance(value, Enum):
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__pos__(value)
        if isinstance(value, float):
            return float.__pos__(value)
        raise ValueError(f"{value!r} is an Enum; give its value or its name")
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and isinstance(value, (numpy.generic, numpy.ndarray)):
        return _of_numpy(numpy, value)
    if pandas is not None and type(value).__module__.partition(".")[0] == "pandas":
        return _of_pandas(pandas, value)
    return value


def _of_numpy(numpy: Any, value: Any) -> Any:
    if value.ndim:
        raise ValueError(f"it is a NumPy array of the shape {value.shape}; give its tolist()")
    if isinstance(value, (numpy.str_, numpy.bytes_)):
        return value.item()
    value = value[()]
    kind = getattr(getattr(value, "dtype", None), "kind", "O")
    if kind in "biu" or (kind == "f" and value.itemsize <= 8) or (kind == "c" and value.itemsize <= 16):
        return value.item()
    if kind in "mM":
        if numpy.isnat(value):
            return None
        whole = value if numpy.datetime_data(value.dtype)[0] in ("Y", "M", "W", "D") else value.astype(f"{kind}8[us]")
        made = whole.item()
        if whole == value and not isinstance(made, int):
            return made
        raise ValueError(f"{value!r} has no exact value in Python")
    if kind in "OUS":  # in an array without dimensions
        return plain(value)
    raise ValueError(f"{value!r} has no exact value in Python")


def _of_pandas(pandas: Any, value: Any) -> Any:
    if value is pandas.NA or value is pandas.NaT:
        return None
    if isinstance(value, pandas.Timestamp):
        if value.nanosecond:
            raise ValueError(f"{value!r} has nanoseconds, which no value of Python can hold")
        return value.to_pydatetime()
    if isinstance(value, pandas.Timedelta):
        if value.nanoseconds:
            raise ValueError(f"{value!r} has nanoseconds, which no value of Python can hold")
        return value.to_pytimedelta()
    return value


def as_json(value: Any) -> Any:
    """What the JSON encoder asks for where it does not know a value. Raises TypeError, or ValueError with the reason."""
    if type(value) is Failed:
        return {"failed": _in_words(value)}
    made = plain(value)
    if type(made) in (str, int, float, bool, NoneType):
        return made
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _in_words(failed: Failed) -> dict[str, Any]:
    """What a row says of a record that failed, in whose place it stands."""
    said = {"index": failed.index, "step": failed.step, "error": type(failed.error).__name__}
    try:
        message = str(failed.error)
    except Exception:  # an exception of somebody's, that cannot say what it is
        message = ""
    return {**said, "message": masked(message.partition("\n")[0]), "record": excerpt(failed.record)}


def as_cell(value: Any) -> Any:
    """A value for the csv module, which writes the `str` of anything: only of what that is exact for. Raises ValueError."""
    from datetime import date, time, timedelta
    from decimal import Decimal
    from fractions import Fraction
    from pathlib import PurePath
    from uuid import UUID

    made = plain(value)
    if type(made) in PLAIN_TYPES - {bytes}:
        return made
    if isinstance(made, (str, int, float, complex, Decimal, Fraction, date, time, timedelta, UUID, PurePath)):
        return made
    raise ValueError(f"{type(value).__name__} has no exact form as text; make it text, or columns, in a step")
