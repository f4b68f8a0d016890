"""The work that is measured: records, steps, and the plain loop over them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, repeat
from time import perf_counter
from typing import Any

import numpy as np

from taktline import batch, keep
from taktline._recipe.steps import Role

WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron")


@dataclass(frozen=True)
class Work:
    """Some steps over some records. `records` makes them anew, `length` is their number."""

    steps: tuple[Any, ...]  # as the line gets them
    records: Callable[[], Iterable[Any]]
    length: int
    loop: Callable[[Iterable[Any]], Iterator[Any]]  # as people write it: what all is held against
    bulk: Callable[[list[Any]], list[Any]]  # a list of records through all steps; can be pickled by name, for the peers
    kept: bool = True  # results are kept in a list; False: there are too many bytes in them
    chunks: tuple[int, ...] = (1_000, 100, 10)  # that the peers may try


def kept(results: Callable[[Iterable[Any]], list[Any]]) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """A loop that keeps its results in a list, as an iterator."""

    def loop(records: Iterable[Any]) -> Iterator[Any]:
        yield from results(records)

    return loop


# --- JSON lines, four steps ---


def parse(text: str) -> dict[str, Any]:
    return json.loads(text)


def clean(order: dict[str, Any]) -> dict[str, Any]:
    order["name"] = " ".join(order["name"].split()).title()
    order["amount"] = round(float(order["amount"]), 2)
    order["tags"] = sorted({tag.strip().lower() for tag in order["tags"]})
    return order


def enrich(order: dict[str, Any]) -> dict[str, Any]:
    order["total"] = round(sum(line["price"] * line["count"] for line in order["lines"]), 2)
    order["most"] = max(order["lines"], key=lambda line: line["price"])["sku"]
    order["class"] = "large" if order["total"] > 500 else "small"
    order["initials"] = "".join(part[0] for part in order["name"].split())
    return order


def dump(order: dict[str, Any]) -> str:
    return json.dumps(order, sort_keys=True)


def json_lines(count: int) -> list[str]:
    return [
        json.dumps(
            {
                "id": n,
                "name": f"  {WORDS[n % 8]}   {WORDS[n % 5]} {n % 97} ",
                "amount": f"{n * 1.37:.3f}",
                "tags": [f" {WORDS[(n + k) % 8].upper()}" for k in range(4)],
                "lines": [
                    {"sku": f"S{n % 991}-{k}", "price": (n * 7 + k * 13) % 400 / 4, "count": k + 1} for k in range(4)
                ],
            }
        )
        for n in range(count)
    ]


# --- computing ---


def spin(n: int) -> int:
    total = 0
    for k in range(22_000):
        total += k * n
    return total


def uneven(n: int) -> int:
    """Every 50th record costs a hundred times the others."""
    total = 0
    for k in range(400_000 if n % 50 == 0 else 4_000):
        total += k * n
    return total


# --- trivial steps ---


def add(x: int) -> int:
    return x + 1


def double(x: int) -> int:
    return x * 2


def less(x: int) -> int:
    return x - 3


def same(x: int) -> int:
    return x


# --- large arrays ---


def scaled(a: np.ndarray) -> np.ndarray:
    return a * 1.5


def shifted(a: np.ndarray) -> np.ndarray:
    return a + 1.0


def clipped(a: np.ndarray) -> np.ndarray:
    return np.minimum(a, 2.0)


class Arrays:
    """So many arrays of 1 MB, of which 100 exist: it is the way that is measured, not the memory."""

    def __init__(self, count: int = 1_500) -> None:
        self.count = count
        self.some = [np.full(131_072, n, dtype=np.float64) for n in range(100)]

    def __iter__(self) -> Any:
        for n in range(self.count):
            yield self.some[n % 100]


def orders_bulk(texts: list[str]) -> list[str]:
    return [dump(enrich(clean(parse(text)))) for text in texts]


def spin_bulk(numbers: list[int]) -> list[int]:
    return [spin(n) for n in numbers]


def uneven_bulk(numbers: list[int]) -> list[int]:
    return [uneven(n) for n in numbers]


def trivial_bulk(numbers: list[int]) -> list[int]:
    return [same(less(double(add(x)))) for x in numbers]


def arrays_bulk(arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [clipped(shifted(scaled(a))) for a in arrays]


def arrays_loop(records: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """One that does not keep 1.5 GB of results, as nobody would."""
    for a in records:
        yield clipped(shifted(scaled(a)))


# --- the article's setting: four steps of mixed costs over rows of numbers, each in a scalar and a vectorised form ---

Row = tuple[float, ...]
FIELDS = 8


def bounded(row: Row) -> Row:
    return tuple([min(max(x, -4.0), 4.0) / 4.0 for x in row])


def enriched(row: Row) -> Row:
    found = []
    for x in row:
        a = x
        for _ in range(40):
            a = a * a * 0.9 - 0.5 + x * 0.1
        found.append(a)
    return tuple(found)


def scored(row: Row) -> Row:
    found = []
    for x in row:
        total = 0.0
        for k in range(1, 81):
            total = total * x + 1.0 / k
        found.append(total)
    return tuple(found)


def finished(row: Row) -> Row:
    return tuple([math.sqrt(x * x + 1.0) - 1.0 for x in row])


# The same operations in the same order, so that the results are equal to the last bit.


def bounded_all(x: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(x, -4.0), 4.0) / 4.0


def enriched_all(x: np.ndarray) -> np.ndarray:
    a = x
    for _ in range(40):
        a = a * a * 0.9 - 0.5 + x * 0.1
    return a


def scored_all(x: np.ndarray) -> np.ndarray:
    total = np.zeros_like(x)
    for k in range(1, 81):
        total = total * x + 1.0 / k
    return total


def finished_all(x: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + 1.0) - 1.0


VECTORISED = (bounded_all, enriched_all, scored_all, finished_all)
SCALAR = (bounded, enriched, scored, finished)
SIZE = 1_000  # records a call


def rows(x: np.ndarray) -> list[Row]:
    return list(map(tuple, x.tolist()))


def bounded_list(values: list[Row]) -> list[Row]:
    return rows(bounded_all(np.asarray(values)))


def enriched_list(values: list[Row]) -> list[Row]:
    return rows(enriched_all(np.asarray(values)))


def scored_list(values: list[Row]) -> list[Row]:
    return rows(scored_all(np.asarray(values)))


def finished_list(values: list[Row]) -> list[Row]:
    return rows(finished_all(np.asarray(values)))


LISTS = (bounded_list, enriched_list, scored_list, finished_list)


def article_bulk(values: list[Row]) -> list[Row]:
    return finished_list(scored_list(enriched_list(bounded_list(values))))


def article_fused_bulk(values: list[Row]) -> list[Row]:
    return rows(finished_all(scored_all(enriched_all(bounded_all(np.asarray(values))))))


def article_loop(values: Iterable[Row]) -> list[Row]:
    return [finished(scored(enriched(bounded(row)))) for row in values]


def article_steps() -> tuple[Any, ...]:
    """Lists between the steps."""
    return tuple(batch(fn, SIZE, like=like) for fn, like in zip(LISTS, SCALAR, strict=True))


def on_columns(fn: Callable[[np.ndarray], np.ndarray], columns: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(fn(np.stack(columns)))


def article_fused_steps() -> tuple[Any, ...]:
    """All in one form: converted at the border only."""
    return tuple(
        batch(partial(on_columns, fn), SIZE, like=like, form="numpy", name=fn.__name__)
        for fn, like in zip(VECTORISED, SCALAR, strict=True)
    )


def article_records(count: int) -> list[Row]:
    return [tuple([((n * 7919 + k * 104_729) % 20_011) / 2_000.0 - 5.0 for k in range(FIELDS)]) for n in range(count)]


# --- numbers whose conversion costs more than the computing ---


def moved(points: list[tuple[float, float, float]]) -> list[tuple[float, ...]]:
    a = np.asarray(points)
    return list(map(tuple, (a * 1.5 + 2.0).tolist()))


def tuples_loop(points: Iterable[tuple[float, float, float]]) -> list[tuple[float, ...]]:
    """One process, in calls of 1,000."""
    source, results = iter(points), []
    while some := list(islice(source, SIZE)):
        results += moved(some)
    return results


def orders() -> Work:
    lines = json_lines(200_000)
    return Work((parse, clean, enrich, dump), lambda: lines, len(lines), kept(orders_bulk), orders_bulk)


def arrays() -> Work:
    some = Arrays()
    steps = (scaled, shifted, clipped)
    return Work(steps, lambda: some, 1_500, arrays_loop, arrays_bulk, kept=False, chunks=(10, 1))


def numbers(count: int, bulk: Callable[[list[int]], list[int]], *steps: Callable[[int], int]) -> Work:
    return Work(steps, lambda: range(count), count, kept(bulk), bulk)


def article(bulk: Callable[[list[Row]], list[Row]], steps: tuple[Any, ...]) -> Work:
    records = article_records(100_000)
    return Work(steps, lambda: records, len(records), kept(article_loop), bulk, chunks=(SIZE,))


def tuples() -> Work:
    points = [(n * 0.5, n * 0.25, n * 0.125) for n in range(300_000)]
    return Work((batch(moved, SIZE),), lambda: points, len(points), kept(tuples_loop), moved, chunks=(SIZE,))


WORKS: dict[str, Callable[[], Work]] = {
    "200,000 JSON lines, 4 steps": orders,
    "4,000 records of 0.8 ms computing": lambda: numbers(4_000, spin_bulk, spin),
    "5,000 records, every 50th 100 times dearer": lambda: numbers(5_000, uneven_bulk, uneven),
    "1,000,000 ints, 4 trivial steps": lambda: numbers(1_000_000, trivial_bulk, add, double, less, same),
    "1,500 arrays of 1 MB, 3 cheap steps": arrays,
    "article's setting, lists between the steps": lambda: article(article_bulk, article_steps()),
    "article's setting, one form": lambda: article(article_fused_bulk, article_fused_steps()),
    "300,000 tuples, converting costs more than computing": tuples,
}


# --- the same for longer ---

LONG = 10.0  # seconds of a loop, in which the start of workers does not count


def longer(work: Work, seconds: float) -> Work:
    """The same work so many times over that its loop of `seconds` takes LONG. Nothing keeps the results, and the loop
    goes through lists of 1,000 records."""
    times = max(1, math.ceil(LONG / seconds))
    some = work.records()
    records: Any
    if isinstance(some, range):
        records = range(len(some) * times)
    elif isinstance(some, Arrays):
        records = Arrays(some.count * times)
    else:
        records = list(chain.from_iterable(repeat(some, times)))

    def loop(source: Iterable[Any]) -> Iterator[Any]:
        source = iter(source)
        while few := list(islice(source, SIZE)):
            yield from work.loop(few)

    return replace(work, records=lambda: records, length=work.length * times, loop=loop, kept=False)


# --- generated lines ---


def generated(seed: int, count: int) -> Work:
    """A line of one to five steps over so many numbers, whose costs differ a thousandfold; the same for the same seed."""
    chance = random.Random(seed)
    scale = 10 ** chance.uniform(0, 3)  # loops a record of the dearest step: 50 ns to 50 µs and more
    steps: list[Any] = []
    for _ in range(chance.randint(1, 5)):
        steps.append(_generated_step(chance, scale))
    if chance.random() < 0.3:
        steps.append(_payload(chance.choice([100, 10_000, 1_000_000])))
        steps.append(len)
    functions = [step.fn if hasattr(step, "fn") else step for step in steps]

    def bulk(values: list[int]) -> list[Any]:
        return list(chained(values, steps, functions))

    return Work(tuple(steps), lambda: range(count), count, kept(lambda r: bulk(list(r))), bulk)


def generated_length(seed: int) -> int:
    """Records for some 0.7 s of the loop on this machine."""
    tried = 64
    some = generated(seed, tried)
    began = perf_counter()
    some.bulk(list(range(tried)))
    return int(min(300_000, max(200, 0.7 * tried / (perf_counter() - began))))


def chained(numbers: list[int], steps: list[Any], functions: list[Callable[[Any], Any]]) -> Iterator[Any]:
    """The loop over generated steps, of which some drop records."""
    for value in numbers:
        x: Any = value
        for step, fn in zip(steps, functions, strict=True):
            if getattr(step, "role", None) is Role.KEEP:
                if not fn(x):
                    break
            else:
                x = fn(x)
        else:
            yield x


def _generated_step(chance: random.Random, scale: float) -> Any:
    kind = chance.choice(["trivial", "trivial", "spin", "uneven", "keep", "json"])
    loops = max(1, int(scale * chance.uniform(0.1, 1.0)))
    every = chance.choice([10, 50])
    if kind == "trivial":
        return lambda n: n + 1
    if kind == "keep":
        return keep(lambda n: n % 10 != 3)
    if kind == "json":
        return lambda n: json.loads(json.dumps({"n": n, "of": [n, n + 1]}))["n"]

    def work(n: int) -> int:
        total = 0
        for k in range(loops if kind == "spin" or n % every else loops * every):
            total += k
        return n + (total & 1)

    return work


def _payload(size: int) -> Callable[[int], bytes]:
    return lambda n: bytes(size)
