"""Every error of taktline's own: facts go in, the sentence is made here, and it ends in what to do next.

An exception that a step raises reaches the caller as itself, with a note; these classes are for everything else.
The codes are stable.
"""

from __future__ import annotations

import os
import signal as signals
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

from taktline._excerpts import excerpt, harmless, masked, readable
from taktline._public import named
from taktline._working_folder import working_folder

CALLS = 6  # lines of the stack of a worker that is in no step
PLACES = 4  # notes of where an exception was raised that it may have


class TaktlineError(Exception):
    """The base of all errors that taktline itself raises."""

    code = "TK000"

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return readable(BaseException.__str__(self))  # not that of an OSError, which some are too

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.facts, self.__dict__.get("__notes__")))


def _rebuild(cls: type[TaktlineError], message: str, facts: dict[str, Any], notes: list[str] | None) -> TaktlineError:
    error = cls.__new__(cls)
    TaktlineError.__init__(error, message, **facts)
    for note in notes or ():
        error.add_note(note)
    return error


class LineError(TaktlineError, ValueError):
    """A line that cannot work, or an option that makes no sense: refused before anything starts."""

    code = "TK100"


class InUse(LineError):
    """Another run has a file that this one needs for itself, such as its journal. Once that one has ended it can be had."""

    code = "TK110"
    path: str


_EXPAND = "a generator function gives many results: expand(fn) takes them one by one"


def movable(what: str, text: str) -> str:
    """How something comes to go between processes, which could not be pickled because of this."""
    if "'generator' object" in text:
        return _EXPAND
    return f'make {what} of plain values, or keep the step in your process: step(fn, kind="inline")'


class StepError(TaktlineError):
    """An exception of a step that could not reach the caller as itself; its type, text and traceback are inside."""

    code = "TK210"
    index: int | None
    step: str
    type_name: str
    text: str
    why: str
    traceback: str
    moving: bool  # no step has failed: a record or a result cannot go between processes

    def __init__(
        self, *, step: str, type_name: str, text: str, why: str, traceback: str = "", index: int | None = None,
        moving: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            f"step {step!r} failed{_at(index)} with {type_name}{text and f': {text}'}\n  why     {why}"
            + (f"\n  next    {movable('it', text)}" if moving else ""),
            step=step, type_name=type_name, text=text, why=why, traceback=traceback, index=index, moving=moving,
        )  # fmt: skip


class BatchLengthError(TaktlineError):
    """A batch step returned another number of results than it was given records."""

    code = "TK220"
    step: str
    given: int
    returned: int

    def __init__(self, *, step: str, given: int, returned: int) -> None:
        super().__init__(
            f"batch step {step!r} was given {_many(given, 'record')} and returned {_many(returned, 'result')}. "
            "It must return exactly one result a record, in the same order; to drop or add records use keep() or expand().",
            step=step, given=given, returned=returned,
        )  # fmt: skip


class FormError(TaktlineError):
    """A record that cannot stand in the form that a batch step is handed, or a result that is not of that form."""

    code = "TK230"
    step: str
    form: str

    def __init__(self, *, step: str, form: str, why: str, remedy: str) -> None:
        super().__init__(
            f"batch step {step!r} works in form={form!r}, and {why}.\n  next    {remedy}", step=step, form=form, why=why
        )


class FormsDiffer(TaktlineError):
    """A batch step and its `like=` gave different results for the same records."""

    code = "TK240"
    step: str
    rows: list[tuple[str, str, str]]  # excerpts of a record, of the batch form's result and of the scalar form's

    def __init__(self, *, step: str, rows: list[tuple[str, str, str]], tolerance: float) -> None:
        near = f" by more than {tolerance:g} of their size" if tolerance else ""
        shown = "".join(f"\n  record  {record}\n    batch {batch}\n    like  {like}" for record, batch, like in rows)
        super().__init__(
            f"batch step {step!r} and its like= differ{near}; the first that do:{shown}\n"
            "  next    correct one of the two, or state the tolerance: verify=1e-9",
            step=step, rows=rows,
        )  # fmt: skip


