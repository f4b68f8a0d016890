"""Results and tables as the row groups of Parquet files, by way of pyarrow: each is made as a small file in memory, by a
worker or here, and the footers are joined. What the columns are is settled before the first one is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO, Any

from taktline._io.column_types import COLUMN_ROW, as_schema, in_schema, normal, row_at
from taktline._io.deposits import Deposit
from taktline._io.dictionaries import columns_with_dictionary
from taktline._io.footers import PARQUET_MAGIC, Footer
from taktline._io.output import IntoOutput, Output
from taktline._io.parquet import check_path, checked_pyarrow
from taktline._io.settling import Coming, Settled, Sizes, is_small
from taktline.errors import LineError, SinkError, unwritable

CODECS = ("snappy", "zstd", "gzip", "brotli", "lz4", "none")


class Packing(Sizes):
    """How row groups are made: what travels to workers. Raises LineError for what pyarrow cannot do."""

    def __init__(self, codec: str | None, level: int | None, row_group: int | None, part: int | None = None) -> None:
        if codec is not None and codec not in CODECS:
            raise LineError(f"codec={codec!r} is none of Parquet's: give one of {', '.join(CODECS)}")
        super().__init__(row_group, part)
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

    def file(self, table: Any) -> memoryview:
        """The table as a Parquet file. Raises pyarrow's exceptions."""
        import pyarrow as pa
        from pyarrow.parquet import write_table

        out = pa.BufferOutputStream()
        try:
            write_table(
                table, out, row_group_size=self.most, compression=self._codec, compression_level=self._level,
                use_dictionary=columns_with_dictionary(table),
            )  # fmt: skip
        except OSError as error:  # of decimals with a negative scale: what Parquet has no form for, as other types
            raise pa.ArrowInvalid(str(error)) from error
        return memoryview(out.getvalue()).cast("B")


def table_encoder(packing: Packing, schema: Any) -> Callable[[Any], memoryview]:
    return partial(_encoded, packing=packing, schema=schema)


def _encoded(table: Any, packing: Packing, schema: Any) -> memoryview:
    """In a worker: the row groups of a table. Raises ValueError where it is to be gathered with others, or cut."""
    if is_small(table) or table.num_rows > packing.whole:
        raise ValueError("a small table, which is written with others, or one that is cut")
    table = normal(table, 0)
    return packing.file(table if schema is None else in_schema(table, schema, 0, given=True))


class RowGroups(Settled):
    """One stream of results, tables and row groups that workers made to row groups of one schema."""

    def __init__(self, schema: Any, packing: Packing, put: Callable[[Footer], None]) -> None:
        super().__init__(schema, packing)
        self._packing = packing
        self._put = put
        self._head: Footer | None = None
        self._alike: list[Any] = []  # schemas and keys of footers that can be joined to the head as they are

    def encoded(self, data: bytes | memoryview | Deposit, count: int) -> None:
        import pyarrow as pa
        from pyarrow.parquet import read_schema

        self._tables = True
        self._all_so_far()
        footer = Footer(data)
        if (footer.schema, footer.keys) in self._alike:
            self._put(footer)
        else:
            data = data.read() if isinstance(data, Deposit) else bytes(data)  # it may have to wait
            self._take(Coming(self._count, count, data, read_schema(pa.BufferReader(data)), len(data)))
        self._count += count

    @property
    def head(self) -> Footer:
        """What all files begin from: a footer of their schema, without rows."""
        if self._head is None:
            self._head = Footer(file_of(_without_rows(self._schema), self._packing, self._count))
        return self._head

    def _as_table(self, made: Any) -> Any:
        if not isinstance(made, bytes):
            return made
        import pyarrow as pa
        from pyarrow.parquet import read_table

        return read_table(pa.BufferReader(made), use_threads=False)

    def _as_read(self, schema: Any) -> Any:
        """As a file tells it: how fields in lists are called, say."""
        import pyarrow as pa
        from pyarrow.parquet import read_schema

        first = self._held[0]
        head = file_of(_without_rows(schema), self._packing, first.first, self._row(first))
        return read_schema(pa.BufferReader(head))

    def _write(self, piece: Coming) -> None:
        if isinstance(piece.made, bytes) and piece.schema.equals(self._schema):
            footer = Footer(piece.made)
            if footer.schema == self.head.schema:
                self._alike.append((footer.schema, footer.keys))
                self._put(footer)
                return
        self._put(Footer(file_of(self._in_schema(piece), self._packing, piece.first)))


def _without_rows(schema: Any) -> Any:
    """A table of this schema. pyarrow's own `empty_table` imports pandas, which may take half a second."""
    import pyarrow as pa

    return pa.Table.from_batches([], schema=schema)


def file_of(table: Any, packing: Packing, first: int, row: Callable[[], Any] | None = None) -> memoryview:
    """Row groups of a table that is of the file's schema. Raises SinkError where Parquet has no form for it; `row`: the first
    one, where the table has none."""
    import pyarrow as pa

    try:
        return packing.file(table)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        why = next(_formless(table.schema, packing), str(error))
        if table.num_rows:
            row = partial(row_at, table, 0)
        if row is None:
            raise SinkError(f"the results cannot be written as rows of columns: {why}") from error
        raise unwritable(first, row(), why, COLUMN_ROW) from error


def _formless(schema: Any, packing: Packing) -> Iterator[str]:
    """Why a column of this type is none of Parquet's."""
    import pyarrow as pa

    for field in schema:
        try:
            packing.file(_without_rows(pa.schema([field])))
        except (pa.ArrowException, ValueError, OverflowError) as error:
            yield f"its {field.name!r} is {field.type}, for which Parquet has no form: {str(error).strip()}"


class Joined:
    """One Parquet file on its way into an output."""

    def __init__(self, output: Output, at: int = 0, said: Sequence[bytes] = (), rows: int = 0) -> None:
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
            self._output.write(PARQUET_MAGIC)
            self.at = len(PARQUET_MAGIC)


class ParquetFile(IntoOutput):
    """Results as the rows of a Parquet file; a missing key is a null."""

    no_journal = (
        "what says where its row groups lie is written last, and pyarrow cannot go on in a file without that. "
        "Write a folder of parts, as write('out/', format='parquet') does"
    )
    tables = True
    encoded_in_place = True
    takes_failed = False

    def __init__(
        self, target: str | IO[bytes], schema: Any = None, codec: str | None = None, level: int | None = None,
        row_group: int | None = None,
    ) -> None:  # fmt: skip
        checked_pyarrow()
        if isinstance(target, str):
            check_path(target)
        self._schema = as_schema(schema)
        self._packing = Packing(codec, level, row_group)
        self._output = Output(target)
        self.table_encoder = table_encoder(self._packing, schema)
        self._begin()

    def _begin(self) -> None:
        self._joined = Joined(self._output)
        self._groups = RowGroups(self._schema, self._packing, self._joined.put)

    def write(self, results: Sequence[Any]) -> None:
        self._groups.rows(results)

    def write_table(self, table: Any) -> None:
        self._groups.table(table)

    def write_encoded(self, data: bytes | memoryview, count: int) -> None:
        self._groups.encoded(data, count)

    def commit(self) -> None:
        self._groups.end()
        self._joined.end(self._groups.head)
        self._output.commit()
