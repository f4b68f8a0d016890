"""Records of files: JSON lines, CSV and plain text lines; the door to Parquet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import IO, Any, Literal, Never

from taktline._io import as_table, decode, opening, path_columns, place, plugins, ranges, remote, streams
from taktline._io.delimited import (
    INFER_TYPES,
    Dialect,
    Types,
    check_drift,
    checked_delimiter,
    checked_encoding,
    checked_header,
    checked_types,
    leaves_ascii,
    table_records,
)
from taktline._io.filters import checked as checked_filters
from taktline._io.place import STANDARD_STREAM
from taktline._io.pushback import Taken
from taktline._io.recoding import recoded
from taktline._io.splitting import Cut, Cuts
from taktline._public import named
from taktline._signals import pass_on
from taktline.abc import Source, Splitter, Unread
from taktline.errors import LineError, SourceError, SourceNotFound, TaktlineError, did_you_mean

Columns = tuple[str, ...] | None
OPTIONS = ("format", "columns", "types", "delimiter", "quoting", "encoding", "header", "path_column", "filters")


def read(
    path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    format: str | None = None,
    columns: Sequence[str] | None = None,
    types: Types | Literal["infer"] | None = None,
    *,
    delimiter: str | None = None,
    quoting: bool | None = None,
    encoding: str | None = None,
    header: bool | Sequence[str] = True,
    path_column: str | None = None,
    filters: Any = None,
    **unknown: Never,
) -> Source:
    """The records of a file, of all files in a folder or that match a glob, of a URL, or of standard input ("-"); or of
    several of these in a list, one behind the other in its order. What a folder or a glob holds is sorted by name.

    A URL whose scheme a package brings, as taktline does `pubsub://`, is read by that package: docs/extending.md.

    `format`: "jsonl" (a record a line, mostly dicts), "csv" or "tsv" (dicts of str, named by the header), "parquet",
    "arrow" and "orc" (dicts), "text" (str, without line ends); None: by the suffix, which all files must share. What is
    packed (gzip, bzip2, xz, zstd) is known by its first bytes, whatever its suffix. `columns`: only these
    keys. `types`: for CSV, what to make of the text of a column: `int`, `float`, `bool`, `Decimal`, `date`, `datetime`
    or `time`, where an empty cell becomes None, or any callable of the text; "infer": the one of `int`, `float`, `bool`,
    `date`, `datetime` (without a zone) that all cells of a column have in the first 10,000 rows of the first file, where
    they are written as such values are (no zeros in front, integers of 64 bits, `True` but not `1`); text else. Several
    tables must have the same columns, or `columns` must choose.

    For CSV and TSV: `delimiter`, one character, "," or a tab where it is None. `quoting`: whether cells may stand between
    double quotes, with delimiters and line ends in them; None: in CSV, and not in TSV, whose cells have neither. `header`:
    False where the file has no row of names, and its columns are "column1" and so on, or their names. For these and text:
    `encoding`, UTF-8 where it is None; a byte order mark is left out.

    `path_column`: the name of a column, behind the others, that holds the name of each record's file. A folder with nothing
    but folders in it that are named as columns (`year=2024`, of whatever depth) is read with those as columns, integers
    where all are, text else, None for "__HIVE_DEFAULT_PARTITION__"; a pattern gives no columns.

    `filters`, of Parquet, Arrow and ORC: which rows are read, as `[(column, operator, value), …]` that all hold, or a list of
    such lists of which one does. Operators are `=`, `!=`, `<`, `<=`, `>`, `>=`, `in` and `not in`; text stands for the date
    that it says; None is asked for by `=` and `!=`, and no other term holds of a null. Row groups, and files by their
    folders, in which there can be no such row are not read at all.

    A line that is no record (no JSON, another number of cells, quotes that do not fit, a cell that `types` refuses, bytes
    that are no text; in Parquet a row with what no value of Python can hold) is a record that fails: what `on_error` and
    `dead_letters` say of steps holds for it, and "(reading)" is its step. A row whose quotes do not fit costs its first
    line, and the next one begins a row again.

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
    if unknown:
        raise LineError(_no_such_option(next(iter(unknown))))
    if plugins.has_scheme(path):
        options = {
            "format": format, "columns": columns, "types": types, "delimiter": delimiter, "quoting": quoting,
            "encoding": encoding, "header": None if header is True else header, "path_column": path_column,
            "filters": filters,
        }  # fmt: skip
        made: Source = plugins.opened("read", str(path), options)
        return made
    patterns = _patterns(path)
    behind = _all_found(patterns)
    found = list(chain.from_iterable(behind))
    how = opening.format_of_all(found, format)
    for each in found:
        opening.packing_of(each)
    chosen = tuple(columns) if columns is not None else None
    _check_fits(how, chosen, types, delimiter=delimiter, quoting=quoting, encoding=encoding, header=header)
    added = path_columns.added(patterns, behind, _checked_name(path_column), chosen)
    _check_beside(how, added, path_column)
    if (wanted := checked_filters(filters)) is not None and how not in opening.OF_COLUMNS:
        raise LineError(
            f"filters= is for Parquet, Arrow and ORC, whose columns have types; drop records of {how} by keep(…)"
        )
    if added and chosen is not None:
        chosen = tuple(name for name in chosen if name not in added[remote.shown(found[0])].values)
    if found.count(STANDARD_STREAM) > 1:
        raise LineError("standard input can be read once only: save what comes by it in a file, and read that")
    name = ", ".join(map(remote.shown, patterns[:3])) + (f" and {len(patterns) - 3:,} more" if patterns[3:] else "")
    if how in opening.OF_COLUMNS:
        from taktline._io.parquet import TableFiles

        return TableFiles(name, patterns, found, chosen, added, wanted, how)
    table = Dialect(
        delimiter or ("\t" if how == "tsv" else ","), how != "tsv" if quoting is None else quoting,
        checked_encoding(encoding or decode.UTF_8), checked_header(header), delimiter is not None, chosen,
        checked_types(types, chosen), types == INFER_TYPES,
    )  # fmt: skip
    return _FORMATS.get(how, _Brought)(name, patterns, found, how, table, added)


