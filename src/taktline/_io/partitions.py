"""Results by the values of some columns, as Hive names folders by them: `year=2023/month=7`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from taktline._arrow import rows_at
from taktline._io.column_types import row_at
from taktline._io.plain import plain
from taktline.errors import LineError, SinkError, unwritable

NOTHING = "__HIVE_DEFAULT_PARTITION__"
SAFE = " -_.~:+"  # signs that stay as they are in a folder's name
LONGEST = 255  # bytes of a folder's name, as file systems have it
FORM = "a row of its partition"


class Partitions:
    """Which folder a result belongs into. The columns are left out there: the folder's name tells them. `stored`: it is a
    part of an object's name, which may be of any length."""

    def __init__(self, names: Sequence[str], *, stored: bool = False) -> None:
        self.names = list(names)
        self._stored = stored
        if len({*names}) < len(names) or not all(isinstance(name, str) and name for name in names):
            raise LineError(f"partition_by={self.names!r} must be names of columns, each once")

    def rows(self, results: Sequence[Any], first: int) -> Iterator[tuple[str, list[Any]]]:
        """Some results, folder by folder, in the order in which these came first."""
        folders: dict[str, list[Any]] = {}
        for number, row in enumerate(results, first):
            if not isinstance(row, dict):
                raise unwritable(number, row, f"it is {type(row).__name__}, not dict", FORM)
            name = "/".join(self._part(key, row, number) for key in self.names)
            folders.setdefault(name, []).append({key: value for key, value in row.items() if key not in self.names})
        yield from folders.items()

    def table(self, table: Any, first: int) -> Iterator[tuple[str, Any]]:
        """The rows of a table, likewise."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if missing := [name for name in self.names if name not in table.schema.names]:
            raise SinkError(
                f"the table of result {first:,} has no column {missing[0]!r} to part it by; it has "
                f"{', '.join(table.schema.names)}",
                result=first,
            )
        if not table.num_rows:
            return
        group = pa.repeat(0, table.num_rows)
        for name in self.names:
            own, values = _numbered(table.column(name).combine_chunks())
            group, _ = _numbered(pc.add(pc.multiply(group, values + 1), own))
        rest = table.drop_columns(self.names)
        for number in pc.unique(group).to_pylist():
            where = pc.equal(group, number)
            at = pc.index(where, True).as_py()
            row = row_at(table.select(self.names), at)
            name = "/".join(self._part(key, row, first + at) for key in self.names)
            yield name, rows_at(rest, pc.indices_nonzero(where))

    def _part(self, key: str, row: dict[Any, Any], number: int) -> str:
        try:
            value = plain(row[key])
        except KeyError:
            raise unwritable(number, row, f"it has no {key!r}, by which it is to be parted", FORM) from None
        except ValueError as error:
            raise unwritable(number, row, f"its {key!r}: {error}", FORM) from error
        if value is None:
            text = NOTHING
        elif isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, (str, int, Decimal, date)):
            text = str(value)
        else:
            why = f"its {key!r} is {type(value).__name__}, which names no folder; make it text in a step"
            raise unwritable(number, row, why, FORM)
        if value is not None and text == NOTHING:
            why = f"its {key!r} is the text that the folder of None is called by; make it another one in a step"
            raise unwritable(number, row, why, FORM)
        name = f"{quote(key, safe=SAFE)}={quote(text, safe=SAFE)}"
        if len(name) > LONGEST and not self._stored:
            why = f"its {key!r} makes the name of a folder {len(name):,} bytes long, and {LONGEST} are allowed"
            raise unwritable(number, row, f"{why}; make it a shorter text in a step", FORM)
        return name


def _numbered(column: Any) -> tuple[Any, int]:
    """A number for each value, nulls too, and how many there are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        known = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    except pa.ArrowNotImplementedError:  # of lists, say, which name no folder: who asks for its name says so
        numbers: dict[tuple[bool, str], int] = {}
        own = [numbers.setdefault((value is None, str(value)), len(numbers)) for value in column.to_pylist()]
        return pa.array(own, pa.int64()), len(numbers)
    values = len(known.dictionary)
    return pc.fill_null(known.indices.cast(pa.int64()), values), values
