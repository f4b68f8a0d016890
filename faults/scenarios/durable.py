"""Runs that go on after they were ended, and records kept aside. Files: in.jsonl, out.jsonl, run.journal, failed.jsonl."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from faults import steps
from faults.job import WORKERS, Expand, Job, Keep, Serial
from faults.scenario import CompleteOr, FailsAt, Scenario, Seen, Source, Told, Verdict, Wrote
from faults.scenarios.records import BAD, Made, numbers
from faults.steps import ADAPTER, ATTEMPT, BASE, Die, Fails, Pace, Raise, SignalCaller

GROUP = "Going on, and records kept aside"
AT = 900
JOURNAL = {"journal": "run.journal"}
LETTERS = {"dead_letters": "failed.jsonl"}
KNOWN = {"in.jsonl", "out.jsonl", "run.journal", "failed.jsonl", "failed.sqlite", "disk", "retried.jsonl"}
SECOND = os.environ.get(ATTEMPT) == "2"


def write_input() -> None:
    """The records as a file, which stays as it is for the second attempt."""
    if not Path("in.jsonl").exists():
        Path("in.jsonl").write_text(text_of(numbers()), encoding="utf-8")


def rows() -> Any:
    from taktline import read

    return read("in.jsonl")


def text_of(numbers: Any) -> str:
    return "".join(f"{n}\n" for n in numbers)


DOUBLED = [2 * n for n in numbers()]


def holds(path: str, wanted: list[int]) -> Callable[[Seen], tuple[Verdict, str] | None]:
    """A check that a file is byte for byte what the loop writes, and that no other files are about."""

    def check(seen: Seen) -> tuple[Verdict, str] | None:
        error = next((told.error for told in seen.told if told.error is not None), None)
        if error is not None:
            return Verdict.UNCLEAR, f"fails: {error.strip().splitlines()[-1][:100]}"
        file = seen.folder / path
        if not file.exists():
            return Verdict.LOSS, "no output"
        text = file.read_text(encoding="utf-8")
        if text != text_of(wanted):
            lines = text.splitlines()
            return Verdict.LOSS, f"{len(lines)} lines, {len(set(lines))} different ones, of {len(wanted)}"
        if extra := {each.name for each in seen.folder.iterdir()} - KNOWN:
            return Verdict.LEFT, ", ".join(sorted(extra))
        return None

    return check


def letters_of(path: Path) -> list[int]:
    """The records in a file of dead letters."""
    if path.suffix == ".sqlite":
        with sqlite3.connect(path) as database:
            return [row[0] for row in database.execute('SELECT "index" FROM dead_letters ORDER BY id')]
    return [json.loads(line)["index"] for line in path.read_text(encoding="utf-8").splitlines()]


def kept_aside(path: str, failed: tuple[int, ...]) -> Callable[[Seen], tuple[Verdict, str] | None]:
    """A check that these records, each once, are in the dead letters, and all the others in the output."""
    rest = [2 * n for n in numbers() if n - BASE not in failed]

    def check(seen: Seen) -> tuple[Verdict, str] | None:
        if (wrong := holds("out.jsonl", rest)(seen)) is not None:
            return wrong
        found = letters_of(seen.folder / path)
        return None if found == sorted(failed) else (Verdict.LOSS, f"dead letters of {found}, not {sorted(failed)}")

    return check


def written(
    name: str, fault: str, steps_: tuple[Any, ...], options: dict[str, Any], expect: Any, **more: Any
) -> Scenario:
    """A job from file to file."""
    needs = frozenset({"writes", *(name.replace("_", " ") for name in options if name in ("journal", "dead_letters"))})
    return Scenario(
        name=name, fault=fault, job=Job(rows, steps_, options, out=more.pop("out", "out.jsonl")),
        needs=needs | more.pop("needs", frozenset()), prepare=write_input, compared=False, expect=expect, **more,
    )  # fmt: skip


def resumed(name: str, fault: str, *fns: Any, wanted: list[int] = DOUBLED, **options: Any) -> Scenario:
    """A job that is ended by SIGKILL to its caller once, and started again with the same command."""
    return written(
        name, fault, fns or (Pace(), SignalCaller(AT, signal.SIGKILL), steps.double), JOURNAL | options,
        Wrote(holds("out.jsonl", wanted)), attempts=2,
    )  # fmt: skip


def refused(name: str, fault: str, between: Callable[[Path], None] | None, *fns: Any) -> Scenario:
    """A run that must not go on. It is killed well behind the first mark, before which there is nothing to go on with."""
    return written(
        name, fault, (Pace(0.003), SignalCaller(AT, signal.SIGKILL), *(fns or (steps.double,))), JOURNAL,
        FailsAt(0, ("ResumeError",), named=False), attempts=2, between=between,
    )  # fmt: skip


def other_input() -> None:
    """In the second attempt the records are others."""
    write_input()
    if os.environ[ATTEMPT] == "2":
        Path("in.jsonl").write_text(text_of(n + 1 for n in numbers()), encoding="utf-8")


def spoil(folder: Path) -> None:
    """Turn each byte of the journal round."""
    journal = folder / "run.journal"
    journal.write_bytes(bytes(255 - byte for byte in journal.read_bytes()))


def spoil_half(folder: Path) -> None:
    """The same with its later half: what was being written when the power went."""
    journal = folder / "run.journal"
    data = journal.read_bytes()
    half = len(data) // 2
    journal.write_bytes(data[:half] + bytes(255 - byte for byte in data[half:]))


def refused_or_whole(seen: Seen) -> tuple[Verdict, str] | None:
    """A check for ResumeError, or else the loop's output."""
    if any("ResumeError" in told.error_types for told in seen.told):
        return None
    return holds("out.jsonl", DOUBLED)(seen)


