"""Promise: `batch(by=)` never parts consecutive records of one key, under every technique, whatever fails between them."""

from __future__ import annotations

import json
import os
import signal
from itertools import groupby
from operator import itemgetter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import taktline
from taktline import LineError, batch, expand, keep, line, serial, step
from taktline._run.keyed import KeyedReader
from taktline._segment import keys
from taktline._segment.tables import ArrowRows
from taktline.abc import Live

TECHNIQUES = ("loop", "auto", "pool", "queues", "line")


def records(lengths):
    """Runs of so many records of one user each."""
    users = [user for user, length in enumerate(lengths) for _ in range(length)]
    return [{"user": user, "n": n} for n, user in enumerate(users)]


class Fussy:
    """Raises at some numbers."""

    def __init__(self, at):
        self.at = at

    def __call__(self, record):
        if record["n"] in self.at:
            raise ValueError(record["n"])
        return record


class Together:
    """Gives each record all numbers of its key; raises at some users."""

    def __init__(self, at=frozenset(), size=None):
        self.at, self.size = at, size

    def __call__(self, some):
        found = []
        runs = [(user, [each["n"] for each in run]) for user, run in groupby(some, itemgetter("user"))]
        assert self.size is None or len(some) <= self.size or len(runs) == 1
        for user, numbers in runs:
            if user in self.at:
                raise KeyError(user)
            found += [(n, tuple(numbers)) for n in numbers]
        return found


def model(source, fussy, odd, *, goes_on):
    """What comes of it, and the numbers that are lost or the error that ends it."""
    results, lost = [], []
    for user, run in groupby(source, itemgetter("user")):
        numbers = [each["n"] for each in run]
        left = [n for n in numbers if n not in fussy]
        if not goes_on and len(left) < len(numbers):
            return results, f"ValueError({min(set(numbers) - set(left))})"
        lost += [n for n in numbers if n in fussy or user in odd]
        if user in odd and not goes_on:
            return results, f"KeyError({user})"
        if user not in odd:
            results += [(n, tuple(left)) for n in left]
    return results, sorted(lost)


def outcome(flow, source, how, tmp_path, *, goes_on, **options):
    results = []
    if goes_on:
        letters = tmp_path / "letters.jsonl"
        letters.unlink(missing_ok=True)
        report = flow.run(source, results.append, how=how, workers=2, dead_letters=letters, **options)
        lost = [json.loads(each)["index"] for each in letters.read_text().splitlines()] if letters.exists() else []
        assert report.failed == len(lost)
        return results, sorted(lost)
    try:
        for result in flow(source, how=how, workers=2, **options):
            results.append(result)
    except (ValueError, KeyError) as error:
        return results, repr(error)
    return results, []


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), max_size=8),
    size=st.sampled_from([None, 1, 3, 5]),
    fussy=st.frozensets(st.integers(0, 30), max_size=3),
    odd=st.frozensets(st.integers(0, 7), max_size=2),
    how=st.sampled_from(TECHNIQUES),
    options=st.sampled_from([{}, {"batch_size": 2}, {"window": 9}, {"ordered": True}]),
    goes_on=st.booleans(),
    lazy=st.booleans(),
)
def test_whole_keys_as_by_groupby(tmp_path_factory, lengths, size, fussy, odd, how, options, goes_on, lazy):
    source = records(lengths)
    flow = line(Fussy(fussy), batch(Together(odd, size), size=size, by="user"))
    given_source = (each for each in source) if lazy else source
    got = outcome(flow, given_source, how, tmp_path_factory.mktemp("keys"), goes_on=goes_on, **options)
    assert got == model(source, fussy, odd, goes_on=goes_on)


@pytest.mark.parametrize("how", TECHNIQUES)
@pytest.mark.parametrize("form", ["pandas", "polars", "arrow", "numpy"])
def test_keys_of_tables_are_not_parted_where_row_groups_are(how, form, tmp_path):
    import pyarrow.compute as pc

    users = [f"u{n // 7}" for n in range(300)]
    table = pa.table({"user": users, "n": pa.array(range(300), pa.int32())})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=50)

    def least(given):
        if form == "pandas":
            assert given["n"].dtype == "int32"
            return given.assign(least=given.groupby("user")["n"].transform("min"))
        if form == "polars":
            import polars as pl

            return given.with_columns(least=pl.col("n").min().over("user"))
        if form == "arrow":
            mine = given.group_by("user").aggregate([("n", "min")])
            return given.append_column("least", pc.take(mine["n_min"], pc.index_in(given["user"], mine["user"])))
        _, first = np.unique(given["user"], return_index=True)
        starts = np.sort(first)
        return {**given, "least": given["n"][starts[np.searchsorted(starts, np.arange(len(given["n"])), "right") - 1]]}

    flow = line(batch(least, size=20, form=form, by="user"))
    rows = list(flow(taktline.read(tmp_path / "in.parquet"), how=how, workers=2))
    assert [row["least"] for row in rows] == [n - n % 7 for n in range(300)]
    assert [row["n"] for row in rows] == list(range(300))


