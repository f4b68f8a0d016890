"""An exception of a step tells what reached the step, which step made that, and where the record stands in its file."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys

import pytest

from taktline import (
    Failed,
    LineError,
    StepError,
    batch,
    expand,
    kafka,
    keep,
    line,
    pubsub,
    read,
    read_dead_letters,
    redis,
    serial,
    step,
    write,
)

HOWS = ["loop", "auto", "pool", "queues", "line"]


def parse(n):
    return {"amount": None if n == 7 else n, "password": "hunter2"}


def amount(row):
    return row["amount"]


def score(amount):
    return amount * 2


def rebinds(value):
    value = value["amount"]
    return value + 1


class Scored:
    def __call__(self, amount):
        return amount * 2

    def method(self, amount):
        return amount * 2


def each_amount(n):
    yield n
    yield None if n == 7 else n


def scored(amount):
    return [amount * 2]


def is_there(value):
    return value is None or value >= 0


def half_of_each(amounts):
    return [amount / 2 for amount in amounts]


def half(amount):
    return amount / 2


async def asks(amount):
    return amount * 2


def notes(flow, records=range(20), **options):
    """What a run's exception says of its record."""
    with pytest.raises(TypeError) as caught:
        list(flow(records, workers=2, progress=False, **options))
    return next(note for note in caught.value.__notes__ if note.startswith("at record 7 ")).splitlines()


GIVEN = "  given   None, from step 'amount'"


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "last",
    [score, Scored(), Scored().method, keep(score), expand(scored), serial(score), step(score, retries=1, backoff=0)],
    ids=["function", "object", "method", "keep", "expand", "serial", "retries"],
)
def test_what_reached_the_step_and_which_one_made_it_is_told(how, last):
    told = notes(line(parse, amount, last), how=how)
    if how in ("loop", "auto") and getattr(last, "retries", 0):
        return  # what stands around a function is no function of the user's, and has no line of its own to be told by
    assert GIVEN in told


@pytest.mark.parametrize("how", HOWS)
def test_what_a_batch_step_was_given_is_told_of_the_record_at_fault(how):
    assert GIVEN in notes(line(parse, amount, batch(half_of_each)), how=how, batch_size=None if how == "loop" else 4)
    assert GIVEN in notes(line(parse, amount, batch(half_of_each, like=half)), how=how)


@pytest.mark.parametrize("how", ["pool", "queues", "line"])
def test_what_a_step_that_waits_was_given_is_told(how):
    assert GIVEN in notes(line(parse, amount, asks), how=how)
    assert GIVEN in notes(line(parse, amount, step(score, tasks=4)), how=how)


@pytest.mark.parametrize("how", HOWS)
def test_a_step_that_only_lets_through_has_made_nothing(how):
    assert GIVEN in notes(line(parse, amount, keep(is_there), score), how=how)
    first = notes(line(keep(str), score), [1, 2, 3, 4, 5, 6, 7, None], how=how)
    assert first[1:2] == ["  record  None"]
    assert not any(said.startswith("  given") for said in first)


@pytest.mark.parametrize("how", HOWS)
def test_of_an_expand_the_one_value_is_told(how):
    assert "  given   None, from step 'each_amount'" in notes(line(each_amount_step(), score), how=how)


def each_amount_step():
    return expand(each_amount)


@pytest.mark.parametrize("how", HOWS)
def test_nothing_is_told_that_is_not_known(how):
    """A function that puts something else in its argument's place, and one that is not written in Python."""
    for last in (rebinds, abs):
        told = notes(line(parse, amount if last is not rebinds else parse_of, last), how=how)
        given = [said for said in told if said.startswith("  given")]
        assert given in ([], [GIVEN], ["  given   {'amount': None, 'password': '****'}, from step 'parse_of'"])


