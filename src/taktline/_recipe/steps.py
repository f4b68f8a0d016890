"""Steps and the words that build them: what the user asked for, as frozen data, checked when it is made."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from importlib.util import find_spec
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, Unpack, overload

from taktline._notebook import cell_of
from taktline._public import named
from taktline._recipe.numbers import is_number, is_whole
from taktline._recipe.options import check_taken
from taktline._types import In, Out
from taktline.errors import LineError

if TYPE_CHECKING:
    from taktline._types import A, AnyKind, B, P

FORMS = {"list": "", "numpy": "numpy", "pandas": "pandas", "arrow": "pyarrow", "polars": "polars"}  # form: its package


class Role(Enum):
    """What a step does to the number of records."""

    MAP = "map"  # one in, one out
    KEEP = "keep"  # one in, one or none out
    EXPAND = "expand"  # one in, any number out
    BATCH = "batch"  # many in, as many out


class Gives(Enum):
    """What a batch step gives for the records that it gets."""

    ROWS = "rows"  # a result each
    MASK = "mask"  # for each, whether it stays
    ANY = "any"  # any number of results


@dataclass(frozen=True, slots=True)
class Maker:
    """Builds a step's callable, once in each worker."""

    factory: Callable[..., Callable[[Any], Any]]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Callable[[Any], Any]:
        made = self.factory(*self.args, **self.kwargs)
        if not callable(made):
            raise LineError(
                f"{name_of(self.factory)} gave {_shown(made)} to per_worker(), which is called with each record and so must "
                "be a callable of one; return that"
            )
        return made


@dataclass(frozen=True, slots=True)
class Step(Generic[In, Out]):
    """One function of the line, with its options. Made by `step`, `batch`, `keep`, `expand`, `serial`, `per_worker`."""

    fn: Callable[..., Any]
    name: str
    role: Role = Role.MAP
    in_caller: bool = False  # sees its records in input order, in the caller's process
    kind: str = "process"  # "thread" and "async": waits, so that one worker has many records under way at once
    has_state: bool = False  # what it gives depends on the records before
    workers: int | None = None  # at most so many copies; None: as wide as the line
    tasks: int | None = None  # records at once in a step that waits
    rate: float | None = None  # records a second, over all workers
    size: int | None = None  # of a batch step
    form: str = "list"  # what a batch step is handed and returns
    gives: Gives = Gives.ROWS  # of a batch step
    by: Callable[[Any], Any] | str | None = None  # of a batch step: what consecutive records that stay together share
    like: Callable[[Any], Any] | None = None
    verify: float | None = None  # compare with `like` on the first records, floats within this relative tolerance
    maker: Maker | None = None  # builds `fn` in each worker
    retries: int = 0  # tries after a first one that raised
    backoff: float = 0.1  # seconds before the first of them, at most; each further one may wait twice as long
    timeout: float | None = None  # seconds that one call may take
    resources: tuple[tuple[str, float], ...] = ()  # of a machine, that each of its workers has to itself

    @property
    def waits(self) -> bool:
        """Whether many records are in this step at once."""
        return self.kind in ("thread", "async") and not self.in_caller

    def needs(self) -> str:
        """Its `resources` in words, such as "1 GPU, 0.5 disk"."""
        return ", ".join(f"{amount:g} {name}" for name, amount in self.resources)

    @property
    def keeps_number(self) -> bool:
        """Whether it gives one result a record."""
        return self.role in (Role.MAP, Role.BATCH) and self.gives is Gives.ROWS

    def make(self) -> Callable[..., Any]:
        """The callable itself, built now where it is to be built in each worker."""
        return self.maker() if self.maker is not None else self.fn

    def joins(self, other: Step) -> bool:
        """Whether what this batch step returns goes to the step behind it as it is. No plan may cut between the two:
        on the way to another process results become plain records."""
        formed = self.role is other.role is Role.BATCH and self.form == other.form != "list"
        same_place = self.in_caller == other.in_caller and self.waits == other.waits
        return formed and same_place and self.workers is None and other.workers is None


