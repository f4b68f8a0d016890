"""What must be awaited is awaited, or refused at its first record: never true for every record, never a result."""

from __future__ import annotations

import asyncio
import functools
import warnings

import pytest

from taktline import LineError, NotAwaited, batch, expand, keep, line, per_worker, serial, step

EVERY = ["loop", "pool", "queues", "line", "auto"]
pytestmark = pytest.mark.filterwarnings("error")


async def is_odd(n):
    await asyncio.sleep(0)
    return n % 2 == 1


async def twice(n):
    await asyncio.sleep(0)
    return n * 2


@functools.cache
def cached_twice(n):
    return twice(n)


@functools.lru_cache
async def twice_cached(n):
    return n * 2


async def all_twice(numbers):
    return [n * 2 for n in numbers]


async def to(n):
    for m in range(n):
        await asyncio.sleep(0)
        yield m


class Caller:
    def __init__(self, fn=twice):
        self.fn = fn

    async def __call__(self, n):
        return await self.fn(n)

    async def method(self, n):
        return await self.fn(n)


class Yielding:
    async def __call__(self, n):
        for m in range(n):
            yield m


def logged(fn):
    """A decorator that does not know of `async def`."""

    @functools.wraps(fn)
    def wrapper(*args):
        return fn(*args)

    return wrapper


def build(fn):
    return fn


RECORDS = list(range(12))
ODD, TWICE, TO = [n for n in RECORDS if n % 2], [n * 2 for n in RECORDS], [m for n in RECORDS for m in range(n)]
SEEN = {
    "keep": (lambda: keep(is_odd), ODD),
    "partial": (lambda: functools.partial(twice), TWICE),
    "partial of an object": (lambda: functools.partial(Caller()), TWICE),
    "partial of a partial": (lambda: keep(functools.partial(functools.partial(Caller(is_odd)))), ODD),
    "method": (lambda: Caller().method, TWICE),
    "object": (lambda: keep(Caller(is_odd)), ODD),
    "cached": (lambda: twice_cached, TWICE),
    "said of a cached one": (lambda: step(cached_twice, kind="async"), TWICE),
    "serial": (lambda: serial(twice), TWICE),
    "inline": (lambda: step(functools.partial(twice)), TWICE),
    "said": (lambda: step(lambda n: twice(n), kind="async"), TWICE),
    "said of a predicate": (lambda: keep(step(lambda n: is_odd(n), kind="async")), ODD),
    "said of a decorated one": (lambda: step(logged(twice), kind="async"), TWICE),
    "said, and not always": (lambda: step(lambda n: twice(n) if n % 3 else n * 2, kind="async"), TWICE),
    "said of a batch": (lambda: batch(lambda ns: all_twice(ns), 4, kind="async"), TWICE),
    "batch": (lambda: batch(functools.partial(all_twice), 4), TWICE),
    "expand": (lambda: expand(to), TO),
    "expand an object": (lambda: expand(Yielding()), TO),
    "expand a partial": (lambda: expand(functools.partial(to)), TO),
    "built": (lambda: per_worker(Caller), TWICE),
    "built by a function": (lambda: per_worker(build, twice), TWICE),
    "built predicate": (lambda: keep(per_worker(build, is_odd)), ODD),
    "built batch": (lambda: batch(per_worker(build, all_twice), 4), TWICE),
    "built generator": (lambda: expand(per_worker(build, to)), TO),
    "built, in threads": (lambda: step(per_worker(build, twice), tasks=3), TWICE),
    "with limits": (lambda: step(per_worker(build, twice), retries=1, timeout=60), TWICE),
}


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("kind", SEEN)
def test_what_can_be_seen_to_be_async_before_the_run_is_awaited(kind, how):
    made, wanted = SEEN[kind]
    assert list(line(made())(RECORDS, how=how, workers=1)) == wanted


UNSEEN = {
    "lambda": lambda: lambda n: twice(n),
    "predicate": lambda: keep(lambda n: is_odd(n)),
    "expand": lambda: expand(lambda n: to(n)),
    "expand of a coroutine": lambda: expand(lambda n: twice(n)),
    "decorated": lambda: keep(logged(is_odd)),
    "serial": lambda: serial(lambda n: twice(n)),
    "inline": lambda: step(lambda n: twice(n), kind="inline"),
    "threads": lambda: step(lambda n: twice(n), tasks=3),
    "threads of a predicate": lambda: keep(step(lambda n: is_odd(n), tasks=3)),
    "batch": lambda: batch(lambda ns: all_twice(ns), 4),
    "each of a batch": lambda: batch(lambda ns: [twice(n) for n in ns], 4),
    "batch in threads": lambda: batch(lambda ns: all_twice(ns), 4, tasks=2),
    "built": lambda: per_worker(lambda: lambda n: twice(n)),
    "with limits": lambda: step(lambda n: twice(n), retries=2, backoff=0, timeout=60),
}


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("kind", UNSEEN)
def test_what_cannot_be_seen_is_refused_at_its_first_record(kind, how):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for after in ([], [str]) if how == "loop" else ([str],):
            with pytest.raises(NotAwaited, match="nobody awaits") as caught:
                list(line(UNSEEN[kind](), *after)(range(40), how=how, workers=1))
            assert "at record 0 in step" in "".join(caught.value.__notes__)
            assert ("own function" if kind == "expand" else 'kind="async"') in str(caught.value)
    # of one that was made beside the first it may be said that nobody awaited it
    assert not seen or kind == "each of a batch"


@pytest.mark.parametrize("how", EVERY)
def test_every_record_of_such_a_step_is_left_out(how):
    for made in (keep(lambda n: is_odd(n)), batch(lambda ns: all_twice(ns))):
        report = line(made, str).run(range(100), how=how, workers=1, on_error="skip")
        assert (report.skipped, report.records_out) == (100, 0)


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_predicate_that_gives_a_coroutine_now_and_then_is_found_too(how):
    with pytest.raises(NotAwaited) as caught:
        list(line(keep(lambda n: is_odd(n) if n == 77 else n % 2))(range(100), how=how, workers=1))
    assert "at record 77 in step" in caught.value.__notes__[0]


@pytest.mark.parametrize("how", EVERY)
def test_an_async_step_that_gives_another_coroutine_is_told_to_await_it(how):
    async def forgets(n):
        return is_odd(n)

    with pytest.raises(NotAwaited, match="await it inside of the step"):
        list(line(keep(forgets))(RECORDS, how=how, workers=1))


def test_an_async_generator_elsewhere_than_in_expand_is_refused_before_anything_starts():
    for made in (to, keep(to), step(to), batch(to)):
        with pytest.raises(LineError, match="expand"):
            line(made)


def test_a_class_whose_objects_are_async_is_itself_a_plain_step():
    assert all(isinstance(made, Caller) for made in line(Caller)(RECORDS, how="loop"))


@pytest.mark.parametrize("role", [None, "keep", "expand"])
def test_predicates_may_say_yes_with_any_value(role):
    class Yes:
        pass

    for value in (1, "x", [0], Yes(), b"x", 2.5, (0,), {1: 2}):
        assert (
            list(line(keep(lambda n, value=value: value if n % 2 else type(value) is dict))(range(4), how="loop"))[-1]
            == 3
        )