def _patterns(path: Any) -> list[str]:
    """The paths, patterns, folders and URLs that are named. Raises LineError where that is something else."""
    if isinstance(path, (str, os.PathLike)):
        paths = [path]
    elif isinstance(path, Iterable) and not isinstance(path, (bytes, bytearray, Mapping)):
        paths = list(path)
    else:
        raise LineError(f"read() takes a path, a glob, or a list of them, not {type(path).__name__}")
    if not paths:
        raise LineError("read() was given an empty list of paths")
    names = []
    for each in paths:
        name = os.fspath(each) if isinstance(each, (str, os.PathLike)) else each
        if not isinstance(name, str):
            raise LineError(f"read() takes paths as str or os.PathLike, not {type(name).__name__}")
        if plugins.has_scheme(name):
            raise LineError(f"{remote.shown(name)!r} can be read alone, not among others")
        names.append(place.named(name, 0))
    return names


def _checked_name(path_column: Any) -> str | None:
    """Raises LineError where a column cannot be called so."""
    if path_column is not None and (not isinstance(path_column, str) or not path_column):
        raise LineError(f'path_column= is the name of a column, such as "file"; it is {path_column!r}')
    return path_column


def _check_beside(how: str, added: Mapping[str, path_columns.Added], path_column: str | None) -> None:
    """Raises LineError where records of the format have no columns, and some are to be added."""
    if not added or how in ("jsonl", "csv", "tsv", *opening.OF_COLUMNS):
        return
    what = "text lines" if how == "text" else how
    if path_column is not None:
        raise LineError(f"path_column= has no meaning for {what}: a record has no columns there")
    raise LineError(f"folders give columns, and {what} have none; read them by a pattern, such as 'folder/**/*.txt'")


def _all_found(patterns: list[str]) -> list[list[str]]:
    """The files behind each of these, in order. Raises SourceNotFound with all that are not there."""
    found, missing = [], []
    for pattern in patterns:
        try:
            found.append(opening.files(pattern))
        except SourceNotFound as error:
            if len(patterns) == 1:
                raise
            missing.append(error)
    if missing:
        raise SourceNotFound("; ".join(map(str, missing)), path=missing[0].facts["path"])
    return found