LAMBDA_AT = "lambda at "  # begins what a lambda is called; its place follows
SHOWN = 60  # characters of what is shown of something that is no step
WRAPPED = 100  # partials and the like around one another that are looked into
CACHED = type(functools.cache(len))

KINDS = ("auto", "process", "thread", "async", "inline")
BACKOFF = 0.1  # seconds before the first further try, at most, where it is not said
TASKS = 64  # records at once in a step that waits, where it is not said

StepLike = Callable[..., Any] | Step


class StepOptions(TypedDict, total=False):
    """What `step` takes beside the function, for type checkers and editors; a test holds both equal."""

    name: str | None
    kind: Literal["auto", "process", "thread", "async", "inline"]
    workers: int | None
    tasks: int | None
    retries: int
    backoff: float
    timeout: float | None
    rate: float | None
    resources: Mapping[str, float] | None


Form = Literal["list", "numpy", "pandas", "arrow", "polars"]


@overload
def step(fn: Step[A, B], **options: Unpack[StepOptions]) -> Step[A, B]: ...
@overload
def step(fn: AnyKind, **options: Unpack[StepOptions]) -> Step[Any, Any]: ...
@overload
def step(fn: Callable[[A], Coroutine[Any, Any, B]], **options: Unpack[StepOptions]) -> Step[A, B]: ...
@overload
def step(fn: Callable[[A], B], **options: Unpack[StepOptions]) -> Step[A, B]: ...


def step(
    fn: StepLike,
    *,
    name: str | None = None,
    kind: str = "auto",
    workers: int | None = None,
    tasks: int | None = None,
    retries: int = 0,
    backoff: float = BACKOFF,
    timeout: float | None = None,
    rate: float | None = None,
    resources: Mapping[str, float] | None = None,
    **other: Any,
) -> Step:
    """One record in, one result out, with options.

    `kind`: "process" runs the step in workers, "inline" in the caller's process in input order. "async" and "thread"
    are for steps that wait, for a service or a disk: one worker has up to `tasks` records in the step at once (64 where
    it is not given), in one event loop or in as many threads. "auto": "async" for an `async def`, "thread" where `tasks`
    is given, "process" else. `rate`: records a second at most, over the whole run. `workers`: at most so many workers run
    this step; one where it waits or has a rate. `name`: what reports and errors call it.
    `retries`: further tries for a record whose step raised, after a pause of up to `backoff` seconds, twice as long each
    time. `timeout`: seconds that one call may take; then it is ended, even inside C code, by replacing its worker, and
    the record fails with StepTimeout once no try is left. In the caller's process a late call can only be noticed
    when it comes back. A batch step's call is that for its whole list; then its records are tried one by one.
    `resources`: what each of the step's `workers` has to itself in a run on other machines, such as {"GPU": 1}: they run
    where that is, in a reservation of their own, and batches come to them through the caller's process. A run on this
    machine counts none.
    Raises LineError where `fn` is no callable or an option makes no sense.

    >>> from taktline import line
    >>> list(line(step(str.strip, name="clean"), step(int))([" 1", "2 "]))
    [1, 2]
    """
    check_taken("step()", other, tuple(StepOptions.__annotations__))
    if kind not in KINDS:
        raise LineError(f"step(kind={kind!r}) is unknown; choose one of {', '.join(map(repr, KINDS))}")
    if tasks is not None and not is_whole(tasks, least=1):
        raise LineError(f"step(tasks={tasks!r}): give how many records may be in the step at once, at least 1")
    if tasks is not None and kind in ("process", "inline"):
        raise LineError(f'step(tasks={tasks}) is for steps that wait; kind="{kind}" has one record at a time a worker')
    if rate is not None and not is_number(rate, above=0):
        raise LineError(f"step(rate={rate!r}): give records a second, above 0")
    if workers is not None and not is_whole(workers, least=1):
        raise LineError(
            f"step(workers={workers!r}): give a whole number of at least 1, or None for as many as the line"
        )
    if kind == "inline" and workers not in (None, 1):
        raise LineError("step(kind='inline') runs in the caller's process only; leave workers out")
    if not is_whole(retries, least=0):
        raise LineError(f"step(retries={retries!r}): give a whole number of further tries, 0 for none")
    if not is_number(backoff) or backoff < 0:
        raise LineError(f"step(backoff={backoff!r}): give seconds, 0 for no pause")
    if timeout is not None and not is_number(timeout, above=0):
        raise LineError(f"step(timeout={timeout!r}): give seconds above 0, or None for no limit")
    check_name("step", name)
    _check_one_function("step", fn)
    _check_resources(resources, workers, kind)
    made = as_step(fn)
    if backoff != BACKOFF and not (retries or made.retries):
        raise LineError(
            f"step(backoff={backoff!r}) is the pause before a further try, and there is none; give retries= too"
        )
    if made.has_state and (workers is not None or tasks is not None or kind not in ("auto", "inline")):
        raise LineError(
            f"step {made.name!r} is serial: it sees every record in order, in the caller's process; leave out workers=, "
            "tasks= and kind="
        )
    if kind == "auto":
        kind = "thread" if tasks is not None and made.kind == "process" else made.kind
    elif made.maker is None and made.kind == "async" != kind:
        raise LineError(f"step {made.name!r} is an `async def`, which kind={kind!r} cannot run; leave kind out")
    elif (
        made.maker is None
        and kind == "async" != made.kind
        and (inspect.isbuiltin(made.fn) or isinstance(made.fn, type))
    ):
        raise LineError(
            f'step {made.name!r} is a plain function that gives nothing to be awaited; leave kind="async" out'
        )
    return replace(
        made, name=name or made.name, in_caller=made.in_caller or kind == "inline", workers=workers or made.workers,
        kind="process" if kind == "inline" else kind, rate=rate or made.rate, retries=retries or made.retries,
        tasks=(tasks or made.tasks or TASKS) if kind in ("thread", "async") else None,
        backoff=backoff if backoff != BACKOFF else made.backoff, timeout=timeout or made.timeout,
        resources=tuple((resources or {}).items()) or made.resources,
    )  # fmt: skip


