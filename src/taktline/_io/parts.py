"""A folder of files, one after the other: `part-00000.jsonl`, `part-00001.jsonl`, … It is made beside its place, under a name
that begins with a dot, and is there as a whole at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from taktline._arrow import records_of
from taktline._io import opening, remote
from taktline._io.building import Building
from taktline._io.lines import LineForm, lines_of
from taktline._io.partitions import Partitions
from taktline._io.settled import Settled
from taktline.abc import Resumable
from taktline.errors import LineError, OutputLost, SinkError

ROWS = 1_000_000  # of a part, where nobody says how many
MOST = 500  # partitions: each has a file open
MODES = (None, "replace", "append")
SUFFIXES = {"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2", "xz": ".xz"}


@dataclass(frozen=True, slots=True)
class Kind:
    """What each part is, and how large."""

    format: str
    rows: int
    codec: str | None = None
    level: int | None = None
    schema: Any = None
    row_group: int | None = None

    @property
    def suffix(self) -> str:
        own = {"text": ".txt"}.get(self.format, f".{self.format}")
        return own if self.of_columns else own + SUFFIXES.get(self.codec or "", "")

    @property
    def of_columns(self) -> bool:
        return self.format in opening.OF_COLUMNS


class Parts(Protocol):
    """Results on their way into the parts of one folder."""

    encoder: Any
    table_encoder: Any

    def write(self, results: Sequence[Any]) -> None: ...
    def write_table(self, table: Any) -> None: ...
    def write_encoded(self, data: bytes, count: int) -> None: ...
    def end(self) -> None:
        """All were given."""

    def close(self) -> None:
        """Let go of what is open, and leave it there."""

    def state(self) -> dict[str, Any]:
        """How far it is; all of that is safe."""

    def go_on(self, state: dict[str, Any]) -> None: ...


class _OpenPart:
    """The open one among numbered files."""

    def __init__(self, folder: str, kind: Kind) -> None:
        self._folder = folder
        self._kind = kind
        self._number = -1
        self.rows = 0  # in it
        self.output: opening.Output | None = None

    @property
    def room(self) -> int:
        """Rows that it can still have."""
        return self._kind.rows - self.rows if self.output is not None else 0

    def next(self) -> opening.Output:
        """Begin the next one."""
        assert self.output is None
        self._number += 1
        self.rows = 0
        self.output = self._output()
        self.output.begin()
        return self.output

    def end(self) -> None:
        if self.output is not None:
            output, self.output = self.output, None
            output.commit()

    @property
    def none(self) -> bool:
        """Whether not even one was begun."""
        return self._number < 0

    def close(self) -> None:
        if self.output is not None:
            self.output.suspend()

    def state(self) -> dict[str, Any]:
        position = self.output.position() if self.output is not None else None
        return {"number": self._number, "rows": self.rows, "position": position}

    def go_on(self, state: dict[str, Any]) -> None:
        """Take away what came behind, and go on in the part that was open."""
        self._number, self.rows, position = state["number"], state["rows"], state["position"]
        for number, name in _parts_in(self._folder):
            if number > self._number:
                os.unlink(os.path.join(self._folder, name))
        if position is None:
            return
        self.output = self._output()
        self.output.take_back()
        self.output.resume(position)

    def _path(self) -> str:
        return os.path.join(self._folder, f"part-{self._number:05}{self._kind.suffix}")

    def _output(self) -> opening.Output:
        return opening.Output(self._path(), None if self._kind.of_columns else self._kind.level)


def _parts_in(folder: str) -> Iterator[tuple[int, str]]:
    """Those of a folder, whole or not, with their numbers."""
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            number = name.lstrip(".").removeprefix("part-").partition(".")[0]
            if number.isdecimal():
                yield int(number), name


class LineParts:
    """Of lines: each part but the last one has as many as it may have."""

    def __init__(self, folder: str, kind: Kind) -> None:
        self._part = _OpenPart(folder, kind)
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
            self._put(self._lines.rows(some, self._count), len(some))
            at += len(some)

    def write_table(self, table: Any) -> None:
        from taktline._io.texts import NotExact

        at = 0
        while at < table.num_rows:
            some = table.slice(at, self._room())
            try:
                data = self._lines.table(some, self._count)
            except NotExact:
                data = self._lines.rows(records_of(some), self._count)
            self._put(data, some.num_rows)
            at += some.num_rows

    def write_encoded(self, data: bytes, count: int) -> None:
        data = self._lines.taken(data, self._count)
        while count > (room := self._room()):
            end = self._lines.cut(data, room)
            if end is None:
                self.write(self._lines.read(data))
                return
            self._put(data[:end], room)
            data, count = data[end:], count - room
        self._put(data, count)

    def _room(self) -> int:
        """Of the open part, or of the next one."""
        return self._part.room or self._kind.rows

    def _put(self, data: bytes, count: int) -> None:
        if not count:
            return
        if not self._part.room:
            self._part.end()
            self._part.next().write(self._lines.head())
        assert self._part.output is not None
        self._part.output.write(data)
        self._part.rows += count
        self._count += count

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
    rows."""

    encoder = None
    table_encoder: Any = None
    _groups: Settled
    _file: Any = None  # what the open part's rows go through

    def __init__(self, folder: str, kind: Kind) -> None:
        self._part = _OpenPart(folder, kind)

    def _begin(self, output: opening.Output) -> Any:
        """A file of this kind."""
        raise NotImplementedError

    def _end(self) -> None:
        """Write the end of the open one."""
        raise NotImplementedError

    def write(self, results: Sequence[Any]) -> None:
        self._groups.rows(results)

    def write_table(self, table: Any) -> None:
        self._groups.table(table)

    def write_encoded(self, data: bytes, count: int) -> None:
        raise NotImplementedError

    def _put(self, made: Any, rows: int) -> None:
        if rows > self._part.room:
            self._end_part()
            self._file = self._begin(self._part.next())
        self._file.put(made)
        self._part.rows += rows

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
    def __init__(self, folder: str, kind: Kind) -> None:
        from taktline._io import row_groups

        super().__init__(folder, kind)
        packing = row_groups.Packing(kind.codec, kind.level, kind.row_group, kind.rows)
        self._row_groups = row_groups.RowGroups(kind.schema, packing, lambda footer: self._put(footer, footer.rows))
        self._groups = self._row_groups
        self.table_encoder = row_groups.table_encoder(packing, kind.schema)

    def _begin(self, output: opening.Output) -> Any:
        from taktline._io.row_groups import Joined

        return Joined(output)

    def _end(self) -> None:
        self._file.end(self._row_groups.head)

    def write_encoded(self, data: bytes, count: int) -> None:
        self._row_groups.encoded(data, count)

    def state(self) -> dict[str, Any]:
        joined = self._file
        return {**super().state(), "said": joined and (joined.at, joined.said, joined.rows)}

    def go_on(self, state: dict[str, Any]) -> None:
        super().go_on(state)
        if self._file is not None:
            self._file.at, self._file.said, self._file.rows = state["said"]


