"""Has a line go a drawn way, and holds what came of it against the model."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import taktline
from faults.ways import model, sinks, sources
from faults.ways.case import Case
from faults.ways.model import Ending, Wanted
from faults.ways.sinks import SINKS, Spilt, Table, plain, same
from faults.ways.sources import SOURCES, Broken, Messages
from faults.ways.steps import built, set_up
from taktline import line, read_dead_letters
from taktline._crew.machines import agents_here
from taktline._run import checkpointer
from taktline.errors import Failed, LineError, TaktlineError

RAY = ""  # the address of a cluster that has the workers of ways over several machines; else processes here stand in
STALL = 60.0  # seconds without any movement; nothing here takes as long
KILLED_AGAIN = 5  # runs of a caller at most, the last ones undisturbed


@dataclass
class Told:
    """An error, as far as it is compared."""

    name: str
    text: str
    index: int | None = None
    step: str = ""
    line: int | None = None
    at: int | None = None
    where: int | None = None  # in the source, where it tells

    def __str__(self) -> str:
        place = f" at record {self.index} in {self.step}" if self.step else ""
        return f"{self.name}{place}: {self.text}"


@dataclass
class Came:
    """What came of a way."""

    results: list[Any] = field(default_factory=list)
    error: Told | None = None
    counts: dict[str, Any] = field(default_factory=dict)  # of the report, where there is one
    letters: list[Any] | None = None
    odd: list[str] = field(default_factory=list)  # what must never be


def told(error: BaseException) -> Told:
    place = getattr(error, "__taktline__", None)
    facts = getattr(error, "facts", {})
    return Told(
        type(error).__name__, str(error)[:500], place and place.index, place.step if place else "", facts.get("line"),
        facts.get("at", facts.get("result")), facts.get("index"),
    )  # fmt: skip


# --- one run ---


class _Run:
    """One run of a way in this process."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.folder = folder
        self.came = Came()
        self.source: Any = None
        self.delivered: int | None = None  # results that the next run does not give again, where that is another number

    def go(self, kill: Callable[[Any], None] = lambda sink: None) -> Came:
        came, before = self.came, _children()
        try:
            self.source, _ = SOURCES[self.case.origin.kind].make(self.case.origin, self.folder)
            self._into(kill)
        except (Exception, SystemExit) as error:
            came.error = told(error)
        if left := _children() - before:
            came.odd.append(f"processes are left: {left}")
        self._look_at_live()
        with suppress(FileNotFoundError):
            came.letters = [
                (each.index, each.step, each.error, plain(each.record)) for each in read_dead_letters(self._letters())
            ]
        return came

    def began(self, run: Any) -> None:
        """Told of a run before its results are taken."""

    def took(self, result: Any) -> None:
        """Told of each result that was taken."""

    def _letters(self) -> Path:
        return self.folder / f"letters.{self.case.letters or 'none'}"

    def options(self) -> dict[str, Any]:
        options = {**self.case.options, "stall": STALL}
        if options.get("start") == "agents":
            options |= {"start": "auto", "on": taktline.ray(RAY) if RAY else agents_here(2)}
        if any(step.kind == "needs what is set up" for step in self.case.steps):
            options["setup"] = set_up
        if self.case.letters:
            options["dead_letters"] = self._letters()
        if self.case.journal:
            options["journal"] = self.folder / "run.journal"
        return options

    def _into(self, kill: Callable[[Any], None]) -> None:
        case, target = self.case, self.case.target
        flow, results = line(*built(case.steps)), self.came.results
        if target.kind == "stream":
            asyncio.run(self._streamed(flow.stream(self.source, **self.options())))
            return
        make = SINKS[target.kind].make
        sink = make(target, self.folder) if make is not None else None
        kill(sink)
        run = flow(self.source, **self.options())
        try:
            if target.kind == "callable":
                run.drain(self._take)
            elif target.kind == "none":
                run.drain()
            elif sink is not None:
                run.drain(sink)
            else:
                with run:
                    self.began(run)
                    for result in run:
                        results.append(result)
                        self.took(result)
                        if target.fault and len(results) == target.at:
                            if target.fault == "is left":
                                break
                            run.stop()
        finally:
            report = run.report
            if case.journal and target.fault == "is left":
                self.delivered = run.delivered
            self.came.counts = {
                key: getattr(report, key) for key in ("records_in", "records_out", "failed", "skipped", "complete")
            }
            if isinstance(sink, Table):
                results += sink.rows
                self._look_at_table(sink)

    async def _streamed(self, stream: Any) -> None:
        results, target = self.came.results, self.case.target
        async with aclosing(stream):
            async for result in stream:
                results.append(result)
                if target.fault == "is left" and len(results) == target.at:
                    break

    def _take(self, result: Any) -> None:
        if self.case.target.fault == "raises" and len(self.came.results) == self.case.target.at:
            raise Spilt(len(self.came.results))
        self.came.results.append(result)

    def _look_at_table(self, table: Table) -> None:
        if table.ended not in ("", "commit" if self.came.counts["complete"] else "abort"):
            self.came.odd.append(f"the sink was told {table.ended!r}")

    def _look_at_live(self) -> None:
        live = self.source
        if isinstance(live, Messages) and (live.told or self.came.results):
            if live.closed != 1:
                self.came.odd.append(f"the live source was closed {live.closed} times")
            if live.told != sorted(live.told):
                self.came.odd.append(f"the live source was told {live.told}")
            # A source that has given all in an earlier run has nothing left, and gives nothing.
            safe = {self.case.origin.count} if self.came.results else {self.case.origin.count, 0}
            if self.came.error is None and not self.case.target.fault and not safe & {*live.told[-1:]}:
                self.came.odd.append(f"of {self.case.origin.count} records the live source was told {live.told[-1:]}")


