"""Steps that wait, databases, object stores; and what else a program expects of its surroundings."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from faults import steps
from faults.job import Job
from faults.scenario import Complete, CompleteOr, Ends, FailsAt, Scenario, Seen, Source, Told, Verdict, Wrote, judged
from faults.scenario import complete as complete_results
from faults.scenarios.durable import JOURNAL, command, rows, write_input
from faults.scenarios.leaving import take_ten
from faults.scenarios.records import BAD, numbers
from faults.steps import ATTEMPT, BASE, Harm, Pace, Waits, note, notes

GROUP = "Steps that wait, databases, object stores"
AT = 900
LATE = ("TimeoutError", "StepTimeout")
OVERDUE = {"timeout": 1.0}


# --- steps that wait ---


async def blocks(n: int) -> int:
    """A coroutine that does not let go of its event loop, at one record."""
    if n == BASE + BAD:
        time.sleep(600)
    await asyncio.sleep(0.001)
    return n


async def kills(n: int) -> int:
    await asyncio.sleep(0.001)
    if n == BASE + BAD:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def hangs(n: int) -> int:
    """A thread that does not come back from one record."""
    if n == BASE + BAD:
        time.sleep(600)
    return n


MANY = tuple(range(0, 2_000, 20))  # more than one worker leaves alone


def hangs_often(n: int) -> int:
    if n - BASE in MANY:
        time.sleep(600)
    return n


async def tidy(n: int) -> int:
    """A coroutine with something to clean up, which takes a moment."""
    note("begun")
    try:
        await asyncio.sleep(0.005)
    except asyncio.CancelledError:
        await asyncio.sleep(0.02)
        raise
    finally:
        note("tidied")
    return n


def all_tidied(run: Callable[[], None]) -> str | None:
    """After leaving: has each coroutine that began cleaned up?"""
    run()
    lines = notes()
    begun, tidied = lines.count("begun"), lines.count("tidied")
    return None if begun == tidied else f"left behind: {begun - tidied} of {begun} coroutines did not clean up"


def waiting(name: str, fault: str, fn: Callable[[int], Any], **more: Any) -> Scenario:
    """Records through a step that has some of them at once."""
    job = Job(
        numbers,
        (steps.same, Waits(fn, more.pop("tasks", 16))),
        more.pop("options", {}),
        more.pop("step_options", OVERDUE),
    )
    needs = frozenset({"waits", "workers"}) | ({"timeout"} if job.step_options else set())
    return Scenario(name=name, fault=fault, job=job, needs=needs, **({"expect": FailsAt(BAD, LATE)} | more))


# --- databases ---

TABLE = "sqlite:///out.db"


class Halfway(Harm):
    """Notes that the run is in its middle."""

    def strike(self, record: Any) -> None:
        if record == BASE + AT:
            note("halfway")


def as_row(n: int) -> dict[str, int]:
    return {"n": 2 * n}


def make_table() -> None:
    write_input()
    with sqlite3.connect("out.db") as database:
        database.execute("CREATE TABLE IF NOT EXISTS results (n INTEGER)")


def halfway(then: Callable[[], None]) -> Callable[[], None]:
    """Makes the table; once the run is in its middle, a thread of the program does something to it."""

    def watch() -> None:
        while "halfway" not in notes():
            time.sleep(0.01)
        then()

    def prepare() -> None:
        make_table()
        if os.environ[ATTEMPT] == "1":
            threading.Thread(target=watch, daemon=True).start()

    return prepare


def hold_lock(seconds: float) -> Callable[[], None]:
    def hold() -> None:
        other = sqlite3.connect("out.db", timeout=30.0)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        other.close()

    return hold


def die_in_a_transaction() -> None:
    """SQLite's own journal is there while a transaction is under way."""
    end = time.monotonic() + 0.9
    while not os.path.exists("out.db-journal") and time.monotonic() < end:
        time.sleep(0)
    os.kill(os.getpid(), signal.SIGKILL)


def lose_table(folder: Path) -> None:
    """Somebody begins with a new table between two attempts."""
    with sqlite3.connect(folder / "out.db") as database:
        database.execute("DROP TABLE taktline_marks")
        database.execute("DELETE FROM results")


def each_row_once(seen: Seen) -> tuple[Verdict, str] | None:
    """A check that the table has the loop's results."""
    with sqlite3.connect(seen.folder / "out.db") as database:
        found = [n for (n,) in database.execute("SELECT n FROM results ORDER BY rowid")]
    due = [2 * n for n in numbers()]
    return (
        None if found == due else (Verdict.LOSS, f"{len(found)} rows, {len(set(found))} different ones, of {len(due)}")
    )


def stored(name: str, fault: str, prepare: Callable[[], None], expect: Any, **more: Any) -> Scenario:
    """A job from a file into a table, with a journal."""
    return Scenario(
        name=name, fault=fault, job=Job(rows, (Pace(0.002), Halfway(), as_row), JOURNAL, out=TABLE),
        needs=frozenset({"writes", "journal", "tables"}), prepare=prepare, compared=False, expect=expect, **more,
    )  # fmt: skip


# --- object stores and the web ---


