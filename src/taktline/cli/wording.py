"""What is said in the command speaks its language: flags for options, and commands that can be pasted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from taktline._excerpts import masked
from taktline._files import beside
from taktline._recipe.options import Options

if TYPE_CHECKING:
    from taktline import Report

_OF_ENDS = (
    "mode",
    "roll",
    "rows",
    "size",
    "partition_by",
    "codec",
    "level",
    "types",
    "columns",
    "delimiter",
    "encoding",
    "path_column",
    "quoting",
    "header",
    "row_group",
    "record",
    "filters",
)
_OTHERWISE = {"filters": "filter"}  # flags that are not called as their option
_NAMES = "|".join([*(each.name for each in fields(Options) if each.metadata["flag"] != "none"), *_OF_ENDS])
_OPTION = re.compile(rf"""(?<![\w.("'])({_NAMES})=(?:"([^"\s]+)"|'([^'\s]+)'|(-?[\w.%]+)|)(?![\w"'(\[])""")


def as_flags(text: str) -> str:
    """A text with the options of a run as flags.

    >>> as_flags('or begin anew: if_changed="restart" (--if-changed restart), or name its parts, such as format="parquet"')
    'or begin anew: --if-changed restart, or name its parts, such as --out-format parquet'

    >>> as_flags('use start="launch", or workers=4 and a smaller memory=; journal= too, step(timeout=5), on_error="skip"')
    'use --start launch, or --workers 4 and a smaller --memory; --journal too, step(timeout=5), --on-error skip'
    >>> as_flags("workers=-1: give a number; stall=0: give seconds above 0, or None for never; filters= is for Parquet")
    '--workers -1: give a number; --stall 0: give seconds above 0, or inf for never; --filter is for Parquet'
    >>> as_flags("ordered=False"), as_flags("delimiter=';'"), as_flags("say how to write it: format= one of csv")
    ('--no-ordered', "--delimiter ';'", 'say how to write it: --out-format one of csv')
    """

    def flag(found: re.Match[str]) -> str:
        name, quoted = _OTHERWISE.get(found[1], found[1]).replace("_", "-"), found[2] or found[3]
        value = shlex.quote(quoted) if quoted else found[4]
        if value in ("True", "False"):
            return f"--{'no-' if value == 'False' else ''}{name}"
        return f"--{name} {value}" if value else f"--{name}"

    said = _OPTION.sub(flag, text).replace("or None for never", "or inf for never")
    for how, name in (("read it: ", "--in-format"), ("write it: ", "--out-format")):
        said = said.replace(f"{how}format= ", f"{how}{name} ")
    said = re.sub(r'such as format="(\w+)"', r"such as --out-format \1", said)
    return re.sub(r"(--[\w-]+ \S+) \(\1\)", r"\1", said)  # which was said in both ways


def in_flags(report: Report) -> Report:
    """A report whose words speak of flags."""
    verdict = report.verdict
    said = replace(
        verdict, doubt=as_flags(verdict.doubt), evidence=as_flags(verdict.evidence), action=as_flags(verdict.action)
    )
    return replace(
        report, verdict=said, error=as_flags(report.error),
        reasons=tuple(map(as_flags, report.reasons)), notes=tuple(map(as_flags, report.notes)),
    )  # fmt: skip


class Asked:
    """What a command was asked to run: so that others about the same can be named whole."""

    words = ""  # the command itself, without secrets
    target = ""
    source = ""
    reading: tuple[str, ...] = ()  # how the source is read, as flags
    setup: tuple[str, ...] = ()
    out_format: str | None = None

    def begins(self, arguments: list[str]) -> None:
        """The command has begun with these."""
        self.words = _joined("taktline", *arguments)

    def opens(self, target: str, source: str, reading: dict[str, object]) -> None:
        """The command works on these."""
        self.target, self.source, self.reading = target, source, tuple(_flags(reading))

    def sets_up(self, function: str | None) -> None:
        """The command has each worker call this function first."""
        self.setup = () if function is None else ("--setup", function)

    def command(self, name: str, *more: str) -> str:
        """Another command about the same line and records, to be pasted."""
        return _joined("taktline", name, self.target, "--in", self.source, *self.reading, *self.setup, *more)

    def retry(self, letters: str, out: str) -> str:
        """The command that runs the dead letters again, into a file that is not there yet."""
        to_file = out not in ("", "-") and "://" not in out
        form = () if self.out_format is None or not to_file else ("--out-format", self.out_format)
        again = beside(out) if to_file else "again.jsonl"
        return _joined("taktline", "retry", letters, self.target, "--out", again, *form, *self.setup)


def _joined(*words: str) -> str:
    return shlex.join(map(masked, words))


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