@pytest.mark.parametrize("how", ["loop", "auto", "line"])
def test_of_a_table_a_key_comes_through_or_fails_as_a_whole(how, tmp_path):
    frame = pd.DataFrame({"user": np.arange(40) // 5, "n": np.arange(40)})

    def fussy(given):
        if (given["n"] == 17).any():
            raise ValueError("seventeen")
        return given.assign(many=given.groupby("user")["n"].transform("count"))

    flow = line(keep(lambda given: given["n"] != 23, form="pandas"), batch(fussy, form="pandas", by="user"))
    letters = tmp_path / "letters.jsonl"
    rows = list(flow(frame, how=how, workers=2, dead_letters=letters))
    assert [row["n"] for row in rows] == [n for n in range(40) if n not in (15, 16, 17, 18, 19, 23)]
    assert {row["many"] for row in rows if row["user"] == 4} == {4}
    assert {row["many"] for row in rows if row["user"] != 4} == {5}
    assert [json.loads(each)["index"] for each in letters.read_text().splitlines()] == [15, 16, 17, 18, 19]


@pytest.mark.parametrize("size", [None, 20])
@pytest.mark.parametrize("how", ["pool", "line"])
def test_a_key_that_kills_its_worker_is_left_out_as_a_whole(how, size):
    def deadly(some):
        if any(each["n"] == 11 for each in some):
            os.kill(os.getpid(), signal.SIGKILL)
        return Together()(some)

    source = records([4, 4, 4, 4, 4])
    run = line(batch(deadly, size, by="user"))(source, how=how, workers=2, on_error="skip")
    assert [n for n, _ in run] == [n for n in range(20) if n not in (8, 9, 10, 11)]
    assert run.report.failed == 4
    run = line(batch(deadly, size, by="user"))(source, how=how, workers=2)
    results = []
    with pytest.raises(taktline.WorkerDied):
        results.extend(run)
    assert [n for n, _ in results] == list(range(8))


def test_a_run_goes_on_from_its_journal_with_whole_keys(tmp_path):
    source = records([3, 5, 2, 6, 4])
    flow = line(batch(Together(), size=6, by="user"))
    results, journal = [], tmp_path / "run.journal"
    for broken_off in (2, 4, 9, 20):
        run = flow(source, how="line", workers=2, journal=journal)
        for result in run:
            results.append(result)
            if len(results) == broken_off:
                break
        run.close()
    results += flow(source, how="line", workers=2, journal=journal)
    assert list(dict.fromkeys(results)) == model(source, (), (), goes_on=False)[0]


class Trickle(Live):
    """Some records at a time, with pauses between them."""

    def __init__(self, source):
        self.left = list(source)
        self.pause = False
        self.said = 0

    def take(self, most, seconds):
        self.pause = not self.pause
        if self.pause:
            return []
        some, self.left = self.left[: min(most, 2)], self.left[min(most, 2) :]
        return some or None

    def safe(self, records, skipped):
        self.said = records


@pytest.mark.parametrize("how", ["loop", "line"])
def test_a_live_source_gives_whole_keys(how):
    source = records([3, 5, 1, 4])
    live, results = Trickle(source), []
    line(batch(Together(), by="user")).run(live, results.append, how=how, workers=2)
    assert results == model(source, (), (), goes_on=False)[0]
    assert live.said == len(source)


def test_what_was_not_whole_when_the_source_failed_is_not_given():
    def failing():
        yield from records([3, 3, 3])[:8]
        raise OSError("the line is dead")

    for how in TECHNIQUES:
        results = []
        with pytest.raises(OSError, match="dead"):
            results.extend(line(batch(Together(), by="user"))(failing(), how=how, workers=2))
        assert [n for n, _ in results] == list(range(6)), how


def test_lines_that_cannot_be_read_are_left_out_of_their_key(tmp_path):
    rows = [json.dumps(each) for each in records([3, 3, 3])]
    rows[4] = "{no json"
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    for how in TECHNIQUES:
        run = line(batch(Together(), by="user"))(
            taktline.read(tmp_path / "in.jsonl"), how=how, workers=2, on_error="skip"
        )
        assert list(run)[3:5] == [(3, (3, 5)), (5, (3, 5))], how


def test_keys_by_attribute_and_by_function():
    source = [complex(n // 4, n) for n in range(12)]
    for by in ("real", lambda number: number.real):
        flow = line(batch(lambda some: [len(some)] * len(some), size=4, by=by))
        assert list(flow(source, how="line", workers=2)) == [4] * 12


def test_a_key_that_is_not_there_is_named():
    flow = line(batch(Together(), by="user"))
    results = []
    with pytest.raises(LineError, match=r"'user'.*record 3"):
        results.extend(flow([*records([2, 1]), {"name": "ann"}]))
    assert [n for n, _ in results] == [0, 1]
    with pytest.raises(LineError, match=r"'who'.*user, n"):
        list(line(batch(Together(), form="pandas", by="who"))(pd.DataFrame(records([2]))))

    def broken(record):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        list(line(batch(Together(), by=broken))(records([2])))
    assert "by=" in caught.value.__notes__[0]


def test_a_key_larger_than_may_be_held_is_named():
    source = [{"user": "ann", "n": n} for n in range(5_000)]
    with pytest.raises(LineError, match=r"'ann'.*memory="):
        list(line(batch(Together(), by="user"))(source, memory="100KB"))
    with pytest.raises(LineError, match=r"'ann'.*window=100"):
        list(line(batch(Together(), by="user"))(source, window=100, how="line", workers=2))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: batch(Together(), by=3), "by=3"),
        (lambda: batch(Together(), by="user", like=abs), "leave out like="),
        (lambda: batch(Together(), by="user", tasks=3), "waits"),
        (lambda: line(expand(list), batch(Together(), by="user"))([]), "any number"),
        (lambda: line(serial(abs), batch(Together(), by="user"))([]), "run apart"),
        (lambda: line(step(abs, workers=1), batch(Together(), by="user"))([]), "run apart"),
        (lambda: line(batch(list, by="a"), batch(list, by="b"))([]), "two keys"),
        (lambda: line(batch(list, 5, by="a"))([], seed=1), "seed="),
    ],
)
def test_what_could_not_get_whole_keys_is_refused(make, says):
    with pytest.raises(LineError, match=says):
        make()


@given(st.lists(st.one_of(st.none(), st.integers(0, 2), st.just(float("nan"))), max_size=9))
def test_keys_begin_at_the_same_rows_of_records_and_tables(values):
    values = [None if value is None else float(value) for value in values]
    rows = ArrowRows(pa.table({"key": pa.array(values, pa.float64())}))
    assert keys.starts(rows, "key") == keys.starts([{"key": value} for value in values], "key")
    texts = [str(value) for value in values]
    rows = ArrowRows(pa.table({"key": pa.array(texts).dictionary_encode(), "list": [[text] for text in texts]}))
    assert (
        keys.starts(rows, "key") == keys.starts(rows, "list") == keys.starts([{"key": text} for text in texts], "key")
    )


def test_nothing_is_read_beyond_the_record_behind_a_key():
    given_so_far = []

    def counted():
        for each in records([3, 3, 3]):
            given_so_far.append(each["n"])
            yield each

    run = line(batch(Together(), by="user"))(counted(), how="loop")
    assert next(run) == (0, (0, 1, 2))
    assert given_so_far == [0, 1, 2, 3]
    run.close()


def test_checks_and_comparisons_know_whole_keys(tmp_path):
    source = records([3, 5, 2, 6, 4])

    def found(flow, source):  # but for what of the tests themselves workers do not have
        return {each.kind for each in flow.check(source).findings if not each.advice} - {"surroundings"}

    flow = line(batch(Together(), by="user"))
    assert not found(flow, source)
    assert flow.plan(source, workers=2).failed == 0
    table = flow.compare(source, rounds=1, workers=2)
    assert {row.problem for row in table.rows} == {""}
    frame = pd.DataFrame(source)
    flow = line(
        batch(lambda rows: rows.assign(many=rows.groupby("user")["n"].transform("count")), form="pandas", by="user")
    )
    assert not found(flow, frame)
    assert {row.problem for row in flow.compare(frame, rounds=1, workers=2).rows} == {""}


def test_a_reader_holds_one_key_back():
    reader = KeyedReader(records([2, 3, 1]), step=batch(abs, by="user"), size=1 << 30, window=None)
    assert [each["n"] for each in reader.read(3)] == [0, 1]
    assert (reader.index, reader.ended) == (2, False)
    assert [each["n"] for each in reader.read(1)] == [2, 3, 4]
    assert [each["n"] for each in reader.read(1)] == [5]
    assert (reader.index, reader.read(1), reader.ended) == (6, [], True)
