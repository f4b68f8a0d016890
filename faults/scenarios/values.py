"""Any value is a value, and the order is the loop's."""

from __future__ import annotations

import decimal
import itertools
from collections.abc import Iterator
from typing import Any

from faults import steps
from faults.job import Expand, Job, Keep, Serial
from faults.scenario import Complete, CompleteOrRefused, Ends, Scenario, Source, Told

GROUP = "The loop's answer"


def odd_values() -> list[Any]:
    return [None, 0, False, "", (), [], {}, 0.0, b"", None, float("nan")] * 20


def hostile() -> list[Any]:
    return [steps.Hostile(n) for n in range(200)]


def reused_row() -> Iterator[list[int]]:
    row = [0]
    for n in range(500):
        row[0] = n
        yield row


def cleared() -> Iterator[dict[str, int]]:
    for n in range(500):
        record = {"n": n}
        yield record
        record.clear()


def with_one_list() -> Iterator[dict[str, Any]]:
    shared: list[int] = []
    for n in range(500):
        shared.append(n)
        yield {"n": n, "last": shared}


def with_a_default() -> list[Any]:
    return [n if n % 3 else steps.MISSING for n in range(600)]


def set_at_run_time() -> None:
    steps.RATE = 0.19
    decimal.getcontext().prec = 6


def all_different(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    numbers = set(results)
    if len(numbers) != 2_000:
        told.wrong = f"silent loss: {len(numbers):,} different numbers, of 2,000 drawn"


def take_three(results: Iterator[Any], told: Told, got: list[Any], source: Source) -> None:
    got.extend(itertools.islice(results, 3))
    if got != [5, 6, 7]:
        told.wrong = f"silent loss: {got}"


def one_large() -> list[bytes]:
    return [b"x", bytes(50_000_000), b"y"]


SCENARIOS = [
    Scenario(
        name="nothing goes wrong",
        fault="none: all results, in order, nothing left",
        job=Job(lambda: range(2_000), (steps.double, steps.same)),
        expect=Complete(),
    ),
    Scenario(
        name="records finish out of order",
        fault="records take from 0 to 8 ms: the results come in input order",
        job=Job(lambda: range(300), (steps.Uneven(), steps.double)),
        expect=Complete(),
    ),
    Scenario(
        name="an empty source",
        fault="there is no record: the run ends, without results",
        job=Job(lambda: iter(()), (steps.double,)),
        expect=Complete(),
    ),
    Scenario(
        name="None and other false values",
        fault="records and results are None, 0, '', [], NaN: each comes out",
        job=Job(odd_values, (steps.same, steps.same)),
        look=repr,
        expect=Complete(),
    ),
    Scenario(
        name="values that refuse to be compared",
        fault="records raise on == and on bool(), as arrays do: each comes out",
        job=Job(hostile, (steps.same, steps.same)),
        look=lambda value: value.n,
        expect=Complete(),
    ),
    Scenario(
        name="one record of 50 MB",
        fault="between two small ones: all come out",
        job=Job(one_large, (steps.same,)),
        look=lambda value: (len(value), value[:1]),
        expect=Complete(),
    ),
    Scenario(
        name="dropping and adding records",
        fault="a step drops half of the records, another makes 0 to 3 of each: the loop's results in order",
        job=Job(lambda: range(2_000), (Keep(steps.odd), Expand(steps.few), steps.double)),
        expect=Complete(),
    ),
    Scenario(
        name="a source that hands out one object again and again",
        fault="as a database cursor's row: each record is what it was when it was read",
        job=Job(reused_row, (steps.first_of,)),
        expect=Complete(),
    ),
    Scenario(
        name="a source that clears what it gave",
        fault="as people do with elements of a large XML file: each record is what it was when it was read",
        job=Job(cleared, (steps.number_in,)),
        expect=Complete(),
    ),
    Scenario(
        name="fresh records that share a list, which grows",
        fault="each record is what it was when it was read",
        job=Job(with_one_list, (steps.last_in,)),
        expect=Complete(),
    ),
    Scenario(
        name="a default that is tested with `is`",
        fault="`MISSING = object()` in the steps' module, among the records: it is itself in the steps, and behind them",
        job=Job(with_a_default, (steps.is_missing,)),
        look=lambda pair: (pair[0] is steps.MISSING or pair[0], pair[1]),
        expect=Complete(),
    ),
    Scenario(
        name="settings that are made at run time",
        fault="a rate in the steps' module and the digits of decimal numbers: the steps work with them",
        job=Job(lambda: range(2_000), (steps.priced,)),
        prepare=set_at_run_time,
        expect=Complete(),
    ),
    Scenario(
        name="random numbers",
        fault="2,000 of 64 bits, out of a generator in the steps' module: no two are the same",
        job=Job(lambda: range(2_000), (steps.Pace(0.0005), steps.draw)),
        consume=all_different,
        compared=False,
        expect=Ends((0,)),
    ),
    Scenario(
        name="a record with results without end",
        fault="a step adds records for ever: the first three are had, the program ends",
        job=Job(lambda: [5], (Expand(steps.without_end),)),
        consume=take_three,
        compared=False,
        most_memory=2_000_000_000,
        limit=15.0,
        expect=Ends((0,)),
    ),
    Scenario(
        name="a step with state",
        fault="a running total, said to need every record in order: the loop's results",
        job=Job(lambda: range(1_000), (steps.double, Serial(steps.RunningTotal()))),
        needs=frozenset({"serial"}),
        expect=Complete(),
    ),
    Scenario(
        name="functions without a name",
        fault="steps are lambdas: they work, or are refused",
        job=Job(lambda: range(200), (lambda n: n + 1, lambda n: n * 3)),
        expect=CompleteOrRefused(),
    ),
]