class Busy(BaseHTTPRequestHandler):
    """Answers as a store that has too much to do."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass


def busy_store() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    os.environ |= {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_MAX_ATTEMPTS": "1",
        "AWS_DEFAULT_REGION": "us-east-1", "FAULTS_STORE": url,
    }  # fmt: skip


def at(place: str) -> Callable[[], Iterator[Any]]:
    """The records of a file in the store."""

    def records() -> Iterator[Any]:
        from taktline import read

        yield from read(place.format(os.environ["FAULTS_STORE"]))

    return records


def busy(name: str, place: str) -> Scenario:
    return Scenario(
        name=name, fault='whatever it is asked, it answers "503": one error that names the place',
        job=Job(at(place), (steps.double,)), needs=frozenset({"urls"}), prepare=busy_store, compared=False,
        expect=CompleteOr(("in.jsonl", "cannot be looked up")),
    )  # fmt: skip


# --- random numbers, warnings, the second signal ---


class Draw:
    def __call__(self, n: int) -> tuple[int, float]:
        return n, random.random()


def same_as_loop(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    """The random numbers are those of the plain loop with the same seed."""
    from faults.adapters import adapter

    got.extend(results)
    with adapter("taktline loop").run(SEEDED, numbers()) as loop:
        if got != list(loop):
            told.wrong = "silent loss: other random numbers than in the loop"


SEEDED = Job(numbers, (Pace(0.0002), Draw()), {"seed": 7})


class Warn(Harm):
    """Warns at each record, in the same words and from the same line."""

    def strike(self, record: Any) -> None:
        warnings.warn("a doubtful record", UserWarning, stacklevel=1)


@dataclass(frozen=True)
class WarnsOnce:
    """All results, and the warning once."""

    def judge(self, seen: Seen) -> tuple[Verdict, str]:
        verdict = judged(seen, complete_results)
        shown = seen.errors.count("UserWarning: a doubtful record")
        if verdict[0] is not Verdict.PASS or shown == 1:
            return verdict
        return (Verdict.NOT_OFFERED if shown else Verdict.LOSS), f"the warning is shown {shown} times"


def stuck_command(run: Callable[[], None]) -> None:
    """`taktline run` in the place of the program."""
    os.execv(command()[0], command("run", "faults.flows:stuck", "--in", "in.jsonl", "--out", "out.jsonl"))


SCENARIOS = [
    waiting("a coroutine that blocks its event loop",
            "record 1,733 sleeps without `await`, its limit is 1 s: an error that names it, after all results before",
            blocks, tasks=4, limit=60.0, fast=False),
    waiting("records that block an event loop are left out", "asked to leave it out: all the others, in order",
            blocks, tasks=4, limit=60.0, options={"on_error": "skip"}, expect=Complete(), without=(BAD,), fast=False),
    waiting("a thread that never returns",
            "record 1,733 hangs in a thread, its limit is 1 s: an error that names it, after all results before", hangs),
    waiting("many threads that never return",
            "100 records hang, more than one worker can bear, asked to leave them out: all the others, in order",
            hangs_often, options={"on_error": "skip", "batch_size": 20}, step_options={"timeout": 0.5},
            expect=Complete(), without=MANY),
    waiting("a record that kills its worker: in an event loop",
            "with fifteen others under way: all results before it, then an error that names it", kills,
            step_options={}, expect=FailsAt(BAD, named=True)),
    Scenario(
        name="a break while coroutines are under way",
        fault="ten results are taken: each coroutine that began has cleaned up, nothing is left",
        job=Job(lambda: iter(int, 1), (Waits(tidy), steps.double)),
        needs=frozenset({"waits"}), consume=take_ten, compared=False, drive=all_tidied, expect=Ends((0,)),
    ),
    stored("the database is locked for three seconds", "by another program, in the middle of the run: each row once",
           halfway(hold_lock(3.0)), Wrote(each_row_once)),
    stored("the database is locked for good", "the same, and the lock stays: one error that names it, in bounded time",
           halfway(hold_lock(600.0)), CompleteOr(("out.db", "locked")), fast=False, limit=90.0),
    stored("SIGKILL inside of a transaction, and again",
           "the caller is killed while rows are being written, then the same command: each row once, in order",
           halfway(die_in_a_transaction), Wrote(each_row_once), attempts=2, first_code=-signal.SIGKILL),
    stored("the table was emptied", "between two attempts: ResumeError", halfway(die_in_a_transaction),
           FailsAt(0, ("ResumeError",), named=False), attempts=2, between=lose_table),
    busy("a web server that is busy", "{}/in.jsonl"),
    busy("an object store that is busy", "s3://shop/in.jsonl"),
    Scenario(
        name="random numbers from a seed",
        fault="with `seed=`: those of the loop, whichever worker draws them",
        job=SEEDED, needs=frozenset({"seed"}), consume=same_as_loop, compared=False, expect=Ends((0,)),
    ),
    Scenario(
        name="a warning of a step",
        fault="each record warns in the same words, from the same line: it is shown once, as in the loop",
        job=Job(numbers, (Warn(), Pace(0.0005), steps.double)), expect=WarnsOnce(),
    ),
    Scenario(
        name="Ctrl-C twice at the command",
        fault="a step sleeps for ever, so the first cannot finish: the second ends it with 130, nothing is left",
        job=Job(rows, ()), needs=frozenset({"command"}), prepare=write_input, drive=stuck_command, compared=False,
        expect=Ends((130,)),
    ),
]  # fmt: skip
