"""The source or the sink fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from faults import steps
from faults.job import Job
from faults.scenario import CompleteOr, FailsAt, Scenario, Seen, Source, Told, Verdict, Wrote
from faults.scenarios.durable import DOUBLED, LETTERS, holds, letters_of, text_of, write_input, written
from faults.scenarios.records import BAD, numbers

GROUP = "The source or the sink fails"


def broken(at: int) -> Callable[[], Iterator[int]]:
    def records() -> Iterator[int]:
        for n in numbers():
            if n == numbers()[at]:
                raise OSError(errno.EIO, "the disk is gone")
            yield n

    return records


def into_a_full_disk(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    with open("/dev/full", "w", buffering=1) as file:
        for result in results:
            got.append(result)
            if len(got) > BAD:
                file.write(f"{result}\n")


def write_broken() -> None:
    """One line of the input is no JSON."""
    lines = text_of(numbers()).splitlines(keepends=True)
    lines[BAD] = '{"n": \n'
    Path("in.jsonl").write_text("".join(lines), encoding="utf-8")


def without_the_bad_line(seen: Seen) -> tuple[Verdict, str] | None:
    rest = [n for index, n in enumerate(DOUBLED) if index != BAD]
    if (wrong := holds("out.jsonl", rest)(seen)) is not None:
        return wrong
    found = letters_of(seen.folder / "failed.jsonl")
    return None if found == [BAD] else (Verdict.LOSS, f"dead letters of {found}, not [{BAD}]")


def stays(path: str, text: str) -> Callable[[Seen], tuple[Verdict, str] | None]:
    """A check that the run was refused, and a file is as it was."""

    def check(seen: Seen) -> tuple[Verdict, str] | None:
        found = (seen.folder / path).read_text(encoding="utf-8") if (seen.folder / path).exists() else "nothing"
        if found != text:
            return Verdict.LOSS, f"{path} has become {found[:40]!r}"
        if not any(told.error for told in seen.told):
            return Verdict.LOSS, "no error"
        return None

    return check


def link_the_output() -> None:
    write_input()
    os.mkdir("disk")
    Path("disk/target.jsonl").write_text("of before\n", encoding="utf-8")
    os.chmod("disk/target.jsonl", 0o640)
    os.symlink("disk/target.jsonl", "out.jsonl")


def target_replaced(seen: Seen) -> tuple[Verdict, str] | None:
    if (wrong := holds("out.jsonl", DOUBLED)(seen)) is not None:
        return wrong
    target = seen.folder / "disk" / "target.jsonl"
    if not (seen.folder / "out.jsonl").is_symlink() or target.stat().st_mode & 0o777 != 0o640:
        return Verdict.LOSS, "the link or the target's mode is gone"
    return None


def settings_for_letters() -> None:
    write_input()
    Path("failed.jsonl").write_text(SETTINGS, encoding="utf-8")


def all_in_the_folder() -> Any:
    from taktline import read

    return read("*.jsonl")


SETTINGS = '{"rate": 0.19}\n'

SCENARIOS = [
    Scenario(
        name="the source raises in the middle",
        fault="OSError before record 1,733: all results before, then an error with its text",
        job=Job(broken(BAD), (steps.same, steps.double)),
        due=numbers,
        expect=FailsAt(BAD, ("OSError",), named=False),
    ),
    Scenario(
        name="the source raises at once",
        fault="OSError before the first record: an error with its text",
        job=Job(broken(0), (steps.same, steps.double)),
        due=numbers,
        expect=FailsAt(0, ("OSError",), named=False),
    ),
    Scenario(
        name="the disk is full at the sink",
        fault="the consumer cannot write result 1,733: its error comes out, nothing is left",
        job=Job(numbers, (steps.same, steps.double)),
        consume=into_a_full_disk,
        expect=FailsAt(BAD, ("OSError",), named=False),
    ),
    replace(
        written("a line of a file that is no record", "line 1,734 is no JSON: one error that names it, and no output",
                (steps.double,), {}, CompleteOr(("in.jsonl", "line 1,734"))),
        prepare=write_broken,
    ),
    replace(
        written("a line of a file that is no record is kept aside", "asked for dead letters: it is one, all others come",
                (steps.double,), LETTERS, Wrote(without_the_bad_line)),
        prepare=write_broken,
    ),
    written("the output is the input", "one file: refused, and it is as it was",
            (steps.double,), {}, Wrote(stays("in.jsonl", text_of(numbers()))), out="in.jsonl"),
    replace(
        written("the input's pattern takes the output", "`*.jsonl` into out.jsonl: refused, and the input is as it was",
                (steps.double,), {}, Wrote(stays("in.jsonl", text_of(numbers())))),
        job=Job(all_in_the_folder, (steps.double,), out="out.jsonl"),
    ),
    replace(
        written("the output is a symbolic link", "its target is replaced and keeps its mode, the link stays",
                (steps.double,), {}, Wrote(target_replaced)),
        prepare=link_the_output,
    ),
    replace(
        written("dead letters into a file of something else", "refused before the run, and the file is as it was",
                (steps.double,), LETTERS, Wrote(stays("failed.jsonl", SETTINGS))),
        prepare=settings_for_letters,
    ),
]  # fmt: skip
