"""Results to lines of bytes, each by itself: so whoever has some results can make their bytes, workers too. `first` is the
number of the first one, for the errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from taktline.errors import unwritable

_to_json = json.JSONEncoder(ensure_ascii=False).encode


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
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can say it in ASCII only
        return "".join(f"{json.dumps(result)}\n" for result in results).encode()


def text_lines(results: Sequence[Any], first: int) -> bytes:
    for at, result in enumerate(results):
        if not isinstance(result, str):
            raise unwritable(first + at, result, f"it is {type(result).__name__}, not str", "a line of text")
        if "\n" in result:
            raise unwritable(first + at, result, "it has a line end inside", "a line of text")
    return "".join(f"{result}\n" for result in results).encode("utf-8", "surrogatepass")
