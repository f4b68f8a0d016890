"""Files and streams of Arrow's IPC format (Feather), by way of pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taktline._io.batch_files import BatchFile

MAGIC, FIRST_FEATHER = b"ARROW1", b"FEA1"


class IpcFile(BatchFile):
    """An open file or stream. Raises ArrowException, OSError or ValueError where it is none."""

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
            self.counts = [batch.num_rows for batch in self._stream]
            self._restart()
        else:
            self.schema_arrow = self._reader(None).schema
            some = self._reader((0,) if len(self.schema_arrow) else None)
            self.counts = [some.get_batch(at).num_rows for at in range(some.num_record_batches)]

    def close(self) -> None:
        self._readers.clear()

    def batch(self, at: int, columns: Sequence[str] | None) -> Any:
        wanted = self._in_order(columns)
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