def cut(folder: Path) -> None:
    """Half of the journal is gone."""
    journal = folder / "run.journal"
    os.truncate(journal, journal.stat().st_size // 2)


def lose_output(folder: Path) -> None:
    """All that was written is gone: whatever the unfinished output is called."""
    for path in folder.iterdir():
        if path.name.startswith(("out.", ".out.")):
            path.unlink()


def more_room(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=10m", folder / "disk"], check=True)


def appending(results: Any, told: Told, got: list[Any], source: Source) -> None:
    """A program that writes results itself, one after the other, and is killed behind the 900th."""
    delivered = results.delivered
    path = Path("own.txt")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[:delivered] if path.exists() else []
    with open(path, "w", encoding="utf-8", buffering=1) as file:
        file.writelines(lines)
        for result in results:
            file.write(f"{result}\n")
            if result == 2 * (BASE + AT) and os.environ[ATTEMPT] == "1":
                os.kill(os.getpid(), signal.SIGKILL)
    if path.read_text(encoding="utf-8") != text_of(DOUBLED):
        told.wrong = "silent loss: the file is not the loop's"


def command(*arguments: str) -> list[str]:
    """A command of taktline's, with the technique of the adapter."""
    how = os.environ[ADAPTER].split()[1]
    start = [sys.executable, "-m", "taktline.cli.commands"]
    starts = {"launched": "launch", "threads": "threads"}
    as_asked = ["--how", "line", "--start", starts[how]] if how in starts else ["--how", how]
    return [*start, *arguments, *as_asked, "--workers", str(WORKERS), "--quiet"]


def by_command(run: Callable[[], None]) -> None:
    """`taktline run` in the place of the program."""
    files = ["--in", "in.jsonl", "--out", "out.jsonl", "--journal", "run.journal"]
    os.execv(sys.executable, command("run", "faults.flows:flow", *files))


def retry_command(run: Callable[[], None]) -> str | None:
    """The run, and in the second attempt `taktline retry`."""
    if os.environ[ATTEMPT] == "1":
        run()
        return None
    again = command("retry", "failed.jsonl", "faults.flows:again", "--out", "retried.jsonl")
    done = subprocess.run(again, capture_output=True, text=True)
    return None if done.returncode == 3 else f"unclear error: exit code {done.returncode}: {done.stderr[-200:]}"


def retried(seen: Seen) -> tuple[Verdict, str] | None:
    out = seen.folder / "retried.jsonl"
    if not out.exists() or out.read_text(encoding="utf-8") != text_of([2 * (BASE + 7)]):
        return Verdict.LOSS, "the record that works now is not in the new output"
    found = letters_of(seen.folder / "failed.jsonl")
    return None if len(found) == 1 else (Verdict.LOSS, f"{len(found)} dead letters, not the one that still fails")


FAILING = (steps.same, Raise(7, Made(KeyError)), Raise(BAD, Made(ValueError)), steps.double)

SCENARIOS = [
    written("a writer's file is whole or not there", "ValueError at record 1,733: the error, and no half output file",
            FAILING[2:], {}, Wrote(lambda seen: (Verdict.LEFT, str(files))
                                   if (files := sorted({each.name for each in seen.folder.iterdir()} - {"in.jsonl"}))
                                   else None)),
    written("a folder that cannot be written", "the output cannot be made: one error that names it",
            (steps.double,), {}, CompleteOr(("/proc/out.jsonl",)), out="/proc/out.jsonl"),
    written("the disk is full at a writer", "the output takes more than the 8 kB that there are: one error that names it",
            (steps.double,), {}, CompleteOr(("disk/out.jsonl",)), out="disk/out.jsonl", disk=8_192),
    resumed("SIGKILL, and again",
            "the caller is killed at record 900, then the same command: byte for byte the loop's output"),
    resumed("SIGKILL, and again, with steps that drop and add", "the same: a record may give no result or several",
            Pace(), Keep(steps.odd), SignalCaller(AT + 1, signal.SIGKILL), Expand(steps.few), steps.double,
            wanted=[2 * n for n in numbers() if n % 2 for _ in range(n % 4)]),
    resumed("SIGKILL, and again, with a running total", "the same: each result depends on all records before it",
            Pace(), SignalCaller(AT, signal.SIGKILL), Serial(steps.RunningTotal()), wanted=list(accumulate(numbers()))),
    written("SIGTERM to the command, and again",
            "`taktline run` gets SIGTERM at record 900, then the same command: byte for byte the loop's output",
            (steps.double,), JOURNAL, Wrote(holds("out.jsonl", DOUBLED)), attempts=2, drive=by_command,
            needs=frozenset({"command"}), first_code=128 + signal.SIGTERM),
    replace(refused("the records have changed", "between two attempts: ResumeError", None), prepare=other_input),
    refused("the steps have changed", "between two attempts: ResumeError", None,
            steps.halve if SECOND else steps.double),
    refused("a damaged journal", "its bytes are turned round: ResumeError", spoil),
    written(
        "a journal that is half damaged",
        "as a power cut may do it: ResumeError, or byte for byte the loop's output",
        (Pace(), SignalCaller(AT, signal.SIGKILL), steps.double),
        JOURNAL,
        Wrote(refused_or_whole),
        attempts=2,
        between=spoil_half,
    ),
    refused("half a journal", "its file is cut: ResumeError", cut),
    refused("the unfinished output is gone", "deleted between two attempts: ResumeError", lose_output),
    written("the disk is full, and then is not", "the output has 8 kB, then more, and the same command again: all of it",
            (steps.double,), JOURNAL, Wrote(holds("disk/out.jsonl", DOUBLED)), attempts=2, between=more_room,
            out="disk/out.jsonl", disk=8_192),
    written("the disk is full at the journal", "16 kB for it: one error that names it", (steps.double,),
            {"journal": "disk/run.journal"}, CompleteOr(("disk/run.journal",)), disk=16_384),
    Scenario(
        name="a program's own file and the journal",
        fault="it writes results itself and is killed; it goes on behind what it was given: none twice, none missing",
        job=Job(rows, (Pace(), steps.double), JOURNAL), needs=frozenset({"journal"}), prepare=write_input,
        consume=appending, compared=False, attempts=2, expect=Wrote(lambda seen: None),
    ),
    written("dead letters", "two records raise: both are kept aside, the others are written",
            FAILING, LETTERS, Wrote(kept_aside("failed.jsonl", (7, BAD)))),
    written("dead letters in a database", "the same into SQLite", FAILING, {"dead_letters": "failed.sqlite"},
            Wrote(kept_aside("failed.sqlite", (7, BAD)))),
    written("dead letters of records that kill", "two records kill their worker: kept aside, the others are written",
            (steps.same, Die((7, BAD), steps.Send(signal.SIGKILL)), steps.double), LETTERS,
            Wrote(kept_aside("failed.jsonl", (7, BAD))), needs=frozenset({"workers"})),
    written("dead letters, SIGKILL, and again", "the caller is killed between two failures: each is kept aside once",
            (*FAILING[:3], Pace(), SignalCaller(AT, signal.SIGKILL), steps.double), JOURNAL | LETTERS,
            Wrote(kept_aside("failed.jsonl", (7, BAD))), attempts=2),
    written("the disk is full at the dead letters", "4 kB for them: one error that names them",
            (Fails(), steps.double), {"dead_letters": "disk/failed.jsonl"},
            CompleteOr(("disk/failed.jsonl",)), disk=4_096),
    written("dead letters are tried again", "one of two works now: `taktline retry` writes it and keeps the other",
            FAILING, LETTERS, Wrote(retried), attempts=2, drive=retry_command, needs=frozenset({"command"})),
]  # fmt: skip
