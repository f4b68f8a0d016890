"""URLs of object stores and other places: told from paths, shown without secrets, and reached by way of fsspec."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from taktline.errors import LineError, SinkError, SourceError, SourceNotFound

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
SCHEME_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "adl": "az"}
TALKATIVE = {"gs": "gcsfs"}  # loggers of stores that log, with its traceback, each failure which they raise too
WEB_SCHEMES = ("http", "https")  # no folders, no patterns, no writing


def is_url(path: str) -> bool:
    """Whether this names a place on another machine, or in memory, and not a file."""
    return URL.match(path) is not None


def shown(url: str) -> str:
    """The URL without password and query, which may be a signature: for messages.

    >>> shown("https://me:hunter2@example.org:81/a.csv?signature=abc"), shown("orders.jsonl")
    ('https://me@example.org:81/a.csv', 'orders.jsonl')
    >>> shown("sqlite:////tmp/shop.db")
    'sqlite:////tmp/shop.db'
    """
    if not is_url(url):
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{host}{parts.path}"


def local(place: str) -> str | None:
    """The path of a file here, which a `file://` URL names too; None for other URLs. Raises LineError for the file of
    another machine."""
    if place.startswith("file://"):
        parts = urlsplit(place)
        if parts.netloc not in ("", "localhost"):
            raise LineError(f"{place!r} names a file of the machine {parts.netloc!r}; write file:///path")
        return unquote(parts.path)
    return None if is_url(place) else place


def is_web(url: str) -> bool:
    """Whether a web server is asked for it."""
    return urlsplit(url).scheme in WEB_SCHEMES


known_stores: list[Callable[[str], tuple[Any, str] | None]] = []
"""Asked first: file system and path of a URL that fsspec cannot reach by itself, such as of a connection that Airflow keeps;
None of any other."""


def scheme_of(url: str) -> str:
    """
    >>> scheme_of("s3://shop/orders.parquet")
    's3'
    """
    return urlsplit(url).scheme


def is_brought(url: str) -> bool:
    """Whether it is reached by what only this process has."""
    return any(known(url) is not None for known in known_stores)


def store_of(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it. Raises LineError."""
    for known in known_stores:
        if (found := known(url)) is not None:
            return found
    scheme = urlsplit(url).scheme
    extra = SCHEME_EXTRAS.get(scheme, "remote")
    if logger := TALKATIVE.get(extra):
        _keep_to_who_listens(logger)
    try:
        from fsspec.core import url_to_fs

        store, path = url_to_fs(url)
    except ImportError as error:
        raise LineError(f"{shown(url)!r} needs a package: {error}; pip install 'taktline[{extra}]'") from error
    except Exception as error:  # each store has errors of its own
        raise LineError(f"{shown(url)!r} cannot be reached: {told(error)}") from error
    return store, path


def _keep_to_who_listens(logger: str) -> None:
    """Python prints warnings that no handler takes. What this logger tells goes to the program's handlers, and else nowhere:
    the error that comes of it says the same in a sentence."""
    import logging  # here: it takes as long as a tenth of all else that is imported

    found = logging.getLogger(logger)
    if not found.handlers:
        found.addHandler(logging.NullHandler())


def check_target(url: str) -> None:
    """Raises LineError where nothing can be written to this kind of URL."""
    store_of(url)
    if is_web(url):
        raise LineError(f"{shown(url)!r} cannot be written: a web server only gives files")


def url_of(store: Any, path: str, beside: str) -> str:
    """The URL of what was found in the store of the URL `beside`, with the user or connection that is named there."""
    whole = str(store.unstrip_protocol(path))
    user, at, _ = urlsplit(beside).netloc.rpartition("@")
    if not at or "@" in urlsplit(whole).netloc:
        return whole
    scheme, _, rest = whole.partition("://")
    return f"{scheme}://{user}@{rest}"


def put(url: str, data: bytes) -> None:
    """A small object with these bytes, which stores show as a whole or not at all. Raises LineError, SinkError."""
    store, path = store_of(url)
    try:
        store.pipe_file(path, data)
    except Exception as error:  # each store has errors of its own
        raise SinkError(f"{shown(url)!r} cannot be written: {told(error)}", path=shown(url)) from error


def get(url: str) -> bytes:
    """A small object. Raises LineError, SourceNotFound, SourceError."""
    store, path = store_of(url)
    try:
        return bytes(store.cat_file(path))
    except FileNotFoundError as error:
        raise SourceNotFound(f"there is nothing at {shown(url)!r}", path=shown(url)) from error
    except Exception as error:  # each store has errors of its own
        raise SourceError(f"{shown(url)!r} cannot be read: {told(error)}", path=shown(url), away=True) from error


def kind_of(store: Any, path: str) -> str:
    """What is there: a "file", a "directory", or "" for nothing. Raises what the store does where it cannot be asked:
    fsspec's own `exists` and `isdir` take that for a no."""
    try:
        return str(store.info(path)["type"])
    except FileNotFoundError:
        return ""


def is_there(url: str) -> bool:
    """Whether there is an object. Raises LineError, SinkError."""
    store, path = store_of(url)
    try:
        store.invalidate_cache()
        return bool(kind_of(store, path))
    except Exception as error:  # each store has errors of its own
        raise SinkError(f"{shown(url)!r} cannot be looked up: {told(error)}", path=shown(url)) from error


def take_away(url: str) -> None:
    """An object, where it is there. Raises LineError, SinkError."""
    store, path = store_of(url)
    try:
        store.rm_file(path)
    except FileNotFoundError:
        return
    except Exception as error:  # each store has errors of its own
        raise SinkError(f"{shown(url)!r} cannot be taken away: {told(error)}", path=shown(url)) from error


def told(error: BaseException) -> str:
    """What a store says of a failure: each has errors of its own."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
