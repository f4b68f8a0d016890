"""The ends of a run are different things: what it reads, what it writes, its dead letters, its journal, its report."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from types import CoroutineType, GeneratorType
from typing import Any

from taktline._recipe.steps import gives_generator, is_async
from taktline._signals import pass_on
from taktline._urls import is_url
from taktline.abc import Sink, Source
from taktline.errors import LineError


def check_sink(sink: object) -> None:
    """Raises LineError where results cannot go there, or where a call with one would do nothing yet."""
    if sink is None or isinstance(sink, Sink):
        return
    if callable(sink):
        if is_async(sink):
            raise LineError(
                "a sink is called and not awaited, so an async function would do nothing with the results; iterate over "
                "flow.stream(source), or await it in a last step of the line"
            )
        if gives_generator(sink):
            raise LineError(
                "a sink is called with each result, but this function has a yield, and a call of it does nothing"
            )
        return
    hint = ""
    if isinstance(sink, (str, bytes, os.PathLike)):
        hint = f"; did you mean taktline.write({os.fsdecode(sink)!r})?"
    elif isinstance(sink, (list, set)):
        hint = f"; did you mean its {'append' if isinstance(sink, list) else 'add'}, or list(flow(records))?"
    elif hasattr(sink, "write"):
        hint = "; did you mean taktline.write(stream, format), with a stream of bytes?"
    raise LineError(f"a sink must be a callable of one result or a writer, not {type(sink).__name__}{hint}")


def refuse_unbegun(returned: Any) -> None:
    """Raises TypeError where a sink that looked like any function has returned what would do its work only later."""
    if type(returned) in (CoroutineType, GeneratorType):
        returned.close()
        kind = "coroutine" if type(returned) is CoroutineType else "generator"
        raise TypeError(
            f"it returned a {kind}, and nobody {'awaits' if kind == 'coroutine' else 'iterates over'} it: nothing was done"
        )


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
    reading = [(what, path, path) for what, path in named]
    if isinstance(sink, Sink):
        reading += [("the output", sink.describe(), path) for path in sink.adds()]
    for what, told, path in reading:
        both = source.shared and isinstance(sink, Sink) and sink.shared and path in into
        if not both and source.reads(path):
            raise LineError(
                f"{what} {shown(told)!r} is among what is read, {source.describe()!r}, or would be the next time; write it "
                "somewhere else, or read by a pattern that leaves it out"
            )


def check_options(source: object, sink: object, dead_letters: Any) -> None:
    """Raises LineError where a run from this source into this sink would refuse these dead letters; nothing is written."""
    check_apart(source, sink, {"the dead letters": dead_letters})
    if dead_letters is not None:
        from taktline._durable.dead_letters import check_dead_letters
        from taktline._durable.stored_letters import StoredLetters

        path = os.fspath(dead_letters)
        StoredLetters(path, "", taken_over=False, alone=False) if is_url(path) else check_dead_letters(path)


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)
    except (OSError, ValueError) as error:
        pass_on(error)
        return False
