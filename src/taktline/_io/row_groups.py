"""Results and tables as the row groups of Parquet files, by way of pyarrow: each is made as a small file in memory, by a
worker or here, and the footers are joined. What the columns are is settled before the first one is written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, Any

from taktline._io import opening
from taktline._io.footers import MAGIC, Footer
from taktline._io.parquet import check_path, checked_pyarrow
from taktline._io.typed import FORM, as_columns, as_schema, gathered, in_schema, is_open, normal, wider_schema
from taktline.abc import Sink
from taktline.errors import LineError, unwritable

GROUP = 65_536  # results a row group: fixed, so that equal results make equal files
MOST = 1 << 20  # rows of a table a row group, as pyarrow has it: a table is one, as a rule
FEW = 8192  # rows: smaller tables are gathered to groups of `GROUP`,
LIGHT = 1 << 20  # where they are of fewer bytes too
HELD = 64 << 20  # bytes that wait at most for a column to have something else than nulls
CODECS = ("snappy", "zstd", "gzip", "brotli", "lz4", "none")


class Packing:
    """How row groups are made: what travels to workers. Raises LineError for what pyarrow cannot do."""

    def __init__(self, codec: str | None, level: int | None, row_group: int | None, part: int | None = None) -> None:
        if codec is not None and codec not in CODECS:
            raise LineError(f"codec={codec!r} is none of Parquet's: {', '.join(CODECS)}")
        if row_group is not None and not (isinstance(row_group, int) and row_group > 0):
            raise LineError(f"row_group={row_group!r} must be a whole number of rows, 1 or more")
        self.group = row_group or GROUP  # results
        self.most = row_group or MOST  # rows of a table
        self.whole = part or sys.maxsize  # rows that stay together: a part has no more
        if part is not None:  # groups of one size fill it: 16 of 62,500 results one of a million
            self.group = -(-part // -(-part // self.group))
        self._codec = "snappy" if codec is None else codec
        self._level = level
        if level is not None:
            self._check_level(level)

    def _check_level(self, level: int) -> None:
        from pyarrow import ArrowException, Codec

        try:
            least, most = Codec.minimum_compression_level(self._codec), Codec.maximum_compression_level(self._codec)
        except (ArrowException, ValueError):
            raise LineError(f"level= has no meaning for codec={self._codec!r}") from None
        if not (isinstance(level, int) and least <= level <= most):
            raise LineError(f"codec={self._codec!r} has no level={level!r}: {least} to {most}")

    def file(self, table: Any) -> bytes:
        """The table as a Parquet file. Raises pyarrow's exceptions."""
        import pyarrow as pa
        from pyarrow.parquet import write_table

        out = pa.BufferOutputStream()
        write_table(table, out, row_group_size=self.most, compression=self._codec, compression_level=self._level)
        return bytes(out.getvalue().to_pybytes())


def table_encoder(packing: Packing, schema: Any) -> Callable[[Any], bytes]:
    return partial(_encoded, packing=packing, schema=schema)


def _encoded(table: Any, packing: Packing, schema: Any) -> bytes:
    """In a worker: the row groups of a table. Raises ValueError where it is to be gathered with others, or cut."""
    if is_small(table) or table.num_rows > packing.whole:
        raise ValueError("a small table, which is written with others, or one that is cut")
    table = normal(table, 0)
    return packing.file(table if schema is None else in_schema(table, schema, 0, given=True))


def is_small(table: Any) -> bool:
    return not table.num_rows or bool(table.num_rows < FEW and table.nbytes < LIGHT)


class _Piece:
    """Row groups whose turn it is to be written: a table, or what a worker made of one."""

    def __init__(self, first: int, rows: int, made: Any, schema: Any, size: int) -> None:
        self.first = first  # number of its first result
        self.rows = rows
        self.made = made
        self.schema = schema
        self.size = size


