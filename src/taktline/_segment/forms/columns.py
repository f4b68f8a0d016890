"""What the forms with columns share: which records are rows, and that a column is exact."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from taktline._segment.equality import kept
from taktline._segment.forms.contract import Form, Unfit
from taktline._signals import pass_on

Nothing = type(None)
TURNED = 4096  # rows


class ColumnsForm(Form):
    """What all forms with columns share: dicts are rows, anything else is a column of its own."""

    tuples = False  # tuples are rows too

    def take(self, values: list[Any]) -> Any:
        kinds = {*map(type, values)}
        if kinds == {dict}:
            names = {*map(tuple, values)}
            if not all(type(name) is str for name in next(iter(names))):
                raise Unfit("a column's name is not a str")
            return self._rows(names, map(dict.values, values))
        if kinds == {tuple} and self.tuples:
            return self._rows({(*range(width),) for width in {*map(len, values)}}, values)
        if dict in kinds or (tuple in kinds and self.tuples):
            raise Unfit("some of neighbouring records are rows and some are not")
        return self.column(values, "")

    def _rows(self, shapes: set[tuple[Any, ...]], rows: Iterable[Iterable[Any]]) -> Any:
        if len(shapes) > 1:
            raise Unfit("neighbouring rows have other columns, or in another order")
        names = shapes.pop()
        if not names:
            raise Unfit("a row has no columns")
        columns = _turned(iter(rows))
        return self.table(
            names, [self.column(column, f"column {name!r}: ") for name, column in zip(names, columns, strict=True)]
        )

    def column(self, values: Sequence[Any], where: str) -> Any:
        """One column. Raises Unfit where it cannot hold the values exactly."""
        kinds = {*map(type, values)}
        if len(kinds - {Nothing}) > 1 or (Nothing in kinds and len(kinds) > 1 and not self.missing):
            raise Unfit(f"{where}neighbouring records mix {' and '.join(sorted(kind.__name__ for kind in kinds))}")
        try:
            return self.exactly(values, next(iter(kinds - {Nothing}), Nothing), missing=Nothing in kinds)
        except Unfit as unfit:
            raise Unfit(f"{where}{unfit}") from None
        except Exception as error:  # the library's own reasons, of many classes
            pass_on(error)
            raise Unfit(f"{where}{type(error).__name__}: {error}") from error

    missing = True  # a column may hold None beside other values

    @abstractmethod
    def exactly(self, values: Sequence[Any], kind: type, *, missing: bool) -> Any:
        """A column of values that are all of one `kind`, or None where some are `missing`."""

    @abstractmethod
    def table(self, names: tuple[Any, ...], columns: list[Any]) -> Any:
        """Columns side by side."""


def _turned(rows: Iterator[Iterable[Any]]) -> Sequence[Sequence[Any]]:
    """Rows as columns, some thousand at a time: an iterator of each row at once would not fit into the processor's caches."""
    pieces = []
    while piece := tuple(zip(*islice(rows, TURNED), strict=True)):
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else [[*chain.from_iterable(each)] for each in zip(*pieces, strict=True)]


def refuse_change(values: Sequence[Any], back: list[Any]) -> None:
    """Raises Unfit where a column gives back other values than it took."""
    for value, returned in zip(values, back, strict=True):
        if not kept(value, returned):
            raise Unfit(f"it would be changed from {value!r:.60} to {returned!r:.60}")
