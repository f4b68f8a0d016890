"""What stands behind each code of an error, at length: the same text that docs/errors.md shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

from taktline import LineError
from taktline.errors import did_you_mean

TEXT = "explanations.md"


class Explanation(NamedTuple):
    """What one code means."""

    code: str
    name: str  # of the class, or what else is called so
    text: str


def text() -> str:
    """All of them, as they stand on the page."""
    return files("taktline.cli").joinpath(TEXT).read_text(encoding="utf-8")


def explanations() -> Iterator[Explanation]:
    """Each of them, by code."""
    for found in re.finditer(r"^### (TK\d+) (.+)\n\n((?:(?!###).*\n)+)", text(), re.MULTILINE):
        yield Explanation(found[1], found[2], found[3].strip())


def explanation_of(name: str) -> Explanation:
    """The one of a code or of a class. Raises LineError with the nearest where there is none.

    >>> explanation_of("tk310").name, explanation_of("taktline.StepTimeout").code
    ('WorkerDied', 'TK330')
    >>> explanation_of("WorkerDeid")
    Traceback (most recent call last):
    ...
    taktline.LineError: no error is called 'WorkerDeid'; did you mean 'WorkerDied'? `taktline explain` lists all of them
    """
    wanted = name.strip().rpartition(".")[2].lower()
    known: dict[str, str] = {}
    for each in explanations():
        if wanted in (each.code.lower(), each.code[2:], each.name.lower()):
            return each
        known |= {each.code.lower(): each.code, each.name.lower(): each.name}
    hint = did_you_mean(wanted, known, lambda near: repr(known[near])) or "."
    raise LineError(f"no error is called {name!r}{hint} `taktline explain` lists all of them")
