"""The results of a run as tables: of pandas, Polars or Arrow, some at a time or all in one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from taktline._io.column_types import SCHEMA_SAYS, gathered, normal
from taktline._recipe.steps import FORMS
from taktline._run.in_memory import Tables
from taktline._run.output import OutputBatch
from taktline._segment.forms import Unfit, form_of
from taktline._segment.tables import ArrowRows, Gathering, put_together, way_of
from taktline._segment.values import records_of
from taktline.errors import LineError, SinkError


def each(outputs: Iterable[OutputBatch], form: str) -> Iterator[Any]:
    """The results of each output batch as a table of this form. Raises LineError where they can be none."""
    first = 0
    for output in outputs:
        if len(output):
            yield _formed(output.results, form, first)
        first += len(output)


def whole(outputs: Iterable[OutputBatch], form: str, source: Tables | None = None, most: int | None = None) -> Any:
    """All results as one table of this form; plain values as one column. `source`: of whose rows each gave one result, in
    order: columns that are still its own are shared with it. `most`: how many results come, where that is known. Raises
    LineError where they can be none."""
    # Columns of Arrow may be in pieces.
    gathering = Gathering(most, source.read_as if source is not None else None) if most and form != "arrow" else None
    found = [_kept(output.results, gathering) for output in outputs if len(output)]
    rows = [each for each in found if type(each) is ArrowRows]
    if found and len(rows) == len(found):
        if (one := put_together(rows)) is None:
            one = _widened(rows, form)
        elif gathering is not None and len(rows) > 1:
            one.made = gathering.made()
        return _formed(one, form, 0, source)
    records = [record for results in found for record in records_of(results)]
    return _formed(records, form, 0) if records else _empty(form)


def _kept(results: Any, gathering: Gathering | None) -> Any:
    return gathering.of(results) if gathering is not None and type(results) is ArrowRows else results


def check_form(form: str) -> None:
    """Raises LineError where there is no such form of tables, or its package is missing."""
    known = [name for name in FORMS if name not in ("list", "numpy")]
    if form not in known:
        raise LineError(f"results cannot be tables of {form!r}; choose one of {', '.join(map(repr, known))}")
    if find_spec(FORMS[form]) is None:
        raise LineError(f'tables of {form!r} need the package {FORMS[form]}: pip install "taktline[{form}]"')


def _formed(results: Any, form: str, first: int, source: Tables | None = None) -> Any:
    try:
        way = way_of(form)
        if type(results) is ArrowRows and way is not None:
            return way.take(results, first) if source is None else way.all_of(results, source.frame, source.read_as)
        return form_of(form).take(records_of(results))
    except Unfit as unfit:
        raise _cannot_stand(form, str(unfit)) from None


def _cannot_stand(form: str, why: str) -> LineError:
    return LineError(f"the results cannot stand in one table of {form!r} exactly: {why}; take them as records")


def _widened(rows: list[ArrowRows], form: str) -> ArrowRows:
    """Tables of other columns as one whose columns hold the values of all, as a file has it. Raises LineError."""
    tables = [each.table for each in rows]
    try:
        table = gathered([normal(each, 0) for each in tables], None, 0, given=False)
    except SinkError as error:
        raise _cannot_stand(form, str(error).partition("\n")[0].removesuffix(f"; {SCHEMA_SAYS}")) from None
    everywhere = frozenset.intersection(*(frozenset(each.schema.names) for each in tables))
    return ArrowRows(table, everywhere.intersection(*(each.whole for each in rows)))


def _empty(form: str) -> Any:
    library = import_module(FORMS[form])
    return library.table({}) if form == "arrow" else library.DataFrame()
