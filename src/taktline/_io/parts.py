"""A folder of files, one after the other: `part-00000.jsonl`, `part-00001.jsonl`, … It is made beside its place, under a name
that begins with a dot, and is there as a whole at the end; at a URL `stored_building.py` says what stands for that."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from taktline._io import opening, remote
from taktline._io.building import Building
from taktline._io.column_types import results_of
from taktline._io.deposits import Deposit, Deposits, leaving
from taktline._io.lines import LineForm, lines_of
from taktline._io.output import Output
from taktline._io.partitions import Partitions
from taktline._io.settling import Settled
from taktline._io.stored_building import StoredBuilding
from taktline.abc import Resumable
from taktline.errors import OutputLost, SinkError

PART_ROWS = 1_000_000  # of a part, where nobody says how many,
ANY_SIZE = 1 << 60  # or how large it is to be
MOST = 500  # partitions: each has a file open
FOLDER_MODES = (None, "replace", "append")
CODEC_SUFFIXES = {"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2", "xz": ".xz"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What each part is, and how large."""

    format: str
    rows: int
    size: int | None = None  # bytes: of lines before they are packed
    codec: str | None = None
    level: int | None = None
    schema: Any = None
    row_group: int | None = None

    @property
    def suffix(self) -> str:
        own = {"text": ".txt"}.get(self.format, f".{self.format}")
        return own if self.of_columns else own + CODEC_SUFFIXES.get(self.codec or "", "")

    @property
    def of_columns(self) -> bool:
        return self.format in opening.OF_COLUMNS


class Parts(Protocol):
    """Results on their way into the parts of one folder."""

    encoder: Any
    table_encoder: Any

    def write(self, results: Sequence[Any]) -> None: ...
    def write_table(self, table: Any) -> None: ...
    def write_encoded(self, data: bytes | memoryview | Deposit, count: int) -> None: ...
    def end(self) -> None:
        """All were given."""

    def close(self) -> None:
        """Let go of what is open, and leave it there."""

    def state(self) -> dict[str, Any]:
        """How far it is; all of that is safe."""

    def go_on(self, state: dict[str, Any]) -> None: ...


class PlaceOfParts(Protocol):
    """Where the parts of one folder are."""

    def output(self, name: str, level: int | None) -> Output: ...
    def ended(self, name: str, output: Output) -> None: ...
    def only_up_to(self, number: int) -> None: ...


class _OpenPart:
    """The open one among numbered files."""

    def __init__(self, place: PlaceOfParts, kind: Kind) -> None:
        self._place = place
        self._kind = kind
        self._number = -1
        self.rows = self.size = 0  # in it, and bytes of those
        self.output: Output | None = None

    @property
    def room(self) -> int:
        """Rows that it can still have."""
        return self._kind.rows - self.rows if self.output is not None else 0

    def next(self) -> Output:
        """Begin the next one."""
        assert self.output is None
        self._number += 1
        self.rows = self.size = 0
        self.output = self._output()
        self.output.begin()
        return self.output

    def end(self) -> None:
        if self.output is not None:
            output, self.output = self.output, None
            output.commit()
            self._place.ended(self._name, output)

    @property
    def none(self) -> bool:
        """Whether not even one was begun."""
        return self._number < 0

    def close(self) -> None:
        if self.output is not None:
            self.output.suspend()

    def state(self) -> dict[str, Any]:
        position = self.output.position() if self.output is not None else None
        return {"number": self._number, "rows": self.rows, "size": self.size, "position": position}

    def go_on(self, state: dict[str, Any]) -> None:
        """Take away what came behind, and go on in the part that was open."""
        self._number, self.rows, self.size, position = (state[name] for name in ("number", "rows", "size", "position"))
        self._place.only_up_to(self._number)
        if position is None:
            return
        self.output = self._output()
        self.output.take_back()
        self.output.resume(position)

    @property
    def _name(self) -> str:
        return f"part-{self._number:05}{self._kind.suffix}"

    def _output(self) -> Output:
        return self._place.output(self._name, None if self._kind.of_columns else self._kind.level)


