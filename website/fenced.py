"""The examples in docstrings as blocks of code: `>>>` at the start of a line would be a quotation in Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)>>> .*\n?(?:\1(?! *$).+\n?)*", re.MULTILINE)


def fenced(text: str) -> str:
    """The text with each example, up to the next empty line, in a fence."""

    def fence(found: re.Match[str]) -> str:
        indent = found[1]
        return f"\n{indent}```pycon\n{found[0].rstrip()}\n{indent}```\n"

    return EXAMPLE.sub(fence, text)


class Fenced(griffe.Extension):
    """Does so to all that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """One class, function or module."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