def _check_resources(resources: Any, workers: int | None, kind: str) -> None:
    if resources is None:
        return
    known = isinstance(resources, Mapping) and resources
    if not known or not all(isinstance(name, str) and is_number(n, above=0) for name, n in resources.items()):
        raise LineError(
            f'step(resources={resources!r}): give names and numbers above 0, as the machines have them: {{"GPU": 1}}'
        )
    if kind == "inline":
        raise LineError('step(resources=) is for steps that workers run; leave out kind="inline"')
    if workers is None:
        raise LineError(
            f"step(resources={resources!r}) is for each of the step's workers; say how many there are: workers=1"
        )


@overload
def batch(
    fn: Step[Any, Iterable[B]] | Callable[[Any], Coroutine[Any, Any, list[B]] | Iterable[B]],
    size: int | None = None,
    *,
    form: Literal["list"] = "list",
    by: Callable[[Any], object] | str | None = None,
    like: Callable[[Any], Any] | None = None,
    verify: bool | float = False,
    **step_options: Unpack[StepOptions],
) -> Step[Any, B]: ...
@overload
def batch(
    fn: Step[Any, Any] | Callable[[Any], Any],
    size: int | None = None,
    *,
    form: Form,
    by: Callable[[Any], object] | str | None = None,
    like: Callable[[Any], Any] | None = None,
    verify: bool | float = False,
    **step_options: Unpack[StepOptions],
) -> Step[Any, Any]: ...
def batch(
    fn: StepLike,
    size: int | None = None,
    *,
    form: str = "list",
    by: Callable[[Any], object] | str | None = None,
    like: Callable[[Any], Any] | None = None,
    verify: bool | float = False,
    **step_options: Any,
) -> Step:
    """A step whose `fn` gets up to `size` consecutive records at once and returns as many results, in order.

    `fn` may get fewer: the last records, those between two failed ones, or those of one type. `size` None: as many as
    travel together. `form` is what `fn` is handed and returns; the line's results are plain records again:

    - "list": a list of records.
    - "numpy": an array for plain values, a dict of arrays for dicts, a tuple of arrays for tuples.
    - "pandas": a Series for plain values, a DataFrame for dicts and tuples. It may return a NumPy array too.
    - "arrow", "polars": an Array or Series for plain values, a pyarrow Table or Polars DataFrame for dicts.

    A table that `fn` returns, of pandas, Polars, Arrow or NumPy or a dict of columns, is taken for its rows, whatever the
    form. Between neighbouring steps of one form nothing is converted. No value is changed by a conversion: what one column
    cannot hold exactly (ints beside floats, rows with other keys) is handed over in several batches; a record that
    cannot stand in the form at all fails with FormError. Where `fn` raises, its records are tried one by one with
    `like`, the same step for one record; without it, in halves down to one: only the record at fault fails.
    `by`: consecutive records of one key are never parted. `fn` gets whole keys, as many as come to `size` records, or one
    key that has more. A name is looked up in each record as it comes from the source: the key of a dict, an attribute, the
    column of a table; a function is given that record. Where `fn` raises, its keys are tried one by one; the records of a
    key come through, or fail, together, so there is no `like`. A key that has more than a part of `memory` ends the run.
    A step that waits, an `async def` or one with `tasks`, has up to `tasks` calls under way at once, each with records
    that were read together; `retries`, `timeout` and `rate` are those of a call, and `like` is `async def` where `fn` is.
    `verify`: compare with `like` on the first records of each worker, True for equality, or a relative tolerance of
    floats; a record for which the two differ fails with FormsDiffer. Raises LineError where an option makes no sense
    or the form's package is missing, and in the run BatchLengthError where the number of results differs, FormError where
    `fn` returns what is neither one result a record in order nor a table, such as a str, a set or another dict.

    >>> from taktline import line
    >>> list(line(batch(lambda numbers: [n * n for n in numbers], size=100))(range(4)))
    [0, 1, 4, 9]
    >>> rows = [{"n": 1, "name": "one"}, {"n": 2, "name": "two"}]
    >>> list(line(batch(lambda columns: {**columns, "half": columns["n"] / 2}, form="numpy"))(rows))
    [{'n': 1, 'name': 'one', 'half': 0.5}, {'n': 2, 'name': 'two', 'half': 1.0}]
    >>> def since_first(visits):
    ...     firsts = {}
    ...     return [visit["day"] - firsts.setdefault(visit["user"], visit["day"]) for visit in visits]
    >>> visits = [{"user": "ann", "day": 3}, {"user": "ann", "day": 5}, {"user": "bob", "day": 4}]
    >>> list(line(batch(since_first, size=2, by="user"))(visits))
    [0, 2, 0]
    >>> async def look_up(keys):  # a service that answers many questions at once
    ...     return [key.upper() for key in keys]
    >>> list(line(batch(look_up, size=100, tasks=8))(["a", "b"]))
    ['A', 'B']
    """
    _check_form("batch", form, size)
    if not isinstance(verify, (bool, int, float)) or verify < 0:
        raise LineError(f"batch(verify={verify!r}): give True, False, or a relative tolerance such as 1e-9")
    if verify is not False and like is None:
        raise LineError("batch(verify=) compares with the step for one record: give it as like=")
    if like is not None and not callable(like):
        raise LineError(f"batch(like={like!r}): give the same step as a function of one record")
    _check_plain("batch", fn)
    check_taken("batch()", step_options, ("size", "form", "by", "like", "verify", *StepOptions.__annotations__))
    made = step(fn, **step_options)
    _check_by(by, like, made)
    if like is not None and is_async(like) != (made.kind == "async"):
        raise LineError(
            f"batch(like=) and step {made.name!r} are the same step: make both of them `async def`, or none"
        )
    tolerance = None if verify is False else 0.0 if verify is True else float(verify)
    return replace(made, role=Role.BATCH, size=size, form=form, by=by, like=like, verify=tolerance)


