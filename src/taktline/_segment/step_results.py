"""What a batch step returned, where that is not simply a value of its form: a table of any kind, whose rows are the
results, or something that cannot be told apart into one result a record.

Iterating over a table gives the names of its columns, a dict its keys, a str its letters, a set any order: none of these
may pass for results because their number happens to be right. Libraries are only looked for where a value is theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence, Set
from importlib.util import find_spec
from typing import Any

from taktline._segment.forms.contract import Columns, Form, Misfit
from taktline._segment.forms.libraries import form_of_library

FORM_OF = {"numpy": "numpy", "pandas": "pandas", "pyarrow": "arrow", "polars": "polars"}  # a library: its form
NO_LIST = "a list, or a table whose rows are the results"


def drawn(result: Any) -> Any:
    """What comes bit by bit, as a whole: while it does, the step is still at work in it."""
    if isinstance(result, Iterator):
        whole = getattr(result, "read_all", None)  # of a reader of Arrow, which would give batches
        return whole() if whole is not None and _library(result) == "pyarrow" else list(result)
    return result


def as_table(result: Any, given: int) -> tuple[Columns, int] | None:
    """The rows of a table, or the values of a column, of any library, and how many there are: another number than `given`
    where one column has one. None: it is nothing of the kind. Raises Misfit for what of a library is neither."""
    if isinstance(result, Mapping):
        return _of_columns(result, given)
    if (library := _library(result)) is not None:
        return _formed(form_of_library(FORM_OF[library]), result, given)
    if hasattr(type(result), "__arrow_c_stream__"):  # any other library's table
        if find_spec("pyarrow") is None:
            raise Misfit(f"{NO_LIST}; to read such a table install pyarrow")
        arrow = form_of_library("arrow")  # imports it
        return _formed(arrow, sys.modules["pyarrow"].table(result), given)
    if hasattr(type(result), "columns") and not isinstance(result, Sequence):
        raise Misfit(f"{NO_LIST}, of pandas, Polars or Arrow")
    return None


def listed(result: Any, given: int) -> tuple[Any, int]:
    """What a step over lists returned, as a list or as columns, and how many results that is. Raises Misfit."""
    if isinstance(result, (str, bytes, bytearray)) or (isinstance(result, Set) and not isinstance(result, MappingView)):
        raise Misfit(NO_LIST)
    if not (isinstance(result, (list, tuple)) or _one_value_each(result)) and (rows := as_table(result, given)):
        return rows
    if not isinstance(result, Iterable) and not hasattr(result, "__getitem__"):
        raise Misfit(NO_LIST)
    results = list(result)
    if len(results) == given and hasattr(result, "__len__") and len(result) != given:
        raise Misfit(
            f"one that gives as many results as its length says: it has a length of {len(result):,} and gives {given:,}"
        )
    return results, len(results)


def _library(value: Any) -> str | None:
    """Which of the forms' libraries the value, or what it is derived from, belongs to."""
    for cls in type(value).__mro__:
        if (root := cls.__module__.partition(".")[0]) in FORM_OF:
            return root
    return None


def _one_value_each(result: Any) -> bool:
    """Whether iterating over it gives what stands in it: an array of NumPy's without names, a Series, an Index."""
    library = _library(result)
    if library == "numpy":
        return getattr(result, "ndim", 0) > 0 and result.dtype.names is None
    if library == "pandas":
        pd = sys.modules["pandas"]
        if isinstance(result, pd.Series):
            form_of_library("pandas").checked(
                result, len(result)
            )  # its index tells whether the order is that of the records
        return isinstance(result, (pd.Series, pd.Index, pd.api.extensions.ExtensionArray))
    return library == "polars" and isinstance(result, sys.modules["polars"].Series)


def _formed(form: Form, result: Any, given: int) -> tuple[Columns, int]:
    taken, count = form.checked(result, given)
    return form.give(taken), count


def _of_columns(result: Mapping[Any, Any], given: int) -> tuple[Columns, int]:
    """A dict of columns, as a table."""
    columns = [_column(each) for each in result.values()]
    if not columns or any(column is None for column in columns) or not all(isinstance(name, str) for name in result):
        raise Misfit(f"{NO_LIST} (a dict of columns, each a list or an array, is one)")
    return Columns((*result,), columns), next((len(column) for column in columns if len(column) != given), given)


def _column(values: Any) -> Any:
    """The values of a column; None where it is none."""
    if isinstance(values, (list, tuple)):
        return list(values)
    if (library := _library(values)) is None:
        if not hasattr(type(values), "__array__"):
            return None
        library, values = "numpy", sys.modules["numpy"].asarray(values) if "numpy" in sys.modules else values
    try:
        columns, _ = _formed(form_of_library(FORM_OF[library]), values, -1)
    except Misfit:
        return None
    return columns.columns[0] if columns.names is None else columns.records()