class NotAwaited(TaktlineError):
    """A step that is a plain function returned a coroutine, or something else that must be awaited."""

    code = "TK250"
    step: str
    returned: str

    def __init__(self, *, step: str, returned: str, awaited: bool = False) -> None:
        if awaited:
            remedy = "await it inside of the step, and return what it gives"
        elif returned.startswith("async_generator"):
            remedy = "give expand() the async generator's own function"
        else:
            remedy = (
                "make the step `async def`\n  next    where it stays a plain function, say that it is to be awaited: "
                'step(fn, kind="async"), also inside of keep(), expand() and serial(), or batch(fn, kind="async")'
            )
        text = f"step {step!r} returned {returned}, which nobody awaits: {remedy}"
        super().__init__(text, step=step, returned=returned, awaited=awaited)


class WorkerDied(TaktlineError):
    """A worker process ended while it worked on a record, more than once."""

    code = "TK310"
    index: int | None
    step: str | None
    exit_code: int | None

    def __init__(self, *, index: int | None, step: str | None, exit_code: int | None, excerpt: str = "") -> None:
        where = f"{_at(index)}" + (f" in step {step!r}" if step else "")
        text = f"the worker {_how_ended(exit_code)}{where}"
        if exit_code == -9:
            text += ", often because memory ran out"
        if excerpt:
            text += f"\n  record  {excerpt}"
        text += '\n  next    skip such records: on_error="skip", or put a mark in their place: on_error="keep"'
        super().__init__(text, index=index, step=step, exit_code=exit_code, excerpt=excerpt)

    @property
    def signal(self) -> int | None:
        """The number of the signal that ended the worker, or None where it exited by itself."""
        return -self.exit_code if self.exit_code is not None and self.exit_code < 0 else None


class WorkersCannotStart(TaktlineError):
    """No worker can be started, or workers end again and again while no record is at work in them."""

    code = "TK320"


class StepTimeout(TaktlineError):
    """A record took longer in a step than its `timeout`."""

    code = "TK330"
    step: str
    seconds: float
    index: int | None

    def __init__(self, *, step: str, seconds: float, index: int | None = None) -> None:
        super().__init__(
            f"step {step!r} took longer than its timeout of {seconds:g} s{_at(index)}. Give it more time, further tries "
            'with step(retries=), or leave such records out: on_error="skip"',
            step=step, seconds=seconds, index=index,
        )  # fmt: skip


class ResultsTooLarge(TaktlineError):
    """A record gives more results than may be kept until it is through: those of a failed record would be taken back, those
    of a step that waits go on together, and where a seed is set lists of batch steps must not be cut."""

    code = "TK335"
    size: int

    def __init__(self, *, size: int) -> None:
        super().__init__(
            f"a record's results take more than the {size:,} bytes that may be kept of them until the record is through. "
            "Give more with memory=; or let them be delivered as they come, by a plain step in expand() and with "
            'on_error="raise", without dead letters and seed=',
            size=size,
        )


@dataclass(frozen=True, slots=True)
class Hanging:
    """What a worker was busy with when the run stalled."""

    worker: int
    pid: int
    index: int | None  # of the record it was at; None: somewhere in `records`
    records: tuple[int, int] | None  # first and last index of its batch
    step: str | None
    state: str  # what the system says of the process, such as "stopped"
    stack: str  # where it was, innermost call first

    def __str__(self) -> str:
        text = f"worker {self.worker} (process {self.pid})"
        if self.index is not None:
            text += f" is at record {self.index:,}"
        elif self.records is not None:
            text += f" has records {self.records[0]:,} to {self.records[1]:,}"
        else:
            text += " is not ready yet"
        text += f" in step {self.step!r}" if self.step else ""
        text += f"; it is {self.state}" if self.state else ""
        return text + "".join(f"\n    {line.strip()}" for line in _own_calls(self.stack.splitlines()))


def _own_calls(stack: list[str]) -> list[str]:
    """The lines of a stack down to where taktline has called the step; the innermost of them, where nothing else has."""
    ours = (f'File "{os.path.dirname(os.path.abspath(__file__))}{os.sep}', 'File "<taktline')
    own = next((n for n, line in enumerate(stack) if line.strip().startswith(ours)), len(stack))
    return stack[:own] if own > 1 else stack[:CALLS]


