"""Files that hold record batches, shown as pyarrow shows those of Parquet, with the batches as row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


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


class BatchFile:
    """An open file. Each kind sets what follows, and says how a batch is read."""

    group_name = "record batch"
    schema_arrow: Any
    counts: list[int]  # rows of each batch

    def batch(self, at: int, columns: Sequence[str] | None) -> Any:
        """One of the record batches, with these columns in the file's order."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what is kept of the file."""

    def __enter__(self) -> BatchFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def metadata(self) -> BatchFile:
        """What is known of the rows and of how they lie."""
        return self

    @property
    def num_rows(self) -> int:
        """Of all batches."""
        return sum(self.counts)

    @property
    def num_columns(self) -> int:
        """Of all batches."""
        return len(self.schema_arrow)

    @property
    def num_row_groups(self) -> int:
        """The batches."""
        return len(self.counts)

    def row_group(self, at: int) -> RecordBatchAbout:
        """What is known of one of them."""
        return RecordBatchAbout(self.counts[at], self._weights)

    @cached_property
    def _weights(self) -> list[tuple[str, float]]:
        """Of each column, the bytes of a row of the first batch."""
        if not self.counts:
            return [(name, 0.0) for name in self.schema_arrow.names]
        first = self.batch(0, None)
        rows = max(1, first.num_rows)
        return [(name, first.column(at).nbytes / rows) for at, name in enumerate(self.schema_arrow.names)]

    def read_row_group(self, at: int, columns: Sequence[str] | None = None, use_threads: bool = False) -> Any:
        """One of them as a Table, its columns in the file's order."""
        import pyarrow as pa

        return pa.Table.from_batches([self.batch(at, columns)])

    def iter_batches(
        self, size: int, row_groups: Sequence[int], columns: Sequence[str] | None = None, use_threads: bool = False
    ) -> Iterator[Any]:
        """The rows of some of them, so many at once."""
        for at in row_groups:
            batch = self.batch(at, columns)
            yield from (batch.slice(row, size) for row in range(0, batch.num_rows, size))

    def _in_order(self, columns: Sequence[str] | None) -> list[str] | None:
        """These columns in the file's order; None for all."""
        return None if columns is None else [name for name in self.schema_arrow.names if name in columns]