class Adds:
    """Adds to each number, and raises at one of them."""

    def __init__(self, more, bad=None):
        self.more, self.bad = more, bad

    def __call__(self, n):
        if n == self.bad:
            raise TypeError("bad")
        return n + self.more


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("at", [3, 900])
@pytest.mark.parametrize(("count", "failing"), [(2, 1), (5, 0), (40, 39)])
def test_what_is_told_of_a_late_record_is_its_own(how, at, count, failing):
    """Also behind results that were ready before, and where many functions are called in one another."""
    steps = [Adds(1_000, bad=at + 1_000 * n if n == failing else None) for n in range(count)]
    with pytest.raises(TypeError, match="bad") as caught:
        list(line(*steps)(range(1_000), how=how, workers=1, progress=False))
    told = caught.value.__notes__[0].splitlines()
    name = "Adds" if failing == 0 else f"Adds ({failing + 1})"
    before = "Adds" if failing == 1 else f"Adds ({failing})"
    assert told[:2] == [f"at record {at} in step {name!r}", f"  record  {at}"]
    given = [said for said in told if said.startswith("  given")]
    assert given == ([f"  given   {at + 1_000 * failing}, from step {before!r}"] if failing else [])


def parse_of(row):
    return row


@pytest.mark.parametrize("how", HOWS)
def test_what_is_shown_is_masked(how):
    told = notes(line(parse, rebinds), how=how)
    assert not any("hunter2" in said for said in told)


@pytest.mark.parametrize("how", HOWS)
def test_failed_and_dead_letters_tell_it_too(how, tmp_path):
    flow = line(parse, amount, score)
    results = list(flow(range(20), how=how, workers=2, on_error="keep", progress=False))
    (failed,) = (each for each in results if isinstance(each, Failed))
    assert GIVEN in failed.error.__notes__[0]
    letters = tmp_path / "failed.sqlite"
    list(flow(range(20), how=how, workers=2, dead_letters=letters, progress=False))
    (letter,) = read_dead_letters(letters)
    assert (letter.given, letter.source) == ("None, from step 'amount'", "")


# --- where the record stands ---


def of_number(row):
    return 1 / (row["n"] - 7)


def write_lines(path, numbers, before=""):
    path.write_text(before + "".join(f'{{"n": {n}}}\n' for n in numbers))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("first", [0, 3_000])
def test_the_line_of_the_file_is_told(how, first, tmp_path):
    write_lines(tmp_path / "a.jsonl", [100] * (first + 10))
    write_lines(tmp_path / "b.jsonl", [*range(100, 100 + first), 7, *range(100, 120)])
    source = read(str(tmp_path / "*.jsonl"))
    with pytest.raises(ZeroDivisionError) as caught:
        list(line(of_number)(source, how=how, workers=2, progress=False))
    assert vars(caught.value)["__taktline__"].source == f"{tmp_path / 'b.jsonl'}:{first + 1}"
    letters = tmp_path / "letters.sqlite" if how == "queues" else tmp_path / "failed.ndjson"
    line(of_number).run(source, how=how, workers=2, dead_letters=letters, progress=False)
    (letter,) = read_dead_letters(letters)
    assert letter.source == f"{tmp_path / 'b.jsonl'}:{first + 1}"
    assert letter.index == 2 * first + 10
    if letters.suffix == ".ndjson":
        assert json.loads(letters.read_text())["source"] == letter.source


@pytest.mark.parametrize("how", ["loop", "line"])
def test_blank_lines_quoted_line_ends_and_packed_files_are_counted(how, tmp_path):
    rows = ["n,text"]
    for n in range(40):
        rows.append(f'{n},"one\ntwo"' if n % 3 == 0 else f"{n},one")
        if n == 5:
            rows.append("")
    text = "\n".join(rows) + "\n"
    wanted = text[: text.index("\n7,one")].count("\n") + 2
    (tmp_path / "in.csv").write_text(text)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("in.csv", "in.csv.gz"):
        source = read(tmp_path / name, types={"n": int})
        with pytest.raises(ZeroDivisionError) as caught:
            list(line(of_number)(source, how=how, workers=2, progress=False))
        assert vars(caught.value)["__taktline__"].source == f"{tmp_path / name}:{wanted}"


