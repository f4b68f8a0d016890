"""Results to lines of bytes, each by itself: so whoever has some results can make their bytes, workers too. `first` is the
number of the first one, for the errors."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from taktline._io.plain import as_json
from taktline.errors import SinkError, unwritable

_to_json = json.JSONEncoder(ensure_ascii=False, default=as_json).encode
_to_ascii = json.JSONEncoder(default=as_json).encode
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def json_lines(results: Sequence[Any], first: int) -> bytes:
    encode = _to_json
    lines: list[str] = []
    try:
        for result in results:
            lines.append(encode(result))
    except (TypeError, ValueError, RecursionError) as error:
        raise unwritable(first + len(lines), results[len(lines)], str(error), "JSON") from error
    lines.append("")
    try:
        return "\n".join(lines).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return b"".join(map(_line_with_halves, range(first, first + len(results)), results, lines))


def _line_with_halves(number: int, result: Any, line: str) -> bytes:
    """One result's line, which is the same whatever results are written with it: in ASCII, as JSON says halves, where it
    has one, and in UTF-8 else."""
    try:
        return line.encode() + b"\n"
    except UnicodeEncodeError:
        if _HALVES.search(line):
            raise unwritable(
                number, result, "two halves of a surrogate pair in it would come back as one character", "JSON"
            ) from None
        return _to_ascii(result).encode() + b"\n"


def text_lines(results: Sequence[Any], first: int) -> bytes:
    for at, result in enumerate(results):
        if not isinstance(result, str):
            raise unwritable(first + at, result, f"it is {type(result).__name__}, not str", "a line of text")
        if "\n" in result:
            raise unwritable(first + at, result, "it has a line end inside", "a line of text")
    # Joined, since a format would ask a kind of str of the user's own, such as an Enum, what it is called.
    return encoded(["\n".join([*results, ""])], results, first, "a line of text")


def encoded(lines: Sequence[str], results: Sequence[Any], first: int, form: str, headers: int = 0) -> bytes:
    """Lines as UTF-8, `headers` of them before those of the results. Raises SinkError for one with half a surrogate pair."""
    try:
        return "".join(lines).encode()
    except UnicodeEncodeError as error:
        raise _not_utf8(lines[headers:], results, first, form) from error


def _not_utf8(lines: Sequence[str], results: Sequence[Any], first: int, form: str) -> SinkError:
    texts = lines if len(lines) == len(results) else results
    bad = (at for at, text in enumerate(texts) if any("\ud800" <= sign <= "\udfff" for sign in text))
    at = next(bad, 0)  # else it is the header, of the first one
    return unwritable(first + at, results[at], "it has half of a surrogate pair, which UTF-8 has no bytes for", form)
