"""Files and streams of Arrow's IPC format (Feather), shown as pyarrow shows those of Parquet, with record batches as row
groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MAGIC, FIRST_FEATHER = b"ARROW1", b"FEA1"


@dataclass(frozen=True, slots=True)
class ColumnAbout:
    """A column of a row group. Its size is reckoned from that of the first one."""

    path_in_schema: str
    total_uncompressed_size: int
    statistics: None = None


@dataclass(frozen=True, slots=True)
class RecordBatchAbout:
    """What is known of a record batch."""

    num_rows: int
    weights: Sequence[tuple[str, float]]  # of each column, the bytes of a row

    @property
    def num_columns(self) -> int:
        """How many it has."""
        return len(self.weights)

    def column(self, at: int) -> ColumnAbout:
        """What is known of one of them."""
        name, weight = self.weights[at]
        return ColumnAbout(name, int(weight * self.num_rows))


class IpcFile:
    """An open file or stream. Raises ArrowException, OSError or ValueError where it is none."""

    group_name = "record batch"

    def __init__(self, place: Any) -> None:

        self._place = place
        head = place.read(len(MAGIC))
        place.seek(0)
        if head.startswith(FIRST_FEATHER):
            raise ValueError("it is of the first version of Feather; write it anew, with version=2")
        self._is_stream = head != MAGIC
        self._newest: tuple[int, Any] = (-1, None)  # of a stream: a batch and its place
        self._readers: dict[tuple[int, ...] | None, Any] = {}
        if self._is_stream:
            self._restart()
            self.schema_arrow = self._stream.schema
            first, counts = None, []
            for batch in self._stream:
                first = batch if first is None else first
                counts.append(batch.num_rows)
            self._restart()
        else:
            self.schema_arrow = self._reader(None).schema
            some = self._reader((0,) if len(self.schema_arrow) else None)
            counts = [some.get_batch(at).num_rows for at in range(some.num_record_batches)]
            first = self._reader(None).get_batch(0) if counts else None
        self._counts = counts
        rows = max(1, first.num_rows) if first is not None else 1
        self._weights = [
            (name, 0.0 if first is None else first.column(at).nbytes / rows)
            for at, name in enumerate(self.schema_arrow.names)
        ]

    def __enter__(self) -> IpcFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.clear()

    @property
    def metadata(self) -> IpcFile:
        """What is known of the rows and of how they lie."""
        return self

    @property
    def num_rows(self) -> int:
        """Of all batches."""
        return sum(self._counts)

    @property
    def num_columns(self) -> int:
        """Of all batches."""
        return len(self._weights)

    @property
    def num_row_groups(self) -> int:
        """The batches."""
        return len(self._counts)

    def row_group(self, at: int) -> RecordBatchAbout:
        """What is known of one of them."""
        return RecordBatchAbout(self._counts[at], self._weights)

    def read_row_group(self, at: int, columns: Sequence[str] | None = None, use_threads: bool = False) -> Any:
        """One of them as a Table, its columns in the file's order."""
        import pyarrow as pa

        return pa.Table.from_batches([self._batch(at, columns)])

    def iter_batches(
        self, size: int, row_groups: Sequence[int], columns: Sequence[str] | None = None, use_threads: bool = False
    ) -> Iterator[Any]:
        """The rows of some of them, so many at once."""
        for at in row_groups:
            batch = self._batch(at, columns)
            yield from (batch.slice(row, size) for row in range(0, batch.num_rows, size))

    def _batch(self, at: int, columns: Sequence[str] | None) -> Any:
        wanted = None if columns is None else [name for name in self.schema_arrow.names if name in columns]
        if not self._is_stream:
            fields = None if not wanted else tuple(map(self.schema_arrow.get_field_index, wanted))
            batch = self._reader(fields).get_batch(at)
        else:
            if at < self._newest[0]:
                self._restart()
            while self._newest[0] < at:
                self._newest = (self._newest[0] + 1, self._stream.read_next_batch())
            batch = self._newest[1]
        return batch if wanted is None else batch.select(wanted)

    def _restart(self) -> None:
        from pyarrow import ipc

        self._place.seek(0)
        self._stream = ipc.open_stream(self._place, options=ipc.IpcReadOptions(use_threads=False))
        self._newest = (-1, None)

    def _reader(self, fields: tuple[int, ...] | None) -> Any:
        """Of these columns alone: others are not unpacked."""
        from pyarrow import ipc

        if fields not in self._readers:
            options = ipc.IpcReadOptions(included_fields=list(fields or ()), use_threads=False)
            self._readers[fields] = ipc.open_file(self._place, options=options)
        return self._readers[fields]