class RowGroups:
    """One stream of results, tables and row groups that workers made, in any turn, to row groups of one schema."""

    def __init__(self, schema: Any, packing: Packing, put: Callable[[Footer], None]) -> None:
        self._schema = schema  # of the files; None while it is not settled
        self._given = schema is not None
        self._packing = packing
        self._put = put
        self._head: Footer | None = None
        self._alike: list[Any] = []  # schemas and keys of footers that can be joined to the head as they are
        self._waiting: list[Any] = []  # results
        self._few: list[Any] = []  # small tables
        self._few_rows = 0
        self._held: list[_Piece] = []  # until the schema is settled
        self._held_bytes = 0
        self._so_far: Any = None  # the schema of what is held,
        self._of_none: Any = None  # and of tables without rows
        self._count = 0  # results before those that wait

    def rows(self, results: Sequence[Any]) -> None:
        self._gather()
        self._waiting.extend(results)
        while len(self._waiting) >= self._packing.group:
            self._make_rows()

    def table(self, table: Any) -> None:
        for at in range(0, max(1, table.num_rows), self._packing.whole):
            self._table(table.slice(at, self._packing.whole))

    def _table(self, table: Any) -> None:
        self._make_all_rows()
        if self._few_rows + table.num_rows > self._packing.whole:
            self._gather()
        first = self._count + self._few_rows
        table = normal(table, first)
        if not table.num_rows:
            self._of_none = self._of_none or table.schema
            return
        if is_small(table):
            self._few.append(table)
            self._few_rows += table.num_rows
            if self._few_rows >= self._packing.group:
                self._gather()
            return
        self._gather()
        self._add(table)

    def encoded(self, data: bytes, count: int) -> None:
        import pyarrow as pa
        from pyarrow.parquet import read_schema

        self._make_all_rows()
        self._gather()
        footer = Footer(data)
        if self._joins(footer):
            self._put(footer)
        else:
            schema = read_schema(pa.BufferReader(data))
            self._take(_Piece(self._count, count, data, schema, len(data)), footer)
        self._count += count

    def end(self) -> Footer:
        """All were given. The footer without rows of the schema that they have."""
        self._make_all_rows()
        self._gather()
        self._settle()
        return self.head

    def state(self) -> Any:
        """What was given and not written yet, to go on with in another process."""
        held = [(each.first, each.rows, _sent(each.made)) for each in self._held]
        few = [_sent(each) for each in self._few]
        kinds = [each if each is None else each.serialize().to_pybytes() for each in (self._schema, self._of_none)]
        return self._waiting, few, held, kinds, self._count

    def go_on(self, state: Any) -> None:
        self._waiting, few, held, kinds, self._count = state
        self._schema, self._of_none = (each if each is None else _schema_of(each) for each in kinds)
        for each in map(_came, few):
            self._few.append(each)
            self._few_rows += each.num_rows
        for first, rows, sent in held:
            made = _came(sent)
            self._hold(
                _Piece(first, rows, made, _table(made).schema, len(made) if isinstance(made, bytes) else made.nbytes)
            )

    @property
    def head(self) -> Footer:
        """What all files begin from: a footer of their schema, without rows."""
        import pyarrow as pa

        if self._head is None:
            if self._schema is None:
                self._schema = self._of_none or pa.schema([])
            self._head = Footer(self._packing.file(self._schema.empty_table()))
        return self._head

    def _make_all_rows(self) -> None:
        if self._waiting:
            self._make_rows()

    def _make_rows(self) -> None:
        import pyarrow as pa

        some, self._waiting = self._waiting[: self._packing.group], self._waiting[self._packing.group :]
        self._add(as_columns(some, self._schema, self._so_far or pa.schema([]), self._count))

    def _gather(self) -> None:
        """Small tables to one."""
        if self._few:
            few, self._few, self._few_rows = self._few, [], 0
            self._add(gathered(few, self._schema, self._count, given=self._given))

    def _add(self, table: Any) -> None:
        self._take(_Piece(self._count, table.num_rows, table, table.schema, table.nbytes), None)
        self._count += table.num_rows

    def _take(self, piece: _Piece, footer: Footer | None) -> None:
        if self._schema is not None:
            self._write(piece, footer)
            return
        self._hold(piece)
        if self._held_bytes > HELD or not any(is_open(field.type) for field in self._so_far):
            self._settle()

    def _hold(self, piece: _Piece) -> None:
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
                self._write(piece, None)

    def _as_read(self, schema: Any) -> Any:
        """The schema as a file of it tells it, whoever made the first row group: how fields in lists are called, say."""
        import pyarrow as pa
        from pyarrow.parquet import read_schema

        head = file_of(schema.empty_table(), self._packing, 0)
        return read_schema(pa.BufferReader(head))

    def _write(self, piece: _Piece, footer: Footer | None) -> None:
        if isinstance(piece.made, bytes) and piece.schema.equals(self._schema):
            footer = footer or Footer(piece.made)
            if footer.schema == self.head.schema:
                self._alike.append((footer.schema, footer.keys))
                self._put(footer)
                return
        table = in_schema(_table(piece.made), self._schema, piece.first, given=self._given)
        self._put(Footer(file_of(table, self._packing, piece.first)))

    def _joins(self, footer: Footer) -> bool:
        return (footer.schema, footer.keys) in self._alike

    def _row(self, piece: _Piece) -> Callable[[], Any]:
        return lambda: _table(piece.made).slice(0, 1).to_pylist()[0]


