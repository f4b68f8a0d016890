"""Promises: what a source may still change reaches the steps as it was; what it raises is raised; it is let go of at once."""

from __future__ import annotations

import asyncio
import collections
import csv
import dataclasses
import gc
import io
import itertools
import tarfile
import threading
import weakref
import xml.etree.ElementTree as ET
import zipfile
from typing import Any

import numpy as np
import pytest

from taktline import LineError, SourceError, batch, expand, line, serial, step

WORKERS = ["pool", "queues", "line"]
HOWS = ["loop", *WORKERS, "auto"]
N = 700


def options(how):
    return {"how": how, "workers": 2, **({"batch_size": 50} if how == "line" else {})}


# --- records that their source may still change ---


@dataclasses.dataclass
class Row:
    n: int
    inner: list


class Slotted:
    __slots__ = ("n", "rest")

    def __init__(self, n, rest):
        self.n, self.rest = n, rest


class Plain:
    def __init__(self, n):
        self.n = [n]


def elements():
    text = "<all>" + "".join(f"<e n='{n}'><v>{n}</v></e>" for n in range(N)) + "</all>"
    for _, e in ET.iterparse(io.BytesIO(text.encode())):
        if e.tag == "e":
            yield e
            e.clear()


def header_then_one_row():
    yield ["n", "m"]
    row = [0, 0]
    for n in range(N):
        row[0] = n
        yield row


def local():
    for n in range(N):
        record = {"n": n, "of": [n]}
        yield record
        record.clear()


def inner_list():
    shared = []
    for n in range(N):
        shared.append(n)
        yield {"n": n, "last": shared if n % 2 else shared[-3:]}


def deep():
    shared = {}
    for n in range(N):
        shared["n"] = n
        yield {"a": [{"b": (n, {"c": shared})}]}


def plain_for_long_and_then_not():
    buffer = bytearray(8)
    for n in range(N):
        yield {"n": n}
    for n in range(N):
        buffer[0] = n % 256
        yield {"n": n, "bytes": buffer}


def a_list_that_it_keeps():
    rows = [{"n": n} for n in range(N)]
    for n, row in enumerate(rows):
        yield row
        for other in rows[max(0, n - 2) : n + 1]:
            other["n"] = -1


def views():
    buffer = np.zeros(8)
    for n in range(N):
        buffer[:] = n
        yield buffer[2:4]


