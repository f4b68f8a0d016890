"""The door to what is written: paths and streams, as the format says."""

from __future__ import annotations

import os
from typing import IO, Any

from taktline._io import brought, opening
from taktline._io.lines import LinesFile
from taktline._public import named
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
        if brought.has_scheme(target):
            made: Sink = brought.opened(
                "write",
                target,
                {"format": format, "schema": schema, "codec": codec, "level": level, "row_group": row_group},
            )
            return made
        how = opening.format_of(target, format)
        opening.check_promise(target, how)
    elif hasattr(path, "write"):
        target, how = path, opening.format_of(opening.STANDARD, format)
    else:
        raise LineError(f"write() takes a path or a binary stream, not {type(path).__name__}")
    for_columns = {"schema": schema, "codec": codec, "level": level, "row_group": row_group}
    if how == "parquet":
        from taktline._io.row_groups import ParquetFile

        return ParquetFile(target, **for_columns)
    for name, value in for_columns.items():
        if value is not None:
            raise LineError(f"{name}= is for Parquet; {how} has none")
    return LinesFile(target, how)


named(globals())
