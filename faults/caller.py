"""The program of the user in a scenario: runs one job with one adapter and tells what came of it.

python -m faults.caller ADAPTER SCENARIO FILE
"""

from __future__ import annotations

import copy
import json
import mmap
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from faults.adapters import adapter
from faults.job import Adapter, FlatChain, Step
from faults.scenario import Scenario, Told
from faults.scenarios import scenario
from faults.steps import ADAPTER, CALLER, Harm, caller, note

ENDLESS = 300_000  # records read: no job has so many that are asked for


class Counted:
    """A source that counts how far it was read, in whatever process it is read."""

    def __init__(self, records: Iterable[Any]) -> None:
        self._records = records
        self._read = mmap.mmap(-1, 8)

    def __iter__(self) -> Iterator[Any]:
        for record in self._records:
            self._read[:8] = (self.read + 1).to_bytes(8, "little")
            if self.read == ENDLESS:  # the run is beyond all bounds: no need to wait until memory is
                note("endless")
                os.kill(caller(), signal.SIGKILL)
            yield record

    @property
    def read(self) -> int:
        return int.from_bytes(self._read[:8], "little")


def due(what: Scenario, steps: tuple[Step, ...]) -> list[Any]:
    """The loop's results without the harm."""
    harmless = FlatChain(tuple(step for step in steps if not isinstance(step, Harm)))
    records = (what.due or what.job.records)()
    return [result for index, record in enumerate(records) if index not in what.without for result in harmless(record)]


def perform(by: Adapter, what: Scenario) -> Told:
    """Run the job and compare."""
    told, got = Told(), list[Any]()
    unused = copy.deepcopy(what.job.steps)  # a step with state is another one after the run
    source = Counted(what.job.records())
    try:
        if what.job.out is not None:
            assert by.drain is not None
            by.drain(what.job)
        else:
            with by.run(what.job, source) as results:
                if what.consume is not None:
                    what.consume(results, told, got, source)
                else:
                    take_each(results, got)
    except BaseException as error:
        tell_error(told, error)
    told.results = len(got)
    if what.compared:
        compare(what, told, got, due(what, unused))
    return told


def take_each(results: Iterator[Any], got: list[Any]) -> None:
    for result in results:
        got.append(result)


def compare(what: Scenario, told: Told, got: list[Any], results: list[Any]) -> None:
    """Set what came beside the loop's results."""
    look = what.look or (lambda value: value)
    wanted, found = [look(each) for each in results], [look(each) for each in got]
    told.due = len(wanted)
    told.same_until = next(
        (n for n, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), min(len(found), len(wanted))
    )
    told.same_sorted = len(found) == len(wanted) and sorted(map(repr, found)) == sorted(map(repr, wanted))


def tell_error(told: Told, error: BaseException) -> None:
    told.error = "".join(traceback.format_exception(error))
    chained: BaseException | None = error
    while chained is not None:
        told.error_types += [kind.__name__ for kind in type(chained).__mro__[:-1]]
        chained = chained.__cause__ or chained.__context__


def here(run: Callable[[], None]) -> str | None:
    """In this thread of this process."""
    run()
    return None


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    name, wanted, path = sys.argv[1:]
    os.environ |= {CALLER: str(os.getpid()), ADAPTER: name}
    by, what = adapter(name), scenario(wanted)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def run() -> None:
        os.write(file, f"{json.dumps(asdict(perform(by, what)))}\n".encode())

    if what.prepare is not None:
        what.prepare()
    wrong = (what.drive or here)(run)
    if wrong:
        os.write(file, f"{json.dumps(asdict(Told(wrong=wrong)))}\n".encode())


if __name__ == "__main__":
    main()