class Stalled(TaktlineError):
    """No record was done for as long as `stall` allows."""

    code = "TK340"
    seconds: float
    workers: tuple[Hanging, ...]
    fork: str  # what the workers' being forked may have broken in them; empty where nothing is known

    def __init__(self, *, seconds: float, workers: tuple[Hanging, ...], fork: str = "") -> None:
        text = f"no record was done for {seconds:g} s"
        text += "".join(f"\n  {each}" for each in workers)
        if fork:
            text += f"\n  cause   most likely that workers were forked: {fork}"
            text += '\n  next    start="launch", or "auto"'
        else:
            text += "\n  next    give steps that may hang a limit: step(timeout=), or allow more time for one record: stall="
        super().__init__(text, seconds=seconds, workers=workers, fork=fork)


class ResumeError(TaktlineError):
    """A journal that does not belong to this run, or is damaged."""

    code = "TK410"


class OutputLost(ResumeError):
    """The output that a journal tells of, half-written or whole, is gone."""

    code = "TK411"
    why: str

    path: str
    records: int

    def __init__(self, *, path: str, why: str, records: int = 0) -> None:
        """`records`: of a live source, which was told that they are safe: they do not come again."""
        then = (
            f"The results of {records:,} records were in it alone, and the source, which was told that these are safe, does "
            "not give them again. Put it back to go on, or delete the journal to go on without them"
            if records
            else 'Delete the journal to run from the start, or have that done: on_lost="restart" (--on-lost restart); or put '
            "it back to go on"
        )
        super().__init__(f"{why}. {then}", path=path, why=why, records=records)


class TakenOver(TaktlineError):
    """A later attempt at the same run is at work with its journal: this one has ended, and nothing came of it since."""

    code = "TK420"
    path: str
    attempt: int | None  # the later one

    def __init__(self, *, path: str, own: int | None, attempt: int | None) -> None:
        if own is not None and attempt is not None and own != attempt:
            who, this, why = f"attempt {attempt:,}", f"this one, attempt {own:,},", ""
        else:
            who, this, why = (
                "another process",
                "this one",
                ", as it had heard nothing of this one for the length of a lease",
            )
        super().__init__(
            f"{who} has taken over the journal {path!r}{why}, and goes on with the run: {this} has ended, and what it did "
            "since is not used",
            path=path, attempt=attempt,
        )  # fmt: skip


class SourceError(TaktlineError):
    """A reader of taktline's could not give its next record. The original exception is the `__cause__`.

    What an iterable of the caller's own raises reaches the caller as itself."""

    code = "TK510"
    # Where it is known: the file, the number of its line or row group, and the record.
    path: str | None = None
    line: int | None = None
    group: int | None = None
    index: int | None = None
    away = False  # a store or server could not be had: it may be there later


class SourceNotFound(SourceError, FileNotFoundError):
    """No such file to read."""

    code = "TK511"

    __str__ = TaktlineError.__str__


class SinkError(TaktlineError):
    """The sink could not take a result. The original exception is the `__cause__`."""

    code = "TK520"
    # Where it is known: the file, and the number of the result.
    path: str | None = None
    result: int | None = None


def unwritable(number: int, result: Any, why: str, form: str) -> SinkError:
    """What to raise where the result of this number does not fit the `form` that it is written in."""
    remedy = _EXPAND if isinstance(result, GeneratorType) else "end the line with a step that makes it writable"
    return SinkError(
        f"result {number:,} cannot be written as {form}: {why}\n  result  {excerpt(result)}\n  next    {remedy}",
        result=number,
    )


@dataclass(frozen=True, slots=True)
class Failed:
    """Stands in the place of a record's result under `on_error="keep"`."""

    index: int
    record: Any
    step: str
    error: BaseException

    def __repr__(self) -> str:
        error = masked(f"{type(self.error).__name__}: {self.error}")
        return readable(
            f"Failed(index={self.index}, record={excerpt(self.record)}, step={self.step!r}, error=<{error}>)"
        )