def _children() -> set[int]:
    """The processes that this one has started, but for those of multiprocessing."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):
            found.update(map(int, Path(f"/proc/self/task/{thread}/children").read_text().split()))
    return found


# --- runs that go on ---


def gone(case: Case, folder: Path) -> Iterator[tuple[Wanted, Came]]:
    """Go the way, as often as it says: each time what was wanted and what came."""
    broken = _how_it_ends(case, folder)
    wanted = model.wanted(case, broken)
    if case.journal is None or wanted.refused:
        yield wanted, _Run(case, folder).go()
        return
    if case.journal == "goes on after SIGKILL":
        yield wanted, _killed(case, folder)
        return
    mends = case.journal == "goes on after the mend"
    if mends:
        (folder / "broken").touch()
        case = replace(case, steps=tuple(replace(step, until=str(folder / "broken")) for step in case.steps))
    run = _Run(case, folder)
    one = run.go()
    yield wanted, one
    (folder / "broken").unlink(missing_ok=True)
    case = replace(case, target=replace(case.target, fault="", at=0))
    if isinstance(run.source, Messages):
        case = replace(case, origin=replace(case.origin, safe=max([0, *run.source.told])))
    two = _Run(case, folder).go()
    two.results = one.results[: run.delivered] + two.results
    if mends:
        case = replace(case, steps=tuple(replace(step, fault="", at=frozenset()) for step in case.steps))
    yield model.wanted(case, broken), two


def _how_it_ends(case: Case, folder: Path) -> Broken | None:
    """What the source says of that; it is made again for each run."""
    try:
        return SOURCES[case.origin.kind].make(case.origin, folder)[1]
    except TaktlineError as error:
        return Broken(0, (type(error).__name__, "SourceError"))


def _killed(case: Case, folder: Path) -> Came:
    """Caller after caller is killed, in a process of its own, until nothing more kills it."""
    kills = [*case.kills, None]
    for kill in kills:
        out = folder.with_name(f"{folder.name}.came")
        process = FORKS.Process(target=_one_caller, args=(case, folder, out, kill, sources.POSTGRES, RAY))
        process.start()
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            return Came(odd=[f"the caller ended with {process.exitcode}"])
    came: Came = pickle.loads(out.read_bytes())
    out.unlink()
    came.results = _taken(folder)
    return came


def _kept(result: Any) -> Any:
    """A result as it can be written down: an exception that was raised here need not be one that can be read again."""
    return replace(result, error=Exception(repr(result.error))) if isinstance(result, Failed) else result


def _taken(folder: Path) -> list[Any]:
    """The results that callers of this folder have written down themselves."""
    results: list[Any] = []
    with suppress(FileNotFoundError), open(folder / TAKEN, "rb") as file, suppress(EOFError):
        while True:
            results.append(pickle.load(file))
    return results


class _KilledRun(_Run):
    """One whose caller writes down what it takes, so that the next one can go on behind it."""

    def __init__(self, case: Case, folder: Path, kill: tuple[str, int] | None) -> None:
        super().__init__(case, folder)
        self._after = kill[1] if kill is not None and kill[0] == "results taken" else None  # results

    def began(self, run: Any) -> None:
        kept = _taken(self.folder)[: run.delivered] if self.case.target.kind == "loop" else []
        (self.folder / TAKEN).write_bytes(b"".join(pickle.dumps(_kept(each)) for each in kept))

    def took(self, result: Any) -> None:
        with open(self.folder / TAKEN, "ab", buffering=0) as file:
            file.write(pickle.dumps(_kept(result)))
        if self._after is not None and len(self.came.results) == self._after:
            os.kill(os.getpid(), signal.SIGKILL)


TAKEN = "taken"


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["faults.ways.runner"])


def _one_caller(
    case: Case, folder: Path, out: Path, kill: tuple[str, int] | None, postgres: str, ray: str
) -> None:  # fmt: skip
    global RAY
    sources.POSTGRES, RAY = postgres, ray
    if case.seed % 2:
        checkpointer.EVERY = 0.0  # seconds: a mark whenever there may be one
    came = _KilledRun(case, folder, kill).go(_killer(kill))
    out.write_bytes(pickle.dumps(replace(came, results=[])))


def _killer(kill: tuple[str, int] | None) -> Callable[[Any], None]:
    """What ends this process by SIGKILL after so many events; given the sink before the run."""
    if kill is None or kill[0] == "results taken":
        return lambda sink: None
    what, most = kill
    so_far, me = count(1), os.getpid()

    def seen(*events: Any) -> None:
        if os.getpid() == me and any(next(so_far) == most for _ in range(int(events[0]) if events else 1)):
            os.kill(me, signal.SIGKILL)

    def watch(sink: Any) -> None:
        if what == "records out of the source":
            sources.SEEN = lambda index: seen()
        elif what == "operations on files":
            for name in ("pwrite", "fsync", "rename", "replace", "ftruncate", "unlink"):
                setattr(os, name, _before(getattr(os, name), seen))
        else:
            sink.write = _behind(sink.write, lambda results: seen(len(results)))
            sink.write_encoded = _behind(sink.write_encoded, lambda data, number: seen(number))

    return watch


def _before(real: Any, seen: Callable[..., None]) -> Any:
    def call(*args: Any, **more: Any) -> Any:
        seen()
        return real(*args, **more)

    return call


def _behind(real: Any, seen: Callable[..., None]) -> Any:
    def call(*args: Any) -> None:
        real(*args)
        seen(*args)

    return call


# --- the comparison ---


def differences(case: Case) -> list[str]:
    """What came out otherwise than the model says; empty where all is right."""
    found: list[str] = []
    with folder_of(found) as folder:
        for number, (wanted, came) in enumerate(gone(case, folder)):
            again = "when it went on: " if number else ""
            found += [again + each for each in _Comparison(case, folder, wanted, came, first=not number).all()]
    return found


@contextmanager
def folder_of(found: list[str]) -> Iterator[Path]:
    """A folder for one way, and what it has in the server; `found`: to be told of what cannot be taken away."""
    folder = Path(tempfile.mkdtemp(prefix="way-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        if sources.POSTGRES:
            names = (f"in_{folder.name.replace('-', '_')}", sinks._table(folder))
            try:
                _drop(names)
            except Exception as error:
                found.append(f"a run that has ended keeps its source: {error}")
                gc.collect()
                _drop(names)


def _drop(names: tuple[str, ...]) -> None:
    import psycopg

    with psycopg.connect(sources.POSTGRES, options="-c lock_timeout=2s -c client_min_messages=warning") as shop:
        for name in names:
            shop.execute(f"DROP TABLE IF EXISTS {name}")


class _Comparison:
    def __init__(self, case: Case, folder: Path, wanted: Wanted, came: Came, *, first: bool) -> None:
        self.case, self.folder, self.wanted, self.came, self.first = case, folder, wanted, came, first
        self.sink = SINKS[case.target.kind]

    def all(self) -> list[str]:
        if self.wanted.refused:
            if self.came.error is None or self.came.error.name != LineError.__name__:
                return [f"it was to be refused, as {self.wanted.refused}; {self._ended()}"]
            return self.came.odd
        return [
            *self.came.odd,
            *self.ending(),
            *self.results(),
            *self.there(),
            *self.counts(),
            *self.letters(),
            *self.left(),
        ]

    def _ended(self) -> str:
        return f"it ended with {self.came.error}" if self.came.error else "it ended well"

    def ending(self) -> list[str]:
        wanted, error = self.wanted, self.came.error
        if not wanted.endings:
            return [f"it was to end well; {self._ended()}"] if error else []
        if error is None:
            return [] if wanted.early else [f"it was to end with {wanted.endings}; it ended well"]
        if any(self._is(error, ending) for ending in wanted.endings):
            return []
        return [f"it was to end with {wanted.endings}; {self._ended()}"]

    def _is(self, error: Told, ending: Ending) -> bool:
        if error.name not in ending.errors:
            return False
        if ending.step:
            return (error.index, error.step) == (ending.index, ending.step)
        if ending.line is not None and error.line != ending.line:
            return False
        return ending.at is None or error.at == ending.at

    def results(self) -> list[str]:
        wanted, got = self.wanted.results, self.came.results
        if self.case.target.kind == "none" or (self.sink.make is not None and self.case.target.kind != "table"):
            return []
        return self._less(wanted, got, self.wanted.fewer)

    def _less(self, wanted: list[Any], got: list[Any], fewer: int) -> list[str]:
        """`fewer`: so many may be missing, the last ones; -1: any number of them."""
        if self.case.ordered:
            right = same(wanted[: len(got)], got, ordered=True) and (fewer == -1 or len(got) >= len(wanted) - fewer)
        elif fewer:
            right = not Counter(map(plain, got)) - Counter(map(plain, wanted))
        else:
            right = same(wanted, got, ordered=False)
        return [] if right else [_differ("results", wanted, got)]

    def there(self) -> list[str]:
        """What the sink has."""
        case, found = self.case, self.sink.found(self.case.target, self.folder)
        if self.sink.make is None or case.target.kind == "table":
            return []
        if not self.wanted.endings:
            there = self.sink.wanted(self.wanted.results)
            if found is None:
                return ["there is no output"]
            if not case.ordered and case.target.kind.endswith("by key") and len(there) == len(found):
                # Which of the rows with one key came last is not told: each is one of them.
                return self._less(self.wanted.results, found, len(self.wanted.results) - len(found))
            return [] if same(there, found, ordered=case.ordered) else [_differ("pieces of output", there, found)]
        if isinstance(found, list) and self.sink.marks and case.origin.kind.startswith("live"):
            there = self.sink.wanted(self.wanted.results[: len(found)])  # what is marked is shown, and let go
            return [] if same(there, found, ordered=True) or not case.ordered else [_differ("rows", there, found)]
        if case.journal is None or self.sink.file:
            return [f"after a failure there is an output of {len(found)}"] if found else []
        return []

    def counts(self) -> list[str]:
        wanted, counts = self.wanted, dict(self.came.counts)
        if not counts or wanted.early:
            return []
        right: dict[str, Any] = {"complete": not wanted.endings}
        if wanted.records is not None and not (self.case.journal and wanted.endings):
            right["records_in"] = wanted.records
        if not wanted.endings:
            right["failed"] = len(wanted.lost)
            right["records_out"] = len(wanted.results)
            skips = self.case.options.get("on_error") == "skip" and not self.case.letters
            right["skipped"] = len(wanted.lost) if skips else 0
        elif wanted.fewer == 0 and wanted.endings[0].errors != ("SinkError",) and not self.case.journal:
            right["records_out"] = len(wanted.results)
        return [f"report.{key} is {counts[key]}, not {value}" for key, value in right.items() if counts[key] != value]

    def letters(self) -> list[str]:
        if not self.case.letters:
            return []
        got = self.came.letters
        wanted = [(each.index, each.step, each.errors, plain(each.record)) for each in self.wanted.lost]
        if got is None:
            return [f"there are no dead letters, instead of {len(wanted)}"] if wanted and not self._cut() else []
        if not wanted and not got:
            return ["there is an empty file of dead letters"]
        got = got if self.case.ordered else sorted(got, key=lambda each: each[0])
        if len(got) > len(wanted) or (len(got) < len(wanted) and not self._cut()):
            return [f"{len(got)} dead letters instead of {len(wanted)}: {got[:3]} instead of {wanted[:3]}"]
        if not self.case.ordered and self._cut():
            by_index = {each[0]: each for each in wanted}
            wanted = [by_index.get(each[0], (-1, "", (), "")) for each in got]
        for (index, step, error, record), right in zip(got, wanted, strict=False):
            if (index, step, record) != (right[0], right[1], right[3]) or error not in right[2]:
                return [f"a dead letter {(index, step, error, record)} instead of {right}"]
        return []

    def _cut(self) -> bool:
        """Whether the run ended so early that not all letters need be there."""
        wanted = self.wanted
        ends = wanted.endings and (wanted.endings[0].errors == ("SinkError",) or not self.case.ordered or wanted.fewer)
        return wanted.early or bool(ends)

    def left(self) -> list[str]:
        """Files that nobody has a use for."""
        known = {"out.db", "run.journal", "broken", TAKEN, self.case.target.name, f"letters.{self.case.letters}"}
        if self.case.journal and self.wanted.endings:
            known |= {f".{self.case.target.name}.part", f".{self.case.target.name}.part.journal"}
        begun = f".{self.case.target.name}.parts" if self.case.journal and self.wanted.endings else "in"
        odd = [name for name in os.listdir(self.folder) if name not in known and not name.startswith(("in", begun))]
        return [f"files are left: {odd}"] if odd else []


def _differ(what: str, wanted: list[Any], got: list[Any]) -> str:
    pairs = zip(wanted, got, strict=False)
    at = next((n for n, (a, b) in enumerate(pairs) if plain(a) != plain(b)), min(len(wanted), len(got)))
    return (
        f"{len(got)} {what} instead of {len(wanted)}; from {at} on {got[at : at + 3]} instead of {wanted[at : at + 3]}"
    )
