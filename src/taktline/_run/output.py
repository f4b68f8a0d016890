"""What an engine hands over at once: the results of consecutive records, and what else became of those."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from taktline._crew.envelope import copied_error
from taktline._recipe.options import Options
from taktline._recipe.steps import Step
from taktline._run.meter import Meter
from taktline._segment import keys
from taktline._segment.batch import Batch, Failure
from taktline._segment.forms import no_record
from taktline._segment.tables import ArrowRows, can_be_records, each_record
from taktline._segment.values import Encoded, records_of
from taktline.abc import Part, Sink
from taktline.errors import Failed, ResultsTooLarge, as_step_error, forget_places, placed


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A record that failed, in a run that goes on."""

    index: int
    step: str
    error: BaseException
    traceback: str
    record: Any
    source: str = ""  # where it stands in what was read, and
    given: str = ""  # what the step was given, in words; only where dead letters tell it


class OutputBatch:
    """Results. Those of the records before `first + records` are all delivered with it."""

    __slots__ = ("failures", "first", "records", "results", "tail", "whole")

    def __init__(
        self,
        results: list[Any] | ArrowRows | Encoded,
        first: int = 0,
        records: int = 0,
        failures: tuple[FailedRecord, ...] = (),
    ) -> None:
        self.results = results
        self.first = first
        self.records = records  # without one that failed and ends the run
        self.whole = len(results)  # results of these records; those behind are what the one that failed gave before
        self.failures = failures
        self.tail = (-1, 0)  # where more is to come: the newest record, and how many of these results are its own

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Any]:
        return iter(records_of(self.results))

    def more_comes(self, tail: tuple[int, int]) -> None:
        """Its records are delivered with a later one; `tail`: the newest one's place among them, and its results here."""
        self.tail, self.records = (self.first + tail[0], tail[1]), 0

    def upto(self, records: int, whole: int) -> None:
        """Only so many of its records are done, and gave so many of its results."""
        self.records, self.whole = records, whole

    def drop(self, most: int) -> int:
        """Leave out so many results at the start, as far as there are; how many those are."""
        dropped = min(most, len(self.results))
        if dropped:
            self.results = self.results[dropped:]  # type: ignore[index]
            self.whole = max(0, self.whole - dropped)
        return dropped

    def cut(self) -> None:
        """Leave out what is of a record that failed."""
        if self.whole < len(self.results):
            self.results = self.results[: self.whole]  # type: ignore[index]

    def into(self, sink: Sink) -> None:
        """Write the results."""
        if isinstance(self.results, Encoded):
            data = self.results.data
            made = memoryview(data).cast("B") if sink.encoded_in_place else bytes(data)
            sink.write_encoded(made, len(self.results))
        elif type(self.results) is ArrowRows and sink.tables:
            sink.write_table(self.results.table)
        else:
            sink.write(records_of(self.results))


def as_records(batch: Batch, step: Step, *, goes_on: bool) -> None:
    """Of rows of a table (ArrowRows) that come of `step`, the last one, and are to become records: where one can be none,
    the record fails that it comes of."""
    if not can_be_records(batch.values):
        batch.values, bad = each_record(batch.values)
        batch.fail_each([(at, no_record(step, why)) for at, why in bad], step.name, goes_on=goes_on)


def settled(
    batch: Batch, first: int, records: Sequence[Any], options: Options, meter: Meter, by: keys.By | None = None
) -> tuple[OutputBatch, BaseException | None]:
    """What to deliver of a batch that came through with failures, as `on_error` says, and what to raise after it. `by`: what
    comes of a key counts as a whole."""
    values, failures = batch.values, batch.failures
    if not failures:
        return OutputBatch(values, first, len(records)), None
    for one in failures:
        meter.fail(first + one.origin, one.step, one.error, records[one.origin])
    if not options.goes_on:
        done = failures[0].origin
        done = done if by is None else keys.start_of(records, done, by)
        output = OutputBatch(values, first, len(records))
        output.upto(done, batch.before(done))
        return output, _explained(failures[0], first, records, meter)
    error: BaseException | None = None
    done = len(records)
    if isinstance(failures[-1].error, ResultsTooLarge):  # the record is not at fault: the run ends with it
        error, done = _explained(failures[-1], first, records, meter), failures[-1].origin
        failures = failures[:-1]
        meter.failed -= 1
    lost = tuple(
        FailedRecord(
            first + one.origin, one.step, as_step_error(one.error, one.step), one.traceback, records[one.origin],
            *(_told_of(one, first, records, meter) if options.dead_letters is not None else ()),
        )
        for one in failures
    )  # fmt: skip
    if options.on_error != "keep":
        meter.skipped += len(failures) if options.dead_letters is None else 0
        return OutputBatch(values, first, done, lost), error
    results, at, values = [], 0, records_of(values)
    for one in failures:
        results += values[at : one.place]
        at = one.place
        results.append(
            Failed(first + one.origin, records[one.origin], one.step, _of_its_own(one, first, records, meter))
        )
    return OutputBatch(results + values[at:], first, done, lost), error


def _of_its_own(failure: Failure, first: int, records: Sequence[Any], meter: Meter) -> BaseException:
    """The error that stands in a record's place: a copy, where another record's is the same object, that says where."""
    error = failure.error
    if any(error is other for other in meter.placed):
        copied = copied_error(error, step=failure.step, trace=failure.traceback)
        if type(copied) is type(error):
            forget_places(copied)
            failure.error = copied
    meter.placed.append(error)
    return _explained(failure, first, records, meter)


def _explained(failure: Failure, first: int, records: Sequence[Any], meter: Meter) -> BaseException:
    error = as_step_error(failure.error, failure.step)
    source, given = _told_of(failure, first, records, meter)
    return placed(
        error, index=first + failure.origin, step=failure.step, record=records[failure.origin],
        traceback=failure.traceback, source=source, given=given,
    )  # fmt: skip


def _told_of(failure: Failure, first: int, records: Sequence[Any], meter: Meter) -> tuple[str, str]:
    """Where its record stands in what was read, and what its step was given, in words."""
    source = records.where(failure.origin) if isinstance(records, Part) else ""
    return source or meter.where(first + failure.origin), meter.given(failure.step, failure.given)
