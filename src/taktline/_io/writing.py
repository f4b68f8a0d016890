"""The door to what is written: paths and streams, as the format says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, Any, Literal

from taktline._io import opening, packing, plugins, remote, rolling, zstd
from taktline._io.column_types import as_schema
from taktline._io.lines import LinesFile
from taktline._io.parquet import checked_pyarrow
from taktline._io.parts import ANY_SIZE, CODEC_SUFFIXES, FOLDER_MODES, PART_ROWS, Folder, Kind
from taktline._public import named
from taktline._recipe.numbers import is_number
from taktline._recipe.options import memory_bytes
from taktline.abc import Sink
from taktline.errors import LineError


def write(
    path: str | os.PathLike[str] | IO[bytes],
    format: str | None = None,
    schema: Any = None,
    *,
    codec: str | None = None,
    level: int | None = None,
    row_group: int | None = None,
    rows: int | None = None,
    size: int | str | None = None,
    partition_by: str | Sequence[str] | None = None,
    mode: Literal["replace", "append"] | None = None,
    roll: float | None = None,
) -> Sink:
    """A sink that writes results into a file or to a URL, as the formats of `read`; "-" is standard output.

    What is written is packed as the suffix says: .gz, .bz2, .xz, .zst. A suffix that is not known is refused, where
    `format` does not tell, and always where it promises another packing or format.
    A file appears under its name only when the run has ended well, with the owner, mode, access list and user attributes
    of the one that it replaces; with a journal, what is written so far waits beside it as ".name.part". Behind a link its
    target is replaced. A device, a pipe or what is open as /dev/fd/N is written into as results come. Refused are a file
    with further names (hard links), of another user, or that is a mount of its own. Standard output cannot be cut back:
    there a run that was killed and resumed repeats what the last half second had given.

    Scalars of NumPy are written as the Python values they are, NA and NaT as nothing; what a format has no exact form for
    (bytes, an Enum or half a surrogate pair in CSV, a tab in TSV, a date in JSON) is refused with its result. CSV takes
    its header from the first result; Parquet, which no journal can go on with, its schema from the first 65,536, where
    `schema`, of pyarrow, is not given, and a missing key is a null.

    For Parquet: `codec`, "snappy" where it is None, or "zstd", "gzip", "brotli", "lz4", "none", and its `level`; `row_group`,
    the most rows of a row group: results make groups of 65,536 where it is None, and a table from a step is one, as a rule.
    A column that is None in all results so far waits for what it is to have; a later one takes what it can hold exactly.
    For files packed by their suffix: `level`.

    A path that ends with "/", or is a folder, or one of the following options makes a folder of parts, `part-00000.jsonl`
    and so on in order, which is there as a whole at the end: `format` says what they are (needed), `rows` how many results
    each has, 1,000,000 where it is None (at most; Parquet's row groups are never cut), `size` how many bytes at most, such as
    "64MB": of lines as they are before they are packed, of Parquet as they are in the file; `codec` and `level` how they are
    packed ("gzip", "zstd", "bzip2", "xz" for lines); `partition_by` names columns whose values make folders inside, such as
    `year=2023`. A folder that is there already is refused, but for `mode`: "replace" puts the new one in its place, "append"
    adds parts behind those that are there, one by one. With a journal, whole parts stay and the open one is gone on with.
    At a URL that ends with "/" parts get their names one after the other, when all are whole, and `_SUCCESS` after them; a
    journal must be in the same store.

    `roll` is for sources that do not end: a folder here or at a URL to which files are added while the run goes on. Each is
    there once it is whole, after `rows` results (10,000 where it is None) or `roll` seconds, and only then messages that it
    is made of are acknowledged. Several processes may add to one folder.
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
        if roll is not None:
            by_hand = {"size": size, "partition_by": partition_by, "mode": mode}
            return _rolling(target, roll, by_hand, format, rows, codec, level, schema, row_group)
        given = {"rows": rows, "size": size, "partition_by": partition_by, "mode": mode}
        asked = next((name for name, value in given.items() if value is not None), None)
        if asked is not None and format is None and not _is_folder(target):
            raise LineError(
                f"{asked}= is for a folder of parts: give {target!r} a / at its end, and say what its parts are to be, such "
                'as format="parquet"; for one file leave it out'
            )
        if asked is not None or _is_folder(target):
            kind = _kind_of(target, format, rows, size, codec, level, schema, row_group)
            by = [partition_by] if isinstance(partition_by, str) else list(partition_by or ())
            return Folder(target, kind, _checked_mode(mode), by)
        if plugins.has_scheme(target):
            made: Sink = plugins.opened(
                "write",
                target,
                {"format": format, "schema": schema, "codec": codec, "level": level, "row_group": row_group},
            )
            return made
        how = opening.format_of(target, format, to_write=True)
        opening.check_promise(target, how)
    elif hasattr(path, "write"):
        target, how = path, opening.format_of(opening.STANDARD_STREAM, format, to_write=True)
    else:
        raise LineError(f"write() takes a path or a binary stream, not {type(path).__name__}")
    _check_written(how)
    if how == "parquet":
        from taktline._io.row_groups import ParquetFile

        return ParquetFile(target, schema, codec, level, row_group)
    if how == "arrow":
        from taktline._io.ipc import ArrowFile

        return ArrowFile(target, schema, codec, level, row_group)
    if codec is not None:
        raise LineError(
            "codec= is for Parquet and Arrow, and for a folder of parts; a file is packed as its suffix says, such as .gz"
        )
    _check_of_lines(how, schema, row_group)
    return LinesFile(target, how, level)


def _rolling(
    path: str,
    roll: float,
    refused: dict[str, Any],
    format: str | None,
    rows: int | None,
    codec: str | None,
    level: int | None,
    schema: Any,
    row_group: int | None,
) -> Sink:
    """A folder to which files are added. Raises LineError."""
    if not is_number(roll, above=0):
        raise LineError(f"roll={roll!r} must be seconds, more than 0")
    if not path.endswith("/"):
        raise LineError(f"roll= is for a folder to which files are added: give {path!r} a / at its end")
    if asked := next((name for name, value in refused.items() if value is not None), None):
        raise LineError(f"{asked}= is for a folder that is there as a whole at the end; leave it out with roll=")
    kind = _kind_of(path, format, rows or rolling.FILE_ROWS, None, codec, level, schema, row_group)

    def one(place: str) -> Sink:
        if kind.of_columns:
            return write(place, kind.format, schema, codec=codec, level=level, row_group=row_group)
        return write(place, kind.format, level=level)

    return rolling.Rolling(path, one, kind.suffix, kind.rows, roll)


def _is_folder(path: str) -> bool:
    if remote.is_url(path):
        return path.endswith("/") and not plugins.has_scheme(path)
    return path.endswith(os.sep) or os.path.isdir(path)


def _kind_of(
    path: str,
    format: str | None,
    rows: int | None,
    size: int | str | None,
    codec: str | None,
    level: int | None,
    schema: Any,
    row_group: int | None,
) -> Kind:
    """What the parts of a folder are. Raises LineError."""
    if format is None:
        raise LineError(f'{path!r} is a folder: say what its parts are to be, such as format="parquet", or name a file')
    how = opening.format_of(path, format, to_write=True)
    _check_written(how)
    if rows is not None and not (isinstance(rows, int) and rows > 0):
        raise LineError(f"rows={rows!r} must be a whole number of results a part, 1 or more")
    most = _bytes_of(size)
    rows = rows or (PART_ROWS if most is None else ANY_SIZE)
    if how in opening.OF_COLUMNS:
        checked_pyarrow(how.capitalize())
        return Kind(how, rows, most, codec, level, as_schema(schema), row_group)
    _check_of_lines(how, schema, row_group)
    if codec is not None and codec not in CODEC_SUFFIXES:
        raise LineError(f"codec={codec!r} packs no lines: give one of {', '.join(CODEC_SUFFIXES)}")
    if codec == "zstd":
        zstd.check()
    packing.packer(codec or "", level)
    return Kind(how, rows, most, codec, level)


def _check_written(how: str) -> None:
    if how in opening.READ_ONLY:
        raise LineError("ORC is read and not written: write Parquet or Arrow, which have its types")


def _bytes_of(size: int | str | None) -> int | None:
    if size is None:
        return None
    try:
        if isinstance(size, str) and "%" in size:
            raise ValueError('give bytes, such as 64_000_000 or "64MB"')
        return memory_bytes(size)
    except ValueError as error:
        raise LineError(f"size={size!r} is not how large a part may be: {error}") from None


def _check_of_lines(how: str, schema: Any, row_group: int | None) -> None:
    for name, value in {"schema": schema, "row_group": row_group}.items():
        if value is not None:
            raise LineError(f"{name}= is for Parquet and Arrow; {how} has none")


def _checked_mode(mode: str | None) -> str | None:
    if mode not in FOLDER_MODES:
        raise LineError(f'mode={mode!r} is unknown: give "replace" or "append"')
    return mode


named(globals())
