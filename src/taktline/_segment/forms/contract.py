"""What every form does, what its results come as, and what is said of values that it cannot hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from taktline._recipe.steps import Gives, Step
from taktline.errors import FormError


class Unfit(Exception):
    """These values do not fit into one batch of a form exactly; a part of them may."""


class Misfit(Exception):
    """A step returned something that is not of its form."""


def cannot_stand(step: Step, why: Unfit) -> FormError:
    """What a single record fails with where it does not fit."""
    return FormError(
        step=step.name, form=step.form, why=f"the record cannot stand in it exactly: {why}",
        remedy='change the record in a step before this one, or use another form; form="list" takes anything',
    )  # fmt: skip


def not_of_the_form(step: Step, result: Any, why: Exception) -> FormError:
    """What all records of a batch fail with where the step returned something else than one result each."""
    wanted = f"not {why}" if isinstance(why, Misfit) else f"which gives no plain records: {why}"
    each = "True or False for each record" if step.gives is Gives.MASK else "one result a record in the step's form"
    return FormError(
        step=step.name, form=step.form, why=f"it returned {type(result).__name__}, {wanted}", remedy=f"return {each}"
    )


def no_record(step: Step, why: Unfit) -> FormError:
    """What a record fails with of whose results one row can be no record, where somebody asks for records."""
    return FormError(
        step=step.name, form=step.form, why=f"a row of its results can be no record: {why}",
        remedy="take the results as tables, such as by to_arrow() or into Parquet, or make another column of it in the step",
    )  # fmt: skip


class Columns:
    """The results of a batch, a column each: an array of numbers or a list. Crosses to another process as it is, and
    becomes records there.

    >>> Columns(("a", "b"), [[1, 2], ["x", "y"]]).records()
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]
    """

    __slots__ = ("columns", "names")

    def __init__(self, names: tuple[Any, ...] | None, columns: list[Any]) -> None:
        self.names = names  # None: the records are no rows but the values of the only column; (): they are tuples
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def records(self) -> list[Any]:
        """Plain records: dicts, tuples or values, of Python's own types where they have one."""
        lists = [_listed(column) for column in self.columns]
        if self.names is None:
            return lists[0]
        rows = zip(*lists, strict=True)
        if not self.names:
            return list(rows)
        names = self.names
        return [dict(zip(names, row)) for row in rows]  # noqa: B905  # as many values as names: 80 ns a row less


def _listed(column: Any) -> list[Any]:
    if type(column) is list:
        return column
    return column.tolist() if column.ndim == 1 else list(column)  # more dimensions: an array a record


class Form(ABC):
    """One form. `take` makes a batch of it, `checked` looks at what a step made of that, `give` takes it apart."""

    @abstractmethod
    def take(self, values: list[Any]) -> Any:
        """One or more values as a batch. Raises Unfit where that would change one of them."""

    @abstractmethod
    def checked(self, result: Any, given: int) -> tuple[Any, int]:
        """What a step returned, and how many results that is, another number than `given` where a column differs.
        Raises Misfit where it is not of this form."""

    @abstractmethod
    def give(self, result: Any) -> Columns:
        """What `checked` let pass, in columns. Raises Misfit where that would change a value."""
