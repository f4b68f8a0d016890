"""With `seed=` all random numbers of a run are the same every time, under every technique, also in batches and in steps
that wait; what cannot be made so is refused."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import numpy as np
import pytest

from taktline import LineError, batch, expand, keep, line, serial, step
from taktline.abc import Live
from taktline.errors import ResultsTooLarge

WAYS: list[dict[str, Any]] = [
    {"how": "line", "batch_size": 84, "start": "fork"}, {"how": "pool", "start": "fork", "ordered": False},
    {"how": "queues", "start": "fork", "window": 90}, {"how": "auto", "on_error": "skip"},
]  # fmt: skip


def draw(x):
    return x, round(random.random(), 6), round(float(np.random.rand()), 6)


def draw_each(xs):
    """Numbers that show in which list a record stood, and where."""
    return [(x, len(xs), n, round(random.random(), 6)) for n, x in enumerate(xs)]


def heavy(xs):
    if len(xs) > 1 and random.random() < 0.5:
        raise ValueError("in halves")
    return draw_each(xs)


def share(x):
    for _ in range(random.choice((0, 1, 2, 9))):
        yield x, round(random.random(), 6)


async def wait(x):
    first = random.random()
    await asyncio.sleep(0.0001 * (hash(str(x)) % 7))
    return x, round(first, 6), round(random.random(), 6), round(float(np.random.rand()), 6)


async def wait_for_all(xs):
    await asyncio.sleep(0.0001 * (len(str(xs)) % 7))
    return draw_each(xs)


async def shared_out(x):
    for _ in range(random.choice((0, 1, 3))):
        await asyncio.sleep(0)
        yield x, round(random.random(), 6)


async def at_the_third(x):
    value = random.random()
    await asyncio.sleep(0)
    if value < 0.3:
        raise ValueError("again")
    return x, round(value, 6)


LINES = {
    "a batch step": line(draw, batch(draw_each, size=7)),
    "batch steps of several sizes": line(batch(draw_each, size=4), draw, batch(draw_each, size=6)),
    "a batch step behind a filter": line(keep(lambda x: random.random() < 0.6), batch(draw_each, size=7)),
    "a batch step behind an expand": line(expand(share), batch(draw_each, size=6), draw),
    "a batch step that fails in parts": line(batch(heavy, size=12)),
    "a batch step with its like": line(batch(heavy, size=12, like=draw)),
    "a batch step behind a serial one": line(serial(draw), batch(draw_each, size=7), draw),
    "a step that waits": line(draw, wait, draw),
    "steps that wait together": line(wait, expand(shared_out), wait, step(at_the_third, retries=50, backoff=0)),
    "a step that waits, with a time limit": line(expand(share), step(wait, timeout=100, rate=1e6)),
    "batches that wait": line(expand(share), batch(wait_for_all, size=6), wait, draw),
}


@pytest.mark.parametrize("name", LINES)
def test_every_technique_draws_the_same_numbers_every_time(name):
    flow, records = LINES[name], range(110)

    def drawn(**way):
        results = list(flow(records, seed=11, workers=2, **way))
        return sorted(results, key=repr) if way.get("ordered") is False else results

    first = drawn(how="loop")
    assert first != list(flow(records, seed=12, how="loop"))
    for way in WAYS:
        assert drawn(**way) == (sorted(first, key=repr) if way.get("ordered") is False else first), way


def test_auto_draws_the_same_numbers_whenever_it_moves():
    def slow(xs):
        return [(x, len(xs), sum(random.random() for _ in range(20_000))) for x in xs]

    flow = line(batch(slow, size=7))
    first = list(flow(range(300), seed=5, how="loop"))
    for _ in range(4):
        run = flow(range(300), seed=5, workers=2)
        assert list(run) == first


def test_pythons_and_numpys_generator_draw_different_numbers():
    def drawn(_):
        return random.random(), np.random.rand()

    assert all(own != numpys for own, numpys in line(drawn)(range(50), seed=3, how="loop"))


def test_lists_from_a_generator_are_the_same_as_from_a_list():
    flow = line(batch(draw_each, size=7))

    def one_object():
        row = {}
        for n in range(100):
            row["n"] = n
            yield row

    first = list(flow([{"n": n} for n in range(100)], seed=5))
    for how in ("loop", "auto", "line"):
        assert list(flow(one_object(), seed=5, how=how)) == first


def test_the_callers_own_generators_are_left_alone_by_steps_that_wait():
    random.seed(3)
    before = random.getstate()
    list(line(wait)(range(20), how="loop", seed=1))
    assert random.getstate() == before


class Coming(Live):
    def take(self, most, seconds):
        return None


@pytest.mark.parametrize(
    ("flow", "source", "options", "says"),
    [
        (line(batch(draw_each)), [1], {}, "seed= needs a size for batch step 'draw_each'"),
        (line(step(draw, tasks=3)), [1], {}, "seed= cannot make random numbers repeatable in threads"),
        (line(batch(draw_each, 8)), [1], {"window": 7}, "window=7 cuts the lists .* give at least 8"),
        (line(batch(draw_each, 8)), [1], {"batch_size": 12}, "batch_size=12 cuts the lists .* give a multiple of 8"),
        (line(batch(draw_each, 8)), Coming(), {}, "over a live source"),
        (line(batch(draw_each, 8)), [1], {"journal": "/nowhere/j"}, "goes on from a journal"),
    ],
)
def test_what_a_seed_cannot_make_repeatable_is_refused_at_the_door(flow, source, options, says):
    with pytest.raises(LineError, match=says):
        flow(source, seed=1, **options)


def test_a_step_in_threads_may_have_a_seed_in_the_loop():
    flow = line(step(draw, tasks=3))
    assert list(flow(range(9), seed=1, how="loop")) == list(line(draw)(range(9), seed=1, how="line", workers=2))


def test_what_is_expanded_without_an_end_is_refused_by_name_where_a_seed_keeps_it_whole():
    with pytest.raises(ResultsTooLarge, match="seed="):
        list(line(expand(itertools.count))([5], how="loop", seed=1, memory="2MB"))
