"""What the place of a file adds to its records: the name of the file, and the folders that are named as columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from taktline._io import place, remote
from taktline._io.inference import is_integer
from taktline.errors import LineError, SourceError

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # what Hive, and all after it, call the folder of a null


@dataclass(frozen=True, slots=True)
class Added:
    """What the place of one file adds to all of its records, by column."""

    values: Mapping[str, int | str | None] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()  # of the columns, those that are integers
    from_folders: frozenset[str] = frozenset()  # and those that folders name
    place: Mapping[str, int | str | None] = field(default_factory=dict)  # all that is known by the file's place

    def check(self, header: Iterable[str], name: str) -> None:
        """Raises SourceError where the file has such a column itself."""
        if twice := [each for each in header if each in self.values]:
            raise SourceError(self.why_not(name, twice[0]), path=name)

    def why_not(self, name: str, column: str) -> str:
        """What to say where a record has such a column itself."""
        if column in self.from_folders:
            return (
                f"{name!r} has a column {column!r} of its own, beside {column}={self.values[column]} of its folder. Read it "
                "by a pattern, such as 'folder/**/*.parquet': then folders give no columns"
            )
        return f"{name!r} has a column {column!r} of its own: give path_column= another name"

    def onto(self, table: Any) -> Any:
        """A Table or RecordBatch with these columns behind its own."""
        import pyarrow as pa

        for name, value in self.values.items():
            kind = pa.int64() if name in self.numbers else pa.string()
            cells = pa.repeat(pa.scalar(value, kind), table.num_rows)
            table = table.append_column(pa.field(name, kind), cells)
        return table


NOTHING = Added()


def added(
    patterns: Sequence[str], found: Sequence[Sequence[str]], path_column: str | None, columns: Sequence[str] | None
) -> dict[str, Added]:
    """What is added to the records of each file, by the name that is shown of it: of the folders' columns those in `columns`.
    `found`: the files behind each pattern. Raises LineError or SourceError where names or folders do not agree."""
    folders: dict[str, dict[str, str | None]] = {}
    for pattern, paths in zip(patterns, found, strict=True):
        for path in paths:
            folders[remote.shown(path)] = _named(_below(pattern, path))
    names = [*next(iter(folders.values()))]
    for path, there in folders.items():
        if [*there] != names:
            said = ", ".join(names) or "no columns"
            raise SourceError(
                f"the folders of {path!r} name {', '.join(there) or 'no columns'}, those of {next(iter(folders))!r} {said}: "
                "read them apart", path=path,
            )  # fmt: skip
    if path_column in names:
        raise LineError(f"path_column={path_column!r}: a folder has that name already; give another one")
    numbers = frozenset(
        name for name in names
        if all(each[name] is None or is_integer(str(each[name])) for each in folders.values())
        and any(each[name] is not None for each in folders.values())
    )  # fmt: skip
    made: dict[str, Added] = {}
    if not names and path_column is None:
        return made
    for path, there in folders.items():
        whole: dict[str, Any] = {
            name: int(value) if value is not None and name in numbers else value for name, value in there.items()
        }
        if path_column is not None:
            whole[path_column] = path
        values = {name: whole[name] for name in whole if columns is None or name in columns or name == path_column}
        made[path] = Added(values, numbers, frozenset(names), whole)
    return made


def _below(folder: str, path: str) -> str:
    """The path of a file from a folder's on; empty where that is no folder."""
    if remote.is_url(folder):
        return "" if folder == path else remote.below(folder, path)
    inside = place.absolute(folder).rstrip("/") + "/"
    return path.removeprefix(inside) if path.startswith(inside) else ""


def _named(path: str) -> dict[str, str | None]:
    """The columns that the folders of a file are named as."""
    pairs = (part.partition("=") for part in path.split("/")[:-1])
    return {name: None if value == NO_VALUE else unquote(value) for name, _, value in pairs}


def known(added: Mapping[str, Added]) -> list[Any]:
    """What places add to the records of files, as plain values for a fingerprint."""
    return [[[path, dict(each.values)] for path, each in added.items()]] if added else []
