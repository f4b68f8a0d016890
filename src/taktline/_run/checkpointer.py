"""How far one run is delivered, and who is told of it: journal, dead letters, a live source, a sink that can go on.

Everything follows from one watermark: the results of all records before it are delivered. Order makes that enough.
The dead letters are made safe first, then the sink, then the journal's entry, then a live source is told: whenever the
process is killed in between, what comes later tells of less than is there, and the surplus is cut off.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from time import monotonic
from typing import Any
from uuid import uuid4

from taktline._durable import fingerprint
from taktline._durable.dead_letters import DeadLetters, open_dead_letters, row_of
from taktline._durable.entries import DELIVERED, DONE, RUNNING, STEP_ORDER, Checkpoint, Entry
from taktline._durable.journal import Journal
from taktline._io.place import from_here
from taktline._recipe.options import Options, memory_bytes
from taktline._recipe.steps import LAMBDA_AT, Gives, Step
from taktline._run.meter import Meter
from taktline._run.output import OutputBatch
from taktline._run.reader import Reader
from taktline._run.states import States
from taktline._urls import is_url
from taktline.abc import Live, Resumable, Sink, Source
from taktline.errors import LineError, OutputLost, ResumeError, SinkError, SourceError, TakenOver, TaktlineError

LOOK = 0.1  # seconds between two looks at a record, to know the source again: some 10 µs each
UNTOLD = 4  # things that the report names of those that cannot be compared
EVERY = 0.5  # seconds between two marks: making one safe takes some milliseconds,
STORED = 5.0  # or some requests to a store, where the journal is in one


class Checkpointer:
    """The watermark of one run. Raises LineError at once where a journal cannot work with these steps."""

    def __init__(
        self, steps: Sequence[Step], source: Iterable[Any], options: Options, reader: Reader, meter: Meter
    ) -> None:
        self._steps = steps
        self._source: Iterable[Any] = source
        self._live = source if isinstance(source, Live) else None
        self._options = options
        self._reader = reader
        self._meter = meter
        self._journal: Journal | None = None
        self._letters: DeadLetters | None = None
        self._sink: Sink | None = None
        self.by_mark: Resumable | None = None  # the sink, where `write` is to drive it from mark to mark
        self._opened = self._sink_begun = self._tells_at_once = self._shows_at_once = False
        self.run = uuid4().hex
        self._told: str | None = None  # of the source
        self.over = False  # nothing is left to run
        self.delivered = 0  # results, in all
        self._mark = self._marked = Checkpoint()  # how far it is, and how far it was when that was last made safe
        self._firm = self._mark  # how far it is where a run can begin: there the states of serial steps are known
        self._drop = 0  # results that were delivered by an earlier process, of the records from the mark on
        self._seen: deque[tuple[int, str]] = deque()  # index, and the fingerprint of the record before it
        self._next_look = 0.0
        self._partial = 0  # results of records of which more is to come,
        self._tails: dict[int, int] = {}  # and those of a record each
        self._partial_failed = 0  # records that failed, of those that are not all delivered
        self._early: dict[
            int, tuple[int, int]
        ] = {}  # first record: records and results of an output batch before its turn
        self._skipped: list[int] = []  # since the live source was last told
        self._base = 0  # index of the first record that a live source gives to this process
        self._amid = False  # something is being written: broken off there, what is delivered is not what the sink has
        ends = (os.fspath(each) for each in (options.journal, options.dead_letters) if each is not None)
        self._every = STORED if any(map(is_url, ends)) else EVERY
        self._next = monotonic() + self._every
        self.states: States | None = None
        if options.journal is not None and (serial := [step for step in steps if step.has_state]):
            if self._live is not None:
                raise LineError(
                    f"step {serial[0].name!r} is serial, and a live source does not give its records again in the same "
                    "order: its state cannot be kept in a journal. Leave out the journal"
                )
            self.states = States(serial)

    # --- begin ---

    def open(self, sink: Sink | None) -> None:
        """Take the files, and go to where an earlier process stopped. Raises LineError, ResumeError, SinkError."""
        if self._opened:
            if sink is not self._sink:
                raise LineError("this run was begun without a sink; begin another run for it")
            return
        options, self._sink = self._options, sink
        if sink is not None and not isinstance(sink, Resumable) and options.journal is not None:
            why = f": {sink.no_journal}, or" if sink.no_journal else ";"
            raise LineError(f"the sink {sink.describe()} cannot go on from a journal{why} leave out journal=")
        if self._live is not None and options.journal is not None and sink is None:
            raise LineError(
                "a live source keeps its place by itself; leave out journal=, or give a sink that can go on"
            )
        if isinstance(sink, Resumable) and (options.journal is not None or (self._live is not None and sink.visible)):
            self.by_mark = sink
        # Who takes results one by one has them at once; a sink that makes them safe needs some time for that.
        self._tells_at_once = self._live is not None and sink is None
        self._shows_at_once = self.by_mark is not None and self.by_mark.visible
        if self.by_mark is not None and self.by_mark.every is not None:
            self._every = self.by_mark.every
            self._next = monotonic() + self._every
        if self._live is not None:
            ahead = self.by_mark.ahead if self.by_mark is not None else None
            self._live.settle = self.mark
            self._live.open(options.window or ahead, memory_bytes(options.memory))
        self._opened = True
        if options.journal is not None:
            self._take_journal(os.fspath(options.journal))
        if not self._is_done():
            self._open_letters()
        try:
            self._take_up()
            if not self.over:
                self.mark()
        except BaseException:
            if self.by_mark is not None and self._sink_begun:
                self.by_mark.suspend()
            raise

    def _take_up(self) -> None:
        """From the start, or from where the journal says."""
        if self._journal is None or not self._journal.resumed:
            self._begin()
            return
        try:
            self._resume(self._journal, self._journal.entry)
        except OutputLost as lost:
            if records := self._told_safe(self._journal):
                raise OutputLost(path=lost.path, why=lost.why, records=records) from None
            if self._options.on_lost != "restart":
                raise
            self._restart(self._journal, lost.why)
            self._open_letters()
            self._begin()

    def _take_journal(self, path: str) -> None:
        even = self._options.dead_letters is None and self._options.on_error != "skip"
        even = even and all(step.keeps_number for step in self._steps)
        if self.by_mark is not None:
            self.by_mark.beside(path)
        kind: type[Journal] = Journal
        if is_url(path):
            from taktline._durable.stored import StoredJournal

            kind = StoredJournal
        journal = self._journal = kind(
            path, self._prints(), even=even, if_changed=self._options.if_changed, attempt=self._options.attempt
        )
        if journal.changed and self._options.if_changed == "restart":
            self._restart(journal, f"another run than before: {', '.join(journal.changed)}")
        elif journal.changed:
            self._go_on(journal, even)
        self.run = journal.run
        self._meter.notes += [
            f"with another {what} from record {record:,} on; results before it are of the old one"
            for record, what in journal.changes
        ]

    def _go_on(self, journal: Journal, even: bool) -> None:
        """Go on with other steps, options or records behind what is delivered. Raises ResumeError where that is in another
        sink, or cannot be told."""
        if "the sink" in journal.changed:
            raise journal.refusal(
                'What is delivered is in the old one, so that if_changed="continue" cannot keep it. Give the old one, '
                'or begin anew: if_changed="restart" (--if-changed restart)'
            )
        even = even and journal.even
        if not even and self.states is not None and self.by_mark is not None and journal.entry.position is not None:
            # Their states are of a border some records before what is delivered.
            raise journal.refusal(
                "The states of its serial steps are known for a place some records before what is delivered, and with steps "
                'that drop or add records if_changed="continue" cannot tell which results to leave out from there on. Begin '
                'anew: if_changed="restart" (--if-changed restart)'
            )
        journal.go_on(even=even)

    def _told_safe(self, journal: Journal) -> int:
        """Records of the journal's unfinished run that a live source was told are safe, and whose results are in what nobody
        sees yet alone."""
        hidden = self._live is not None and self.by_mark is not None and not self.by_mark.visible
        return journal.entry.mark.records if hidden and journal.entry.state != DONE else 0

    def _restart(self, journal: Journal, why: str) -> None:
        """Give up the unfinished run of the journal, and what it has made and nobody sees. Raises ResumeError where its
        results are in sight, and would be there twice, or where its records do not come again."""
        sink, entry = self.by_mark, journal.entry
        if records := self._told_safe(journal):
            raise ResumeError(
                f"the journal {journal.path!r} cannot begin anew: the results of {records:,} records are in its half-written "
                "output alone, and the source, which was told that these are safe, does not give them again. Go on with "
                'them, if_changed="continue" (--if-changed continue), or as it was; or delete the journal to go on without '
                "them",
                path=journal.path,
            )
        if sink is not None and sink.visible and not sink.keyed and entry.mark.delivered:
            raise ResumeError(
                f"the journal {journal.path!r} cannot begin anew: {entry.mark.delivered:,} results of its run are in "
                f"{sink.describe()} for all to see, and would be there twice. Take them away and delete the journal, or "
                "write by key=",
                path=journal.path,
            )
        journal.restart()
        self.run = journal.run
        self._meter.notes.append(f"begun anew: {why}")

    def _open_letters(self) -> None:
        letters, self._letters = self._letters, None
        if letters is not None:
            letters.close()
        if self._options.dead_letters is not None:
            journal = self._journal
            self._letters = _letters_at(
                os.fspath(self._options.dead_letters), self.run, alone=journal is None,
                taken_over=journal is not None and journal.taken_over,
            )  # fmt: skip

    def _begin(self) -> None:
        """From the start."""
        journal = self._journal
        if journal is not None and journal.instead and self._letters is not None and self._live is None:
            self._letters.forget(journal.instead)  # its records fail again; those of a live source do not come again
        if journal is not None and journal.left is not None and self.by_mark is not None:
            self.by_mark.forget(journal.instead, journal.left)
        if self.states is not None:
            self.states.begin(None)
        if self.by_mark is not None:
            self.by_mark.begin(self.run)
            self._sink_begun = True

    def _is_done(self) -> bool:
        return self._journal is not None and self._journal.entry.state == DONE

    def _resume(self, journal: Journal, entry: Entry) -> None:
        mark, sink = entry.mark, self.by_mark
        if entry.state == DONE or (entry.state == DELIVERED and sink and sink.finished(self.run, entry.position)):
            if sink is not None and entry.position is not None and (why := sink.is_gone(self.run, entry.position)):
                told = f"the journal {journal.path!r} says that all is done, but {why}"
                raise OutputLost(path=sink.describe(), why=told)
            self._delivered_earlier(mark)
            self._meter.reasons[:] = [f"already done; delete {journal.path!r} to run it again"]
            if entry.state != DONE:
                journal.write(replace(entry, position=_committed(sink, entry.position), state=DONE))
            if sink is not None:
                sink.noted()
            return
        if sink is None:
            self.delivered = journal.delivered
        elif entry.position is None:
            sink.begin(self.run)
            self._sink_begun = True
        else:
            newest = sink.resume(self.run, entry.position)
            self._sink_begun = True
            mark = Checkpoint.from_text(newest) if newest is not None else mark
            self.delivered = mark.delivered
        if self._letters is not None:
            self._letters.cut(mark.records)
        if self._live is not None:  # it gives what it was not told to be safe, by itself
            self._reader.index = self._base = mark.records
            if mark.place is not None:
                self._live.resume(mark.place)
        elif entry.state == DELIVERED:
            self._delivered_earlier(mark)
        else:
            if self.states is not None:
                self.states.begin(journal.kept(mark.state) if mark.state is not None else None)
            self._skip(mark)
            self._drop = self.delivered - mark.results
        self._note(mark)

    def _delivered_earlier(self, mark: Checkpoint) -> None:
        self.over = True
        self.delivered = mark.delivered
        self._note(mark)

    def _note(self, mark: Checkpoint) -> None:
        self._mark, self._firm, meter = mark, mark, self._meter
        meter.records_in = meter.resumed_at = mark.records
        meter.records_out, meter.failed, meter.retried_earlier = mark.results, mark.failed, mark.retried
        if self._options.on_error != "keep" and self._options.dead_letters is None:
            meter.skipped = mark.failed

    def _skip(self, mark: Checkpoint) -> None:
        seen = self._reader.skip(mark.seen)
        if mark.print and mark.seen == self._reader.index and fingerprint.of_record(seen) != mark.print:
            raise ResumeError(
                f"the source is another one: its record {mark.seen - 1:,} has changed. Run with the one it was to go "
                "on, or delete the journal to run from the start"
            )
        self._reader.skip(mark.records)

    def _prints(self) -> dict[str, Any]:
        """Everything that the results depend on, by the names that people know."""
        options = self._options
        untold: list[str] = []
        prints: dict[str, Any] = {"the source": self._print_of_source(untold), "the number of steps": len(self._steps)}
        names = []
        for n, step in enumerate(self._steps, 1):
            # A lambda's name tells its line, which changes when something above it does.
            name = f"step {n}, a lambda" if step.name.startswith(LAMBDA_AT) else f"step {step.name!r}"
            made = (step.maker.factory, *step.maker.args, step.maker.kwargs) if step.maker is not None else (step.fn,)
            if step.has_state and step.maker is None:
                made = (type(step.fn),)  # its state is no part of what it is
            key = (step.by,) if step.by is not None else ()
            known = fingerprint.look(*made, step.like, step.size, step.form, step.has_state, step.role.value, *key)
            prints[name] = known.digest
            names.append(name)
            untold += [f"{name}: {what}" for what in known.untold]
        letters = from_here(os.fspath(options.dead_letters)) if options.dead_letters is not None else None
        sink = self._sink
        if untold:
            more = f" and {len(untold) - UNTOLD} more" if len(untold) > UNTOLD else ""
            self._meter.notes.append(f"the journal cannot tell of changes in {'; '.join(untold[:UNTOLD])}{more}")
        return {
            **prints, STEP_ORDER: names, "option on_error": options.on_error, "option dead_letters": letters,
            "option seed": options.seed,
            "the sink": sink.fingerprint() if isinstance(sink, Resumable) else sink.describe() if sink else None,
            "Python's version": ".".join(platform.python_version_tuple()[:2]),
        }  # fmt: skip

    def _print_of_source(self, untold: list[str]) -> Any:
        """What the source is known by; what that leaves open goes to `untold`."""
        source = self._source
        told = source.fingerprint() if isinstance(source, Source) else None
        if not self._reader.splits:
            self._reader.note = self._look_at
        if not isinstance(source, Source) or told is None:
            untold.append("the source: records are compared now and then")
            name = source.describe() if isinstance(source, Source) else type(source).__qualname__
            return [name, self._reader.total]
        known = fingerprint.look(told)
        untold += [f"the source: {what}" for what in (*known.untold, source.untold()) if what]
        return known.digest

    def _look_at(self, index: int, last: Any) -> None:
        """Remember what the record before `index` was, now and then."""
        if monotonic() >= self._next_look:
            self._seen.append((index, fingerprint.of_record(last)))
            self._next_look = monotonic() + LOOK

    @property
    def elsewhere(self) -> Callable[[int, int], Collection[int]] | None:
        """What tells which of so many records from an index on are others' by now, so that their results can be left out.
        None where it cannot be told which those are, and with a journal, which notes that they were delivered."""
        live, told = self._live, all(step.gives is not Gives.ANY for step in self._steps)
        if live is None or not told or self._options.journal is not None or type(live).elsewhere is Live.elsewhere:
            return None
        return live.elsewhere

    @property
    def resumes_midway(self) -> bool:
        """Whether results are to be left out that come with others."""
        return self._drop > 0

    # --- on the way ---

    def outputs(self, outputs: Iterator[OutputBatch]) -> Generator[OutputBatch, None, None]:
        """What an engine gives, without what an earlier process has delivered. An output batch is delivered when
        the next one is asked for."""
        try:
            for output in outputs:
                count = output.whole
                if self._journal is not None and (output.failures or self._shows_at_once):
                    self._journal.check()
                if output.failures:
                    self._write_letters(output)
                if self._drop:
                    self._drop -= output.drop(self._drop)
                yield output
                self._passed(output, count)
        finally:
            if isinstance(outputs, Generator):
                outputs.close()

    def each(self, outputs: Iterator[OutputBatch]) -> Iterator[Any]:
        """The results one by one. One is delivered when the next one is asked for: that is noted at once."""
        journal, delivered = self._journal, self.delivered
        kept = self.outputs(outputs)
        try:
            for output in kept:
                if journal is None:
                    yield from output
                    continue
                for result in output:
                    yield result
                    delivered += 1
                    journal.count(delivered)
                self.delivered = delivered
            if self._sink is None:
                self._end()
        finally:
            self.delivered = delivered
            kept.close()
            if self._sink is None:
                if not self.over and not self._amid:
                    self.mark()
                self.close()

    def committed(self) -> None:
        """The sink, which is not driven by marks, has all results and has made them visible."""
        self.mark(DONE)

    def write(self, outputs: Iterator[OutputBatch]) -> None:
        """All results into the sink that `open` was given, from mark to mark."""
        sink = self.by_mark
        assert sink is not None
        try:
            self._into(sink, outputs)
            if self._is_done():
                return
            if self._reader.stopped and self._live is None:
                self.mark()
                sink.suspend()
                return
            self._check_all_came()
            if self._live is not None and self._journal is not None and sink.visible:
                # Nothing is left to commit, and there will be more messages.
                self.mark()
                sink.suspend()
                return
            self.mark(DELIVERED)
            with self._told_whose():
                sink.commit()
            self.mark(DONE)
            sink.noted()
        except BaseException:
            sink.suspend()
            raise

    def _into(self, sink: Sink, outputs: Iterator[OutputBatch]) -> None:
        """What ends this early, such as Ctrl-C in a step, finds all marked that the sink has."""
        try:
            with closing(self.outputs(outputs)) as kept:
                for output in kept:
                    if self._journal is not None:  # what a record gave before it failed comes again
                        output.cut()
                    if output:
                        self._amid = True
                        output.into(sink)
                        self.delivered += len(output)
                        self._amid = False
        except BaseException as error:
            if not self._amid and not self.over and not isinstance(error, TakenOver):
                try:
                    self.mark()
                except TaktlineError as odd:
                    error.add_note(f"and the last results could not be marked as delivered: {odd}")
            raise

    def _write_letters(self, output: OutputBatch) -> None:
        if self._letters is not None:
            source, live = self._source_told(), self._live
            again = {each.index for each in output.failures if live and live.comes_again(each.index - self._base)}
            self._skipped += [index - self._base for index in sorted(again)]
            self._meter.given_back += len(again)
            self._letters.write(
                [
                    row_of(
                        each.index,
                        each.step,
                        each.error,
                        each.traceback,
                        each.record,
                        self.run,
                        source,
                        place=each.source,
                        given=each.given,
                    )
                    for each in output.failures
                    if each.index not in again
                ]
            )
        elif self._options.on_error == "skip":
            self._skipped += [lost.index - self._base for lost in output.failures]

    def _source_told(self) -> str | None:
        """What tells the source from others, in the dead letters; None of a live one, whose indexes begin anew each time."""
        if self._live is None and self._told is None:
            source, told = self._source, None
            if isinstance(source, Source):
                try:  # a database would have to count its rows for it
                    told = source.describe() if source.shared else source.fingerprint()
                except SourceError:  # it has gone meanwhile, or was always there for one reading alone
                    told = source.describe()
            told = told if told is not None else [type(source).__qualname__, self._reader.total]
            self._told = fingerprint.look(told).digest
        return self._told

    def _passed(self, output: OutputBatch, count: int) -> None:
        mark = self._mark
        newest, own = output.tail
        self._tails[newest] = self._tails.get(newest, 0) + own
        if output.records:
            # A record that failed may have given results before this: they are none of those that are done.
            count += self._partial - self._tails.get(output.first + output.records, 0)
            self._partial, self._tails = 0, {}
        else:
            self._partial += count
            self._partial_failed += len(output.failures)
        if output.records:  # else nothing came, or what came of the last record before it failed
            self._early[output.first] = output.records, count
            records, results = mark.records, mark.results
            while records in self._early:
                more, count = self._early.pop(records)
                records, results = records + more, results + count
            failed = mark.failed + self._partial_failed + len(output.failures)
            self._partial_failed = 0
            self._mark = replace(mark, records=records, results=results, failed=failed)
            if self.states is None or self.states.reached(records):
                self._firm = self._mark
        # While nothing comes there is time to make things safe, and a live source may wait for just that.
        sink = self.by_mark
        if sink is not None and sink.every is not None:
            at_once = sink.due()
        else:
            at_once = self._tells_at_once or (self._live is not None and not output.records)
        moved = self._mark is not self._marked or self.delivered != self._marked.delivered
        if moved and (at_once or monotonic() >= self._next):
            self.mark()

    def mark(self, state: str = RUNNING) -> None:
        """Make safe all that is delivered, and note it."""
        if self._journal is not None:
            self._journal.check()
        self._amid = True
        mark = self._firm if state == RUNNING else self._mark
        while self._seen and self._seen[0][0] <= mark.records:
            index, digest = self._seen.popleft()
            mark = replace(mark, seen=index, print=digest)
        mark = replace(mark, delivered=self.delivered, retried=self._meter.retried)
        if self.states is not None and self._journal is not None and state == RUNNING:
            mark = replace(mark, state=self._journal.keep(self.states.packed()))
        if self._live is not None and self._journal is not None:
            mark = replace(mark, place=self._live.place(mark.records - self._base))
        position = None
        with self._told_whose():
            if self._letters is not None:
                self._letters.sync()
            if self.by_mark is not None:  # what is done was saved before it was committed
                kept = self._journal.entry.position if self._journal is not None else None
                position = self.by_mark.save(mark.to_text()) if state != DONE else _committed(self.by_mark, kept)
        if self._journal is not None:
            self._journal.write(Entry(mark, position, state))
        if self._live is not None and (self._sink is None or self.by_mark is not None or state == DONE):
            self._live.safe(mark.records - self._base, self._skipped)
            self._skipped = []
        self._firm = mark
        self._mark = self._marked = replace(self._mark, seen=mark.seen, print=mark.print, delivered=mark.delivered)
        self._next, self._amid = monotonic() + self._every, False

    @contextmanager
    def _told_whose(self) -> Iterator[None]:
        """Where something cannot be written, that another attempt has taken it over tells more. Raises TakenOver then."""
        try:
            yield
        except SinkError:
            if self._journal is not None:
                self._journal.check()
            raise

    # --- end ---

    def _end(self) -> None:
        """The caller has had everything that was read."""
        if self.over:
            return
        self._check_all_came()
        self.mark(RUNNING if self._reader.stopped else DONE)
        self.over = True

    def _check_all_came(self) -> None:
        if self._drop and not self._reader.stopped:
            raise ResumeError(
                f"{self.delivered:,} results were delivered earlier, but now there are {self._drop:,} fewer: the steps do "
                "not give the same results each time, so a journal cannot go on with them"
            )

    def close(self) -> None:
        """Let go of the files. May be called again, at any time."""
        self._source = ()
        journal, self._journal = self._journal, None
        letters, self._letters = self._letters, None
        live, self._live = self._live, None
        with ExitStack() as each:  # all of them, whatever one of them raises
            if live is not None:
                live.settle = None
                each.callback(live.close)
            if journal is not None:
                each.callback(journal.close)
            if letters is not None:
                letters.close()


def _committed(sink: Resumable | None, position: Any) -> Any:
    return sink.committed(position) if sink is not None and position is not None else position


def _letters_at(path: str, run: str, *, alone: bool, taken_over: bool) -> DeadLetters:
    """The dead letters at a path or URL. `alone`: without a journal."""
    if not is_url(path):
        return open_dead_letters(path, run, taken_over=taken_over)
    from taktline._durable.stored_letters import StoredLetters

    return StoredLetters(path, run, taken_over=taken_over, alone=alone)
