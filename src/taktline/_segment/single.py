"""Batch steps as steps of one record, for the loop that works on one record at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from taktline._recipe.steps import Maker, Role, Step, is_async
from taktline._segment import policies
from taktline._segment.forms import Misfit, form_of, not_of_the_form
from taktline._segment.step_results import drawn
from taktline.errors import BatchLengthError


def of_one_record(step: Step) -> Step:
    """A batch step as a step of one record, for the technique that works on one at a time. Steps of other forms than
    lists get batches of one, so that nothing is converted between them; so do those that are verified."""
    if (
        step.role is not Role.BATCH
        or step.by is not None
        or not step.keeps_number
        or step.verify is not None
        or (step.form != "list" and step.like is None)
    ):
        return step

    lists = form_of("list")

    def only(returned: Any) -> Any:
        policies.refuse(returned[0] if type(returned) is list and returned else returned, step.name)
        if isinstance(returned, Iterator):
            returned = drawn(returned)
        try:
            results, count = lists.checked(returned, 1)
        except Misfit as misfit:
            raise not_of_the_form(step, returned, misfit) from None
        if count != 1:
            raise BatchLengthError(step=step.name, given=1, returned=count)
        return lists.give(results).records()[0]

    def one_at_a_time(fn: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
        def one(record: Any) -> Any:
            return only(fn([record]))

        async def waiting(record: Any) -> Any:
            return only(await policies.awaited(fn([record])))

        made: Any = waiting if step.kind == "async" or is_async(fn) else one
        for name in ("close", "save", "load"):
            if hasattr(fn, name):
                setattr(made, name, getattr(fn, name))
        return made  # type: ignore[no-any-return]

    if step.like is not None:
        return replace(step, role=Role.MAP, fn=step.like, maker=None)
    if step.maker is None:
        return replace(step, role=Role.MAP, fn=one_at_a_time(step.fn))
    return replace(step, role=Role.MAP, maker=Maker(lambda: one_at_a_time(step.make()), (), {}))
