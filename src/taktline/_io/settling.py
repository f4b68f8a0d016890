"""Results and tables, in any turn, as tables of one schema, which is settled before the first of them is given on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from taktline._arrow import stream_of, table_of
from taktline._io.column_types import as_columns, gathered, in_schema, is_open, normal, row_at, wider_schema
from taktline.errors import LineError

GROUP = 65_536  # results that make a table: fixed, so that equal results make equal files
MOST = 1 << 20  # rows of a table that are kept together in a file, as pyarrow has it: all of it, as a rule
FEW = 8192  # rows: smaller tables are gathered to some of `GROUP`, cut where that is full, as results are,
LIGHT = 1 << 20  # where they are of fewer bytes too
HELD = 64 << 20  # bytes that wait at most for a column to have something else than nulls


class Sizes:
    """How many rows go together. Raises LineError for none."""

    def __init__(self, row_group: int | None, part: int | None = None) -> None:
        if row_group is not None and not (isinstance(row_group, int) and row_group > 0):
            raise LineError(f"row_group={row_group!r} must be a whole number of rows, 1 or more")
        self.group = row_group or GROUP  # results
        self.most = row_group or MOST  # rows of a table, in a file
        self.whole = part or sys.maxsize  # rows that stay together: a part has no more
        if part is not None:  # groups of one size fill it: 16 of 62,500 results one of a million
            self.group = -(-part // -(-part // self.group))

    def together(self, groups: int) -> int:
        """Rows that are written at once of so many groups: a file cuts them itself, but a part ends behind any of them."""
        return self.group * (groups if self.whole == sys.maxsize and self.group == self.most else 1)


def is_small(table: Any) -> bool:
    return not table.num_rows or bool(table.num_rows < FEW and table.nbytes < LIGHT)


class Coming:
    """Rows whose turn it is to be written: a table, or what a worker made of one."""

    def __init__(self, first: int, rows: int, made: Any, schema: Any, size: int) -> None:
        self.first = first  # number of its first result
        self.rows = rows
        self.made = made
        self.schema = schema
        self.size = size


class Settled:
    """What all files of columns have in common; each kind says how a piece is written."""

    def __init__(self, schema: Any, sizes: Sizes) -> None:
        self._schema = schema  # of the files; None while it is not settled
        self._given = schema is not None
        self._sizes = sizes
        self._waiting: list[Any] = []  # results
        self._few: list[Any] = []  # small tables
        self._few_rows = 0
        self._tables = False  # what comes is tables
        self._held: list[Coming] = []  # until the schema is settled
        self._held_bytes = 0
        self._so_far: Any = None  # the schema of what is held,
        self._of_none: Any = None  # and of tables without rows
        self._count = 0  # results before those that wait

    def _write(self, piece: Coming) -> None:
        """The schema is settled: write these rows."""
        raise NotImplementedError

    def _as_table(self, made: Any) -> Any:
        return made

    def _normal(self, table: Any, first: int) -> Any:
        return normal(table, first)

    def _as_read(self, schema: Any) -> Any:
        """The schema as a file of it tells it, whoever made its first rows."""
        return schema

    def rows(self, results: Sequence[Any]) -> None:
        if self._tables:
            # Of a table that went through the steps row by row, since its worker died, say: where row groups end, and of
            # which types they are, is not to tell of that.
            for at in range(0, len(results), self._sizes.whole):
                some = list(results[at : at + self._sizes.whole])
                self._place(self._of_rows(some, self._few[-1].schema if self._few else None))
            return
        self._waiting.extend(results)
        while len(self._waiting) >= self._sizes.group:
            self._make_rows()

    def table(self, table: Any) -> None:
        for at in range(0, max(1, table.num_rows), self._sizes.whole):
            self._table(table.slice(at, self._sizes.whole))

    def _table(self, table: Any) -> None:
        self._tables = True
        if self._waiting:
            some, self._waiting = self._waiting, []
            self._gather_also(self._normal(self._of_rows(some, table.schema), self._count))
        self._place(table)

    def _place(self, table: Any) -> None:
        table = self._normal(table, self._count + self._few_rows)
        if not table.num_rows:
            self._of_none = self._of_none or table.schema
        elif is_small(table):
            self._gather_also(table)
        else:
            self._gather()
            self._add(table)

    def _gather_also(self, table: Any) -> None:
        """Where what is gathered ends follows from the rows alone: whoever gave them, and as tables of whatever size."""
        while full := (self._few_rows + table.num_rows) // self._sizes.group:
            end = self._sizes.together(full) - self._few_rows
            self._keep(table.slice(0, end))
            self._gather()
            table = table.slice(end)
        if table.num_rows:
            self._keep(table)

    def _keep(self, table: Any) -> None:
        self._few.append(table)
        self._few_rows += table.num_rows

    def end(self) -> Any:
        """All were given. The schema."""
        import pyarrow as pa

        self._all_so_far()
        self._settle()
        if self._schema is None:
            self._schema = self._of_none or pa.schema([])
        return self._schema

    @property
    def settled(self) -> Any:
        """The schema, which is settled, of files that have rows; or of those of which none has any."""
        return self._schema

    def state(self) -> Any:
        """What was given and not written yet, to go on with in another process."""
        held = [(each.first, each.rows, _sent(each.made)) for each in self._held]
        few = [_sent(each) for each in self._few]
        kinds = [each if each is None else each.serialize().to_pybytes() for each in (self._schema, self._of_none)]
        return self._waiting, few, held, kinds, self._count, self._tables

    def go_on(self, state: Any) -> None:
        self._waiting, few, held, kinds, self._count, self._tables = state
        self._schema, self._of_none = (each if each is None else _schema_of(each) for each in kinds)
        for each in map(_came, few):
            self._keep(each)
        for first, rows, sent in held:
            made = _came(sent)
            size = len(made) if isinstance(made, bytes) else made.nbytes
            self._hold(Coming(first, rows, made, self._as_table(made).schema, size))

    def _all_so_far(self) -> None:
        self._make_all_rows()
        self._gather()

    def _make_all_rows(self) -> None:
        if self._waiting:
            self._make_rows()

    def _make_rows(self) -> None:
        some, self._waiting = self._waiting[: self._sizes.group], self._waiting[self._sizes.group :]
        self._add(self._of_rows(some))

    def _of_rows(self, rows: list[Any], like: Any = None) -> Any:
        """Results as a table; `like`: the schema of a table beside them."""
        import pyarrow as pa

        made = as_columns(rows, self._schema, self._so_far or like or pa.schema([]), self._count + self._few_rows)
        return made.cast(like) if like is not None and made.schema.equals(like) else made  # with what it notes of them

    def _gather(self) -> None:
        """Small tables to one."""
        if self._few:
            few, self._few, self._few_rows = self._few, [], 0
            self._add(gathered(few, self._schema, self._count, given=self._given))

    def _add(self, table: Any) -> None:
        self._take(Coming(self._count, table.num_rows, table, table.schema, table.nbytes))
        self._count += table.num_rows

    def _take(self, piece: Coming) -> None:
        if self._schema is not None:
            self._write(piece)
            return
        self._hold(piece)
        if self._held_bytes > HELD or not any(is_open(field.type) for field in self._so_far):
            self._settle()

    def _hold(self, piece: Coming) -> None:
        before = self._so_far
        self._so_far = (
            piece.schema if before is None else wider_schema(before, piece.schema, piece.first, self._row(piece))
        )
        self._held.append(piece)
        self._held_bytes += piece.size

    def _settle(self) -> None:
        if self._schema is None and self._held:
            self._schema = self._as_read(self._so_far)
            held, self._held = self._held, []
            for piece in held:
                self._write(piece)

    def _in_schema(self, piece: Coming) -> Any:
        return in_schema(self._as_table(piece.made), self._schema, piece.first, given=self._given)

    def _row(self, piece: Coming) -> Callable[[], Any]:
        return lambda: row_at(self._as_table(piece.made), 0)


def _sent(made: Any) -> tuple[bool, bytes]:
    """A table, or what a worker made of one, as bytes; a slice without the rows around it."""
    if isinstance(made, bytes):
        return False, made
    return True, stream_of(made).to_pybytes()


def _came(sent: tuple[bool, bytes]) -> Any:
    is_table, data = sent
    return table_of(data) if is_table else data


def _schema_of(data: bytes) -> Any:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(data))
