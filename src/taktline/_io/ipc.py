"""Results and tables as files of Arrow's IPC format, which is Feather's too."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import IO, Any

from taktline._io.column_types import as_schema, normal
from taktline._io.output import IntoOutput, Output
from taktline._io.parquet import check_path, checked_pyarrow
from taktline._io.settling import Coming, Settled, Sizes, is_small
from taktline.errors import LineError

CODECS = ("lz4", "zstd", "none")
MAGIC = 8  # bytes before the messages


class Batches(Sizes):
    """How tables become batches of a file. Raises LineError for what Arrow cannot do."""

    def __init__(self, codec: str | None, level: int | None, row_group: int | None, part: int | None = None) -> None:
        super().__init__(row_group, part)
        if codec is not None and codec not in CODECS:
            raise LineError(f"codec={codec!r} is none of Arrow's: give one of {', '.join(CODECS)}")
        if level is not None and (codec != "zstd" or not isinstance(level, int) or not 1 <= level <= 22):
            raise LineError(f'level={level!r} is no level of Arrow: give codec="zstd", which has 1 to 22')
        self._codec = None if codec == "none" else codec
        self._level = level

    @property
    def options(self) -> Any:
        import pyarrow as pa

        codec = self._codec if self._level is None else pa.Codec(self._codec, compression_level=self._level)
        return pa.ipc.IpcWriteOptions(compression=codec)


class ArrowTables(Settled):
    """One stream of results and tables to tables of one schema. Categories are written as what they stand for: such a file
    has one list of them, and later tables may have others."""

    def __init__(self, schema: Any, sizes: Batches, put: Callable[[Any], None]) -> None:
        super().__init__(schema, sizes)
        self._put = put

    def _normal(self, table: Any, first: int) -> Any:
        from pyarrow import types

        table = normal(table, first)
        for at, field in enumerate(table.schema):
            if types.is_dictionary(field.type):
                kind = field.with_type(field.type.value_type)
                table = table.set_column(at, kind, table.column(at).cast(kind.type))
        return table

    def _write(self, piece: Coming) -> None:
        self._put(self._in_schema(piece))


class Into(io.RawIOBase):
    """What Arrow writes into: an output, for as long as its bytes are wanted, behind those that it has already."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.at = 0
        self.there = 0
        self.wanted = True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def write(self, data: Any) -> int:
        new = memoryview(data)[max(0, self.there - self.at) :]
        if self.wanted and new:
            self._output.write(new)
        self.at += len(data)
        return len(data)


class ArrowOut:
    """One file on its way into an output."""

    def __init__(self, output: Output, batches: Batches) -> None:
        self._output = output
        self._into = Into(output)
        self._batches = batches
        self._writer: Any = None
        self.count = 0  # batches

    def put(self, table: Any) -> None:
        from pyarrow import concat_tables

        self._begin(table.schema)
        if is_small(table):
            # With a second piece it is copied: Arrow writes the padding too of columns that are slices of longer ones.
            table = concat_tables([table, table.slice(0, 0)])
        for batch in table.combine_chunks().to_batches(max_chunksize=self._batches.most):
            self._writer.write_batch(batch)
            self.count += 1

    def _begin(self, schema: Any) -> None:
        import pyarrow as pa

        if self._writer is None:
            self._writer = pa.ipc.new_file(self._into, schema, options=self._batches.options)

    def end(self, schema: Any) -> None:
        self._begin(schema)
        self._writer.close()

    def give_up(self) -> None:
        """What comes is not wanted: its end is written when it is closed, or collected."""
        self._into.wanted = False
        if self._writer is not None:
            self._writer.close()

    def go_on(self, end: int, count: int) -> None:
        """Behind what is in the output: Arrow must have written it to write on, so it does so again, into nothing."""
        import pyarrow as pa

        self._into.there = end
        if not end:
            return
        stream = pa.ipc.open_stream(pa.py_buffer(self._output.so_far()).slice(MAGIC))
        self._begin(stream.schema)
        for _ in range(count):
            self._writer.write_batch(stream.read_next_batch())
        self.count = count


class ArrowFile(IntoOutput):
    """Results as the rows of an Arrow file; a missing key is a null."""

    no_journal = "where its batches lie is written last. Write a folder of parts, as write('out/', format='arrow') does"
    tables = True
    takes_failed = False

    def __init__(
        self, target: str | IO[bytes], schema: Any = None, codec: str | None = None, level: int | None = None,
        row_group: int | None = None,
    ) -> None:  # fmt: skip
        checked_pyarrow("Arrow")
        if isinstance(target, str):
            check_path(target, "Arrow")
        self._schema = as_schema(schema)
        self._batches = Batches(codec, level, row_group)
        self._output = Output(target)
        self._begin()

    def _begin(self) -> None:
        self._file = ArrowOut(self._output, self._batches)
        self._tables = ArrowTables(self._schema, self._batches, self._file.put)

    def write(self, results: Sequence[Any]) -> None:
        self._tables.rows(results)

    def write_table(self, table: Any) -> None:
        self._tables.table(table)

    def commit(self) -> None:
        self._file.end(self._tables.end())
        self._output.commit()

    def abort(self) -> None:
        self._file.give_up()
        super().abort()
