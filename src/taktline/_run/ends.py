"""The ends of a run are different things: what it reads, what it writes, its dead letters, its journal, its report."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from taktline.abc import Sink, Source
from taktline.errors import LineError


def check_apart(source: object, sink: object = None, others: Mapping[str, Any] | None = None) -> None:
    """Raises LineError where two ends of a run are one file, by whatever spelling, or where the source reads what the run
    writes: now, or when it is started again. `others`: paths by what they are for; None: not used.

    Devices are no files, and a database may be source and sink at once."""
    ends = {what: os.fspath(path) for what, path in (others or {}).items() if path is not None}
    into = sink.writes() if isinstance(sink, Sink) else []
    if not ends and not into:
        return
    from taktline._io.place import same, shown

    named = [("the output", path) for path in into] + list(ends.items())
    named = [(what, path) for what, path in named if not _is_device(path)]
    for at, (what, path) in enumerate(named):
        for other, there in named[:at]:
            if same(path, there):
                raise LineError(
                    f"{other} and {what} are the same file, {shown(path)!r}; name another one for one of them"
                )
    if not isinstance(source, Source):
        return
    for what, path in named:
        both = source.shared and isinstance(sink, Sink) and sink.shared and path in into
        if not both and source.reads(path):
            raise LineError(
                f"{what} {shown(path)!r} is among what is read, {source.describe()!r}, or would be the next time; write it "
                "somewhere else, or read by a pattern that leaves it out"
            )


def check_options(source: object, sink: object, dead_letters: Any) -> None:
    """Raises LineError where a run from this source into this sink would refuse these dead letters; nothing is written."""
    check_apart(source, sink, {"the dead letters": dead_letters})
    if dead_letters is not None:
        from taktline._durable.dead_letters import check_dead_letters

        check_dead_letters(os.fspath(dead_letters))


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