def _check_fits(
    how: str, columns: Columns, types: Any, *, delimiter: Any, quoting: Any, encoding: Any, header: Any
) -> None:
    """Raises LineError where an option has no meaning for the format."""
    if columns is not None and (how == "text" or how not in opening.BUILT_IN):
        raise LineError(f"columns= has no meaning for {'text lines' if how == 'text' else how}")
    if how in ("csv", "tsv"):
        checked_delimiter(delimiter)
        if quoting not in (None, True, False):
            raise LineError(f"quoting= is True or False, not {quoting!r}")
        return
    if types is not None:
        raise LineError(f"types= is for CSV and TSV, where every cell is text; the values of {how} have their types")
    for name, value, default in (("delimiter", delimiter, None), ("quoting", quoting, None), ("header", header, True)):
        if value is not default:
            raise LineError(f"{name}= is for CSV and TSV; {how} has none")
    if encoding is not None and how != "text":
        raise LineError(f"encoding= is for CSV, TSV and text; {how} is told by its own bytes, JSON lines are UTF-8")


def _no_such_option(name: str) -> str:
    hint = did_you_mean(name, OPTIONS) or f"; there are {', '.join(OPTIONS)}"
    return f"read() has no option {name!r}{hint}"


class _Files(Source):
    """Some files, one after the other, as one stream of records."""

    is_text = True

    def __init__(
        self, name: str, patterns: Sequence[str], paths: list[str], format: str, table: Dialect,
        added: Mapping[str, path_columns.Added],
    ) -> None:  # fmt: skip
        self._name = name
        self._added = added  # to the records of each file, by the name that is shown of it
        self._paths = paths
        self._inputs = [place.Inputs(each, paths) for each in patterns]
        self._format = format
        self._columns = table.columns
        self._table = table
        self._recoded = "" if leaves_ascii(table.encoding) else table.encoding
        if self._recoded:  # what is decoded is UTF-8 then
            self._table = replace(table, encoding=decode.UTF_8)
        self.once = any(map(opening.is_once, paths))  # what is read of it is gone then

    def about(self) -> int | None:
        whole = sum(map(opening.size, self._paths))
        if not whole or self.once or self._recoded or any(map(remote.is_url, self._paths)):
            return None
        text, taken = opening.beginning(self._paths[0])
        records = self.count(text) or text.count(b"\n")
        return round(records * whole / taken) if taken else None

    @property
    def weight(self) -> int:
        """Bytes of the files."""
        return sum(map(opening.size, self._paths))

    def describe(self) -> str:
        return self._name

    def reads(self, path: str) -> bool:
        return any(each.has(path) for each in self._inputs)

    def fingerprint(self) -> Any:
        marks, table = opening.marks(self._paths), self._table
        if marks is None:
            return None
        how = [table.delimiter, table.quoting, table.encoding, self._recoded, table.header]
        return [
            self._format,
            self._columns,
            INFER_TYPES if table.infer else table.types,
            how,
            marks,
            *path_columns.known(self._added),
        ]

    def untold(self) -> str:
        return opening.untold(self._paths)

    def look(self) -> Callable[[], bool] | None:
        return opening.looks_elsewhere(self._paths)

    def places(self) -> Splitter | None:
        return (
            None if self.once or any(map(remote.is_url, self._paths)) else self._split([], exact=False, numbered=True)
        )

    def __iter__(self) -> Iterator[Any]:
        return self._each(None)

    def read(self, unread: list[Unread]) -> Iterator[Any]:
        return self._each(unread)

    def _each(self, unread: list[Unread] | None) -> Iterator[Any]:
        begin = self.beginner()
        for path in self._paths:
            name = remote.shown(path)
            with self._reading(path) as stream:
                taken = Taken(stream)
                how = begin(taken, name)
                if how is not None:
                    back = self.quoted and unread is not None  # lines may be given back
                    lines = taken if back else chain(reversed(taken.waiting), stream)
                    yield from how.records(lines, name, taken.count + 1, unread=unread)

    @contextmanager
    def _reading(self, path: str) -> Iterator[IO[bytes]]:
        with opening.reading(path) as stream:
            yield stream if not self._recoded else recoded(stream, remote.shown(path), self._recoded)

    def split(self, *, exact: bool = False, unread: list[Unread] | None = None) -> Splitter | None:
        return self._split(unread, exact=exact, numbered=False) if ranges.travels(self._table.types) else None

    def _split(self, unread: list[Unread] | None, *, exact: bool, numbered: bool) -> Splitter:
        cutting = ranges.Cutting(
            self.beginner(), self.count, self.count_rows, quoted=self.quoted, exact=exact,
            bytes_left=sum(map(opening.size, self._paths)), unread=unread, numbered=numbered,
        )  # fmt: skip
        return Cut(self._cuts(cutting), lambda: cutting.left, lambda: cutting.where())

    def _cuts(self, cutting: ranges.Cutting) -> Cuts:
        wanted = yield None
        for path in self._paths:
            with self._reading(path) as stream:
                cut = cutting.parts if opening.is_plain(path, stream) else partial(streams.stretches, cutting)
                wanted = yield from cut(stream, remote.shown(path), wanted)

    quoted = False  # a line end between double quotes ends no record

    def beginner(self) -> Callable[[Taken, str], ranges.Decode | None]:
        """For one pass: what reads the start of each file, and says how to decode what follows."""
        raise NotImplementedError

    def count(self, data: bytes) -> int | None:
        """How many records some whole lines have; None where only decoding can tell."""
        raise NotImplementedError

    def count_rows(self, data: bytes) -> int | None:
        """How many rows of a table some whole lines make; None where only decoding can tell."""
        return self.count(data)


