"""Records of files: JSON lines, CSV and plain text lines, read and written; the door to Parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import IO, Any

from taktline._io import decode, encode, opening, place, plain, ranges, remote, streams
from taktline._recipe.ports import Part, Resumable, Sink, Source, Splittable
from taktline.errors import LineError, unwritable

Columns = tuple[str, ...] | None


def read(
    path: str | os.PathLike[str],
    format: str | None = None,
    columns: Sequence[str] | None = None,
    types: decode.Types | None = None,
) -> Source:
    """The records of a file, of all files in a folder or that match a glob, of a URL, or of standard input ("-").

    `format`: "jsonl" (a record a line, mostly dicts), "csv" or "tsv" (dicts of str, named by the header), "parquet"
    (dicts), "text" (str, without line ends); None: by the suffix. What is packed
    (gzip, bzip2, xz, zstd) is known by its first bytes, whatever its suffix. `columns`: only these
    keys. `types`: for CSV, what to make of the text of a column: `int`, `float`, `bool`, `Decimal`, `date`, `datetime`
    or `time`, where an empty cell becomes None, or any callable of the text. Several tables must have the same columns,
    or `columns` must choose.

    Each use reads from the start, and a local file as far as it goes then. Raises SourceNotFound or SourceError at once
    where there is nothing to read, LineError where a package is missing, and SourceError with file and line (or row
    group) while iterating, also where a file is cut short, or one of Parquet changed, meanwhile.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "n.jsonl")
    >>> _ = path.write_text('{"n": 1}\\n{"n": 2}\\n')
    >>> list(read(path))
    [{'n': 1}, {'n': 2}]
    >>> _ = path.with_suffix(".csv").write_text("n,name\\n1,one\\n,none\\n")
    >>> list(read(path.with_suffix(".csv"), types={"n": int}))
    [{'n': 1, 'name': 'one'}, {'n': None, 'name': 'none'}]
    """
    if not isinstance(path, (str, os.PathLike)):
        raise LineError(f"read() takes a path or a glob, not {type(path).__name__}")
    name = place.named(os.fspath(path), 0)
    found = opening.files(name)
    how = opening.format_of_all(found, format)
    for each in found:
        opening.packing_of(each)
    chosen = tuple(columns) if columns is not None else None
    if how == "text" and chosen is not None:
        raise LineError("columns= has no meaning for text lines")
    if how not in ("csv", "tsv") and types is not None:
        raise LineError(f"types= is for CSV and TSV, where every cell is text; the values of {how} have their types")
    if how == "parquet":
        from taktline._io.parquet import ParquetFiles

        return ParquetFiles(name, found, chosen)
    return _FORMATS[how](name, found, how, chosen, decode.checked_types(types, chosen))


def write(path: str | os.PathLike[str] | IO[bytes], format: str | None = None, schema: Any = None) -> Sink:
    """A sink that writes results into a file or to a URL, as the formats of `read`; "-" is standard output.

    What is written is packed as the suffix says: .gz, .bz2, .xz, .zst. A suffix that is not known is refused, where
    `format` does not tell, and always where it promises another packing or format.
    A file appears under its name only when the run has ended well, with the owner, mode, access list and user attributes
    of the one that it replaces; with a journal, what is written so far waits beside it as ".name.part". Behind a link its
    target is replaced. A device, a pipe or what is open as /dev/fd/N is written into as results come. Refused are a file
    with further names (hard links), of another user, or that is a mount of its own. Standard output cannot be cut back:
    there a run that was killed and resumed repeats what the last half second had given.

    Scalars of NumPy are written as the Python values they are, NA and NaT as nothing; what a format has no exact form for
    (bytes, an Enum or half a surrogate pair in CSV, a date in JSON) is refused with its result. CSV takes its header from
    the first result; Parquet, which no journal can go on with, its schema from the first 65,536, where `schema`, of
    pyarrow, is not given, and a missing key is a null.
    Raises LineError at once where the file cannot be made there, SinkError for a result that cannot be written.

    >>> import tempfile, pathlib
    >>> from taktline import line
    >>> path = pathlib.Path(tempfile.mkdtemp(), "squares.csv")
    >>> report = line(lambda n: {"n": n, "square": n * n}).run([1, 2], write(path))
    >>> print(path.read_text())
    n,square
    1,1
    2,4
    <BLANKLINE>
    """
    target: str | IO[bytes]
    if isinstance(path, (str, os.PathLike)):
        target = os.fspath(path)
        how = opening.format_of(target, format)
        opening.check_promise(target, how)
    elif hasattr(path, "write"):
        target, how = path, opening.format_of(opening.STANDARD, format)
    else:
        raise LineError(f"write() takes a path or a binary stream, not {type(path).__name__}")
    if schema is not None and how != "parquet":
        raise LineError(f"schema= is for Parquet; {how} has none")
    if how == "parquet":
        from taktline._io.parquet import ParquetFile

        return ParquetFile(target, schema)
    encoders: dict[str, Any] = {
        "jsonl": encode.json_lines,
        "csv": _Csv(","),
        "tsv": _Csv("\t"),
        "text": encode.text_lines,
    }
    return _Rows(target, encoders[how], how)


class _Files(Splittable):
    """Some files, one after the other, as one stream of records. Each is decoded by `records(stream, name)`."""

    def __init__(self, name: str, paths: list[str], format: str, columns: Columns, types: decode.Types | None) -> None:
        self._name = name
        self._paths = paths
        self._inputs = place.Inputs(name, paths)
        self._format = format
        self._columns = columns
        self._types = types

    def describe(self) -> str:
        return remote.shown(self._name)

    def reads(self, path: str) -> bool:
        return self._inputs.has(path)

    def fingerprint(self) -> Any:
        marks = opening.marks(self._paths)
        return None if marks is None else [self._format, self._columns, self._types, marks]

    def untold(self) -> str:
        return opening.untold(self._paths)

    def __iter__(self) -> Iterator[Any]:
        for path in self._paths:
            with opening.reading(path) as stream:
                yield from self.records(stream, remote.shown(path))

    def records(self, stream: IO[bytes], name: str) -> Iterator[Any]:
        """The records of one open file."""
        raise NotImplementedError

    def parts(self, *, exact: bool = False) -> Generator[Part | Iterator[Any] | None, int, None] | None:
        return self._parts(exact) if ranges.travels(self._types) else None

    def _parts(self, exact: bool) -> Generator[Part | Iterator[Any] | None, int, None]:
        wanted = yield None
        cutting = ranges.Cutting(
            self.beginner(), self.count, quoted=self.quoted, exact=exact, bytes_left=sum(map(opening.size, self._paths))
        )  # fmt: skip
        for path in self._paths:
            with opening.reading(path) as stream:
                cut = cutting.parts if opening.is_plain(path, stream) else partial(streams.stretches, cutting)
                wanted = yield from cut(stream, remote.shown(path), wanted)

    quoted = False  # a line end between double quotes ends no record

    def beginner(self) -> Callable[[Iterable[bytes], str], ranges.Decode | None]:
        """For one pass: what reads the start of each file, and says how to decode what follows."""
        raise NotImplementedError

    def count(self, data: bytes) -> int | None:
        """How many records some whole lines have; None where only decoding can tell."""
        raise NotImplementedError


class _Jsonl(_Files):
    def records(self, stream: IO[bytes], name: str) -> Iterator[Any]:
        return decode.json_records(stream, name, columns=self._columns)

    def beginner(self) -> Callable[[Iterable[bytes], str], ranges.Decode | None]:
        how = partial(decode.json_records, columns=self._columns)
        return lambda lines, name: how

    def count(self, data: bytes) -> int | None:
        return ranges.json_lines(data)


class _Text(_Files):
    def records(self, stream: IO[bytes], name: str) -> Iterator[str]:
        return decode.text_records(stream, name)

    def beginner(self) -> Callable[[Iterable[bytes], str], ranges.Decode | None]:
        return lambda lines, name: decode.text_records

    def count(self, data: bytes) -> int | None:
        return ranges.text_lines(data)


class _Delimited(_Files):
    delimiter = ","
    quoted = True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        first: tuple[str, list[str]] | None = None
        for path in self._paths:
            name = remote.shown(path)
            with opening.reading(path) as stream:
                rows = decode.table_rows(stream, name, self.delimiter)
                header = decode.table_header(rows, name, self._columns, self._types)
                if header is None:
                    continue
                first = first or (name, header)
                if self._columns is None:
                    decode.check_drift(*first, name, header)
                yield from decode.table_records(rows, name, header, self._columns, self._types)

    def beginner(self) -> Callable[[Iterable[bytes], str], ranges.Decode | None]:
        first: list[tuple[str, list[str]]] = []

        def begin(lines: Iterable[bytes], name: str) -> ranges.Decode | None:
            rows = decode.table_rows(lines, name, self.delimiter)
            header = decode.table_header(rows, name, self._columns, self._types)
            if header is None:
                return None
            first.append((name, header))
            if self._columns is None:
                decode.check_drift(*first[0], name, header)
            return partial(
                decode.table_part, delimiter=self.delimiter, header=header, columns=self._columns, types=self._types
            )

        return begin

    def count(self, data: bytes) -> int | None:
        return ranges.table_lines(data, self.delimiter.encode())


class _Tabbed(_Delimited):
    delimiter = "\t"


_FORMATS: dict[str, type[_Files]] = {"jsonl": _Jsonl, "csv": _Delimited, "tsv": _Tabbed, "text": _Text}


class _Rows(Resumable):
    """Results as lines of a file. `lines(results, first)` makes their bytes; `first` is the number of the first one."""

    def __init__(self, target: str | IO[bytes], lines: Any, format: str) -> None:
        self._output = opening.Output(target)
        self._format = format
        self._encode = lines
        self._count = 0
        if not isinstance(lines, _Csv):  # which must know what came before
            self.encoder = partial(lines, first=0)

    def describe(self) -> str:
        return str(self._output.name)

    def writes(self) -> list[str]:
        return self._output.paths()

    def open(self) -> None:
        self._count = 0
        self._output.open()

    def write(self, results: Sequence[Any]) -> None:
        self._output.write(self._encode(results, self._count))
        self._count += len(results)

    def write_encoded(self, data: bytes, count: int) -> None:
        self._output.write(data)
        self._count += count

    def commit(self) -> None:
        self._output.commit()

    def abort(self) -> None:
        self._output.abort()

    def fingerprint(self) -> Any:
        return [self._output.known_as(), self._format]

    def beside(self, journal: str) -> None:
        self._output.beside(journal)

    def forget(self, run: str, position: Any) -> None:
        self._output.forget(position)

    def is_gone(self, run: str, position: Any) -> str:
        return self._output.is_gone(position)

    def begin(self, run: str) -> None:
        self._count = 0
        self._output.begin()

    def save(self, mark: str) -> Any:
        return {"results": self._count, "header": getattr(self._encode, "header", None), **self._output.position()}

    def resume(self, run: str, position: Any) -> None:
        self._count = position["results"]
        if position["header"] is not None:
            self._encode.header = position["header"]
        self._output.resume(position)

    def suspend(self) -> None:
        self._output.suspend()

    def noted(self) -> None:
        self._output.noted()

    def finished(self, run: str, position: Any) -> bool:
        return self._output.finished(position)


class _Csv:
    """Rows of delimited text; the first row's keys are the header."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self.header: list[str] = []

    def __call__(self, results: Sequence[Any], first: int) -> bytes:
        lines: list[str] = []
        known = set(self.header)
        # Its own line end makes the writer quote cells with "\r" in them too; before Python 3.13 nothing else does.
        writer = csv.writer(_Lines(lines.append), delimiter=self._delimiter, lineterminator="\r\n")
        for at, result in enumerate(results):
            if not isinstance(result, dict):
                raise unwritable(first + at, result, f"it is {type(result).__name__}, not dict", "a row of CSV")
            if first + at == 0:
                self.header = list(result)
                known = set(self.header)
                writer.writerow(self.header)
            if not result.keys() <= known:
                unknown = next(key for key in result if key not in known)
                why = f"its key {unknown!r} is not among the first row's: {', '.join(map(str, self.header))}"
                raise unwritable(first + at, result, why, "a row of CSV")
            cells = [result.get(key, "") for key in self.header]
            if not _CELLS.issuperset(map(type, cells)):
                cells = self._exact(first + at, result)
            writer.writerow(cells)
        return encode.encoded(lines, results, first, "a row of CSV", headers=len(lines) - len(results))

    def _exact(self, number: int, result: dict[Any, Any]) -> list[Any]:
        cells = []
        for key in self.header:
            try:
                cells.append(plain.as_cell(result.get(key, "")))
            except ValueError as error:
                raise unwritable(number, result, f"its {key!r}: {error}", "a row of CSV") from error
        return cells


_CELLS = plain.PLAIN - {bytes}


class _Lines:
    """What the csv module writes its rows into, one at a time; each gets a plain line end."""

    def __init__(self, add: Callable[[str], None]) -> None:
        self._add = add

    def write(self, row: str) -> None:
        self._add(row[:-2] + "\n")


for _public in (read, write):
    _public.__module__ = "taktline"
