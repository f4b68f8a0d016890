"""The first so many records of a source, as `--limit` asks for them: with columns where that has some."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from taktline.abc import Part, Sink, Source, Splitter, Unread


class First(Source):
    """The first so many records of a source."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self._limit = limit
        self.forks, self.shared, self.columns = source.forks, source.shared, source.columns

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self._source), self._limit)

    def read(self, unread: list[Unread]) -> Iterator[Any]:
        return islice(self._source.read(unread), self._limit)

    def split_columns(self, *, exact: bool = False, unread: list[Unread] | None = None) -> Splitter | None:
        parts = self._source.split_columns(exact=exact, unread=unread)
        return None if parts is None else _FirstParts(parts, self._limit)

    def beside(self, sink: Sink, *, journal: bool) -> Source:
        return First(self._source.beside(sink, journal=journal), self._limit)

    def about(self) -> int | None:
        try:
            known: int | None = len(self._source)  # type: ignore[arg-type]
        except TypeError:
            known = self._source.about()
        return self._limit if known is None else min(self._limit, known)

    def describe(self) -> str:
        return self._source.describe()

    def reads(self, path: str) -> bool:
        return self._source.reads(path)

    def fingerprint(self) -> Any:
        known = self._source.fingerprint()
        return None if known is None else [known, self._limit]

    def untold(self) -> str:
        return self._source.untold()

    def places(self) -> Splitter | None:
        return self._source.places()


class _FirstParts(Splitter):
    """A pass over the first so many records."""

    def __init__(self, parts: Splitter, limit: int) -> None:
        self._parts = parts
        self._limit = limit  # of those that come yet
        self.here = parts.here

    def part(self, records: int) -> Part | None:
        return self._as_many(self._parts.part(min(records, self._limit))) if self._limit else None

    def table(self) -> Part | None:
        return self._as_many(self._parts.table()) if self._limit else None

    def _as_many(self, part: Part | None) -> Part | None:
        if part is not None and len(part) > self._limit:
            part = _FirstOfPart(part, self._limit)
        self._limit -= len(part) if part is not None else 0
        return part

    def __iter__(self) -> Iterator[Any]:
        records, end = iter(self._parts), object()
        while self._limit and (record := next(records, end)) is not end:
            self._limit -= 1
            yield record

    def where(self) -> str:
        return self._parts.where()

    def close(self) -> None:
        self._parts.close()


class _FirstOfPart(Part):
    """The first records of a part."""

    __slots__ = ("_count", "_part", "size", "whole")

    def __init__(self, part: Part, count: int) -> None:
        self._part = part
        self._count = count
        self.size = max(1, part.size * count // len(part))
        self.whole = part.whole

    def __reduce__(self) -> Any:
        return _FirstOfPart, (self._part, self._count)

    def __len__(self) -> int:
        return self._count

    def read(self, unread: list[Unread] | None = None) -> Iterator[Any]:
        return islice(self._part.read(unread), self._count)

    def table(self) -> Any:
        return self._part.table().slice(0, self._count)

    def where(self, n: int) -> str:
        return self._part.where(n)
