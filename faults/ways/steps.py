"""The steps that ways are drawn from: each kind as a step of a line, and as a plain function of one value.

A value is a number, or a row with the number `n` in it. What goes wrong in a step, goes wrong at some numbers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from taktline import batch, expand, keep, line, per_worker, serial, step
from taktline._segment import policies

MOST = 9973  # numbers stay below
LONG = 60.0  # seconds that a step hangs where somebody can end it
SPIN = 6_000  # rounds of a dear step, some 200 µs
LARGE = 5_000  # numbers in an array
TEXTS = ("", "é", "a,b", 'say "x"', "two\nlines")


class Boom(Exception):
    """What a step raises; it can go between processes."""


class Odd(Exception):
    """What a step raises that cannot: it is made from something else than its args."""

    def __init__(self, number: int, *, why: str) -> None:
        super().__init__(f"{number}: {why}")


class Stuck:
    """A result that cannot be pickled."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Stuck({self.number})"

    def __reduce__(self) -> Any:
        raise TypeError("it is stuck here")


@dataclass(frozen=True)
class Spec:
    """One step, as it was drawn."""

    kind: str
    name: str
    a: int = 1
    b: int = 0
    m: int = 2
    size: int | None = None
    lazy: bool = False  # an expand that gives a generator
    like: bool = False
    verify: bool = False
    by: str = ""  # of a batch with whole keys: the name of the key, or "itself"
    many: int | None = None  # tasks or workers
    retries: int = 0
    timeout: float | None = None
    dear: bool = False
    fault: str = ""
    at: frozenset[int] = frozenset()  # numbers at which it goes wrong
    until: str = ""  # it goes wrong only while there is such a file

    @property
    def role(self) -> str:
        return KINDS[self.kind].role

    def __str__(self) -> str:
        more = [
            f"{key}={value}" for key in ("size", "by", "many", "retries", "timeout") if (value := getattr(self, key))
        ]
        more += [key for key in ("lazy", "like", "verify", "dear") if getattr(self, key)]
        if self.fault:
            numbers = ", ".join(map(str, sorted(self.at)))
            more.append(f"{self.fault} at {numbers}" if self.fault not in ALWAYS else self.fault)
        return self.name + (f" ({', '.join(more)})" if more else "")


def number(value: Any) -> int:
    """The number of a value."""
    n: int = value["n"] if isinstance(value, dict) else value
    return n


def renumbered(value: Any, n: int) -> Any:
    """The same value with another number."""
    return {**value, "n": n} if isinstance(value, dict) else n


def row_of(n: int) -> dict[str, Any]:
    return {"n": n, "t": TEXTS[n % len(TEXTS)]}


# --- what goes wrong ---


class Befallen(Exception):
    """In the model: what a step does to a record."""

    def __init__(self, fault: str, n: int) -> None:
        super().__init__(fault, n)
        self.fault, self.n = fault, n


class Fault(NamedTuple):
    """What ends a record: the errors that it may end in, and whether its process is gone with what it gave before."""

    errors: tuple[str, ...]
    harm: Callable[[Spec, int], Any] | None = None  # None: it is the step's result that is wrong
    takes_all: bool = False


def _boom(spec: Spec, n: int) -> Any:
    raise Boom(n, spec.name)


def _odd(spec: Spec, n: int) -> Any:
    raise Odd(n, why=spec.name)


def _stop(spec: Spec, n: int) -> Any:
    raise StopIteration(n)


def _exit(spec: Spec, n: int) -> Any:
    raise SystemExit(n)


def _kill(spec: Spec, n: int) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _leave(spec: Spec, n: int) -> Any:
    os._exit(7)


def _hang(spec: Spec, n: int) -> Any:
    # In the caller's process nobody can end it: it is late then.
    time.sleep(1.1 * (spec.timeout or 0.0) if policies.in_callers_process else LONG)


FAULTS = {
    "raises Boom": Fault(("Boom",), _boom),
    "raises Odd": Fault(("Odd", "StepError"), _odd),
    "raises StopIteration": Fault(("StepError",), _stop),
    "raises SystemExit": Fault(("StepError",), _exit),
    "is killed": Fault(("WorkerDied",), _kill, takes_all=True),
    "exits": Fault(("WorkerDied",), _leave, takes_all=True),
    "hangs": Fault(("StepTimeout",), _hang, takes_all=True),
    "gives too few": Fault(("BatchLengthError",)),
    "gives None": Fault(("FormError",)),
    "gives what cannot be pickled": Fault(("StepError",), takes_all=True),
}
ALWAYS = ("gives too few", "gives None")  # whatever the numbers: which records a batch has is not known
DEADLY = ("is killed", "exits")