def _check_by(by: object, like: object, made: Step) -> None:
    if by is None:
        return
    if not (callable(by) or (isinstance(by, str) and by)):
        raise LineError(
            f"batch(by={by!r}): give the name of what records have, such as a column, or a function of a record"
        )
    if like is not None:
        raise LineError(
            "batch(by=) hands over whole keys, so no function of one record can be like it: leave out like="
        )
    if made.waits:
        raise LineError(
            f"batch(by=) keeps the records of a key together, and step {made.name!r} waits, with records of many batches "
            "under way: make it a plain function"
        )


def _check_form(builder: str, form: str, size: int | None) -> None:
    if form not in FORMS:
        raise LineError(f"{builder}(form={form!r}) is unknown; choose one of {', '.join(map(repr, FORMS))}")
    if FORMS[form] and find_spec(FORMS[form]) is None:
        raise LineError(f'{builder}(form={form!r}) needs the package {FORMS[form]}: pip install "taktline[{form}]"')
    if size is not None and not is_whole(size, least=1):
        raise LineError(f"{builder}(size={size!r}): give a whole number of at least 1, or None")


def _of_many(
    builder: str, fn: StepLike, name: str | None, form: str | None, size: int | None, gives: Gives
) -> Step | None:
    """The step where its function gets many records at once; None where it gets one."""
    check_name(builder, name)
    _check_plain(builder, fn)
    if form is None:
        if size is not None:
            raise LineError(f'{builder}(size=) is the records of a batch: give form= too, such as "pandas"')
        return None
    _check_form(builder, form, size)
    whole: Any = batch  # its types are for those who know the form
    made: Step = whole(fn, size, form=form, name=name)
    return replace(made, gives=gives)