class LineParts:
    """Of lines: each part but the last one has as many as it may have."""

    def __init__(self, place: PlaceOfParts, kind: Kind) -> None:
        self._part = _OpenPart(place, kind)
        self._kind = kind
        self._lines: LineForm = lines_of(kind.format)
        # What other packages make of some results cannot be cut where a part ends.
        self.encoder = self._lines.encoder if kind.format in opening.BUILT_IN else None
        self.table_encoder = self._lines.table_encoder
        self._count = 0

    def write(self, results: Sequence[Any]) -> None:
        at = 0
        while at < len(results):
            some = results[at : at + self._room()]
            self._cut(self._lines.rows(some, self._count), some)
            at += len(some)

    def write_table(self, table: Any) -> None:
        from taktline._io.texts import NotExact

        at = 0
        while at < table.num_rows:
            some = table.slice(at, self._room())
            try:
                data = self._lines.table(some, self._count)
            except NotExact:
                data = self._lines.rows(results_of(some, self._count), self._count)
            self._cut(data, some)
            at += some.num_rows

    def write_encoded(self, data: bytes | memoryview | Deposit, count: int) -> None:
        if isinstance(data, Deposit):
            if self._takes_whole(data, count):
                assert self._part.output is not None
                self._part.output.write(data)
                self._wrote(count, len(data))
                return
            data = data.read()
        data = self._lines.taken(bytes(data), self._count)
        while count > (room := self._room()):
            end = self._lines.cut(data, room)
            if end is None:
                self.write(self._lines.read(data))
                return
            self._put(data[:end], room)
            data, count = data[end:], count - room
        if self._kind.size is not None and self._lines.cut(data, count) is None:
            self.write(self._lines.read(data))
        else:
            self._put(data, count)

    def _takes_whole(self, data: Deposit, count: int) -> bool:
        """Whether these lines go into the open part as they are: only they need not be looked at."""
        fits = self._kind.size is None or len(data) <= self._kind.size - self._part.size
        return self._lines.as_made and fits and count <= self._part.room

    def _cut(self, data: bytes, some: Any) -> None:
        """The lines of some results, or of a table; where they are not told apart by their ends, one by one."""
        if self._kind.size is None or self._lines.cut(data, len(some)) is not None:
            self._put(data, len(some))
            return
        for result in some if not hasattr(some, "num_rows") else results_of(some, self._count):
            self._put(self._lines.rows([result], self._count), 1, whole=True)

    def _room(self) -> int:
        """Of the open part, or of the next one."""
        return self._part.room or self._kind.rows

    def _put(self, data: bytes, count: int, *, whole: bool = False) -> None:
        """Lines for which a part has rows left. `whole`: they stay together."""
        while count:
            if not self._part.room:
                self._begin()
            end, some = self._fitting(data, count, whole)
            if not some:
                self._begin()
                continue
            assert self._part.output is not None
            self._part.output.write(data[:end] if end < len(data) else data)
            self._wrote(some, end)
            data, count = data[end:], count - some

    def _wrote(self, count: int, size: int) -> None:
        self._part.rows += count
        self._part.size += size
        self._count += count

    def _begin(self) -> None:
        self._part.end()
        head = self._lines.head()
        self._part.next().write(head)
        self._part.size = len(head)

    def _fitting(self, data: bytes, count: int, whole: bool) -> tuple[int, int]:
        """How much of these lines the open part has room for, as bytes and as results. One that alone is too large has a part
        of its own."""
        if self._kind.size is None or len(data) <= (left := self._kind.size - self._part.size):
            return len(data), count
        end = 0 if whole else data.rfind(b"\n", 0, max(0, left)) + 1
        if not end and not self._part.rows:
            end = len(data) if whole else data.index(b"\n") + 1
        return end, count if end == len(data) else data.count(b"\n", 0, end)

    def end(self) -> None:
        if self._part.none:
            self._part.next()
        self._part.end()

    def close(self) -> None:
        self._part.close()

    def state(self) -> dict[str, Any]:
        return {"part": self._part.state(), "count": self._count, "header": self._lines.header}

    def go_on(self, state: dict[str, Any]) -> None:
        self._part.go_on(state["part"])
        self._count, self._lines.header = state["count"], state["header"]


class ColumnParts:
    """Of tables, of which what is written at once is never cut: a part ends before one with which it would have too many
    rows or bytes."""

    encoder = None
    table_encoder: Any = None
    _groups: Settled
    _file: Any = None  # what the open part's rows go through

    def __init__(self, place: PlaceOfParts, kind: Kind) -> None:
        self._part = _OpenPart(place, kind)
        self._size = kind.size

    def _begin(self, output: Output) -> Any:
        """A file of this kind."""
        raise NotImplementedError

    def _end(self) -> None:
        """Write the end of the open one."""
        raise NotImplementedError

    def write(self, results: Sequence[Any]) -> None:
        self._groups.rows(results)

    def write_table(self, table: Any) -> None:
        self._groups.table(table)

    def write_encoded(self, data: bytes | memoryview | Deposit, count: int) -> None:
        raise NotImplementedError

    def _put(self, made: Any, rows: int, size: int) -> None:
        full = self._size is not None and bool(self._part.rows) and self._part.size + size > self._size
        if rows > self._part.room or full:
            self._end_part()
            self._file = self._begin(self._part.next())
        self._file.put(made)
        self._part.rows += rows
        self._part.size += size

    def _end_part(self) -> None:
        if self._file is not None:
            self._end()
            self._file = None
            self._part.end()

    def end(self) -> None:
        self._groups.end()
        if self._part.none:
            self._file = self._begin(self._part.next())
        self._end_part()

    def close(self) -> None:
        self._part.close()

    def state(self) -> dict[str, Any]:
        return {"part": self._part.state(), "groups": self._groups.state()}

    def go_on(self, state: dict[str, Any]) -> None:
        self._part.go_on(state["part"])
        self._groups.go_on(state["groups"])
        if self._part.output is not None:
            self._file = self._begin(self._part.output)