def views_in_dicts():
    buffer = np.zeros(20_000)
    for n in range(N // 10):
        buffer[:] = n
        yield {"n": n, "x": buffer.reshape(100, 200)[1:3]}


def structured():
    table = np.zeros(1, dtype=[("n", "i8"), ("m", "f8")])
    for n in range(N):
        table["n"] = n
        yield from table


def dataclass():
    row = Row(0, [])
    for n in range(N):
        row.n = n
        row.inner.append(n)
        yield row if n % 2 else Row(n, row.inner)


def slotted():
    rest = [0]
    for n in range(N):
        rest[0] = n
        yield Slotted(n, rest)


def instances():
    one = Plain(0)
    for n in range(N):
        one.n[0] = n
        yield one if n % 3 else (n, one)


def history():
    last = collections.deque(maxlen=3)
    for n in range(N):
        last.append(n)
        yield n, last


def counted():
    counts = collections.Counter()
    for n in range(N):
        counts[n % 7] += 1
        yield counts


class Cursor:
    """An iterator that is no generator, over one row."""

    def __init__(self):
        self.row, self.n = [0], 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.n == N:
            raise StopIteration
        self.row[0] = self.n
        self.n += 1
        return self.row


def mapped():
    row = {}

    def fill(n):
        row["n"] = n
        return row

    return map(fill, range(N))


def rows_of_csv():
    return csv.reader(io.StringIO("".join(f"{n},{n}\n" for n in range(N))))


SOURCES = [
    elements, header_then_one_row, local, inner_list, deep, plain_for_long_and_then_not, a_list_that_it_keeps, views,
    views_in_dicts, structured, dataclass, slotted, instances, history, counted, Cursor, mapped, rows_of_csv,
]  # fmt: skip


def seen(record):
    """What a record was, as plain values."""
    if isinstance(record, ET.Element):
        return ET.tostring(record)
    if isinstance(record, Row):
        return record.n, list(record.inner)
    if isinstance(record, Slotted):
        return record.n, list(record.rest)
    if isinstance(record, Plain):
        return list(record.n)
    if isinstance(record, np.ndarray):
        return record.tolist()
    if isinstance(record, np.void):
        return record.item()
    if isinstance(record, dict):
        return {key: seen(value) for key, value in record.items()}
    if isinstance(record, (list, tuple, collections.deque)):
        return [seen(value) for value in record]
    return bytes(record) if isinstance(record, bytearray) else record


@pytest.mark.parametrize("source", SOURCES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("how", ["line", "queues", "auto"])
def test_a_record_reaches_the_steps_as_it_was_when_it_was_read(how, source):
    expected = [seen(record) for record in source()]
    assert list(line(seen)(source(), **options(how))) == expected


@pytest.mark.parametrize(
    "source", [elements, local, inner_list, views, plain_for_long_and_then_not], ids=lambda s: s.__name__
)
@pytest.mark.parametrize(
    "flow",
    [line(batch(lambda records: [seen(r) for r in records], size=7)), line(serial(lambda r: r), seen)],
    ids=["batch", "serial"],
)
@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_so_it_is_in_batches_and_behind_a_step_in_the_callers_process(how, flow, source):
    assert list(flow(source(), **options(how))) == [seen(record) for record in source()]


def test_so_it_is_for_an_async_source():
    async def rows(source):
        for record in source():
            yield record

    async def results(source, how):
        return [result async for result in line(seen).stream(rows(source), **options(how))]

    for source in (elements, local, inner_list, views):
        for how in ("loop", "line", "auto"):
            assert asyncio.run(results(source, how)) == [seen(record) for record in source()]


def test_a_failed_record_is_shown_as_it_was():
    def row():
        one = {}
        for n in range(50):
            one["n"] = n
            yield one

    kept = list(line(lambda row: 1 / (row["n"] - 20))(row(), how="line", workers=2, batch_size=10, on_error="keep"))
    assert kept[20].record == {"n": 20}


def test_the_loop_hands_over_the_sources_own_objects():
    made = []

    def objects():
        for n in range(300):
            made.append([n])
            yield made[-1]

    for how in ("loop", "auto"):
        made.clear()
        assert all(a is b for a, b in zip(line(lambda r: r)(objects(), how=how), made, strict=True))


# --- what lives only until the next one ---


def groups():
    return itertools.groupby([1, 1, 2, 3, 3])


def groups_of_a_generator():
    return ((key, group) for key, group in itertools.groupby(n // 2 for n in range(10)))


def generators():
    return ((k for k in range(n)) for n in range(3))


def slices():
    numbers = iter(range(6))
    return (itertools.islice(numbers, 2) for _ in range(3))


def members_of_a_zip():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for n in range(3):
            archive.writestr(f"{n}", f"text {n}")
    archive = zipfile.ZipFile(data)
    return (archive.open(name) for name in archive.namelist())


def members_of_a_tar():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for n in range(3):
            info = tarfile.TarInfo(str(n))
            info.size = 1
            archive.addfile(info, io.BytesIO(b"%d" % n))
    data.seek(0)
    archive = tarfile.open(fileobj=data)  # noqa: SIM115  its members are read later
    return ({"name": info.name, "file": archive.extractfile(info)} for info in archive)


def used(record):
    if isinstance(record, dict):
        record = record["file"]
    if isinstance(record, tuple):
        return record[0], list(record[1])
    return record.read() if hasattr(record, "read") else list(record)


@pytest.mark.parametrize(
    "source",
    [groups, groups_of_a_generator, generators, slices, members_of_a_zip, members_of_a_tar],
    ids=lambda s: s.__name__,
)
def test_what_lives_only_until_the_next_works_in_this_process_and_is_refused_towards_workers(source):
    expected = [used(record) for record in source()]
    for how in ("loop", "auto"):
        assert list(line(used)(source(), **options(how))) == expected
    assert list(line(step(used, kind="inline"), str)(source(), **options("line"))) == list(map(str, expected))
    for how in WORKERS:
        with pytest.raises(LineError, match=r"record 0 of the source .* lives only until .*how=\"loop\""):
            list(line(used)(source(), on_error="skip", **options(how)))


def test_records_before_one_that_is_refused_are_delivered():
    got = []
    with pytest.raises(LineError, match="record 5 "):
        for result in line(str)(itertools.chain(range(5), [iter(map(abs, [1]))]), **options("line")):
            got.append(result)
    assert got == list("01234")


# --- nothing is read ahead in this process ---


class Crawler:
    """Gives what its results have added; ends when there is nothing left to give."""

    def __init__(self):
        self.queue = collections.deque([1])

    def __iter__(self):
        while self.queue:
            yield self.queue.popleft()


def links(n):
    return [k for k in (2 * n, 2 * n + 1) if k < 3_000]


class Hinting:
    """An iterator that guesses how many records are left in it, or cannot tell."""

    def __init__(self, hint):
        self.n, self.hint = 0, hint

    def __iter__(self):
        return self

    def __next__(self):
        self.n += 1
        if self.n > 3000:
            raise StopIteration
        return self.n

    def __length_hint__(self):
        if isinstance(self.hint, Exception):
            raise self.hint
        return self.hint


class Sequence:
    """With `__getitem__` alone, as Python's oldest protocol has it."""

    def __getitem__(self, n):
        if n >= 3000:
            raise IndexError
        return n


class Sized(Sequence):
    def __len__(self):
        return 10


@pytest.mark.parametrize("how", ["loop", "auto", "line"])
@pytest.mark.parametrize(
    "made",
    [
        lambda: Hinting(5),
        lambda: Hinting(10**6),
        lambda: Hinting(NotImplemented),
        lambda: Hinting(TypeError("endless")),
        Sequence,
        Sized,
        lambda: dict.fromkeys(range(3000)).items(),
        lambda: collections.deque(range(3000)),
        lambda: reversed(range(3000)),
        lambda: (n for n in range(3000)),
    ],
    ids=["few", "many", "none", "raises", "__getitem__", "wrong __len__", "items", "deque", "reversed", "generator"],
)
def test_what_a_source_says_of_its_length_is_a_guess_and_its_records_are_counted(how, made):
    run = line(_same)(made(), how=how)
    assert list(run) == [each for each in made()]  # noqa: C416  a list of it would believe it
    assert (run.report.records_in, run.report.records_out) == (3000, 3000)


def _same(record):
    return record


def test_a_list_that_a_step_in_the_loop_makes_longer_or_shorter_is_counted_as_it_was_read():
    def longer(n):
        if n < 2000:
            waiting.append(n + 1)
        return n

    waiting = [1]
    run = line(longer)(waiting, how="loop")
    assert list(run) == [*range(1, 2001)]
    assert (run.report.records_in, run.report.records_out) == (2000, 2000)

    def shorter(n):
        rows.remove(n)
        return n

    rows = [*range(1000)]
    run = line(shorter)(rows, how="loop")
    assert len(list(run)) == run.report.records_in == 500


def test_the_record_is_named_before_which_a_dict_has_changed_its_size():
    def grown(n):
        if n == 1500:
            rows[-1] = None
        return n

    rows = dict.fromkeys(range(3000))
    with pytest.raises(RuntimeError, match="changed size") as raised:
        list(line(grown)(rows.keys(), how="loop"))
    assert "before record 1,501;" in raised.value.__notes__[0]


@pytest.mark.parametrize("how", ["loop", "auto"])
@pytest.mark.parametrize("made", [lambda: line(expand(links)), lambda: line(links)], ids=["expand", "map"])
def test_a_crawler_that_feeds_itself_from_its_results_sees_all_of_them(how, made):
    crawler, found = Crawler(), []
    for result in made()(crawler, how=how, workers=2):
        new = result if isinstance(result, list) else [result]
        found += new
        crawler.queue.extend(new)
    assert sorted(found) == list(range(2, 3_000))


def test_a_crawler_can_be_drained_and_streamed_in_the_loop():
    crawler = Crawler()
    line(expand(links)).run(crawler, crawler.queue.append, how="loop")

    async def streamed():
        other, count = Crawler(), 0
        async for link in line(expand(links)).stream(other, how="loop"):
            other.queue.append(link)
            count += 1
        return count

    assert asyncio.run(streamed()) == 2_998


@pytest.mark.parametrize("how", ["loop", "auto"])
def test_each_record_has_been_through_before_the_next_one_is_read(how):
    events = []

    def source():
        for n in range(400):
            events.append(("read", n))
            yield n

    def work(n):
        events.append(("done", n))
        return n

    for n in line(step(work, kind="inline"))(source(), how=how):
        events.append(("taken", n))
    assert events == [(what, n) for n in range(400) for what in ("read", "done", "taken")]


@pytest.mark.parametrize("how", ["loop", "auto"])
def test_results_of_an_endless_expand_come_one_by_one(how):
    assert next(iter(line(expand(itertools.count))([5], how=how))) == 5
    assert next(iter(line(expand(itertools.count))(iter([5]), how=how))) == 5


def test_a_source_may_wait_for_what_an_inline_first_step_does_with_the_record_before():
    for how in ("loop", "line", "auto"):
        pages = [0]

        def queue(pages=pages):
            while pages:
                yield pages.pop()

        def follow(n, pages=pages):
            if n < 60:
                pages.append(n + 1)
            return n

        assert list(line(step(follow, kind="inline"), abs)(queue(), how=how, workers=1)) == list(range(61))


@pytest.mark.parametrize("source", [range(100), iter, lambda r: (n for n in r)], ids=["range", "iterator", "generator"])
def test_a_record_that_fails_in_the_loop_gave_no_result(source):
    run = line(lambda n: 1 // (n - 60))(source if isinstance(source, range) else source(range(100)), how="loop")
    got, error = caught_from(run)
    assert isinstance(error, ZeroDivisionError)
    assert (run.report.records_in, run.report.records_out, len(got)) == (61, 60, 60)


@pytest.mark.parametrize(
    "options", [{"how": "loop"}, {"how": "line", "start": "threads", "workers": 2}], ids=["loop", "threads"]
)
@pytest.mark.parametrize("wrap", [lambda view: view, lambda view: ("head", view), lambda view: {"body": view}])
def test_views_of_memory_that_the_source_fills_anew_show_what_they_showed(wrap, options):
    def filled():
        memory = bytearray(8)
        for n in range(N):
            memory[:] = n.to_bytes(4, "big") * 2
            yield wrap(memoryview(memory).cast("i", (2,)))

    def shown(record):
        view = record if type(record) is memoryview else [*(record.values() if type(record) is dict else record)][-1]
        assert (view.format, view.shape, view.readonly) == ("i", (2,), False)
        return int.from_bytes(view.tobytes()[:4], "big")

    assert list(line(shown)(filled(), **options)) == list(range(N))


class Once:
    """Ends once: a queue's reader that has taken the None at its end would wait for ever for another one."""

    def __init__(self, n):
        self.left = n

    def __iter__(self):
        return self

    def __next__(self):
        assert self.left >= 0, "asked again after the end"
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return self.left


STEPS = {
    "map": lambda: line(abs), "batch": lambda: line(batch(list, size=7)), "serial": lambda: line(serial(abs)),
    "expand": lambda: line(expand(lambda n: [n])),
}  # fmt: skip


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("flow", STEPS)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_source_that_has_ended_is_never_asked_again(how, flow, on_error):
    for n in (0, 200):
        plain, inside = Once(n), Once(n)
        assert len(list(STEPS[flow]()(plain, how=how, workers=2, on_error=on_error))) == n
        assert len(list(STEPS[flow]()(map(abs, inside), how=how, workers=2, on_error=on_error))) == n
        assert plain.left == inside.left == -1


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("flow", STEPS)
@pytest.mark.parametrize("made", [iter, lambda rows: rows], ids=["iterator", "list"])
def test_a_list_to_which_the_results_add_is_read_to_its_new_end(how, flow, made):
    for n in (1, 80):
        todo, done = [*range(n)], []
        for result in STEPS[flow]()(made(todo), how=how, workers=2):
            done.append(result)
            if len(todo) < 160:
                todo.append(len(todo))
        assert done == [*range(160)]


# --- what the source raises ---


class Mine(Exception):
    def __init__(self, code, why):
        super().__init__(code, why)


class Final(BaseException):
    pass


def raising(error, after=100):
    yield from range(after)
    raise error


class Raises:
    """An iterator that is no generator."""

    def __init__(self, error, after=100):
        self.error, self.left = error, after

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise self.error
        self.left -= 1
        return self.left


class NoIterator:
    def __init__(self, error):
        self.error = error

    def __iter__(self):
        raise self.error


ERRORS = [
    lambda: Mine(7, "gone"), lambda: OSError(5, "I/O"), lambda: KeyError("x"), lambda: MemoryError(), lambda: Final(1),
    lambda: SystemExit(3), lambda: KeyboardInterrupt("by hand"), lambda: GeneratorExit("by hand"), lambda: LineError("inner"),
]  # fmt: skip


def caught_from(results):
    got = []
    try:
        for result in results:
            got.append(result)
    except BaseException as error:
        return got, error
    raise AssertionError("it raised nothing")


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("source", [raising, Raises], ids=["generator", "iterator"])
def test_what_the_source_raises_reaches_the_caller_as_itself_after_all_results_before_it(how, source):
    for make in ERRORS:
        error = make()
        got, caught = caught_from(line(abs)(source(error), **options(how)))
        assert caught is error
        assert len(got) == 100
        assert error.__notes__ == [
            "raised by the source before record 100; the results of all records before it have been delivered"
        ]


@pytest.mark.parametrize("how", HOWS)
def test_a_stop_iteration_in_a_generator_is_the_loops_runtime_error(how):
    got, caught = caught_from(line(abs)(raising(StopIteration("x")), **options(how)))
    assert (len(got), type(caught)) == (100, RuntimeError)
    assert isinstance(caught.__cause__, StopIteration)


@pytest.mark.parametrize("how", HOWS)
def test_a_source_that_gives_no_iterator_raises_its_own_error(how):
    error = Mine(1, "no")
    run = line(abs)(NoIterator(error), **options(how))
    assert caught_from(itertools.chain.from_iterable(iter(lambda: [next(run)], None))) == ([], error)


@pytest.mark.parametrize("how", HOWS)
def test_causes_and_contexts_of_the_sources_error_stay(how):
    def source():
        yield 1
        try:
            int("x")
        except ValueError as inner:
            raise Mine(1, "y") from inner

    _, caught = caught_from(line(abs)(source(), **options(how)))
    assert isinstance(caught.__cause__, ValueError)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_stream_raises_what_its_source_raises(how, kind):
    error = Mine(1, "gone")

    async def source():
        for n in range(100):
            yield n
        raise error

    async def main():
        got = []
        with pytest.raises(Mine) as caught:
            async for result in line(abs).stream(source() if kind == "async" else raising(error), **options(how)):
                got.append(result)
        return got, caught.value

    assert asyncio.run(main()) == (list(range(100)), error)
    assert "before record 100" in error.__notes__[0]


@pytest.mark.parametrize("how", ["loop", "line", "auto"])
@pytest.mark.parametrize("extra", [{}, {"on_error": "skip"}, {"dead_letters": "failed.jsonl"}, {"seed": 1}], ids=str)
def test_every_way_of_taking_results_raises_it(how, extra, tmp_path):
    extra = {key: str(tmp_path / value) if key == "dead_letters" else value for key, value in extra.items()}
    for sink in (None, [].append):
        error = Mine(1, "gone")
        with pytest.raises(Mine) as caught:
            line(abs).run(raising(error), sink, **options(how), **extra)
        assert caught.value is error


@pytest.mark.parametrize("ask", ["plan", "check", "compare"])
def test_what_only_tries_the_first_records_raises_it_too(ask):
    error = Mine(1, "gone")
    with pytest.raises(Mine) as caught:
        getattr(line(abs), ask)(raising(error, 3))
    assert caught.value is error
    assert error.__notes__ == ["raised by the source before record 3"]


def test_a_journal_is_kept_up_to_the_record_that_could_not_be_read(tmp_path):
    for attempt in range(2):
        got, caught = caught_from(line(abs)(raising(Mine(1, "x"), 40), how="loop", journal=str(tmp_path / "j")))
        assert isinstance(caught, Mine)
        assert got == ([] if attempt else list(range(40)))


def test_a_reader_of_the_librarys_own_raises_source_error_with_the_cause(tmp_path):
    from taktline import read

    (tmp_path / "a.jsonl").write_text("1\nx\n")
    with pytest.raises(SourceError, match="line 2"):
        list(line(abs)(read(tmp_path / "a.jsonl")))


# --- it is let go of at once ---


class Watched:
    """An iterable whose iterator can be seen to go."""

    def __init__(self, log, fails=None):
        self.log, self.fails = log, fails

    def __iter__(self):
        log, fails = self.log, self.fails
        try:
            for n in range(1_000_000):
                if n == fails:
                    raise Mine(1, "source")
                yield n
        finally:
            log.append("closed")


class Ticket:
    """A C-level iterator holds it: nothing but a reference count tells when that goes."""


def ends(n):
    if n == 300:
        raise Mine(2, "step")
    return n


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("way", ["break", "close", "error of a step", "error in the loop's body", "stop", "with"])
def test_a_run_that_is_over_has_let_go_of_its_source(how, way):
    gc.disable()
    try:
        log, ticket = [], Ticket()
        gone = weakref.ref(ticket)
        source = map(lambda n, _: n, Watched(log), itertools.repeat(ticket))
        del ticket
        kept: Any = None
        run = line(ends if way == "error of a step" else abs)(source, **options(how))
        del source
        results = iter(run)
        if way == "break":
            for result in results:
                if result == 200:
                    break
            del run, results
        elif way == "with":
            with run:
                assert next(results) == 0
        elif way == "close":
            assert next(results) == 0
            run.close()
        elif way == "stop":
            assert next(results) == 0
            run.stop()
            list(results)
        elif way == "error of a step":
            with pytest.raises(Mine) as kept:
                list(results)
        else:
            try:
                with run:
                    for result in results:
                        1 // (result - 200)
            except ZeroDivisionError as error:
                kept = error
        assert log == ["closed"], kept
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("how", HOWS)
def test_what_failed_or_ended_keeps_no_source_though_its_error_and_iterators_are_kept(how):
    gc.disable()
    try:
        for source, error in (
            (lambda held: Holds(held, 100), None),
            (lambda held: Holds(held, 100, Mine(1, "x")), Mine),
        ):
            ticket = Ticket()
            gone = weakref.ref(ticket)
            run = line(abs)(source(ticket), **options(how))
            results = iter(run)
            if error is None:
                assert len(list(results)) == 100
            else:
                _, kept = caught_from(results)
                # the frames of the source itself are in the traceback, as they are with a loop
                assert isinstance(kept, Mine)
                kept.__traceback__ = without_frames_of(kept.__traceback__, Holds)
            del ticket
            assert gone() is None, gc.get_referrers(gone())
    finally:
        gc.enable()


class Holds:
    """An iterator that has something; it raises from C, so no frame of it is in the traceback."""

    def __init__(self, held, count, error=None):
        self.held, self.count, self.error = held, count, error

    def __iter__(self):
        return self

    def __next__(self):
        if self.count:
            self.count -= 1
            return self.count
        if self.error is not None:
            raise self.error
        raise StopIteration


def without_frames_of(tb, cls):
    """The traceback without its last frame, which is the source's own."""
    frames = []
    while tb is not None:
        frames.append(tb)
        tb = tb.tb_next
    assert frames[-1].tb_frame.f_code is cls.__next__.__code__
    frames[-2].tb_next = None
    return frames[0]


def test_a_run_that_never_began_or_was_drained_lets_go_too(tmp_path):
    gc.disable()
    try:
        for how in HOWS:
            log = []
            source = iter(Watched(log, fails=150))
            next(source)
            run = line(abs)(source, **options(how))
            del source, run
            assert log == ["closed"]
            log = []
            with pytest.raises(Mine) as kept:
                line(ends).run(Watched(log), None, **options(how))
            assert log == ["closed"], kept
    finally:
        gc.enable()


def test_a_stream_that_is_left_or_fails_lets_go():
    async def left(how):
        log = []
        results = line(abs).stream(Watched(log), **options(how))
        async for _ in results:
            break
        await results.aclose()
        assert log == ["closed"]
        log = []
        with pytest.raises(Mine) as kept:
            async for _ in line(ends).stream(Watched(log), **options(how)):
                pass
        assert log == ["closed"], kept

    for how in ("loop", "line", "auto"):
        asyncio.run(left(how))


# --- two threads ---


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("ask", [lambda run: list(run), next], ids=["for", "next"])
def test_a_second_thread_on_a_run_is_refused_and_the_first_is_not_disturbed(how, ask):
    count = 20_000 if how in ("loop", "line", "auto") else 2_000
    run, refused = line(abs)(range(count), how=how, workers=2), []

    def second():
        try:
            ask(run)
        except LineError as error:
            refused.append(str(error))

    got = []
    for n in run:
        got.append(n)
        if n in (0, 700):
            thread = threading.Thread(target=second)
            thread.start()
            run.snapshot()
            thread.join()
    assert got == list(range(count))
    assert len(refused) == 2
    assert "another thread iterates" in refused[0]


def test_a_run_can_be_handed_on_when_the_thread_that_had_it_is_over():
    run = line(abs)(range(100), how="line", workers=2)
    first = []
    thread = threading.Thread(target=lambda: first.append(next(run)))
    thread.start()
    thread.join()
    assert first + list(run) == list(range(100))


@pytest.mark.parametrize("how", HOWS)
def test_another_thread_may_close_a_run_that_is_at_work(how):
    inside, go_on = threading.Event(), threading.Event()

    def source():
        yield from range(5)
        inside.set()
        go_on.wait()
        yield from itertools.count(5)

    run = line(abs)(source(), **options(how))
    ended = []
    owner = threading.Thread(target=lambda: ended.append(caught_from(run)))
    owner.start()
    inside.wait()
    run.close()
    go_on.set()
    owner.join()
    (_, error) = ended[0]
    assert isinstance(error, LineError)
    assert "closed from elsewhere" in str(error)
    assert list(run) == []
    run.close()