def did_you_mean(name: object, known: Iterable[str], shown: Callable[[str], str] = repr) -> str:
    """The end of a sentence that refuses a name: which of the known ones may be meant; empty where none is near.

    >>> did_you_mean("batch_sizy", ["batch_size", "workers"])
    "; did you mean 'batch_size'?"
    >>> did_you_mean("batch_size", ["size", "form"])
    "; did you mean 'size'?"
    """
    import difflib

    there = list(known)
    near = difflib.get_close_matches(str(name), there, n=1) or [each for each in there if each in str(name).split("_")]
    return f"; did you mean {shown(near[0])}?" if near else ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an exception of a step came from; found on the exception as `__taktline__`."""

    index: int
    step: str
    excerpt: str
    traceback: str  # of the step's own code in the worker; empty where the exception brings its own
    source: str = ""  # where the record stands in what was read, such as "orders.jsonl:48212"
    given: str = ""  # an excerpt of what the step was given, and which step made it; empty where that is the record

    def lines(self) -> list[str]:
        """What is said of the record, a line each."""
        told = [("source", nearby(self.source)), ("record", self.excerpt), ("given", self.given)]
        return [f"  {name:<6}  {said}" for name, said in told if said]


def nearby(place: str) -> str:
    """A place that begins with a path, without the folder that this process is in."""
    return harmless(place.removeprefix(os.path.join(here, "")) if (here := working_folder()) else place)


def placed(
    error: BaseException, *, index: int, step: str, record: Any, traceback: str = "", source: str = "", given: str = ""
) -> BaseException:
    """`error` with a note that tells record, step and the worker's traceback; returned for raising."""
    place = Place(index, step, excerpt(record), traceback, source, given)
    if isinstance(error, (StepError, StepTimeout)) and error.index is None:
        error.__init__(**error.facts | {"index": index})  # type: ignore[misc]
    note = "\n".join([f"at record {index:,} in step {step!r}", *place.lines()])
    if traceback and error.__traceback__ is None:
        note += "\n  in the worker:\n    " + traceback.rstrip().replace("\n", "\n    ")
    forget_places(error, left=PLACES - 1)
    error.add_note(note)
    try:
        error.__taktline__ = place  # type: ignore[attr-defined]
    except Exception:  # an exception class may refuse attributes; the note says it all too
        pass
    return error


def forget_places(error: BaseException, *, left: int = 0) -> None:
    """Take out the notes of where an exception object was raised earlier, but the newest: one that is raised again and
    again does not collect a note each time. Those of lines in the steps of other lines are such notes too."""
    notes = error.__dict__.get("__notes__")
    if type(notes) is list:
        places = [n for n, note in enumerate(notes) if str(note).startswith("at record ")]
        for n in reversed(places[: len(places) - left]):
            del notes[n]


def is_control_flow(error: BaseException) -> bool:
    """Whether raising it out of an iterator would do something else than tell of an error: StopIteration would end it."""
    return isinstance(error, (StopIteration, StopAsyncIteration)) or not isinstance(error, Exception)


def wrapped_because(type_name: str) -> str:
    """Why what is control flow reaches the caller as a StepError."""
    return f"{type_name} would end more than the line, so it is wrapped"


def as_step_error(error: BaseException, step: str) -> BaseException:
    """`error`, or the StepError that stands for it where it must not be raised as itself."""
    if not is_control_flow(error):
        return error
    name, trace = type(error).__qualname__, "".join(traceback.format_exception(error))
    made = StepError(step=step, type_name=name, text=text_of(error), why=wrapped_because(name), traceback=trace)
    made.__cause__ = error
    return made


def text_of(error: BaseException) -> str:
    """What an exception says of itself, whose own code may raise."""
    try:
        return str(error)
    except Exception as odd:
        return f"<its text cannot be had: {type(odd).__name__}>"


def raised_by_source(error: BaseException, *, index: int, delivered: bool) -> BaseException:
    """`error`, which the caller's own source raised, with a note that tells where; returned for raising."""
    note = f"raised by the source before record {index:,}"
    if delivered:
        note += "; the results of all records before it have been delivered"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error


def _at(index: int | None) -> str:
    return "" if index is None else f" at record {index:,}"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


DAMAGED_EXIT_CODE = 73  # exit code of a worker that finds its way to the caller spoiled


def _how_ended(exit_code: int | None) -> str:
    if exit_code == DAMAGED_EXIT_CODE:
        return "was ended, since descriptors that are not the step's own had been closed or written to,"
    if exit_code is None:
        return "was lost"
    if exit_code >= 0:
        return f"ended by itself with exit code {exit_code}"
    try:
        return f"was killed by {signals.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


named(globals())