class ParquetParts(ColumnParts):
    def __init__(self, place: PlaceOfParts, kind: Kind) -> None:
        from taktline._io import row_groups

        super().__init__(place, kind)
        packing = row_groups.Packing(kind.codec, kind.level, kind.row_group, kind.rows)
        self._row_groups = row_groups.RowGroups(kind.schema, packing, self._put_group)
        self._groups = self._row_groups
        self.table_encoder = row_groups.table_encoder(packing, kind.schema)

    def _put_group(self, footer: Any) -> None:
        self._put(footer, footer.rows, len(footer.body))

    def _begin(self, output: Output) -> Any:
        from taktline._io.row_groups import Joined

        return Joined(output)

    def _end(self) -> None:
        self._file.end(self._row_groups.head)

    def write_encoded(self, data: bytes | memoryview | Deposit, count: int) -> None:
        self._row_groups.encoded(data, count)

    def state(self) -> dict[str, Any]:
        joined = self._file
        return {**super().state(), "said": joined and (joined.at, joined.said, joined.rows)}

    def go_on(self, state: dict[str, Any]) -> None:
        super().go_on(state)
        if self._file is not None:
            self._file.at, self._file.said, self._file.rows = state["said"]


class ArrowParts(ColumnParts):
    def __init__(self, place: PlaceOfParts, kind: Kind) -> None:
        from taktline._io import ipc

        super().__init__(place, kind)
        self._batches = ipc.Batches(kind.codec, kind.level, kind.row_group, kind.rows)
        self._groups = ipc.ArrowTables(kind.schema, self._batches, self._put_table)

    def _put_table(self, table: Any) -> None:
        self._put(table, table.num_rows, table.nbytes)

    def _begin(self, output: Output) -> Any:
        from taktline._io.ipc import ArrowOut

        return ArrowOut(output, self._batches)

    def _end(self) -> None:
        self._file.end(self._groups.settled)

    def close(self) -> None:
        if self._file is not None:
            self._file.give_up()
        super().close()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "batches": self._file and self._file.count}

    def go_on(self, state: dict[str, Any]) -> None:
        super().go_on(state)
        if self._part.output is not None:
            self._file.go_on(state["part"]["position"]["bytes"], state["batches"])


_OF_COLUMNS: dict[str, type[ColumnParts]] = {"parquet": ParquetParts, "arrow": ArrowParts}


