"""Right lines: neither mypy --strict nor pyright takes fault with any of them. Nothing here is run."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, assert_type

import taktline
from taktline import Line, Run, batch, expand, keep, line, per_worker, serial, step
from taktline.abc import Sink, Source


def parse(text: str) -> int:
    return int(text)


def half(n: int) -> float:
    return n / 2


def shown(x: float) -> str:
    return f"{x:.1f}"


def positive(n: int) -> bool:
    return n > 0


def words(text: str) -> list[str]:
    return text.split()


def letters(text: str) -> Iterator[str]:
    yield from text


def doubled(numbers: list[int]) -> list[int]:
    return [2 * n for n in numbers]


def parse_again(n: int) -> int:
    return n


def numbers_taken(n: int) -> None:
    print(n)


async def fetched(n: int) -> bytes:
    return bytes(n)


async def looked_up(numbers: list[int]) -> list[str]:
    return [str(n) for n in numbers]


async def pages(n: int) -> AsyncIterator[str]:
    yield str(n)


class Scaled:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, n: int) -> float:
        return n * self.factor


class Client:
    async def __call__(self, n: int) -> str:
        return str(n)


class Squares(Source[int]):
    def __iter__(self) -> Iterator[int]:
        return iter([1, 4, 9])


texts: list[str] = ["1", "2"]
some: Any = {"workers": 2}

# what comes out
assert_type(line(parse), Line[str, int])
assert_type(line(parse, half), Line[str, float])
assert_type(line(parse, half, shown), Line[str, str])
assert_type(line(parse, half)(texts), Run[float])
assert_type(list(line(parse)(texts)), list[int])
assert_type(line(parse, fetched)(texts), Run[bytes])
assert_type(line(fetched), Line[int, bytes])
awaited: Line[str, bytes] = line(parse, fetched)
awaited_kept: Line[str, bytes] = line(parse, keep(positive), fetched)
awaited_last: Line[str, bytes] = line(parse, parse_again, keep(positive), fetched)
line(parse)(texts).drain(numbers_taken)
taktline.write("parts/", "jsonl", mode="append")
assert_type(line(fetched).keep(bool).then(len), Line[int, int])
assert_type(line(step(fetched, tasks=9)), Line[int, bytes])
assert_type(line(parse).then(half), Line[str, float])
assert_type(line(parse).then(fetched), Line[str, bytes])
assert_type(line(parse).keep(lambda n: n > 1).then(half), Line[str, float])
assert_type(line(words).expand(lambda found: found), Line[str, str])
assert_type(line(parse).batch(doubled, 512), Line[str, int])
assert_type(line(parse).batch(looked_up), Line[str, str])
assert_type(line(parse).batch(lambda table: table, form="pandas"), Line[str, Any])
assert_type(next(line(parse)(texts)), int)

# plain functions, lambdas, classes, builtins
line(json.loads, str)
line(str.strip, parse, half)
line(int, lambda n: n * n)
line(math.sqrt, shown)
line(str.upper, len)
line(functools.partial(int, base=2), half)
line(parse, Scaled(2.0), shown)
line(parse, half, shown, str.upper, len, half, shown, parse)
line(parse, half, shown, str.upper, len, half, shown, parse, half, shown)

# functions of any type, where nothing tells which
line(abs)([1, 2])
line(abs, str)([1, 2])
line(max, half)([[1, 2]])
line(sorted, len, half)([[1, 2]])
line(list)([(1, 2)])
line(dict).run([[(1, 2)]], print)
line(step(abs, name="size"))([1, 2])
line(serial(abs))([1, 2])
line(parse, abs, half)(texts)
line(str, list)(texts)
line(str, set)(texts)
line(words, sorted)(texts)
line(words, list)(texts)
line(words, max)(texts)
line(words, set, len)(texts)
line(words, sorted, len)(texts)
line(words, set, sorted)(texts)
line(str.strip, words, sorted)(texts)
line(parse, half, str, list)(texts)
line(words).then(sorted)(texts)
line(words).then(set).then(len)(texts)
line(parse).then(abs)(texts)

# builders
line(parse, keep(positive), half)
line(parse, keep(lambda n: n > 0), half)
line(words, expand(lambda found: found), parse)
line(expand(words), parse, half)
line(expand(letters), str.upper)
line(parse, batch(doubled, size=512), half)
line(parse, batch(lambda numbers: [n + 1 for n in numbers]), half)
line(batch(lambda frame: frame, form="pandas", size=100))
line(step(parse, retries=2, timeout=1.5, name="parse"), half)
line(parse, step(fetched, tasks=100, rate=50.0))
line(parse, serial(half), shown)
line(parse, per_worker(Scaled, 2.0), shown)
line(parse, per_worker(Scaled, factor=2.0), shown)
line(parse, per_worker(Client), str.upper)
line(parse, fetched, len)
line(parse, batch(looked_up, size=10), str.upper)
line(parse, expand(pages), str.upper)

# lines in lines
numbers = line(parse, keep(positive))
line(numbers, half)
line(str.strip, numbers)
line(numbers, line(half, shown))
line(str.strip, numbers, half)
line(parse).then(line(half, shown))

# sources, sinks, options
line(half)(Squares())
line(parse)(taktline.read("numbers.txt"))
line(half)(n for n in range(3))
line(parse).run(texts, print)
line(parse).run(texts, taktline.write("numbers.jsonl"))
line(parse).run(texts)
line(parse)(texts, how="line", workers=2, on_error="skip", dead_letters="failed.jsonl", start="threads", seed=7)
line(parse)(texts, **some)
print(line(parse).plan(texts, length=2).cores)
print(line(parse).check(texts).findings)
line(parse).compare(texts, limit=10)


def into(sink: Sink, flow: Line[str, int]) -> taktline.Report:
    return flow.run(texts, sink)


def run_any(flow: Line, source: Iterable[Any]) -> Run:
    return flow(source)


def sizes(data: bytes) -> int:
    return len(data)


line(parse, fetched).run(texts, sizes)


async def streamed_bytes() -> list[bytes]:
    return [data async for data in line(parse, fetched).stream(texts)]


async def streamed() -> list[int]:
    return [n async for n in line(parse).stream(texts)]