@overload
def keep(
    predicate: Step[Any, Any], *, form: str | None = None, size: int | None = None, name: str | None = None
) -> Step[Any, Any]: ...
@overload
def keep(
    predicate: Callable[[Any], object], *, form: str | None = None, size: int | None = None, name: str | None = None
) -> Step[Any, Any]: ...
def keep(
    predicate: StepLike, *, form: str | None = None, size: int | None = None, name: str | None = None, **other: Any
) -> Step:
    """Drop the records for which `predicate` is false; order and the others stay as they are.

    With `form`, as `batch` has it, the predicate gets many records at once, up to `size`, and returns a mask: an array, a
    Series or a list of as many True and False; what is missing in it counts as False. A predicate that raises fails its
    record, as a step does. Raises LineError when it is not callable, or the form's package is missing.

    >>> from taktline import line
    >>> list(line(int, keep(lambda n: n % 2))(["1", "2", "3"]))
    [1, 3]
    >>> list(line(int, keep(lambda numbers: numbers % 2 == 1, form="numpy"))(["1", "2", "3"]))
    [1, 3]
    """
    check_taken("keep()", other, ("form", "size", "name"))
    if (made := _of_many("keep", predicate, name, form, size, Gives.MASK)) is not None:
        return made
    _check_one_function("keep", predicate)
    made = as_step(predicate)
    return replace(made, role=Role.KEEP, name=name or made.name)


