"""A step that cannot be called with one argument is refused when the line is built; all others are let through."""

from __future__ import annotations

import functools
import operator
from inspect import signature

import pytest

from taktline import LineError, batch, expand, keep, line, per_worker, serial, step


class Scaled:
    def __init__(self, by, to=0):
        self.by = by

    def one(self, n):
        return n * self.by

    def none(self):
        return self.by

    def __call__(self, n):
        return n


def two(a, b):
    return a


def named(n, *, unit):
    return n


def wraps(fn):
    @functools.wraps(fn)
    def wrapped(n):
        return fn(n, 2)

    return wrapped


@pytest.mark.parametrize(
    "fn",
    [
        two,
        named,
        lambda: 1,
        Scaled(2).none,
        functools.partial(two, 1, 2),
        functools.partial(functools.partial(two), b=1, c=3),
    ],
)
@pytest.mark.parametrize("made", [lambda fn: fn, step, batch, keep, expand, serial])
def test_what_does_not_take_one_argument_is_refused_when_the_line_is_built(fn, made):
    with pytest.raises(
        LineError, match=r"is called with one argument, the (record|list of records), which .* does not take"
    ):
        line(made(fn))


@pytest.mark.parametrize(
    "fn",
    [
        abs, int, dict, print, str.strip, Scaled(2).one, Scaled(2), Scaled, functools.partial(two, 1),
        functools.partial(two, b=1), wraps(two), lambda *all: all, lambda n, more=1: n, operator.itemgetter(0),
        "{}".format, functools.lru_cache(lambda n: n), lambda n, *, unit="s": n,
    ],
)  # fmt: skip
def test_what_takes_one_argument_or_does_not_tell_is_let_through(fn):
    assert len(line(fn).steps) == 1


def test_what_is_built_in_each_worker_is_not_called_with_a_record():
    assert len(line(per_worker(Scaled, 3, to=1)).steps) == 1


@pytest.mark.parametrize("builder", [step, batch])
def test_a_run_that_is_given_what_a_step_takes_says_so(builder):
    parameters = signature(builder).parameters.values()
    for each in (p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in {"name", "workers"}):
        with pytest.raises(LineError, match=rf"'{each}' of a run; a step has it: {builder.__name__}\(fn, {each}=…\)"):
            line(abs)([1], **{each: 1})
