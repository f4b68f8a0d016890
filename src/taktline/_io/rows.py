"""Rows of files: JSON lines, CSV and plain text lines, read and written."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from typing import IO, Any

from taktline._io import opening
from taktline._recipe.ports import Resumable, Sink, Source
from taktline.errors import LineError, SinkError, SourceError, excerpt

BOM = b"\xef\xbb\xbf"
FIELD = 1 << 30  # characters of a CSV field; the csv module's own limit is 131,072


def read(path: str | os.PathLike[str], format: str | None = None, columns: Sequence[str] | None = None) -> Source:
    """The records of a file, of all files that match a glob, or of standard input ("-"), in order.

    `format`: "jsonl" (a record a line, mostly dicts), "csv" or "tsv" (dicts of str, named by the header), "text" (str,
    without line ends); None: by the suffix; ".gz" is unpacked. `columns`: keep only these keys. Each use reads the files
    from the start. Raises SourceNotFound or SourceError at once where there is nothing to read, and SourceError with
    file and line while iterating.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "n.jsonl")
    >>> _ = path.write_text('{"n": 1}\\n{"n": 2}\\n')
    >>> list(read(path))
    [{'n': 1}, {'n': 2}]
    """
    if not isinstance(path, (str, os.PathLike)):
        raise LineError(f"read() takes a path or a glob, not {type(path).__name__}")
    name = os.fspath(path)
    found = opening.files(name)
    return _FORMATS[opening.format_of(found[0], format)](name, found, tuple(columns) if columns is not None else None)


def write(path: str | os.PathLike[str] | IO[bytes], format: str | None = None) -> Sink:
    """A sink that writes results into a file, as the formats of `read`; "-" is standard output.

    The file appears under its name only when the run has ended well; with a journal, what is written so far waits
    beside it as ".name.part". Standard output cannot be cut back: there a run that was killed and resumed repeats what
    the last half second had given. CSV takes its header from the first result.
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
    elif hasattr(path, "write"):
        target, how = path, opening.format_of(opening.STANDARD, format)
    else:
        raise LineError(f"write() takes a path or a binary stream, not {type(path).__name__}")
    encoders: dict[str, Any] = {"jsonl": _json_lines, "csv": _Csv(","), "tsv": _Csv("\t"), "text": _text_lines}
    return _Rows(target, encoders[how])


class _Files(Source):
    """Some files, one after the other, as one stream of records."""

    def __init__(self, name: str, paths: list[str], columns: tuple[str, ...] | None) -> None:
        self._name = name
        self._paths = paths
        self._columns = columns

    def describe(self) -> str:
        return self._name

    def fingerprint(self) -> Any:
        if self._paths == [opening.STANDARD]:
            return None
        known = [(path, os.stat(path)) for path in self._paths]
        return [self._columns, [[os.path.abspath(path), each.st_size, each.st_mtime_ns] for path, each in known]]

    def __iter__(self) -> Iterator[Any]:
        for path in self._paths:
            with opening.reading(path) as stream:
                yield from self.records(path, stream)

    def records(self, path: str, stream: IO[bytes]) -> Iterator[Any]:
        """The records of one open file."""
        raise NotImplementedError


class _Jsonl(_Files):
    def records(self, path: str, stream: IO[bytes]) -> Iterator[Any]:
        loads, columns = json.loads, self._columns
        number = 0
        for number, line in enumerate(stream, 1):
            try:
                record = loads(line)
            except ValueError as error:
                if number == 1 and line.startswith(BOM):
                    line = line[len(BOM) :]
                if not line.strip():
                    continue
                try:
                    record = loads(line)
                except ValueError:
                    raise _bad_line(path, number, line, error, "is no JSON") from error
            except RecursionError as error:
                raise _bad_line(path, number, line, error, "is nested too deeply") from error
            if columns is not None:
                record = _only(record, columns, path, number)
            yield record


class _Text(_Files):
    def records(self, path: str, stream: IO[bytes]) -> Iterator[str]:
        if self._columns is not None:
            raise LineError("columns= has no meaning for text lines")
        for number, line in enumerate(stream, 1):
            if number == 1 and line.startswith(BOM):
                line = line[len(BOM) :]
            if line.endswith(b"\n"):
                line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise _bad_line(path, number, line, error, "is not UTF-8") from error


