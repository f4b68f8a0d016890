"""What is said in the command speaks its language: flags for options, and commands that can be pasted."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import fields

from taktline._recipe.options import Options

_OF_ENDS = (
    "mode",
    "rows",
    "partition_by",
    "codec",
    "level",
    "types",
    "columns",
    "delimiter",
    "encoding",
    "path_column",
)
_NAMES = "|".join([*(each.name for each in fields(Options) if each.metadata["flag"] != "none"), *_OF_ENDS])
_OPTION = re.compile(rf"""(?<![\w.("'])({_NAMES})=(?:"([^"\s]+)"|([\w.%]+)|)(?![\w"'(])""")


def as_flags(text: str) -> str:
    """A text with the options of a run as flags.

    >>> as_flags('use start="launch", or workers=4 and a smaller memory=; journal= too, step(timeout=5), on_error="skip"')
    'use --start launch, or --workers 4 and a smaller --memory; --journal too, step(timeout=5), --on-error skip'
    >>> as_flags("ordered=False")
    '--no-ordered'
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found[1].replace("_", "-"), found[2] or found[3]
        if value in ("True", "False"):
            return f"--{'no-' if value == 'False' else ''}{name}"
        return f"--{name} {value}" if value else f"--{name}"

    return _OPTION.sub(flag, text)


class Asked:
    """What a command was asked to run: so that others about the same can be named whole."""

    target = "TARGET"
    source = ""
    reading: tuple[str, ...] = ()  # how the source is read, as flags

    def opens(self, target: str, source: str, reading: dict[str, object]) -> None:
        """The command works on these."""
        self.target, self.source, self.reading = target, source, tuple(_flags(reading))

    def command(self, name: str, *more: str) -> str:
        """Another command about the same line and records, to be pasted."""
        return shlex.join(("taktline", name, self.target, "--in", self.source, *self.reading, *more))

    def retry(self, letters: str, out: str) -> str:
        """The command that runs the dead letters again, into a file that is not there yet."""
        stem, suffix = os.path.splitext(out)
        again = f"{stem}.again{suffix}" if out and out != "-" and "://" not in out else "again.jsonl"
        return shlex.join(("taktline", "retry", letters, self.target, "--out", again))


def _flags(reading: dict[str, object]) -> list[str]:
    found: list[str] = []
    for name, value in reading.items():
        flag = "--in-format" if name == "format" else f"--{name.replace('_', '-')}"
        if value is None or (name == "header" and value is True):
            continue
        if name == "quoting":
            found.append(flag if value else "--no-quoting")
        elif name == "header":
            found += [flag, ",".join(map(str, value)) if isinstance(value, (list, tuple)) else "none"]
        elif name == "filters":
            for column, sign, wanted in value:  # type: ignore[attr-defined]
                found += ["--filter", f"{column}{sign}{wanted}"]
        elif isinstance(value, Mapping):
            found += [flag, ",".join(f"{key}={getattr(kind, '__name__', kind)}" for key, kind in value.items())]
        else:
            found += [flag, ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]
    return found