class _Jsonl(_Files):
    @property
    def columns(self) -> bool:  # type: ignore[override]
        return not self.once and as_table.is_there()

    def beginner(self) -> Callable[[Taken, str], ranges.Decode | None]:
        tables = as_table.JsonTables(self._columns)

        def begin(lines: Taken, name: str) -> ranges.Decode:
            more = self._added.get(name)
            records = partial(decode.json_records, columns=self._columns, more=more)
            return ranges.Decode(records, tables, tables.learn, more)

        return begin

    def count(self, data: bytes) -> int | None:
        return ranges.json_lines(data)


class _Text(_Files):
    def beginner(self) -> Callable[[Taken, str], ranges.Decode | None]:
        how = ranges.Decode(partial(decode.text_records, encoding=self._table.encoding))
        return lambda lines, name: how

    def count(self, data: bytes) -> int | None:
        return ranges.text_lines(data)


class _Delimited(_Files):
    @property
    def columns(self) -> bool:  # type: ignore[override]
        return not self.once and self._table.is_typed and as_table.is_there()

    @property
    def quoted(self) -> bool:  # type: ignore[override]
        return self._table.quoting

    def beginner(self) -> Callable[[Taken, str], ranges.Decode | None]:
        table, first = self._table, list[tuple[str, list[str]]]()

        def begin(taken: Taken, name: str) -> ranges.Decode | None:
            nonlocal table
            header = table.header_of(taken, name)
            if header is None:
                return None
            first.append((name, header))
            if self._columns is None:
                check_drift(*first[0], name, header)
            if table.infer and table.types is None:
                table = table.inferred(taken, name, header)
            if (more := self._added.get(name)) is not None:
                more.check(header, name)
            names = first[0][1] if self._columns is None else self._columns  # the first file's order is that of all
            return ranges.Decode(
                partial(table_records, table=table, header=header, more=more),
                partial(table.as_table, header=header, names=names) if table.is_typed and names else None,
                more=more,
            )

        return begin

    def count(self, data: bytes) -> int | None:
        return self._counted(data, ranges.rows_without_quotes)

    def count_rows(self, data: bytes) -> int | None:
        return self._counted(data, ranges.rows_without_blanks)

    def _counted(self, data: bytes, rows: ranges.Count) -> int | None:
        return ranges.table_lines(data, self._table.delimiter.encode(), rows) if self._table.quoting else rows(data)


class _Brought(_Files):
    """A format that another package brings, which makes the records of a whole file."""

    def __init__(
        self, name: str, patterns: Sequence[str], paths: list[str], format: str, table: Dialect,
        added: Mapping[str, path_columns.Added],
    ) -> None:  # fmt: skip
        super().__init__(name, patterns, paths, format, table, added)
        self._decode = plugins.decoder(format)

    def _each(self, unread: list[Unread] | None) -> Iterator[Any]:
        for path in self._paths:
            name, count = remote.shown(path), 0
            with self._reading(path) as stream:
                try:
                    for record in self._decode(stream):
                        yield record
                        count += 1
                except TaktlineError:
                    raise
                except Exception as error:
                    pass_on(error)
                    what = f"{name!r} cannot be read as {self._format} behind its {count:,} first records"
                    raise SourceError(f"{what}: {type(error).__name__}: {error}", path=name) from error

    def split(self, *, exact: bool = False, unread: list[Unread] | None = None) -> Splitter | None:
        return None

    def places(self) -> Splitter | None:
        return None


_FORMATS: dict[str, type[_Files]] = {"jsonl": _Jsonl, "csv": _Delimited, "tsv": _Delimited, "text": _Text}


named(globals())