@overload
def expand(fn: Step[Any, Iterable[B]], *, name: str | None = None) -> Step[Any, B]: ...
@overload
def expand(fn: Callable[[Any], AsyncIterator[B]], *, name: str | None = None) -> Step[Any, B]: ...
@overload
def expand(fn: Callable[[Any], Coroutine[Any, Any, Iterable[B]]], *, name: str | None = None) -> Step[Any, B]: ...
@overload
def expand(fn: Callable[[Any], Iterable[B]], *, name: str | None = None) -> Step[Any, B]: ...
@overload
def expand(
    fn: Callable[[Any], Any], *, form: str, size: int | None = None, name: str | None = None
) -> Step[Any, Any]: ...
def expand(
    fn: StepLike, *, form: str | None = None, size: int | None = None, name: str | None = None, **other: Any
) -> Step:
    """One record in, any number out, in the order in which the returned iterable gives them.

    With `form`, as `batch` has it, `fn` gets many records at once, up to `size`, and returns a table, column or list of any
    length: what it would give for each of them alone, one after the other. Which result comes of which record is known by
    the index of a pandas object, which `explode`, filters and `repeat` keep; in other forms, where a run goes on after a
    failure, the records go through one by one.

    They are delivered as they come, so there may be endlessly many. With `retries` or `timeout`, which hold for all that
    one record gives, with `async` steps and with `on_error` other than "raise" they are kept until the record is through;
    more than fits into a part of `memory` ends the run with ResultsTooLarge.

    >>> from taktline import line
    >>> list(line(expand(str.split), str.upper)(["a b", "", "c"]))
    ['A', 'B', 'C']
    >>> rows = [{"words": "a b"}, {"words": "c"}]
    >>> list(line(expand(lambda frame: frame.assign(words=frame["words"].str.split()).explode("words"), form="pandas"))(rows))
    [{'words': 'a'}, {'words': 'b'}, {'words': 'c'}]

    Raises LineError when `fn` is not callable, or the form's package is missing.
    """
    check_taken("expand()", other, ("form", "size", "name"))
    if (made := _of_many("expand", fn, name, form, size, Gives.ANY)) is not None:
        return made
    made = as_step(fn)
    return replace(made, role=Role.EXPAND, name=name or made.name)


@overload
def serial(fn: Step[A, B], *, name: str | None = None) -> Step[A, B]: ...
@overload
def serial(fn: AnyKind, *, name: str | None = None) -> Step[Any, Any]: ...
@overload
def serial(fn: Callable[[A], Coroutine[Any, Any, B]], *, name: str | None = None) -> Step[A, B]: ...
@overload
def serial(fn: Callable[[A], B], *, name: str | None = None) -> Step[A, B]: ...
def serial(fn: StepLike, *, name: str | None = None, **other: Any) -> Step:
    """A step that sees every record, in input order, in one place (the caller's process): for steps with state.

    With a journal the state must survive: give an object, or what `per_worker` builds, with `save()`, which returns bytes
    or what can be pickled, and `load(state)`. The state behind a record is kept with the journal's mark for that record.
    It is written as a whole, at most four times a second: some megabytes at most. Without the two a journal is refused.

    >>> from taktline import line
    >>> from itertools import accumulate
    >>> total = 0
    >>> def running(n):
    ...     global total
    ...     total += n
    ...     return total
    >>> list(line(int, serial(running))(["1", "2", "3"], how="line", workers=2))
    [1, 3, 6]
    >>> class Total:
    ...     total = 0
    ...     def __call__(self, n):
    ...         self.total += n
    ...         return self.total
    ...     def save(self): return self.total
    ...     def load(self, state): self.total = state
    >>> import tempfile
    >>> run = line(serial(Total()))([1, 2, 3], journal=tempfile.mkdtemp() + "/run.journal")
    >>> list(run)
    [1, 3, 6]
    """
    check_taken("serial()", other, ("name",))
    check_name("serial", name)
    _check_one_function("serial", fn)
    made = as_step(fn)
    if made.workers is not None or made.kind == "thread" or made.tasks not in (None, TASKS):
        raise LineError(
            f"serial() sees every record in order, in the caller's process: step {made.name!r} can have no workers=, tasks= "
            'or kind="thread" there'
        )
    return replace(made, in_caller=True, has_state=True, tasks=None, name=name or made.name)


@overload
def per_worker(
    factory: Callable[P, Callable[[A], Coroutine[Any, Any, B]]], *args: P.args, **kwargs: P.kwargs
) -> Step[A, B]: ...
@overload
def per_worker(factory: Callable[P, Callable[[A], B]], *args: P.args, **kwargs: P.kwargs) -> Step[A, B]: ...
def per_worker(factory: Callable[..., Callable[[Any], Any]], *args: Any, **kwargs: Any) -> Step:
    """A step whose callable `factory(*args, **kwargs)` builds once in each worker, such as a model or a connection.

    Its `close()`, if it has one, is called when the worker ends. Where records are worked on in the caller's
    process, it is built there once too. May stand inside `batch`, `keep`, `expand` and `step`.

    >>> from taktline import line
    >>> class Scaled:
    ...     def __init__(self, factor): self.factor = factor
    ...     def __call__(self, n): return n * self.factor
    >>> list(line(per_worker(Scaled, 10))([1, 2]))
    [10, 20]
    """
    if not callable(factory):
        raise LineError(f"per_worker() needs a callable that builds the step, not {_shown(factory)}")
    _check_builds(factory, args, kwargs)
    waits = isinstance(factory, type) and is_async(factory.__call__)
    kind, tasks = ("async", TASKS) if waits else ("process", None)
    return Step(factory, name=name_of(factory), maker=Maker(factory, args, kwargs), kind=kind, tasks=tasks)


