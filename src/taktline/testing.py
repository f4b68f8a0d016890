"""Checks of the contracts in `taktline.abc`, for the tests of those who write sources and sinks: docs/extending.md.

Each raises AssertionError that says what does not hold. taktline's own ends pass them in its own tests.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from taktline import abc
from taktline._arrow import records_of
from taktline._durable.fingerprint import look
from taktline._excerpts import excerpt
from taktline._line import Line, line
from taktline._recipe.options import Technique
from taktline._segment.equality import same
from taktline.abc import Live, Part, Resumable, Sink, Source
from taktline.errors import SourceError

__all__ = ["check_crew", "check_live", "check_sink", "check_source", "same_as_loop"]

TECHNIQUES: tuple[Technique, ...] = ("pool", "queues", "line", "auto")
ENDING = 5.0  # seconds in which what was told to end has ended: a client's threads do so a little later
HOWS = ("loop", "line")  # how ends are run: in this process, and beside workers


def same_as_loop(flow: Line, records: Any, *, hows: Sequence[Technique] = TECHNIQUES, **options: Any) -> None:
    """Check that a line gives under every technique what it gives in the loop: equal results in the same order, and the
    same exception behind them.

    `records`: a list, a Source, or a callable that makes the records anew; an iterator would be used up by the first run.
    `options`: of each run, such as `workers=2`.

    >>> from taktline import line
    >>> same_as_loop(line(abs), [-1, 2, -3], hows=["auto"])
    """
    make = records if callable(records) else lambda: records
    _expect(
        iter(first := make()) is not first or callable(records),
        "give a list, or a callable: this is used up by one run",
    )
    wanted, error = _outcome(flow(first, how="loop"))
    for how in hows:
        got, other = _outcome(flow(make(), how=how, **options))
        what = f"how={how!r}"
        _expect_same(got, wanted, f"{what} gives other results than the loop")
        _expect(other == error, f"{what} ends in {other or 'no exception'}, the loop in {error or 'none'}")


def check_crew(
    make: Callable[[Sequence[tuple[Any, ...] | None], bool], abc.Crew], *, dies: Callable[[], object] | None = None
) -> None:
    """Check that a crew does what `taktline.abc.Crew` promises.

    `make(lanes, goes_on)` makes one: `lanes` are the steps that workers run together, here always one lane; `goes_on`: after
    a record that fails, too. `dies`: what a step calls to end its worker; where it is left out, it kills its process.

    Checked: batches come back with their number and attempt, in the order in which a worker got them, plain, careful, and
    as a sink's bytes; failures stand in their place, earlier ones come along; endless results come in parts, two ahead;
    what has come stays, whatever becomes of its worker; deaths are told, carefully with the value at work; numbers are free
    again; what is told to a worker that has ended is lost; a `wait` ends; and a crew may be closed again.
    """
    from taktline._crew_promises import CREW_PROMISES, killed

    for promise in CREW_PROMISES:
        made: list[abc.Crew] = []

        def one(*steps: Any, goes_on: bool = True, made: list[abc.Crew] = made) -> abc.Crew:
            made.append(make([line(*steps).steps], goes_on))
            return made[-1]

        try:
            promise(one, dies or killed)
        except AssertionError as error:
            error.add_note(f"what does not hold: {promise.__name__.replace('_', ' ')}")
            raise
        finally:
            for crew in made:
                crew.close(gently=False)


def check_source(source: Source, records: Iterable[Any] | None = None) -> None:
    """Check that a source does what `taktline.abc.Source` promises, and `Splitter` and `Part` where it is split.

    Checked: two passes give the same records (equal to `records`, where given); a pass may be left anywhere and leaves no
    descriptor and no thread open, nor does one that ends; `read` gives the same where all can be read; a length is the
    right one; the fingerprint stays; parts of any size, exact or not, and records taken between them, add up to the whole,
    in order; a part has as many records as it says, not more than asked for, can be read again, after its Splitter was
    closed, and from a pickle; tables, where it has columns, have the records as rows, here and from a pickle, and end where
    they ended before; and a line over it gives the loop's results under every technique, workers reading parts.
    """
    whole = list(source)
    if records is not None:
        _expect_same(whole, list(records), "the source gives other records than it should")
    _expect(bool(source.describe()), "describe() is empty")
    prints = [look(source.fingerprint()).digest for _ in range(2)]
    _expect(prints[0] == prints[1], "fingerprint() differs from one call to the next")
    if hasattr(source, "__len__"):
        with suppress(TypeError):  # a length that is not known
            _expect(len(source) == len(whole), f"its length is {len(source):,}, and it gives {len(whole):,} records")
    _check_passes(source, whole)  # what is opened once and kept is open by then
    before = _open_now()
    _check_passes(source, whole)
    _expect_closed(before, "a pass that has ended or was left")
    same_as_loop(line(_itself), source, workers=2)
    same_as_loop(line(_itself), source, hows=["line"], workers=2, batch_size=64)


def _check_passes(source: Source, whole: list[Any]) -> None:
    if source.columns:
        _check_tables(source, whole)
    _expect_same(list(source), whole, "a second pass gives other records than the first")
    for count in sorted({0, 1, len(whole) // 2, max(0, len(whole) - 1)}):
        records = iter(source)
        _expect_same(list(islice(records, count)), whole[:count], f"a pass that is left behind record {count:,}")
        del records
    _expect_same(list(source.read([])), whole, "read() gives other records than iterating")
    for size in (1, 3, 64, len(whole) + 1):
        for exact in (False, True):
            for between in (0, 2):
                _check_parts(source, whole, size, exact=exact, between=between)


def _check_tables(source: Source, whole: list[Any]) -> None:
    ends = []
    for before in (0, 0, 1, 3):
        splitter = source.split_columns()
        if splitter is None:
            return
        with closing(splitter):
            at, found = len(list(islice(splitter, before))), list[int]()
            while at < len(whole):
                part = splitter.table()
                if part is None:
                    at += len(list(islice(splitter, 1)))
                    continue
                _expect(len(part) > 0, f"the table behind record {at:,} has no rows")
                for each, what in ((part, ""), (pickle.loads(pickle.dumps(part)), ", pickled and read back,")):
                    _expect_same(
                        _rows_of(each),
                        whole[at : at + len(part)],
                        f"the table behind record {at:,}{what} has other rows",
                    )
                at += len(part)
                found.append(at)
            _expect(at == len(whole), f"tables and records between them are {at:,}, and the source has {len(whole):,}")
        if before == 0:
            ends.append(found)
    _expect(ends[0] == ends[1], "tables end elsewhere in a second pass")


def _rows_of(part: Part) -> list[Any]:
    with suppress(Exception):  # where it cannot be a table it is read as records
        return records_of(part.table())
    return list(part.read())


def _check_parts(source: Source, whole: list[Any], size: int, *, exact: bool, between: int) -> None:
    """`between`: records that are taken one by one behind each part."""
    splitter, at, last = source.split(exact=exact), 0, None
    if splitter is None:
        return
    with closing(splitter):
        while True:
            what = f"split(exact={exact}), part({size:,}) behind record {at:,}"
            part = splitter.part(size)
            if part is not None:
                _expect(0 < len(part) <= size, f"{what} has {len(part):,} records")
                _expect(part.size > 0, f"{what} has a size of {part.size}")
                here, there = list(part.read()), list(pickle.loads(pickle.dumps(part)).read())
                _expect_same(here, whole[at : at + len(part)], f"{what} gives other records than iterating")
                _expect_same(there, here, f"{what}, pickled and read back, gives other records")
                at, last = at + len(part), (part, here)
            if part is None or between:
                some = list(islice(splitter, between or 1))
                _expect_same(some, whole[at : at + len(some)], f"iterating over a Splitter behind record {at:,}")
                at += len(some)
                if part is None and not some:
                    break
        _expect(at == len(whole), f"the parts and records between them are {at:,}, and the source has {len(whole):,}")
        _expect(splitter.part(size) is None, "a Splitter gives a part behind its end")
    if last is not None:
        _expect_same(list(last[0]), last[1], "a part, read once more after close()")


def check_sink(
    make: Callable[[str], Sink], read: Callable[[str], Iterable[Any]], results: Sequence[Any] | None = None, *,
    undone: bool = True,
) -> None:  # fmt: skip
    """Check that a sink does what `taktline.abc.Sink` promises, and `Resumable` where it is one.

    `make(name)`: a new sink that writes to the place of that name, a file for example; `read(name)`: the results that are
    there, none where nothing is. `results`: what to write, rows (dicts) where not given. `undone`: what was written is gone
    after `abort`, and behind a mark after `resume`; False for what cannot be taken back, which then may come twice.

    Checked: results are there after `commit`, whole and in order, however they were cut into writes; nothing is there
    after `abort`, at whatever point; no descriptor and no thread stays open after either; bytes that `encoder` makes from
    a pickle of itself are as good, and so are tables where it takes those, with what `table_encoder` makes of them; runs
    in the loop and with workers open it once and end it once, by `commit` where they end well, by `abort` where a step
    fails. Of a Resumable: `fingerprint` and positions are JSON values; another sink goes on behind a mark, cutting off
    what was written after it; `begin` may be called again; `finished` tells whether `commit` was done; and a run with a
    journal that is stopped and started again writes each result once.
    """
    given = [{"n": n, "text": f"row {n}"} for n in range(200)] if results is None else list(results)
    sink = _SinkCheck(make, read, given, undone=undone)
    sink.check()
    gc.collect()
    before = _open_now()
    sink.check()
    _expect_closed(before, "a sink that has ended")


class _SinkCheck:
    def __init__(
        self, make: Callable[[str], Sink], read: Callable[[str], Iterable[Any]], results: list[Any], *, undone: bool
    ) -> None:
        self._make = make
        self._read = read
        self._results = results
        self._undone = undone
        self._count = 0

    def check(self) -> None:
        sink = self._make(self._name())
        _expect(bool(sink.describe()), "describe() is empty")
        _expect(all(isinstance(each, str) for each in sink.writes()), "writes() has something else than paths")
        self._check_writes()
        self._check_aborts()
        for how in HOWS:
            self._check_run(how)
        if isinstance(sink, Resumable):
            self._check_marks()
            self._check_begun_again()
            self._check_journal()

    def _name(self) -> str:
        self._count += 1
        return f"{uuid4().hex[:8]}{self._count}"

    def _expect_there(self, name: str, results: list[Any], what: str) -> None:
        there = list(self._read(name))
        if not self._undone:  # what came twice counts once
            there = [result for at, result in enumerate(there) if not any(same(result, each) for each in there[:at])]
        _expect_same(there, results, what)

    def _check_writes(self) -> None:
        results = self._results
        for sizes in ([len(results)], [1, 2, len(results)], [0, len(results) // 2, 0, len(results)]):
            name = self._name()
            sink, at = self._make(name), 0
            sink.open()
            for size in sizes:
                sink.write(results[at : at + size])
                at += size
            sink.commit()
            self._expect_there(name, results, f"after writes of {sizes} results and commit()")
        if sink.encoder is not None:
            name = self._name()
            sink, encode = self._make(name), pickle.loads(pickle.dumps(sink.encoder))
            sink.open()
            for at in range(0, len(results), 7):
                some = results[at : at + 7]
                sink.write_encoded(encode(some), len(some))
            sink.commit()
            self._expect_there(name, results, "after write_encoded() of what encoder made, and commit()")
        if sink.tables:
            self._check_tables()

    def _check_tables(self) -> None:
        """In turn with results, and with what a worker makes of them."""
        import pyarrow as pa

        results = self._results
        for turn in range(3):
            name = self._name()
            sink = self._make(name)
            encode = pickle.loads(pickle.dumps(sink.table_encoder))
            sink.open()
            for number, at in enumerate(range(0, len(results), 7)):
                some, table = results[at : at + 7], pa.Table.from_pylist(results[at : at + 7])
                data = None
                with suppress(Exception):  # what it raises sends the table itself
                    data = encode(table) if encode is not None and number % 3 == turn else None
                if data is not None:
                    sink.write_encoded(data, len(some))
                elif number % 3 == (turn + 1) % 3:
                    sink.write(some)
                else:
                    sink.write_table(table)
            sink.commit()
            self._expect_there(name, results, "after write_table() in turn with write(), and commit()")

    def _check_aborts(self) -> None:
        for written in (None, 0, 1, len(self._results)):
            name = self._name()
            sink = self._make(name)
            sink.open()
            if written is not None:
                sink.write(self._results[:written])
            sink.abort()
            if self._undone:
                self._expect_there(name, [], f"after {written or 0:,} results and abort()")

    def _check_run(self, how: Any) -> None:
        name, results = self._name(), self._results
        sink, calls = _noted(self._make(name))
        line(_itself).run(results, sink, how=how, workers=2)
        self._expect_there(name, results, f"after a run with how={how!r}")
        _expect(calls == ["open", "commit"], f"a run with how={how!r} called {calls}")
        name = self._name()
        sink, calls = _noted(self._make(name))
        flow, error = line(_FailsAt(len(results) - 1)), None
        try:
            flow.run(list(enumerate(results)), sink, how=how, workers=2)
        except _Failing as failing:
            error = failing
        _expect(error is not None, f"with how={how!r} a step has failed, and the run has not")
        if self._undone:
            self._expect_there(name, [], f"after a run with how={how!r} whose last record failed")
        _expect(calls == ["open", "abort"], f"a run with how={how!r} whose last record failed called {calls}")

    def _resumable(self, name: str, journal: str) -> Resumable:
        sink = self._make(name)
        assert isinstance(sink, Resumable)
        sink.beside(journal)
        return sink

    def _check_marks(self) -> None:
        name, run, results = self._name(), uuid4().hex, self._results
        third = len(results) // 3
        with tempfile.TemporaryDirectory() as folder:
            journal = os.path.join(folder, "journal")
            first = self._resumable(name, journal)
            first.begin(run)
            first.write(results[:third])
            position = _as_json(first.save("the first mark"), "the position of save()")
            first.write(results[third : 2 * third])
            first.suspend()
            if self._undone:
                self._expect_there(name, results[:third] if first.visible else [], "after suspend()")
            second = self._resumable(name, journal)
            told = [_as_json(each.fingerprint(), "fingerprint()") for each in (first, second)]
            _expect(told[0] == told[1], "two sinks for the same place have other fingerprints")
            _expect(first.visible or not second.finished(run, position), "finished() before commit()")
            newest = second.resume(run, position)
            _expect(newest in (None, "the first mark"), f"resume() returned {newest!r}: no mark that was saved")
            second.write(results[third:])
            position = _as_json(second.save("the last mark"), "the position of save()")
            second.commit()
            self._expect_there(name, results, "after resume() behind a mark, the other results and commit()")
            last = self._resumable(name, journal)
            _expect(last.finished(run, position), "finished() denies a commit() that was done")
            _expect(not last.is_gone(run, position), f"is_gone() says {last.is_gone(run, position)!r} of what is there")
            position = _as_json(second.committed(position), "the position of committed()")
            _expect(
                not last.is_gone(run, position), f"is_gone() says {last.is_gone(run, position)!r} after committed()"
            )
            second.noted()
            self._expect_there(name, results, "after noted()")

    def _check_begun_again(self) -> None:
        """A run that was stopped before its first mark."""
        name, run, results = self._name(), uuid4().hex, self._results
        with tempfile.TemporaryDirectory() as folder:
            journal = os.path.join(folder, "journal")
            first = self._resumable(name, journal)
            first.begin(run)
            first.write(results[:1])
            first.suspend()
            second = self._resumable(name, journal)
            second.begin(run)
            second.write(results)
            second.save("a mark")
            second.commit()
            second.noted()
            self._expect_there(name, results, "after begin(), suspend() and begin() again")

    def _check_journal(self) -> None:
        name, results = self._name(), self._results
        with tempfile.TemporaryDirectory() as folder:
            journal = os.path.join(folder, "journal")
            source = _Stopping(results, len(results) // 2)
            source.run = line(_itself)(source, how="loop", journal=journal)
            source.run.drain(self._make(name))
            line(_itself).run(_Stopping(results, None), self._make(name), how="line", workers=2, journal=journal)
            self._expect_there(name, results, "after a run with a journal that was stopped half-way and started again")
            line(_itself).run(_Stopping(results, None), self._make(name), how="loop", journal=journal)
            self._expect_there(name, results, "after that run was started once more, though it was done")


def check_live(
    make: Callable[[], Live], send: Callable[[list[str]], Any], value: Callable[[Any], str], *, ordered: bool = True,
    patience: float = 60.0, lose: Callable[[Live], Any] | None = None,
) -> None:  # fmt: skip
    """Check that a live source does what `taktline.abc.Live` promises.

    `make()`: a new source, each of the same subscription, queue or stream, which is empty at first; `send(texts)` puts
    messages there; `value(record)`: the text of a record. `ordered`: they come, and come again, in the order in which they
    were sent. `patience`: seconds in which a message must come, also one that another source has given back. `lose(source)`:
    have others get what this source has under way, as its server would where it gives no sign of life.

    Checked: `take` gives what was sent, no more than asked for, each once, and nothing where nothing is there; `close`
    gives back all that was not told to be safe, and nothing else; a failing step and SIGTERM end a run so that results
    that were delivered are acknowledged and the others come again. (SIGTERM where this runs in the main thread; elsewhere
    `Run.stop`.) Nothing is `elsewhere` that nobody else has; with `lose`, all that was under way is, and comes again though
    it is told to be safe.
    """
    live = _LiveCheck(make, send, value, ordered=ordered, patience=patience)
    live.check_by_hand()
    if lose is not None:
        live.check_lost(lose)
    for how in HOWS:
        live.check_run_that_fails(how)
        live.check_run_that_is_stopped(how)
    live.expect_nothing("in the end")


class _LiveCheck:
    def __init__(
        self, make: Callable[[], Live], send: Callable[[list[str]], Any], value: Callable[[Any], str], *,
        ordered: bool, patience: float,
    ) -> None:  # fmt: skip
        self._make = make
        self._send = send
        self._value = value
        self._ordered = ordered
        self._patience = patience
        self._sent = 0

    def check_by_hand(self) -> None:
        self.expect_nothing("before anything was sent")
        texts = self._send_some(20)
        first = self._make()
        first.open(100, 1 << 20)
        self._expect_taken(self._take(first, 20), texts, "what was sent")
        gone = list(first.elsewhere(0, 20))
        _expect(not gone, f"elsewhere(0, 20) gives {gone}, though nobody else reads")
        first.safe(7, [])
        first.safe(12, [])
        first.close()
        left = texts[12:] if self._ordered else None
        second = self._make()
        second.open(100, 1 << 20)
        again = self._take(second, 8)
        self._expect_taken(again, left or again, "what was not safe when another source was closed")
        second.safe(8, [])
        second.close()
        self.expect_nothing("after all were safe")

    def check_lost(self, lose: Callable[[Live], Any]) -> None:
        texts = self._send_some(20)
        first = self._make()
        first.open(100, 1 << 20)
        self._expect_taken(self._take(first, 20), texts, "what was sent")
        first.safe(7, [])
        lose(first)
        until = monotonic() + self._patience
        while not (gone := first.elsewhere(7, 13)):
            _expect(monotonic() < until, "elsewhere() names nothing, though all that was under way is lost")
            try:
                first.take(1, 0.25)
            except SourceError:  # it reads no more; what it has under way is told all the same
                continue
        _expect(sorted(gone) == [*range(7, 20)], f"elsewhere(7, 13) gives {sorted(gone)}, though all of these are lost")
        first.safe(20, [])
        first.close()
        second = self._make()
        second.open(100, 1 << 20)
        again: list[str] = []  # of what was safe, what the server was not told in time
        while not {*texts[7:]} <= {*again}:
            again += self._take(second, 1)
        self._expect_taken(again, texts[20 - len(again) :] if self._ordered else again, "what others have got")
        second.safe(len(again), [])
        second.close()
        self.expect_nothing("after what others have got was safe")

    def check_run_that_fails(self, how: Any) -> None:
        texts = self._send_some(30)
        results: list[str] = []
        error = None
        try:
            line(self._value, _FailsAtText(texts[15])).run(self._make(), results.append, how=how, workers=2)
        except _Failing as failing:
            error = failing
        _expect(error is not None, f"with how={how!r} a step has failed, and the run has not")
        self._expect_rest(texts, results, f"a run with how={how!r} whose step failed")

    def check_run_that_is_stopped(self, how: Any) -> None:
        texts = self._send_some(30)
        results: list[str] = []
        run = line(self._value)(self._make(), how=how, workers=2)

        def sink(text: str) -> None:
            results.append(text)
            if len(results) == 10 and threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGTERM)
            elif len(results) == 10:
                run.stop()

        run.drain(sink)
        self._expect_rest(texts, results, f"a run with how={how!r} that was stopped")

    def expect_nothing(self, when: str) -> None:
        live = self._make()
        live.open(100, 1 << 20)
        came = live.take(5, 0.25)
        live.close()
        _expect(not came, f"{when} take() gives {excerpt(came)}")

    def _send_some(self, count: int) -> list[str]:
        texts = [f"message {n}" for n in range(self._sent, self._sent + count)]
        self._sent += count
        self._send(texts)
        return texts

    def _take(self, live: Live, count: int) -> list[str]:
        texts: list[str] = []
        until = monotonic() + self._patience
        while len(texts) < count:
            some = live.take(5, 0.25)
            _expect(some is not None, f"take() says that no more comes, after {len(texts):,} of {count:,}")
            assert some is not None
            _expect(len(some) <= 5, f"take(5, …) gives {len(some):,} records")
            texts += map(self._value, some)
            _expect(
                monotonic() < until or len(texts) >= count,
                f"only {len(texts):,} of {count:,} came",
            )
        return texts

    def _expect_taken(self, texts: list[str], wanted: list[str], what: str) -> None:
        order = list if self._ordered else sorted
        _expect_same(order(texts), order(wanted), f"take() gives other messages than {what}")

    def _expect_rest(self, texts: list[str], results: list[str], what: str) -> None:
        """What was not delivered comes again, and nothing else."""
        _expect(len(set(results)) == len(results), f"{what} has delivered a message twice")
        rest = [text for text in texts if text not in results]
        live = self._make()
        live.open(100, 1 << 20)
        self._expect_taken(self._take(live, len(rest)), rest, f"what was left by {what}")
        live.safe(len(rest), [])
        live.close()
        self.expect_nothing(f"after the rest of {what} was safe,")


# --- what the checks are made of ---


class _Failing(Exception):
    """What the checks' own steps raise."""