@pytest.mark.parametrize("how", ["loop", "line"])
def test_the_row_of_a_parquet_file_is_told(how, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"n": [*range(100, 150), 7, 9]}), tmp_path / "in.parquet")
    with pytest.raises(ZeroDivisionError) as caught:
        list(line(of_number)(read(tmp_path / "in.parquet"), how=how, workers=2, progress=False))
    assert vars(caught.value)["__taktline__"].source == f"{tmp_path / 'in.parquet'}, row 50"


def test_a_file_that_has_gone_keeps_no_error_from_being_told(tmp_path):
    write_lines(tmp_path / "in.jsonl", [100, 7])

    def goes(row):
        if row["n"] == 7:
            os.unlink(tmp_path / "in.jsonl")
        return 1 / (row["n"] - 7)

    with pytest.raises(ZeroDivisionError) as caught:
        list(line(goes)(read(tmp_path / "in.jsonl"), how="loop", progress=False))
    assert vars(caught.value)["__taktline__"].index == 1


def test_the_command_shows_both(tmp_path):
    (tmp_path / "steps.py").write_text(
        "def parse(row):\n    return row.get('amount')\n\ndef score(amount):\n    return amount * 2\n"
    )
    (tmp_path / "in.jsonl").write_text('{"amount": 1}\n' * 3 + '{"id": 4, "token": "abc"}\n')
    asked = ["run", "steps.py:parse,score", "--in", "in.jsonl", "--out", "out.jsonl"]
    for how in ("loop", "line"):
        command = [sys.executable, "-m", "taktline", *asked, "--how", how]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        said = done.stderr.splitlines()
        at = said.index("error TK200: step 'score' failed on record 3")
        assert said[at + 1].startswith("  TypeError: unsupported operand")
        assert said[at + 2 : at + 6] == [
            "  at steps.py:5   return amount * 2",
            "  source  in.jsonl:4",
            "  record  {'id': 4, 'token': '****'}",
            "  given   None, from step 'parse'",
        ]


def raises_oddly(n):
    if n == 7:
        raise StopIteration("odd")
    return n


@pytest.mark.parametrize("how", HOWS)
def test_what_stands_for_an_exception_tells_it_too(how):
    with pytest.raises(StepError) as caught:
        list(line(abs, raises_oddly)(range(20), how=how, workers=2, progress=False))
    assert "given   7, from step 'abs'" in caught.value.__notes__[-1]


@pytest.mark.parametrize(
    "sink",
    [
        pubsub.publish("projects/p/topics/t"), redis.publish("redis://localhost/0/s"),
        kafka.publish("kafka://localhost:9092/t"),
    ],
)  # fmt: skip
def test_a_queue_has_no_place_for_failed_records(sink):
    with pytest.raises(LineError, match="has no place for the records that fail"):
        line(of_number).run([{"n": 1}], sink, on_error="keep", progress=False)


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.txt", "out.parquet", "out.arrow", "parts"])
def test_an_output_without_a_place_for_failed_records_is_refused_at_the_door(name, tmp_path):
    sink = write(tmp_path / name) if "." in name else write(f"{tmp_path / name}/", format="csv", rows=10)
    with pytest.raises(LineError, match="has no place for the records that fail"):
        line(of_number).run([{"n": 1}], sink, on_error="keep", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_row_of_json_lines_tells_of_a_failed_record(tmp_path):
    report = line(parse, amount, score).run(range(9), write(tmp_path / "out.jsonl"), on_error="keep", progress=False)
    rows = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (report.records_out, len(rows)) == (9, 9)
    assert rows[7]["failed"]["step"] == "score"
    assert rows[7]["failed"]["error"] == "TypeError"