def as_step(fn: StepLike, place: str = "") -> Step:
    """`fn` as a Step. Raises LineError where it is not callable; `place`: which argument it was."""
    if isinstance(fn, Step):
        return fn
    if not callable(fn):
        raise LineError(f"a step must be a callable of one record, not {_shown(fn)}{place}{_instead(fn)}")
    if is_async(fn):
        return Step(fn, name=name_of(fn), kind="async", tasks=TASKS)
    return Step(fn, name=name_of(fn))


def _instead(value: object) -> str:
    """What may be meant by something that is no step, as the end of a sentence; empty where that cannot be guessed."""
    if value is None or isinstance(value, (GeneratorType, CoroutineType, AsyncGeneratorType)):
        name = getattr(value, "__name__", "parse")
        return f"; give the function itself, without calling it: line({name}), not line({name}(…))"
    if isinstance(value, (list, tuple)):
        return "; did you mean line(*steps)?"
    if isinstance(value, str):
        return "; give the function itself, not its name"
    if hasattr(value, "__next__") or type(value).__module__ == "builtins":
        return ""
    methods = [
        name for name, each in vars(type(value)).items() if inspect.isfunction(each) and not name.startswith("_")
    ]
    return f"; did you mean its method {methods[0]!r}?" if len(methods) == 1 else ""


def _check_one_function(builder: str, fn: object) -> None:
    """Raises LineError for a whole line: called with a record, it would take that for its records."""
    if isinstance(getattr(fn, "steps", None), tuple) and hasattr(fn, "stream"):
        raise LineError(
            f"{builder}() takes one function, and this is a line: put the line itself between the steps of the other one, "
            "and options to the steps inside"
        )


def check_name(builder: str, name: object) -> None:
    """Raises LineError for a name that reports and errors could not call something by."""
    if name is not None and not (isinstance(name, str) and name):
        raise LineError(f"{builder}(name={name!r}): give some text, or leave it out")


def _check_plain(builder: str, fn: object) -> None:
    """Raises LineError where what another builder has made would become something else."""
    if isinstance(fn, Step) and fn.role is not Role.MAP:
        raise LineError(f"{builder}() of step {fn.name!r}, which {fn.role.value}() has made: a step is one of the two")


def is_async(fn: Any) -> bool:
    """Whether what `fn` gives is to be awaited, as far as can be told without calling it: an `async def`, also in a
    partial, a cache, a method or `__call__`; an async generator too."""
    inner = _inside(fn)
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)


def gives_generator(fn: Any) -> bool:
    """Whether `fn` is a generator's function."""
    return inspect.isgeneratorfunction(_inside(fn))


def gives_async(fn: Any) -> bool:
    """Whether `fn` is an async generator's function."""
    return inspect.isasyncgenfunction(_inside(fn))


def _inside(fn: Any) -> Any:
    """The function that is called in the end, where `fn` only hands on what it gives."""
    for _ in range(WRAPPED):
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, CACHED):
            fn = fn.__wrapped__
        elif inspect.isroutine(fn) or isinstance(fn, type) or inspect.iscoroutinefunction(fn):
            break
        else:
            fn = getattr(type(fn), "__call__", fn)  # noqa: B004  # of an object; a mock has any attribute itself
    return fn