def _itself(record: Any) -> Any:
    return record


class _FailsAt:
    """A step over numbered records."""

    def __init__(self, at: int) -> None:
        self._at = at

    def __call__(self, record: tuple[int, Any]) -> Any:
        if record[0] == self._at:
            raise _Failing(f"record {self._at}")
        return record[1]


class _FailsAtText:
    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, text: str) -> str:
        if text == self._text:
            raise _Failing(text)
        return text


class _Stopping(Source):
    """Records whose run is stopped when the one at `at` is asked for."""

    def __init__(self, records: Sequence[Any], at: int | None) -> None:
        self._records = records
        self._at = at
        self.run: Any = None

    def __iter__(self) -> Iterator[Any]:
        for at, record in enumerate(self._records):
            if at == self._at:
                self.run.stop()
            yield record

    def fingerprint(self) -> Any:
        return ["records of a check", len(self._records)]


def _noted(sink: Sink) -> tuple[Sink, list[str]]:
    """The sink, and what opens and ends it, in the order in which that is called."""
    calls: list[str] = []
    inside: list[str] = []  # what a sink calls of its own is no concern of the run

    def noting(name: str, call: Any) -> Any:
        def called(*arguments: Any) -> Any:
            if not inside:
                calls.append("open" if name in ("begin", "resume") else name)
            inside.append(name)
            try:
                return call(*arguments)
            finally:
                inside.pop()

        return called

    for name in ("open", "begin", "resume", "commit", "abort", "suspend"):
        if hasattr(sink, name):
            setattr(sink, name, noting(name, getattr(sink, name)))
    return sink, calls