def harmed(spec: Spec, fn: Callable[[Any], Any], numbers: Callable[[Any], list[int]]) -> Callable[[Any], Any]:
    """`fn` as it is where nothing goes wrong; `numbers` gives those of what it is handed."""
    if not spec.fault:
        return fn
    fault = FAULTS[spec.fault]

    def call(value: Any) -> Any:
        bad = [n for n in numbers(value) if n in spec.at]
        if fault.harm is not None and bad and (not spec.until or os.path.exists(spec.until)):
            fault.harm(spec, bad[0])
        if spec.fault == "gives too few":
            return _but_one(fn(value))
        if spec.fault == "gives None":
            return None
        if spec.fault == "gives what cannot be pickled" and bad:
            return Stuck(bad[0])
        return fn(value)

    return call


def _but_one(results: Any) -> Any:
    if isinstance(results, dict):
        return {name: column[:-1] for name, column in results.items()}
    return results.iloc[:-1] if hasattr(results, "iloc") else results[:-1]


def set_up() -> None:
    """What each process does before its first record."""
    ready.append(True)


ready: list[bool] = []
tried: set[tuple[str, int]] = set()  # what a flaky step has refused once in this process


# --- the plain functions ---


def mapped(spec: Spec, n: int) -> int:
    return (n * spec.a + spec.b) % MOST