def _check_takes_one(step: Step) -> None:
    """Raises LineError where the step's function cannot be called with one argument, as far as that is certain."""
    try:
        if (signature := _certain_signature(step.fn)) is not None:
            signature.bind(None)
    except (TypeError, ValueError) as error:  # a partial with arguments that there are not
        what = "list of records" if step.role is Role.BATCH else "record"
        inner = _inner(step.fn)
        whole = _certain_signature(inner) or inspect.Signature()
        if isinstance(inner, type):
            name = inner.__name__
            remedy = f"Give what it builds, which is called with each {what}: {name}(…), or per_worker({name}, …)"
        elif whole.parameters:
            remedy = "Give the others beforehand, such as by functools.partial or a lambda"
        else:
            remedy = f"Let it take the {what}"
        takes = f"{'its signature ' if name_of(inner).startswith(LAMBDA_AT) else name_of(inner)}{whole}"
        raise LineError(
            f"step {step.name!r} is called with one argument, the {what}, which {takes} does not take: {error}. {remedy}"
        ) from None


def _check_builds(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raises LineError where a factory cannot be called with its arguments, as far as that is certain."""
    try:
        if (signature := _certain_signature(factory)) is not None:
            signature.bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        name = name_of(factory)
        if isinstance(factory, type) or inspect.isroutine(_inner(factory)):
            remedy = f"Give per_worker({name}, …) what that takes"
        else:
            remedy = f"Give what builds the step, not the step: per_worker({name}, …) with the arguments of {name}"
        raise LineError(
            f"per_worker() calls {name} once in each worker with the arguments that are given beside it, which it does "
            f"not take: {error}. {remedy}"
        ) from None


def _inner(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _certain_signature(fn: Any) -> inspect.Signature | None:
    """How something is called, where that is certain: functions, methods, classes and objects whose `__init__` or `__call__`
    is a function, and partials of those, without a signature that somebody has given them. None: it is not. Raises
    ValueError for a partial with arguments that there are not."""
    inner = _inner(fn)
    if hasattr(inner, "__signature__"):
        return None
    called = inner
    if isinstance(inner, type):
        made: Any = inner.__new__
        if type(inner).__call__ is not type.__call__ or made is not object.__new__:
            return None
        called = inner.__init__  # type: ignore[misc]
    elif not isinstance(inner, (FunctionType, MethodType)):
        called = getattr(type(inner), "__call__", None)  # noqa: B004  of an object; a mock has any attribute itself
    if not isinstance(called, (FunctionType, MethodType)) or hasattr(called, "__signature__"):
        return None
    return inspect.signature(fn, follow_wrapped=False)


def flatten(steps: Iterable[Any]) -> tuple[Step, ...]:
    """All steps in order, those of lines among them in their place, with names that differ."""
    flat: list[Step] = []
    given = tuple(steps)
    for n, each in enumerate(given, 1):
        place = f" (argument {n} of {len(given)})" if len(given) > 1 else ""
        flat.extend(each.steps if hasattr(each, "steps") and isinstance(each.steps, tuple) else [as_step(each, place)])
    taken: dict[str, int] = {}
    named = []
    for each in flat:
        taken[each.name] = taken.get(each.name, 0) + 1
        again = taken[each.name]
        named.append(each if again == 1 else replace(each, name=f"{each.name} ({again})"))
    for each in named:
        if each.maker is None:
            _check_takes_one(each)
        if each.role is not Role.EXPAND and each.maker is None and gives_async(each.fn):
            raise LineError(
                f"step {each.name!r} is an async generator, which gives many results of a record: expand() takes it"
            )
    return tuple(named)


def name_of(fn: Any) -> str:
    """What to call a function: its name, for a lambda its file or cell and line, for a partial the function inside.

    >>> name_of(len), name_of(str.upper)
    ('len', 'upper')
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    name = getattr(fn, "__name__", None) or type(fn).__name__
    code = getattr(fn, "__code__", None)
    if name == "<lambda>" and code is not None:
        place = cell_of(code.co_filename) or os.path.basename(code.co_filename)
        return f"{LAMBDA_AT}{place}:{code.co_firstlineno}"
    return str(name)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, ModuleType):
        return "None" if value is None else f"the module {value.__name__!r}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= SHOWN else f'{text[: SHOWN - 1]}…'}"


named(globals())
