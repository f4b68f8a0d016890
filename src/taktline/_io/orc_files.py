"""Files of ORC, by way of pyarrow: their stripes are the record batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taktline._io.batch_files import BatchFile


class OrcFile(BatchFile):
    """An open file. Raises ArrowException, OSError or ValueError where it is none."""

    group_name = "stripe"

    def __init__(self, place: Any) -> None:
        from pyarrow import orc

        self._file = orc.ORCFile(place)
        self.schema_arrow = self._file.schema
        # pyarrow does not tell how many rows a stripe has, but of the whole file: a column of each is decoded for it.
        stripes, rows, narrow = self._file.nstripes, self._file.nrows, [self._narrow()]
        self.counts = (
            [rows] if stripes == 1 else [self._file.read_stripe(at, columns=narrow).num_rows for at in range(stripes)]
        )
        if self.num_rows != rows:
            raise ValueError(f"it tells of {rows:,} rows, and its stripes have {self.num_rows:,}")

    def _narrow(self) -> str:
        """A column that is decoded fast."""
        from pyarrow import types

        def cost(field: Any) -> int:
            plain = types.is_boolean(field.type) or types.is_integer(field.type) or types.is_floating(field.type)
            return field.type.bit_width if plain else 1 << 20

        return str(min(self.schema_arrow, key=cost).name)

    def batch(self, at: int, columns: Sequence[str] | None) -> Any:
        wanted = self._in_order(columns)
        batch = self._file.read_stripe(at, columns=wanted)
        return batch if wanted is None else batch.select(wanted)
