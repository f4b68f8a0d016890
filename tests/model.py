"""The plain loop, as the model that every technique is held against; what hypothesis builds lines from; a source."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from taktline import batch, expand, keep, line, serial, step

Built = tuple[str, Any, Callable[[Any], Any]]  # what it does, as the line's step, as a plain function


class Boom(Exception):
    """A failure that a generated step raises."""


class Counted:
    """An endless source that says how far it was read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        for n in itertools.count():
            self.read += 1
            yield n


def loop(built: list[Built], records: Any) -> Iterator[Any]:
    """The user's loop: each record through all steps before the next one is read."""

    def through(value: Any, rest: list[Built]) -> Iterator[Any]:
        if not rest:
            yield value
            return
        (what, _, fn), *rest = rest
        if what == "keep":
            if fn(value):
                yield from through(value, rest)
        elif what == "expand":
            for inner in fn(value):
                yield from through(inner, rest)
        else:
            yield from through(fn(value), rest)

    for record in records:
        yield from through(record, built)


def outcome(results: Callable[[], Iterator[Any]]) -> tuple[list[Any], str, tuple[Any, ...]]:
    """All results up to the first exception, and that exception's type and args."""
    got: list[Any] = []
    try:
        for result in results():
            got.append(result)
    except Exception as error:
        return got, type(error).__name__, error.args
    return got, "", ()


def add(n: int) -> Built:
    return "map", lambda x: x + n, lambda x: x + n


def fails_at(n: int) -> Built:
    def check(x: int) -> int:
        if x % 97 == n:
            raise Boom(n, x)
        return x

    return "map", step(check, name="check"), check


def kept(n: int) -> Built:
    return "keep", keep(lambda x: x % n != 0), lambda x: x % n != 0


def keep_fails_at(n: int) -> Built:
    def wanted(x: int) -> bool:
        if x % 89 == n:
            raise ValueError("not comparable", x)
        return x % 2 == 0

    return "keep", keep(wanted), wanted


def expanded(n: int) -> Built:
    return "expand", expand(lambda x: range(x, x + x % n)), lambda x: range(x, x + x % n)


def batched(size: int | None) -> Built:
    return "map", batch(lambda xs: [x * 2 for x in xs], size=size), lambda x: x * 2


def batch_fails_at(n: int, size: int | None) -> Built:
    def double(xs: list[int]) -> list[int]:
        if any(x % 83 == n for x in xs):
            raise Boom("batch", n)
        return [x * 2 for x in xs]

    return "map", batch(double, size=size), lambda x: double([x])[0]


def in_order(n: int) -> Built:
    return "map", serial(lambda x: x - n), lambda x: x - n


def own_workers(n: int) -> Built:
    return "map", step(lambda x: x * 3, workers=n), lambda x: x * 3


def formed(form: str, n: int, size: int | None, fails: bool) -> Built:
    """A step over arrays, tables or series: fails where any record does, as a batch step would."""

    def double(xs: Any) -> Any:
        import numpy as np

        if fails and any(x % 83 == n for x in np.asarray(xs).tolist()):
            raise Boom("formed", n)
        if form == "arrow":
            import pyarrow.compute as pc

            return pc.add(pc.multiply(xs, 2), n)
        return xs * 2 + n

    def scalar(x: int) -> int:
        if fails and x % 83 == n:
            raise Boom("formed", n)
        return x * 2 + n

    return "map", batch(double, size=size, form=form), scalar


def rescued(n: int, size: int | None) -> Built:
    """A step over arrays that refuses whole batches, beside its scalar form that knows which record is at fault."""

    def double(xs: Any) -> Any:
        if (xs % 53 == n).any():
            raise Boom("some record of", len(xs))
        return xs * 2

    def scalar(x: int) -> int:
        if x % 53 == n and x % 2:
            raise Boom("odd", x)
        return x * 2

    return "map", batch(double, size=size, form="numpy", like=scalar), scalar


small = st.integers(1, 7)
sizes = st.one_of(st.none(), st.integers(1, 300))
any_step = st.one_of(
    small.map(add), small.map(fails_at), small.map(kept), small.map(keep_fails_at), small.map(expanded),
    sizes.map(batched), st.builds(batch_fails_at, small, sizes), small.map(in_order), st.integers(1, 2).map(own_workers),
    st.builds(formed, st.sampled_from(["numpy", "numpy", "pandas", "arrow", "polars"]), small, sizes, st.booleans()),
    st.builds(rescued, small, sizes),
)  # fmt: skip
any_line = st.lists(any_step, min_size=1, max_size=5)
how_many = st.one_of(st.integers(0, 40), st.integers(0, 2_000), st.integers(0, 10_000))
any_plan = st.fixed_dictionaries(
    {"how": st.sampled_from(["loop", "pool", "queues", "line", "auto"]), "workers": st.integers(1, 5)},
    optional={"batch_size": st.integers(1, 500), "window": st.integers(1, 300)},
)


def as_line(built: list[Built]) -> Any:
    return line(*(each for _, each, _ in built))


# records of any type, alone and in rows
zones = st.sampled_from([None, UTC, ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=2))])
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.integers(), st.sampled_from([2**63 - 1, 2**63, -(2**63), 2**64]),
    st.floats(), st.text(max_size=5), st.text(alphabet=st.characters(), max_size=3), st.binary(max_size=3), st.dates(),
    st.datetimes(timezones=zones), st.timedeltas(), st.decimals(allow_nan=False, allow_infinity=False, places=2),
    st.decimals(), st.lists(st.integers(0, 3), max_size=2), st.dictionaries(st.sampled_from("xy"), st.integers(0, 3)),
    st.tuples(st.integers(0, 3)),
)  # fmt: skip
rows = st.lists(
    st.fixed_dictionaries({"a": scalars, "b": st.one_of(st.none(), st.integers(0, 9))}), min_size=1, max_size=5
)
any_values = st.one_of(
    st.lists(scalars, min_size=1, max_size=6), rows, st.lists(st.tuples(scalars, scalars), min_size=1, max_size=4)
)
