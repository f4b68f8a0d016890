"""Where the journal of a task lies, and what stays beside it of a drain that has ended well."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from taktline._files import is_there, read_at, write_at
from taktline.abc import Live, Resumable

LONGEST_NAME = 160  # bytes of a task's name in that of a file, of which file systems take 255 in all


def name_of(ti: Any) -> str:
    """A name for files that no other task has, and no other DAG run of this one: dag, task and run, and a digest of these
    where they do not stand there as they are.

    >>> from types import SimpleNamespace as Task
    >>> name_of(Task(dag_id="nightly", task_id="score", run_id="monday", map_index=3))
    'nightly.score.monday.3'
    >>> name_of(Task(dag_id="nightly", task_id="orders.score", run_id="manual__2026-01-01T00:00:00+00:00", map_index=-1))
    'nightly.orders.score.manual__2026-01-01T00_00_00+00_00-fe3ab2374a97'
    """
    parts = [ti.dag_id, ti.task_id, ti.run_id] + ([str(ti.map_index)] if ti.map_index >= 0 else [])
    whole = ".".join(parts)
    name = re.sub(r"[^\w.+=-]", "_", whole)
    if name == whole and whole.count(".") == len(parts) - 1 and len(name.encode()) <= LONGEST_NAME:
        return name
    digest = blake2b("\0".join(parts).encode(), digest_size=6).hexdigest()
    return f"{name.encode()[:LONGEST_NAME].decode(errors='ignore')}-{digest}"


def is_folder(place: str) -> bool:
    """Whether journals go into this place, each with a name of its own."""
    return place.endswith("/") or os.path.isdir(place)


def own_place(place: str, ti: Any) -> str:
    """The file for this task in this DAG run: in a folder, or with its name in that of a file."""
    if is_folder(place):
        return os.path.join(place, f"{name_of(ti)}.journal")
    stem, suffix = os.path.splitext(place)
    return f"{stem}.{name_of(ti)}{suffix}"


def comes_once(source: Any, sink: Any) -> bool:
    """Whether a run takes from its source for good what it writes, so that another one would replace it by less."""
    return isinstance(source, Live) and isinstance(sink, Resumable) and not sink.visible


def note_done(journal: str, ti: Any, facts: Mapping[str, Any]) -> None:
    """Keep the report of a drain that has ended well, for when its task is cleared. Raises OSError, LineError, SinkError."""
    write_at(_beside(journal), json.dumps({"task": _task(ti), "facts": dict(facts)}).encode() + b"\n")


def done_before(journal: str, ti: Any, sink: Resumable) -> dict[str, Any] | None:
    """The report of this very task, where it has ended well before and what it wrote is still there. Raises OSError,
    LineError, SourceError, SinkError."""
    kept = read_at(_beside(journal))
    if kept is None:
        return None
    try:
        said = json.loads(kept)
        facts = said["facts"] if said["task"] == _task(ti) else None
    except (ValueError, TypeError, KeyError):  # somebody else's file
        return None
    if not isinstance(facts, dict) or not all(map(is_there, sink.writes())):
        return None
    return facts


def _beside(journal: str) -> str:
    folder, slash, name = journal.rpartition("/")
    return f"{folder}{slash}.{name}.done"  # hidden, since who reads the folder wants results


def _task(ti: Any) -> list[Any]:
    return [ti.dag_id, ti.task_id, ti.run_id, ti.map_index]
