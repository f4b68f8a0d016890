"""The results of a run as tables: of pandas, Polars or Arrow, some at a time or all in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from taktline._recipe.steps import FORMS
from taktline._run.lot import Lot
from taktline._segment.forms import Unfit, form_of
from taktline._segment.tables import ArrowRows, put_together, way_of
from taktline._segment.values import records_of
from taktline.errors import LineError


def each(lots: Iterable[Lot], form: str) -> Iterator[Any]:
    """The results of each lot as a table of this form. Raises LineError where they can be none."""
    first = 0
    for lot in lots:
        if len(lot):
            yield _formed(lot.results, form, first)
        first += len(lot)


def whole(lots: Iterable[Lot], form: str) -> Any:
    """All results as one table of this form; plain values as one column. Raises LineError where they can be none."""
    found = [lot.results for lot in lots if len(lot)]
    rows = [each for each in found if type(each) is ArrowRows]
    if found and len(rows) == len(found):
        if (one := put_together(rows)) is None:
            one = _of_records(found, rows[0].table.schema)
        return _formed(one, form, 0)
    records = [record for results in found for record in records_of(results)]
    return _formed(records, form, 0) if records else _empty(form)


def check_form(form: str) -> None:
    """Raises LineError where there is no such form of tables, or its package is missing."""
    known = [name for name in FORMS if name not in ("list", "numpy")]
    if form not in known:
        raise LineError(f"results cannot be tables of {form!r}; choose one of {', '.join(map(repr, known))}")
    if find_spec(FORMS[form]) is None:
        raise LineError(f'tables of {form!r} need the package {FORMS[form]}: pip install "taktline[{form}]"')


def _formed(results: Any, form: str, first: int) -> Any:
    try:
        way = way_of(form)
        if type(results) is ArrowRows and way is not None:
            return way.take(results, first)
        return form_of(form).take(records_of(results))
    except Unfit as unfit:
        raise LineError(
            f"the results cannot stand in one table of {form!r} exactly: {unfit}; take them as records"
        ) from None


def _of_records(found: list[Any], schema: Any) -> Any:
    """Tables of other types as one, by way of their records."""
    import pyarrow as pa

    records = [record for results in found for record in records_of(results)]
    try:
        return ArrowRows(pa.Table.from_pylist(records, schema))
    except pa.ArrowException:
        return records


def _empty(form: str) -> Any:
    library = import_module(FORMS[form])
    return library.table({}) if form == "arrow" else library.DataFrame()
