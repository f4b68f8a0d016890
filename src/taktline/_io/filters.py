"""Which rows are to be read: filters= as a checked value, row groups in which there can be none, and the rows of a table."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

from taktline.errors import LineError, SourceError

Term = tuple[str, str, Any]  # column, operator, value
Filters = tuple[tuple[Term, ...], ...]  # a row is read where all terms of one of these hold

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
AMONG = ("in", "not in")


def checked(filters: Any) -> Filters | None:
    """Filters in one form. Raises LineError where they are none.

    >>> checked([("n", ">", 1), ("s", "in", ["a", "b"])])
    ((('n', '>', 1), ('s', 'in', ('a', 'b'))),)
    """
    if filters is None:
        return None
    if isinstance(filters, (str, bytes, Mapping)) or not isinstance(filters, Sequence) or not filters:
        raise LineError(
            f'filters= is a list of (column, operator, value), such as [("year", ">=", 2023)]; it is {filters!r}'
        )
    branches = [filters] if all(isinstance(each, tuple) for each in filters) else filters
    if any(isinstance(each, (str, bytes, tuple)) or not isinstance(each, Sequence) or not each for each in branches):
        raise LineError("filters= is a list of terms that all hold, or a list of such lists of which one holds")
    return tuple(tuple(map(_checked, branch)) for branch in branches)


def _checked(term: Any) -> Term:
    if not isinstance(term, tuple) or len(term) != 3 or not isinstance(term[0], str):
        raise LineError(f"filters= has {term!r}, where (column, operator, value) is wanted")
    column, sign, value = term
    sign = {"=": "=="}.get(sign, sign)
    if sign in AMONG:
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise LineError(f"filters= has {term!r}: {sign!r} takes a list of values")
        value = tuple(value)
        if not value or None in value:
            raise LineError(f"filters= has {term!r}: {sign!r} takes a list of values; ask for None by '==' and '!='")
    elif sign not in COMPARE:
        raise LineError(f"filters= has {term!r}: operators are {', '.join((*COMPARE, *AMONG))}")
    elif value is None and sign not in ("==", "!="):
        raise LineError(f"filters= has {term!r}: None is asked for by '==' and '!='")
    return column, sign, value


def left(filters: Filters, values: Mapping[str, int | str | None]) -> Filters | None:
    """What there is to ask of the rows of a file whose records all have these values; None: nothing, all are read; empty:
    none is. Raises LineError where a value cannot be compared."""
    branches = []
    for branch in filters:
        if all(_holds(values[term[0]], *term) for term in branch if term[0] in values):
            branches.append(tuple(term for term in branch if term[0] not in values))
    return None if () in branches else tuple(branches)


def _holds(value: int | str | None, column: str, sign: str, other: Any) -> bool:
    if other is None:
        return (value is None) == (sign == "==")
    if value is None:
        return False
    others = other if sign in AMONG else (other,)
    if any(isinstance(each, str) != isinstance(value, str) for each in others):
        kind = type(value).__name__
        raise LineError(
            f"filters= compares {column!r} with {other!r}: what folders say of it is {kind}, such as {value!r}"
        )
    if sign in AMONG:
        return (value in others) == (sign == "in")
    return bool(COMPARE[sign](value, other))


def check(filters: Filters, schema: Any, name: str) -> None:
    """Raises SourceError where the columns of a file cannot be asked so."""
    import pyarrow as pa

    for term in (term for branch in filters for term in branch):
        if term[0] not in schema.names:
            raise SourceError(f"filters= names {term[0]!r}; {name!r} has {', '.join(schema.names)}", path=name)
        try:
            _mask(schema.empty_table(), term)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            kind = schema.field(term[0]).type
            raise SourceError(
                f"filters= compares {term[0]!r} of {name!r}, which is {kind}, with {term[2]!r}", path=name
            ) from error


def columns_of(filters: Filters) -> list[str]:
    """The columns that are asked."""
    return list(dict.fromkeys(term[0] for branch in filters for term in branch))


def mask(table: Any, filters: Filters) -> Any:
    """A BooleanArray, true for each row that is to be read. Nulls are equal to None alone; to no value are they unequal."""
    import pyarrow as pa
    from pyarrow import compute

    kept: Any = None
    for branch in filters:
        holds: Any = None
        for term in branch:
            one = compute.fill_null(_mask(table, term), False)
            holds = one if holds is None else compute.and_(holds, one)
        kept = holds if kept is None else compute.or_(kept, holds)
    if kept is None:
        kept = pa.repeat(pa.scalar(False), table.num_rows)
    return kept.combine_chunks() if isinstance(kept, pa.ChunkedArray) else kept


def _mask(table: Any, term: Term) -> Any:
    import pyarrow as pa
    from pyarrow import compute

    name, sign, value = term
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if value is None:
        return compute.is_null(column) if sign == "==" else compute.is_valid(column)
    if sign in AMONG:
        values = pa.array(list(value)).cast(column.type)
        if pa.types.is_floating(column.type):  # of which is_in tells -0.0 from 0.0
            there = reduce(compute.or_, [compute.fill_null(compute.equal(column, each), False) for each in values])
        else:
            there = compute.is_in(column, value_set=values)
        return there if sign == "in" else compute.and_(compute.invert(there), compute.is_valid(column))
    how = {"==": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}[
        sign
    ]
    return compute.call_function(how, [column, _scalar(value, column.type)])


def _scalar(value: Any, kind: Any) -> Any:
    """A value to compare with a column. Text stands for the date or time that it says."""
    import pyarrow as pa

    made = pa.scalar(value)
    return made.cast(kind) if isinstance(value, str) and pa.types.is_temporal(kind) else made


def may_match(filters: Filters, group: Any, schema: Any) -> bool:
    """Whether a row group, of which this is the metadata, may have a row that is to be read."""
    at = {group.column(n).path_in_schema: n for n in range(group.num_columns)}

    def may(term: Term) -> bool:
        known = group.column(at[term[0]]).statistics if term[0] in at else None
        return known is None or _may(term, known, group.num_rows, schema.field(term[0]).type)

    return any(all(map(may, branch)) for branch in filters)


def _may(term: Term, known: Any, rows: int, kind: Any) -> bool:
    import pyarrow as pa

    _, sign, value = term
    nulls = known.null_count if known.has_null_count else None
    if value is None:
        return bool(nulls is None or (nulls > 0 if sign == "==" else nulls < rows))
    if nulls == rows:
        return False
    # What Python has no exact value for is not compared; nor is what floats leave out of it, NaN.
    fine = pa.types.is_temporal(kind) and getattr(kind, "unit", "") == "ns"
    if not known.has_min_max or fine or sign in ("!=", "not in"):
        return True
    values = [_scalar(each, kind).as_py() for each in (value if sign == "in" else [value])]
    try:
        low, high = known.min, known.max
        if sign in ("in", "=="):
            return any(low <= each <= high for each in values)
        return bool(COMPARE[sign](low if sign in ("<", "<=") else high, values[0]))
    except TypeError:  # of other types, such as bytes: the rows themselves are asked
        return True