class Folder(Resumable):
    """Results as the parts of a folder."""

    def __init__(self, path: str, kind: Kind, mode: str | None, partition_by: Sequence[str]) -> None:
        self._building: Building | StoredBuilding = (
            StoredBuilding(path, mode) if remote.is_url(path) else Building(path, mode, kind.suffix)
        )
        self._mode = mode
        self._kind = kind
        self._by = Partitions(partition_by, stored=remote.is_url(path)) if partition_by else None
        self._streams: dict[str, Parts] = {}
        self._count = 0
        self._saved = 0
        self._deposits: Deposits | None = None
        told = self._stream_in("")
        self.tables = told.table_encoder is not None or kind.of_columns
        self.encoded_in_place = kind.format == "parquet"
        self.takes_failed = kind.format == "jsonl" and self._by is None
        if self._by is None:
            self.encoder, self.table_encoder = told.encoder, told.table_encoder

    def _stream_in(self, name: str) -> Parts:
        return _OF_COLUMNS.get(self._kind.format, LineParts)(self._building.parts(name), self._kind)

    def describe(self) -> str:
        return self._building.path

    def writes(self) -> list[str]:
        return [self._building.url if isinstance(self._building, StoredBuilding) else self._building.path]

    def adds(self) -> list[str]:
        (folder,) = self.writes()
        folder = folder.rstrip("/")
        replaced = [f"{folder}/"] if self._mode == "replace" else []
        inside = "".join(f"{name}=value/" for name in self._by.names) if self._by is not None else ""
        return [*replaced, f"{folder}/{inside}part-99999{self._kind.suffix}"]

    def _stream(self, name: str = "") -> Parts:
        if name not in self._streams:
            if len(self._streams) >= MOST:
                raise SinkError(
                    f"result {self._count:,} would begin the partition {name!r} beside {MOST} others, each of which has a "
                    "file open; partition by a column of fewer values",
                    path=self._building.path,
                )
            self._building.make(name)
            self._streams[name] = self._stream_in(name)
        return self._streams[name]

    def write(self, results: Sequence[Any]) -> None:
        if self._by is None:
            self._stream().write(results)
        else:
            for name, some in self._by.rows(results, self._count):
                self._stream(name).write(some)
        self._count += len(results)

    def write_table(self, table: Any) -> None:
        if self._by is None:
            self._stream().write_table(table)
        else:
            for name, some in self._by.table(table, self._count):
                self._stream(name).write_table(some)
        self._count += table.num_rows

    def encoders_elsewhere(self) -> tuple[Any, Any]:
        """They leave what they make in a folder beside the parts, as far as their machine has it, and tell its name."""
        if self._by is not None or isinstance(self._building, StoredBuilding) or not self._building.is_open:
            return self.encoder, self.table_encoder
        self._deposits = Deposits(self._building.deposits())
        folder = self._deposits.folder
        return leaving(self.encoder, folder), leaving(self.table_encoder, folder)

    def write_encoded(self, data: bytes | memoryview, count: int) -> None:
        if self._deposits is None:
            self._stream().write_encoded(data, count)
        else:
            told = self._deposits.told(data)
            try:
                self._stream().write_encoded(told, count)
            except OSError as error:  # of a file that a worker has left
                raise SinkError(
                    f"{self._building.path!r} cannot be written: {error}", path=self._building.path
                ) from error
            self._deposits.done_with(told)
        self._count += count

    def notes(self) -> list[str]:
        if self._deposits is None or not self._deposits.unseen:
            return []
        return [
            f"some workers do not have the folder {os.path.dirname(self._building.path)!r}: what they made for it went "
            "through the caller's process"
        ]

    def commit(self) -> None:
        if not self._count and self._building.adds_to_parts:
            self._close()  # a part without rows, and perhaps without columns, would be of no use to whoever reads them
        elif self._by is None and not self._building.is_adding:
            self._stream()  # no results make one part without any
        for stream in self._streams.values():
            stream.end()
        self._building.publish()

    def open(self) -> None:
        self._start(lambda: self._building.open())

    def _start(self, build: Callable[[], None]) -> None:
        self._streams, self._count, self._saved, self._deposits = {}, 0, 0, None
        build()

    def abort(self) -> None:
        self._close()
        self._building.abandon()

    def _close(self) -> None:
        for stream in self._streams.values():
            stream.close()
        self._streams = {}

    # --- with a journal ---

    def fingerprint(self) -> Any:
        kind, by = self._kind, self._by
        schema = str(kind.schema) if kind.schema is not None else None
        options = [
            kind.rows,
            *([kind.size] if kind.size is not None else []),
            kind.codec,
            kind.level,
            kind.row_group,
            schema,
        ]
        return [self._building.path, kind.format, options, self._mode, by.names if by is not None else None]

    def beside(self, journal: str) -> None:
        self._building.beside(journal)

    def begin(self, run: str) -> None:
        self._start(lambda: self._building.begin(run))

    def save(self, mark: str) -> Any:
        """Whole parts stay as they are; how far the open ones are stands in a file or object beside them."""
        import cloudpickle

        self._saved += 1
        states = {name: stream.state() for name, stream in self._streams.items()}
        noted = self._building.note(self._saved, cloudpickle.dumps(states))
        return {"saved": self._saved, "results": self._count, **noted}

    def resume(self, run: str, position: Any) -> None:
        self._start(lambda: self._building.take_up(run, position))
        self._count, self._saved = position["results"], position["saved"]
        if self._building.is_adding:
            return
        import cloudpickle

        try:
            states = cloudpickle.loads(self._building.noted_at(position))
            self._building.keep_only(states)
            for name, state in states.items():
                self._stream(name).go_on(state)
        except OSError as error:
            self.suspend()
            raise OutputLost(
                path=self._building.path, why=f"what was written of {self._building.path!r} is gone: {error}"
            ) from error
        except OutputLost:
            self.suspend()
            raise

    def suspend(self) -> None:
        self._close()
        self._building.let_go()

    def finished(self, run: str, position: Any) -> bool:
        return self._building.is_published(run, position)

    def committed(self, position: Any) -> Any:
        return {**position, "made": self._building.made_at(position)}

    def noted(self) -> None:
        self._building.forget_owner()

    def forget(self, run: str, position: Any) -> None:
        self._building.forget(run)

    def is_gone(self, run: str, position: Any) -> str:
        why, self.visible = self._building.is_gone(run, position)
        return why
