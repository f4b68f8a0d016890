"""A step that cannot be called with one argument is refused when the line is built; all others are let through. What is no
step, source or option is answered with what may be meant."""

from __future__ import annotations

import functools
import operator
from inspect import signature

import pytest

from taktline import LineError, SinkError, StepError, batch, expand, keep, line, per_worker, serial, step, write


class Scaled:
    def __init__(self, by, to=0):
        self.by = by

    def one(self, n):
        return n * self.by

    def none(self):
        return self.by

    def __call__(self, n):
        return n


class Bare:
    """Takes nothing, and has one method of its own."""

    def __init__(self):
        pass

    def label(self, n):
        return n


class Silent:
    def __call__(self):
        return 1


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
        Bare,
        Silent(),
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


@pytest.mark.parametrize("given", [(Scaled,), (Scaled, 1, 2, 3), (Scaled(2),), (two, 1), (lambda n: n,)])
def test_a_factory_that_cannot_be_called_with_what_is_beside_it_is_refused_when_the_line_is_built(given):
    with pytest.raises(
        LineError, match=r"once in each worker with the arguments .* not take: .*\. Give .*per_worker\("
    ):
        per_worker(*given)


@pytest.mark.parametrize("given", [(Scaled, 3), (dict,), (functools.partial(Scaled, 3),), (lambda: abs,), (Silent(),)])
def test_a_factory_that_can_or_does_not_tell_is_let_through(given):
    assert line(per_worker(*given)).steps


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_factory_that_gives_nothing_to_call_is_told_so(how):
    with pytest.raises(LineError, match=r"gave None to per_worker\(\).*must be a callable"):
        list(line(per_worker(lambda: None))([1], how=how, workers=1))


@pytest.mark.parametrize("builder", [step, batch, keep, serial])
def test_a_line_is_no_function_of_a_record(builder):
    with pytest.raises(LineError, match="takes one function, and this is a line"):
        builder(line(abs))


def many(n):
    yield n


async def later(n):
    return n


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (many(1), r"line\(many\), not line\(many\(…\)\)"),
        (None, "without calling it"),
        ([abs, str], r"did you mean line\(\*steps\)\?"),
        ("abs", "not its name"),
        (Bare(), "did you mean its method 'label'"),
        (line(abs)([1]), "not Run <Run 'abs': has not begun>"),
        (3, "not int 3"),
    ],
)
def test_what_is_no_step_is_answered_with_what_may_be_meant(given, meant):
    with pytest.raises(LineError, match=rf"not .* \(argument 2 of 2\).*{meant}|{meant} \(argument 2 of 2\)"):
        line(abs, given)


def test_a_coroutine_is_no_step():
    begun = later(1)
    with pytest.raises(LineError, match=r"line\(later\), not line\(later\(…\)\)"):
        line(begun)
    begun.close()


@pytest.mark.parametrize(
    ("source", "meant"),
    [(10, r"range\(10\), or \[10\]"), (None, "not None"), (many, r"what it gives: many\(\)\?")],
)
def test_what_is_no_source_is_answered_with_what_may_be_meant(source, meant):
    with pytest.raises(LineError, match=meant):
        line(abs)(source)


def test_a_result_that_is_a_generator_is_told_of_expand(tmp_path):
    with pytest.raises(StepError, match=r"expand\(fn\) takes them"):
        list(line(many)(range(3), how="line", workers=1))
    with pytest.raises(SinkError, match=r"expand\(fn\) takes them"):
        line(many).run(range(3), write(tmp_path / "out.jsonl"), how="loop")
    assert "expand(fn) takes them" in " ".join(str(line(many).check(range(3))).split())


def test_check_tells_of_a_coroutine_as_a_run_does():
    said = " ".join(str(line(lambda n: later(n)).check(range(3))).split())
    assert "which nobody awaits: make the step `async def`" in said


@pytest.mark.parametrize(
    ("name", "meant"),
    [("n_jobs", "workers"), ("chunksize", "batch_size"), ("backend", "how"), ("initializer", "setup")],
)
def test_what_other_libraries_call_an_option_is_known(name, meant):
    with pytest.raises(LineError, match=f"there is no option '{name}'; did you mean '{meant}'"):
        line(abs)([1], **{name: 2})


def test_what_a_run_takes_is_told_where_a_builder_is_given_it():
    with pytest.raises(
        LineError, match=r"line\(\) does not take how=; a run has it: flow\(records, how=…\)\. It takes"
    ):
        line(abs, how="line")
    with pytest.raises(LineError, match=r"did you mean 'size'\? It takes"):
        batch(abs, batch_size=3)


@pytest.mark.parametrize("builder", [step, batch])
def test_a_run_that_is_given_what_a_step_takes_says_so(builder):
    parameters = signature(builder).parameters.values()
    for each in (p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in {"name", "workers"}):
        with pytest.raises(LineError, match=rf"'{each}' of a run; a step has it: {builder.__name__}\(fn, {each}=…\)"):
            line(abs)([1], **{each: 1})