class ArrowParts(ColumnParts):
    def __init__(self, folder: str, kind: Kind) -> None:
        from taktline._io import ipc

        super().__init__(folder, kind)
        self._batches = ipc.Batches(kind.codec, kind.level, kind.row_group, kind.rows)
        self._groups = ipc.ArrowTables(kind.schema, self._batches, lambda table: self._put(table, table.num_rows))

    def _begin(self, output: opening.Output) -> Any:
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
            self._file.go_on(self._part.output.part, state["part"]["position"]["bytes"], state["batches"])


_OF_COLUMNS: dict[str, type[ColumnParts]] = {"parquet": ParquetParts, "arrow": ArrowParts}


class Folder(Resumable):
    """Results as the parts of a folder."""

    def __init__(self, path: str, kind: Kind, mode: str | None, partition_by: Sequence[str]) -> None:
        if remote.is_url(path):
            raise LineError(f"{remote.shown(path)!r}: a folder of parts is written on this machine; name a local one")
        self._building = Building(path, mode)
        self._mode = mode
        self._kind = kind
        self._by = Partitions(partition_by) if partition_by else None
        self._streams: dict[str, Parts] = {}
        self._count = 0
        self._saved = 0
        told = self._stream_in("")
        self.tables = told.table_encoder is not None or kind.of_columns
        if self._by is None:
            self.encoder, self.table_encoder = told.encoder, told.table_encoder

    def _stream_in(self, name: str) -> Parts:
        folder = os.path.join(self._building.folder, name) if name else self._building.folder
        return _OF_COLUMNS.get(self._kind.format, LineParts)(folder, self._kind)

    def describe(self) -> str:
        return self._building.path

    def writes(self) -> list[str]:
        return [self._building.path]

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

    def write_encoded(self, data: bytes, count: int) -> None:
        self._stream().write_encoded(data, count)
        self._count += count

    def commit(self) -> None:
        if self._by is None and not self._building.is_adding:
            self._stream()  # no results make one part without any
        for stream in self._streams.values():
            stream.end()
        self._building.publish()

    def open(self) -> None:
        self._start(lambda: self._building.open())

    def _start(self, build: Callable[[], None]) -> None:
        self._streams, self._count, self._saved = {}, 0, 0
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
        options = [kind.rows, kind.codec, kind.level, kind.row_group, schema]
        return [self._building.path, kind.format, options, self._mode, by.names if by is not None else None]

    def beside(self, journal: str) -> None:
        self._building.beside(journal)

    def begin(self, run: str) -> None:
        self._start(self._building.begin)

    def save(self, mark: str) -> Any:
        """Whole parts stay as they are; how far the open ones are stands in a file beside them."""
        import cloudpickle

        self._saved += 1
        states = {name: stream.state() for name, stream in self._streams.items()}
        self._building.note(self._saved, cloudpickle.dumps(states))
        name = os.path.basename(self._building.folder)
        return {"saved": self._saved, "results": self._count, "name": name, "folder": self._building.known}

    def resume(self, run: str, position: Any) -> None:
        self._start(lambda: self._building.take_up(position["name"]))
        self._count, self._saved = position["results"], position["saved"]
        if self._building.is_adding:
            return
        import cloudpickle

        try:
            states = cloudpickle.loads(self._building.noted_at(self._saved))
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
        return self._building.is_published(position["name"], position["folder"])

    def noted(self) -> None:
        self._building.forget_owner()

    def forget(self, run: str, position: Any) -> None:
        self._building.forget()

    def is_gone(self, run: str, position: Any) -> str:
        path = self._building.path
        return "" if os.path.isdir(path) else f"the folder {path!r} was written whole, and is not there any more"