class _Delimited(_Files):
    delimiter = ","

    def records(self, path: str, stream: IO[bytes]) -> Iterator[dict[str, str]]:
        decoded = self._decoded(path, stream)
        rows = csv.reader(decoded, delimiter=self.delimiter, strict=True)
        header = self._next(path, rows)
        if header is None:
            return
        if len(set(header)) < len(header):
            raise SourceError(f"{path!r} has two columns of the same name: {', '.join(header)}", path=path, line=1)
        wanted = self._columns
        if wanted is not None and (missing := [name for name in wanted if name not in header]):
            raise SourceError(
                f"{path!r} has no column {missing[0]!r}; it has {', '.join(header)}", path=path, line=1
            )  # fmt: skip
        while (row := self._next(path, rows)) is not None:
            if not row:  # a blank line
                continue
            if len(row) != len(header):
                raise SourceError(
                    f"{path!r}, line {rows.line_num:,}: {len(row)} fields where the header has {len(header)}: "
                    f"{excerpt(row)}. Mend the line, or read it as format=\"text\"",
                    path=path, line=rows.line_num,
                )  # fmt: skip
            record = dict(zip(header, row, strict=True))
            yield record if wanted is None else {name: record[name] for name in wanted}

    def _next(self, path: str, rows: Any) -> list[str] | None:
        # The limit is the csv module's own, for the whole process: so it is lifted for this one call only.
        before = csv.field_size_limit(FIELD)
        try:
            row: list[str] | None = next(rows, None)
        except csv.Error as error:
            raise SourceError(
                f"{path!r}, line {rows.line_num:,}, is no CSV: {error}", path=path, line=rows.line_num
            ) from error
        finally:
            csv.field_size_limit(before)
        return row

    def _decoded(self, path: str, stream: IO[bytes]) -> Iterator[str]:
        for number, line in enumerate(stream, 1):
            if number == 1 and line.startswith(BOM):
                line = line[len(BOM) :]
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise _bad_line(path, number, line, error, "is not UTF-8") from error


class _Tabbed(_Delimited):
    delimiter = "\t"


_FORMATS: dict[str, type[_Files]] = {"jsonl": _Jsonl, "csv": _Delimited, "tsv": _Tabbed, "text": _Text}


def _only(record: Any, columns: tuple[str, ...], path: str, number: int) -> dict[str, Any]:
    try:
        return {name: record[name] for name in columns}
    except (KeyError, TypeError, IndexError) as error:
        raise SourceError(
            f"{path!r}, line {number:,}: no {error} in {excerpt(record)}", path=path, line=number
        ) from error


def _bad_line(path: str, number: int, line: bytes, error: BaseException, what: str) -> SourceError:
    where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
    shown = excerpt(line.decode("utf-8", "backslashreplace").rstrip("\r\n"))
    return SourceError(
        f"{path!r}, line {number:,}, {what}{where}: {error}\n  line    {shown}\n"
        '  next    mend the line, or read the file as format="text" and parse it in a step, where on_error= applies',
        path=path, line=number,
    )  # fmt: skip


class _Rows(Resumable):
    """Results as lines of a file. `encode(results, first)` makes their bytes; `first` is the number of the first one."""

    def __init__(self, target: str | IO[bytes], encode: Any) -> None:
        self._output = opening.Output(target)
        self._encode = encode
        self._count = 0

    def describe(self) -> str:
        return str(self._output.name)

    def open(self) -> None:
        self._count = 0
        self._output.open()

    def write(self, results: Sequence[Any]) -> None:
        self._output.write(self._encode(results, self._count))
        self._count += len(results)

    def commit(self) -> None:
        self._output.commit()

    def abort(self) -> None:
        self._output.abort()

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

    def finished(self, run: str, position: Any) -> bool:
        return self._output.finished(position)


_to_json = json.JSONEncoder(ensure_ascii=False).encode


def _json_lines(results: Sequence[Any], first: int) -> bytes:
    encode = _to_json
    lines: list[str] = []
    try:
        for result in results:
            lines.append(encode(result))
    except (TypeError, ValueError, RecursionError) as error:
        raise _unwritable(first + len(lines), results[len(lines)], str(error), "JSON") from error
    lines.append("")
    try:
        return "\n".join(lines).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can say it in ASCII only
        return "".join(f"{json.dumps(result)}\n" for result in results).encode()


def _text_lines(results: Sequence[Any], first: int) -> bytes:
    for at, result in enumerate(results):
        if not isinstance(result, str):
            raise _unwritable(first + at, result, f"it is {type(result).__name__}, not str", "a line of text")
        if "\n" in result:
            raise _unwritable(first + at, result, "it has a line end inside", "a line of text")
    return "".join(f"{result}\n" for result in results).encode("utf-8", "surrogatepass")


class _Csv:
    """Rows of delimited text; the first row's keys are the header."""

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self.header: list[str] = []

    def __call__(self, results: Sequence[Any], first: int) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self._delimiter, lineterminator="\n")
        for at, result in enumerate(results):
            if not isinstance(result, dict):
                raise _unwritable(first + at, result, f"it is {type(result).__name__}, not dict", "a row of CSV")
            if first + at == 0:
                self.header = list(result)
                writer.writerow(self.header)
            if unknown := [key for key in result if key not in self.header]:
                why = f"its key {unknown[0]!r} is not among the first row's: {', '.join(map(str, self.header))}"
                raise _unwritable(first + at, result, why, "a row of CSV")
            writer.writerow([result.get(key, "") for key in self.header])
        return text.getvalue().encode()


def _unwritable(number: int, result: Any, why: str, form: str) -> SinkError:
    return SinkError(
        f"result {number:,} cannot be written as {form}: {why}\n  result  {excerpt(result)}\n"
        "  next    end the line with a step that makes it writable",
        result=number,
    )


for _public in (read, write):
    _public.__module__ = "taktline"
