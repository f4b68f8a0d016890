"""The loop that a user would have written from the same steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from taktline._excerpts import excerpt
from taktline._planner.advise import Failures
from taktline._recipe.steps import Role, Step, is_async
from taktline._segment.async_steps import OneByOne
from taktline._segment.batch import Batch
from taktline._segment.forms import Unfit, cannot_stand, form_of
from taktline._segment.segment import Segment
from taktline.errors import ResultsTooLarge

if TYPE_CHECKING:
    pass


def plain_loop(
    steps: tuple[Step, ...], records: Iterable[Any], indexes: list[int], failures: Failures | None
) -> Iterator[Any]:
    """The loop that a user would have written; batch steps get lists of one. `indexes`: of the records in their source;
    `failures`: where those that fail are left out."""
    with closing(OneByOne()) as loop:
        chained = chain(scalars(steps, loop), steps)
        for index, record in zip(indexes, records, strict=False):
            try:
                if failures is None:
                    yield from chained(record)
                    continue
                results = list(chained(record))
            except Exception as error:
                if failures is not None and not isinstance(error, ResultsTooLarge):
                    failures.add(index, _failing_step(error, steps), error)
                    continue
                error.add_note(
                    f"at record {index:,} in the plain loop\n  record  {excerpt(record)}\n"
                    '  next    compare records that do not fail, or leave such out: on_error="skip"'
                )
                raise
            yield from results


def _failing_step(error: BaseException, steps: tuple[Step, ...]) -> str:
    """The step that the chain was at."""
    tb, at = error.__traceback__, 1
    while tb is not None:
        if tb.tb_frame.f_globals is globals():
            at = tb.tb_frame.f_locals.get("at", at)
        tb = tb.tb_next
    return steps[at - 1].name


def chain(functions: list[Callable[[Any], Any]], steps: tuple[Step, ...]) -> Callable[[Any], Iterator[Any]]:
    def through(value: Any, at: int = 0) -> Iterator[Any]:
        while at < len(steps):
            fn, role = functions[at], steps[at].role
            at += 1
            if role is Role.KEEP:
                if not fn(value):
                    return
            elif role is Role.EXPAND or not steps[at - 1].keeps_number:
                for inner in fn(value):
                    yield from through(inner, at)
                return
            else:
                value = fn(value)
        yield value

    return through


def scalars(steps: tuple[Step, ...], loop: OneByOne) -> list[Callable[[Any], Any]]:
    """The steps' callables, those of batch steps with batches of one, those that are `async def` run to their end in
    `loop`. Between steps of one form nothing is converted: the last of them gets what makes records of its result, the
    others hand theirs on."""
    functions: list[Callable[[Any], Any]] = []
    for n, step in enumerate(steps):
        fn, like = step.make(), step.like
        if step.kind == "async" or is_async(fn):
            fn, like = loop.plain(step, fn), like and loop.plain(step, like)
        if step.role is not Role.BATCH:
            functions.append(fn)
        elif not step.keeps_number:
            functions.append(_each_of(step))
        elif like is not None:
            functions.append(like)
        else:
            first = not n or _apart(steps[n - 1], step)
            last = n + 1 == len(steps) or _apart(step, steps[n + 1])
            functions.append(_of_one(step, fn, first, last))
    return functions


def _apart(step: Step, other: Step) -> bool:
    """Whether records stand between two neighbours where one of them is a batch step of one form."""
    alone = any(each.like is not None or not each.keeps_number for each in (step, other))
    return alone or not step.joins(other)


def _each_of(step: Step) -> Callable[[Any], list[Any]]:
    """A batch step that gives another number of results, for one record."""
    segment = Segment((step,), goes_on=False)
    segment.make()

    def given(record: Any) -> list[Any]:
        came = segment.run(Batch([record]))
        if came.failures:
            raise came.failures[0].error
        return came.values  # type: ignore[no-any-return]

    return given


def _of_one(step: Step, fn: Callable[[Any], Any], first: bool, last: bool) -> Callable[[Any], Any]:
    form = form_of(step.form)

    def one(record: Any) -> Any:
        try:
            given = form.take([record]) if first else record
        except Unfit as unfit:
            raise cannot_stand(step, unfit) from None
        result, _ = form.checked(fn(given), 1)
        return form.give(result).records()[0] if last else result

    return one
