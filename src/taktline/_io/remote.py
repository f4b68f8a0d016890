"""URLs of object stores and other places, by way of fsspec: found, read in pieces, and written whole."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from taktline._urls import SCHEME_EXTRAS, WEB_SCHEMES, is_brought, is_web, kind_of, scheme_of, store_of, told, url_of
from taktline._urls import check_target as check_target
from taktline._urls import is_url as is_url
from taktline._urls import shown as shown
from taktline.errors import SinkError, SourceError, SourceNotFound

BUFFER = 1 << 20  # bytes read at once
TAGS = ("ETag", "etag", "generation")  # what stores call that which changes when an object does


def schemes() -> set[str]:
    """What fsspec knows, or would with its packages."""
    try:
        from fsspec import available_protocols
    except ImportError:
        return {*SCHEME_EXTRAS, *WEB_SCHEMES}
    return set(available_protocols())


def find(url: str) -> list[str]:
    """The URLs behind a URL, a pattern or a folder, sorted. Raises SourceNotFound or SourceError where there is none."""
    store, path = store_of(url)
    try:
        store.invalidate_cache()
        if not is_web(url) and any(mark in path for mark in "*?["):
            found = [each for each, about in store.glob(path, detail=True).items() if about["type"] == "file"]
        elif is_web(url):
            found = [path] if _web_has(store, path) else []
        else:
            kind = kind_of(store, path)
            found = _in_folder(store, path) if kind == "directory" else [path] if kind else []
    except Exception as error:  # each store has errors of its own
        raise SourceError(f"{shown(url)!r} cannot be looked up: {told(error)}", path=shown(url), away=True) from error
    if not found:
        raise SourceNotFound(f"there is nothing at {shown(url)!r}", path=shown(url))
    return [url] if found == [path] else sorted(url_of(store, each, url) for each in found)


def names_a_column(folder: str) -> bool:
    """Whether a folder of this name says what a column holds, as Hive's do.

    >>> names_a_column("year=2024"), names_a_column("2024"), names_a_column("=")
    (True, False, False)
    """
    return "=" in folder[1:]


def _in_folder(store: Any, path: str) -> list[str]:
    """The files of a folder; of one in which there are only folders that are named as columns, those in them."""
    about = {each["name"]: each["type"] for each in store.ls(path, detail=True)}
    # Those with a dot or an underscore in front are notes of the programs that wrote the others, such as _SUCCESS.
    files = [
        name for name, kind in about.items() if kind == "file" and name.rpartition("/")[2][:1] not in ("", ".", "_")
    ]
    folders = [name for name, kind in about.items() if kind != "file" and name.rstrip("/") != path.rstrip("/")]
    if files or not all(names_a_column(folder.rstrip("/").rpartition("/")[2]) for folder in folders):
        return files
    return [each for folder in sorted(folders) for each in _in_folder(store, folder)]


def below(folder: str, url: str) -> str:
    """The path of a URL from a folder's on; empty where it does not lie in it."""
    inside, path = store_of(folder)[1].rstrip("/") + "/", store_of(url)[1]
    return path.removeprefix(inside) if path.startswith(inside) else ""


@contextmanager
def opened(url: str) -> Iterator[IO[bytes]]:
    """The bytes at a URL. Raises SourceError, with the place where it stopped, when they cannot be had."""
    store, path = store_of(url)
    try:
        file = store.open(path, "rb")
    except Exception as error:  # each store has errors of its own
        raise SourceError(f"{shown(url)!r} cannot be opened: {told(error)}", path=shown(url), away=True) from error
    with file, io.BufferedReader(_Stream(file, shown(url)), BUFFER) as stream:
        yield stream


def mark(url: str) -> str | None:
    """What changes when the bytes at the URL do, as the store tells it; None where it does not."""
    store, path = store_of(url)
    try:
        return str(store.ukey(path))
    except Exception:  # a store without such a mark, or one that is away: reading will tell
        return None


def is_for_all(url: str) -> bool:
    """Whether workers, also those on other machines, reach what is there by this URL alone, as this process does."""
    return scheme_of(url) in SCHEME_EXTRAS and not is_brought(url)


class StoredObject:
    """An object of a store that is read for as long as somebody has this. A store never changes one in place: another one
    of its name has another tag."""

    def __init__(self, url: str) -> None:
        store, path = store_of(url)
        try:
            self._file = store.open(path, "rb")
            about = store.info(path)
        except Exception as error:  # each store has errors of its own
            raise SourceError(f"{shown(url)!r} cannot be opened: {told(error)}", path=shown(url), away=True) from error
        self._known = int(about["size"]), next((str(about[tag]).strip('"') for tag in TAGS if tag in about), "")
        self.stream = io.BufferedReader(_Stream(self._file, shown(url)), BUFFER)

    def known(self) -> tuple[int, str]:
        """What it is known by, on any machine."""
        return self._known

    def is_what(self, was: object) -> bool:
        """Whether this is the object that was known by that."""
        return self._known == was

    def check(self, path: str) -> None:
        """It is what it was."""


def may_be_there(place: str) -> bool:
    """Whether there is something at the path or URL, or a store does not say."""
    if not is_url(place):
        return os.path.exists(place)
    store, path = store_of(place)
    try:
        store.invalidate_cache()
        return bool(kind_of(store, path))
    except Exception:  # each store has errors of its own: one that is away has not lost it
        return True


def upload(local: str, url: str) -> None:
    """Put a whole file at a URL; object stores show it only when all of it is there. Raises SinkError."""
    store, path = store_of(url)
    try:
        store.put_file(local, path)
    except Exception as error:  # each store has errors of its own
        raise SinkError(
            f"the results could not be put at {shown(url)!r}: {told(error)}. They are complete, and kept in {local!r}.",
            path=shown(url),
        ) from error


class _Stream(io.RawIOBase):
    """A file of a store that says where it stopped when it fails, also where it just ends early."""

    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._name = name
        self._size = getattr(file, "size", None)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            self._at = self._file.seek(offset, whence)
        except Exception as error:  # each store has errors of its own
            raise self._stopped(told(error)) from error
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except Exception as error:  # each store has errors of its own
            raise self._stopped(told(error)) from error
        if not data and self._size is not None and self._at < self._size:
            raise self._stopped(f"it has {self._size:,} bytes")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _stopped(self, why: str) -> SourceError:
        return SourceError(
            f"reading {self._name!r} stopped at byte {self._at:,}: {why}. What came before has been read.",
            path=self._name, byte=self._at, away=True,
        )  # fmt: skip


def _web_has(store: Any, path: str) -> bool:
    """Whether a web server has this. fsspec itself takes the answer of one that is busy, or of none at all, for a no."""
    try:
        store.info(path)
    except FileNotFoundError as error:
        status = getattr(error.__cause__, "status", None)
        if status in (404, 410):
            return False
        raise OSError(f"the server answers {status}" if status else told(error.__cause__ or error)) from error
    return True