class Running:
    """A step with a state: the sum of all numbers so far."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, value: Any) -> Any:
        self.total += number(value)
        return renumbered(value, self.total % MOST)

    def save(self) -> int:
        return self.total

    def load(self, state: int) -> None:
        self.total = state


class Made:
    """What a worker builds for itself."""

    def __init__(self, spec: Spec) -> None:
        self._call = harmed(spec, lambda value: renumbered(value, mapped(spec, number(value))), alone)

    def __call__(self, value: Any) -> Any:
        return self._call(value)

    def close(self) -> None:
        pass


def alone(value: Any) -> list[int]:
    return [number(value)]


def _expanded(spec: Spec, value: Any) -> list[Any]:
    n = number(value)
    return [renumbered(value, n + more) for more in range(n % spec.m)]


def plain(spec: Spec, sizes: Mapping[int, int]) -> Callable[[Any], Any]:
    """The step as the model has it: one value in; raises Befallen where it goes wrong. `sizes`: of each number, how many
    records of the source have it."""
    kind = spec.kind
    running = Running()

    def call(value: Any) -> Any:
        n = number(value) if kind not in ENTRIES else 0
        if spec.fault and (n in spec.at or spec.fault in ALWAYS) and not (spec.like and n % 2 == 0):
            if spec.fault != "cannot be written":
                raise Befallen(spec.fault, n)
            return UNWRITABLE[kind]
        if spec.role == "keep":
            return n % spec.m != 0
        if spec.role == "expand":
            return _expanded(spec, value)
        if kind in SERIAL:
            return running(value)
        if kind in SHAPES:
            return SHAPES[kind](value)
        return renumbered(value, mapped(spec, n + sizes[n] if spec.by else n))

    return call


# --- the steps ---


def _map(spec: Spec) -> Callable[[Any], Any]:
    def work(value: Any) -> Any:
        if spec.dear:
            for _ in range(SPIN):
                pass
        return renumbered(value, mapped(spec, number(value)))

    return harmed(spec, work, alone)


def _needy(spec: Spec) -> Callable[[Any], Any]:
    def work(value: Any) -> Any:
        from faults.ways import steps  # a function that travels by value has its own copy of what it names

        if not steps.ready:
            raise LookupError("this process was not set up")
        return renumbered(value, mapped(spec, number(value)))

    return harmed(spec, work, alone)


def _flaky(spec: Spec) -> Callable[[Any], Any]:
    def work(value: Any) -> Any:
        if number(value) % spec.m == 0 and (spec.name, number(value)) not in tried:
            tried.add((spec.name, number(value)))
            raise Boom(number(value), "the first time")
        return renumbered(value, mapped(spec, number(value)))

    return harmed(spec, work, alone)


def _by_array(spec: Spec) -> Any:
    """Through an array that is large enough to go beside the pickle, from one step to the next."""

    def out(value: Any) -> Any:
        import numpy as np

        return value, np.full(LARGE, number(value))

    def back(both: Any) -> Any:
        value, array = both
        return renumbered(value, mapped(spec, int(array[-1])))

    fn = harmed(spec, back, lambda both: alone(both[0]))
    return line(step(out, name=f"{spec.name}_out", workers=spec.many), step(fn, **_options(spec)))


def _mutated(spec: Spec) -> Callable[[Any], Any]:
    def work(value: Any) -> Any:
        value["n"] = mapped(spec, value["n"])
        return value

    return harmed(spec, work, alone)


def _kept(spec: Spec) -> Callable[[Any], Any]:
    return harmed(spec, lambda value: number(value) % spec.m != 0, alone)


def _parts(spec: Spec) -> Callable[[Any], Any]:
    def lazily(value: Any) -> Iterator[Any]:
        yield from _expanded(spec, value)

    return harmed(spec, lazily if spec.lazy else lambda value: _expanded(spec, value), alone)


def _async(spec: Spec, fn: Callable[[Any], Any], numbers: Callable[[Any], list[int]]) -> Callable[[Any], Any]:
    async def waits(value: Any) -> Any:
        if spec.fault == "hangs":
            if any(n in spec.at for n in numbers(value)):
                await asyncio.sleep(LONG)
            return fn(value)
        await asyncio.sleep(0)
        return harmed(spec, fn, numbers)(value)

    return waits


def _one(spec: Spec) -> Callable[[Any], Any]:
    return lambda value: renumbered(value, mapped(spec, number(value)))


def _options(spec: Spec) -> dict[str, Any]:
    options: dict[str, Any] = {"name": spec.name}
    if retries := spec.retries or int(spec.kind == "flaky"):
        options |= {"retries": retries, "backoff": 0.0}
    return options | ({"timeout": spec.timeout} if spec.timeout else {})


def _shaped(spec: Spec) -> Any:
    shape = SHAPES[spec.kind]

    def work(value: Any) -> Any:
        if spec.fault and number(value) in spec.at:
            return UNWRITABLE[spec.kind]
        return shape(value)

    return step(work, name=spec.name)


def _to_number(record: Any) -> int:
    return int(record["n"] if isinstance(record, dict) else record)


def _to_row(record: Any) -> dict[str, Any]:
    return row_of(_to_number(record))


def _as_row(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else row_of(value)


SHAPES: dict[str, Callable[[Any], Any]] = {
    "number of": _to_number, "row of": _to_row,  # of what the source gives
    "as it is": lambda value: value, "as text": lambda value: str(number(value)), "as row": _as_row,  # for the sink
}  # fmt: skip
ENTRIES = ("number of", "row of")
UNWRITABLE = {"as it is": frozenset({1, 2}), "as text": 7, "as row": 7}  # by no sink that takes such results
SERIAL = ("serial", "serial without state kept", "serial made")


def _plain_serial(spec: Spec) -> Any:
    running = Running()
    return serial(lambda value: running(value), name=spec.name)


def _listed(spec: Spec, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: [fn(value) for value in values]


def _numbers(values: Any) -> list[int]:
    return [number(value) for value in values]


# --- batch steps in their forms: the numbers of a batch, and the batch with other numbers ---


def _of_numpy(state: Any) -> Any:
    return state["n"] if isinstance(state, dict) else state


def _of_table(state: Any) -> Any:
    return state["n"] if hasattr(state, "columns") else state


def _numpy(spec: Spec, state: Any) -> Any:
    new = (_of_numpy(state) * spec.a + spec.b) % MOST
    return {**state, "n": new} if isinstance(state, dict) else new


def _pandas(spec: Spec, state: Any) -> Any:
    new = (_of_table(state) * spec.a + spec.b) % MOST
    return state.assign(n=new) if hasattr(state, "columns") else new


def _polars(spec: Spec, state: Any) -> Any:
    new = (_of_table(state) * spec.a + spec.b) % MOST
    return state.with_columns(new.alias("n")) if hasattr(state, "columns") else new


def _arrow(spec: Spec, state: Any) -> Any:
    import pyarrow.compute as pc

    new = pc.add(pc.multiply(_of_table(state), spec.a), spec.b)
    new = pc.subtract(new, pc.multiply(pc.divide(new, MOST), MOST))
    return state.set_column(0, "n", new) if hasattr(state, "columns") else new


class Form(NamedTuple):
    numbers: Callable[[Any], list[int]]
    works: Callable[[Spec, Any], Any]


FORMS = {
    "list": Form(_numbers, lambda spec, values: [_one(spec)(value) for value in values]),
    "numpy": Form(lambda state: _of_numpy(state).tolist(), _numpy),
    "pandas": Form(lambda state: _of_table(state).tolist(), _pandas),
    "arrow": Form(lambda state: _of_table(state).to_pylist(), _arrow),
    "polars": Form(lambda state: _of_table(state).to_list(), _polars),
}


def _softened(spec: Spec) -> Callable[[Any], Any]:
    """The `like` of a batch step: it knows better which record is at fault."""
    one = _one(spec)
    return harmed(spec, one, lambda value: [n for n in alone(value) if n % 2])


def _batch(form: Any) -> Callable[[Spec], Any]:
    def build(spec: Spec) -> Any:
        numbers, works = FORMS[form]
        more: dict[str, Any] = {"like": _softened(spec), "verify": spec.verify} if spec.like else {}
        fn = harmed(spec, lambda state: works(spec, state), numbers)
        return batch(fn, spec.size, form=form, **more, **_options(spec))

    return build


def itself(record: Any) -> Any:
    """The key of a record that has no other."""
    return record


def _sized(numbers: list[int]) -> list[int]:
    """Each number, and how many neighbours have the same: in a key that was parted, fewer."""
    groups = [len(list(group)) for _, group in groupby(numbers)]
    sizes = [size for size in groups for _ in range(size)]
    return [n + size for n, size in zip(numbers, sizes, strict=True)]


def _by_key(form: Any) -> Callable[[Spec], Any]:
    """A batch of whole keys. What it makes of a number tells how many records of it have come."""

    def build(spec: Spec) -> Any:
        numbers = FORMS[form].numbers

        def works(state: Any) -> Any:
            new = [mapped(spec, n) for n in _sized(numbers(state))]
            if form == "list":
                return [renumbered(value, n) for value, n in zip(state, new, strict=True)]
            if form == "pandas":
                return state.assign(n=new) if hasattr(state, "columns") else type(state)(new)
            import pyarrow as pa

            return state.set_column(0, "n", pa.array(new)) if hasattr(state, "columns") else pa.array(new)

        key = itself if spec.by == "itself" else spec.by
        return batch(harmed(spec, works, numbers), spec.size, form=form, by=key, **_options(spec))

    return build


class Kind(NamedTuple):
    """One kind of step: what it does to the number of records, how it is built, where it may be drawn."""

    build: Callable[[Spec], Any]
    role: str = "map"
    where: str = "worker"  # or "caller": never in another process; "waits": many at once, in one
    batches: bool = False
    rows: bool = False  # only for rows
    first: bool = False  # only before all others
    drawn: int = 4  # how often, beside the others


KINDS: dict[str, Kind] = {
    "map": Kind(lambda s: step(_map(s), **_options(s)), drawn=12),
    "changes it": Kind(lambda s: step(_mutated(s), **_options(s)), rows=True),
    "by array": Kind(_by_array, drawn=3),
    "flaky": Kind(lambda s: step(_flaky(s), **_options(s)), drawn=2),
    "needs what is set up": Kind(lambda s: step(_needy(s), **_options(s)), drawn=2),
    "keep": Kind(lambda s: keep(step(_kept(s), **_options(s)), name=s.name), "keep", drawn=8),
    "expand": Kind(lambda s: expand(step(_parts(s), **_options(s)), name=s.name), "expand", drawn=8),
    "list": Kind(_batch("list"), batches=True, drawn=8),
    "numpy": Kind(_batch("numpy"), batches=True, drawn=3),
    "pandas": Kind(_batch("pandas"), batches=True, drawn=1),
    "arrow": Kind(_batch("arrow"), batches=True, drawn=1),
    "polars": Kind(_batch("polars"), batches=True, drawn=1),
    "by key": Kind(_by_key("list"), batches=True, first=True, drawn=5),
    "pandas by key": Kind(_by_key("pandas"), batches=True, first=True, drawn=3),
    "arrow by key": Kind(_by_key("arrow"), batches=True, first=True, drawn=3),
    "made": Kind(lambda s: step(per_worker(Made, s), **_options(s))),
    "own workers": Kind(lambda s: step(_map(s), workers=s.many, **_options(s))),
    "inline": Kind(lambda s: step(_map(s), kind="inline", **_options(s)), where="caller"),
    "serial": Kind(lambda s: serial(Running(), name=s.name), where="caller"),
    "serial made": Kind(lambda s: serial(per_worker(Running), name=s.name), where="caller", drawn=1),
    "serial without state kept": Kind(_plain_serial, where="caller", drawn=1),
    "async": Kind(lambda s: step(_async(s, _one(s), alone), tasks=s.many, **_options(s)), where="waits"),
    "async keep": Kind(
        lambda s: keep(step(_async(s, lambda v: number(v) % s.m != 0, alone), **_options(s)), name=s.name),
        "keep", where="waits", drawn=1,
    ),
    "async list": Kind(
        lambda s: batch(_async(s, _listed(s, _one(s)), _numbers), s.size, tasks=s.many, **_options(s)),
        where="waits", batches=True, drawn=2,
    ),
    "thread": Kind(lambda s: step(_map(s), kind="thread", tasks=s.many, **_options(s)), where="waits"),
    "thread list": Kind(
        lambda s: batch(harmed(s, _listed(s, _one(s)), _numbers), s.size, tasks=s.many, **_options(s)),
        where="waits", batches=True, drawn=1,
    ),
    **dict.fromkeys(SHAPES, Kind(_shaped, drawn=0)),
}  # fmt: skip


def built(specs: tuple[Spec, ...]) -> list[Any]:
    """The steps of a line."""
    return [KINDS[spec.kind].build(spec) for spec in specs]