def file_of(table: Any, packing: Packing, first: int) -> bytes:
    """Row groups of a table that is of the file's schema. Raises SinkError where Parquet has no form for it."""
    import pyarrow as pa

    try:
        return packing.file(table)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise unwritable(first, table.slice(0, 1), str(error), FORM) from error


def _sent(made: Any) -> tuple[bool, bytes]:
    """A table, or what a worker made of one, as bytes; a slice without the rows around it."""
    import pyarrow as pa

    if isinstance(made, bytes):
        return False, made
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, made.schema) as stream:
        stream.write_table(made)
    return True, out.getvalue().to_pybytes()


def _came(sent: tuple[bool, bytes]) -> Any:
    import pyarrow as pa

    is_table, data = sent
    return pa.ipc.open_stream(data).read_all() if is_table else data


def _schema_of(data: bytes) -> Any:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(data))


def _table(made: Any) -> Any:
    if not isinstance(made, bytes):
        return made
    import pyarrow as pa
    from pyarrow.parquet import read_table

    return read_table(pa.BufferReader(made), use_threads=False)


class Joined:
    """One Parquet file on its way into an output."""

    def __init__(self, output: opening.Output, at: int = 0, said: Sequence[bytes] = (), rows: int = 0) -> None:
        self._output = output
        self.at = at  # bytes so far
        self.said = list(said)  # of the row groups
        self.rows = rows

    def put(self, footer: Footer) -> None:
        """Append the row groups of a file."""
        self._start()
        self.said += footer.groups(self.at, len(self.said))
        self.rows += footer.rows
        self._output.write(footer.body)
        self.at += len(footer.body)

    def end(self, head: Footer) -> None:
        self._start()
        self._output.write(head.end(self.said, self.rows))

    def _start(self) -> None:
        if not self.at:
            self._output.write(MAGIC)
            self.at = len(MAGIC)


class ParquetFile(Sink):
    """Results as the rows of a Parquet file; a missing key is a null."""

    no_journal = (
        "what says where its row groups lie is written last, and pyarrow cannot go on in a file without that. "
        "Write a folder of parts, as write('out/', format='parquet') does"
    )
    tables = True

    def __init__(
        self, target: str | IO[bytes], schema: Any = None, codec: str | None = None, level: int | None = None,
        row_group: int | None = None,
    ) -> None:  # fmt: skip
        checked_pyarrow()
        if isinstance(target, str):
            check_path(target)
        self._schema = as_schema(schema)
        self._packing = Packing(codec, level, row_group)
        self._output = opening.Output(target)
        self.table_encoder = table_encoder(self._packing, schema)
        self._begin()

    def _begin(self) -> None:
        self._joined = Joined(self._output)
        self._groups = RowGroups(self._schema, self._packing, self._joined.put)

    def describe(self) -> str:
        return str(self._output.name)

    def writes(self) -> list[str]:
        return self._output.paths()

    def open(self) -> None:
        self._begin()
        self._output.open()

    def write(self, results: Sequence[Any]) -> None:
        self._groups.rows(results)

    def write_table(self, table: Any) -> None:
        self._groups.table(table)

    def write_encoded(self, data: bytes, count: int) -> None:
        self._groups.encoded(data, count)

    def commit(self) -> None:
        self._joined.end(self._groups.end())
        self._output.commit()

    def abort(self) -> None:
        self._output.abort()