def _outcome(run: Iterable[Any]) -> tuple[list[Any], str]:
    results: list[Any] = []
    try:
        for result in run:
            results.append(result)
    except Exception as error:  # of any kind: both runs must end in the same
        return results, f"{type(error).__name__}: {error}"
    return results, ""


def _as_json(value: Any, what: str) -> Any:
    try:
        back = json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{what} is no JSON value: {error}") from error
    _expect(back is not None, f"{what} is None")
    return back


def _open_now() -> tuple[int, list[threading.Thread]]:
    """Descriptors, where the system tells them, and threads of this process."""
    gc.collect()
    try:
        descriptors = len(os.listdir("/dev/fd"))
    except OSError:
        descriptors = 0
    return descriptors, threading.enumerate()


def _expect_closed(before: tuple[int, list[threading.Thread]], what: str) -> None:
    until, now = monotonic() + ENDING, _open_now()
    while (now[0] > before[0] or len(now[1]) > len(before[1])) and monotonic() < until:
        sleep(0.01)
        now = _open_now()
    _expect(now[0] <= before[0], f"{what} leaves {now[0] - before[0]} descriptors open")
    left, new = len(now[1]) - len(before[1]), ", ".join(sorted(each.name for each in now[1] if each not in before[1]))
    _expect(left <= 0, f"{what} leaves {left} threads (new since then: {new})")


def _expect_same(got: list[Any], wanted: list[Any], what: str) -> None:
    for at, (one, other) in enumerate(zip(got, wanted, strict=False)):
        _expect(same(one, other), f"{what}: at {at:,} there is {excerpt(one)}, not {excerpt(other)}")
    _expect(len(got) == len(wanted), f"{what}: {len(got):,} in the place of {len(wanted):,}")


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)
