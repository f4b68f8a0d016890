"""What went wrong, for the terminal: in which step, on which record, in which line of the user's code, and what to do."""

from __future__ import annotations

import os
import re
from typing import TextIO

from taktline import TaktlineError
from taktline._observe import pages
from taktline._segment.batch import READING_STEP
from taktline._working_folder import working_folder
from taktline.cli import standard
from taktline.cli.wording import Asked, as_flags
from taktline.errors import Place, StepError

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_WHOLE = ("  at ", "  by ", "    ", "  record ", "  given ")  # lines of code and of data
NO_TEXT = "the JSON object must be str, bytes or bytearray, not "  # what json.loads says of what was parsed before
DELIMITED = re.compile(r"\.(csv|tsv)(\.\w+)?:\d+$")  # a place in such a file
CALLS = 5  # of the user's own functions that are shown where one fails


def described(error: BaseException, asked: Asked) -> str:
    """An error for the terminal: what happened, to which record and step, where in the user's code, what to do."""
    place = getattr(error, "__taktline__", None)
    code = getattr(error, "code", "TK200")
    if isinstance(error, TaktlineError):
        first, *told = map(_said, (str(error) or type(error).__name__).split("\n"))
        if place is not None:
            told = [*_where(error, place, told), *told, *_alone(place, told, asked)]
        return "\n".join([f"error {error.code}: {first}", *told])
    what = f"{type(error).__name__}: {error}".removesuffix(": ").replace("\n", "\n    ")
    if place is None:
        lines = [f"error TK000: {what}"]
        if source := _own_line(error, ""):
            lines.append(f"  at {source}")
        return "\n".join(
            [*lines, *(f"  {_said(line)}" for note in getattr(error, "__notes__", ()) for line in note.split("\n"))]
        )
    lines = [
        f"error {code if isinstance(code, str) else 'TK200'}: step {place.step!r} failed on record {place.index:,}"
    ]
    lines.append(f"  {what}")
    if source := _own_line(error, place.traceback):
        lines.append(f"  at {source}")
    lines += place.lines()
    if isinstance(error, KeyboardInterrupt):
        lines.append("  next    have the step raise another exception: this one means that somebody has pressed Ctrl-C")
    else:
        lines += _likely(error, place)
        lines.append(
            "  next    keep such records aside: --dead-letters failed.jsonl, or leave them out: --on-error skip"
        )
        lines += _alone(place, lines, asked)
    return "\n".join(lines)


def _likely(error: BaseException, place: Place) -> list[str]:
    """What most often stands behind an error like this one, where something does."""
    if not isinstance(error, TypeError):
        return []
    if NO_TEXT in str(error):
        why = "each record is what its line of JSON holds, so no step needs to parse it; --in-format text gives text"
    elif "str" in str(error) and DELIMITED.search(place.source):
        why = "the cells of such a file are text: --types infer, or --types n=int,day=date, makes values of them"
    else:
        return []
    return [f"  why     {why}"]


def fitting(text: str, stream: TextIO) -> str:
    """What is told of an error, with its sentences folded to the terminal that it goes to. Code and commands stay whole, and
    so does all of it where it goes elsewhere: one line is found by one search."""
    if not stream.isatty():
        return text
    width = standard.columns(stream)
    return "\n".join(
        line
        if line.startswith(_WHOLE) or "try this one:" in line
        else pages.folded(line, 10 if line.startswith("  ") else 2, width)
        for line in text.split("\n")
    )


def _said(line: str) -> str:
    """A line of a message in the words of the command: with flags, and paths as they are named from this folder. What is
    shown of a record is the user's own, whatever it looks like."""
    if line.lstrip().startswith("record "):
        return line
    here = working_folder()
    return as_flags(line).replace(f"'{os.path.join(here, '')}", "'") if here else as_flags(line)


def _where(error: TaktlineError, place: Place, told: list[str]) -> list[str]:
    """The line of the user's code, where one has raised, and what of the record the error does not tell itself."""
    inside = isinstance(error, StepError) and not error.moving and error.traceback
    source = _own_line(error, error.traceback) if isinstance(error, StepError) and inside else ""
    known = {line.split()[0] for line in told if line.strip()}
    return [*([f"  at {source}"] if source else []), *(line for line in place.lines() if line.split()[0] not in known)]


def _alone(place: Place, told: list[str], asked: Asked) -> list[str]:
    """The command that looks at this record by itself."""
    if not asked.source or asked.source == "-" or place.step == READING_STEP:
        return []
    name = "" if any(line.startswith("  next ") for line in told) else "next"
    return [f"  {name:<4}    try this one: {asked.command('check', '--record', str(place.index))}"]


def _is_installed(path: str) -> bool:
    """Whether a file is Python's own or of an installed package, or none that is here, such as compiled code."""
    parts = path.split(os.sep)
    return (
        "site-packages" in parts
        or path.startswith(os.path.dirname(os.__file__))
        or path.endswith((".pyx", ".pxi", ".pxd"))
    )


def _own_line(error: BaseException, text: str) -> str:
    """The line of the user's code that raised, from the worker's traceback or the exception's own, and below it those that
    led there."""
    import traceback

    text = text or "".join(traceback.format_tb(error.__traceback__))
    found = re.findall(r'File "([^"]+)", line (\d+), in .*\n(?:    (.*)\n)?', text)
    # What called taktline (click, the interpreter) stands before its frames, what it called behind them.
    ours = [n for n, each in enumerate(found) if each[0].startswith((_OURS, "<taktline"))]
    own = found[ours[-1] + 1 :] if ours else found
    # Where a library has raised, the user's call of it is what can be mended.
    own = [each for each in own if not _is_installed(each[0])] or own
    lines = [
        f"{os.path.relpath(path) if os.path.isabs(path) else path}:{number}   {source.strip()}"
        for path, number, source in reversed(own[-CALLS:])
    ]
    return "\n  by ".join(lines)
