"""Which stores put objects on conditions, and their objects."""

from __future__ import annotations

from typing import Any

from taktline._google_objects import GoogleObjects
from taktline._objects import Objects
from taktline._urls import shown, store_of
from taktline.errors import LineError


def objects_at(url: str) -> tuple[Objects, str]:
    """The objects of a URL's store, and the path in it. Raises LineError where the store puts none on a condition."""
    store, path = store_of(url)
    if not knows_conditions(store):
        raise LineError(
            f"{shown(url)!r}: this store puts no object on a condition, by which hosts could agree on whose a journal is. "
            "Name a place in S3 (s3://) or Google's store (gs://), or a path on storage that the machines share"
        )
    return objects_of(store, url), path


def objects_of(store: Any, beside: str) -> Objects:
    """The objects of a store that knows conditions, which this URL is of."""
    return Objects(store, beside) if hasattr(store, "call_s3") else GoogleObjects(store, beside)


def knows_conditions(store: Any) -> bool:
    """Whether this file system of fsspec's can put an object on a condition, as far as it is known."""
    return hasattr(store, "call_s3") or ("gs" in getattr(store, "protocol", ()) and hasattr(store, "call"))
