"""A line that is no record fails as a record does: alone, in its place, with file, line, text and reason."""

import asyncio
import bz2
import gzip
import json
import subprocess
import sys
from collections import Counter

import pytest

import taktline
from taktline import Failed, SourceError, line, step

COUNT = 1_500


class Bad(str):
    """In the model: the text of a line that is no record."""


def _jsonl(n):
    return {100: b"{half\n", 101: b'{"n": 1} {}\n', 777: b"\xff\xfe\n", 1_499: b"nothing"}.get(n) or b'{"n": %d}\n' % n


def _text(n):
    return {0: b"\xff\n", 700: b"caf\xe9\n"}.get(n) or b"%d\n" % n


def _csv(n):
    bad = {
        3: b"3\n", 500: b'"5"00,x\n', 501: b'501,"open\n', 502: b"five,x\n", 800: b"800,\xff\n", 801: b"801,a,b\n",
        900: b'900,"two\n\xfflines"\n', 1_000: b'1000,"two\nlines",3\n', 1_100: b'1100,"a\nb"\rc\n',
        1_200: b'1200,"tail\nx"y\n', 1_400: b'1400,"never closed\n',
    }  # fmt: skip
    return bad.get(n) or (b'%d,"two\nlines ""%d"""\n' % (n, n) if n % 7 == 0 else b"%d,t%d\n" % (n, n))


def _tsv(n):
    return {5: b'5\t"a\tb"\n', 6: b"x\t6\n", 9: b"9\t\xff\n"}.get(n) or b'%d\t"%d\n' % (n, n)


FORMATS = {
    "jsonl": (b"", _jsonl, {}, lambda data: json.loads(data)),
    "txt": (b"", _text, {}, lambda data: data.decode().rstrip("\n")),
    "csv": (b"n,t\n", _csv, {"types": {"n": int}}, None),
    "tsv": (b"n\tt\n", _tsv, {"types": {"n": int}}, lambda data: _row(*data.decode().rstrip("\n").split("\t"))),
}


def _row(n, t):
    return {"n": int(n), "t": t}


def _csv_rows(n):
    """What the lines of a CSV record come to; where quotes do not fit its lines are rows of their own."""
    data = _csv(n)
    if n == 1_200:
        return [Bad('1200,"tail'), Bad('x"y')]
    if data.startswith(
        (b"3\n", b'"5', b"501", b"five", b"800", b"801,", b"900", b"1000", b"1100,", b"1400,")
    ) and n in (3, 500, 501, 502, 800, 801, 900, 1_000, 1_100, 1_400):
        return [Bad(data.decode(errors="backslashreplace").rstrip("\n"))]
    return [{"n": n, "t": f'two\nlines "{n}"' if n % 7 == 0 else f"t{n}"}]


def written(folder, format, packing=""):
    """A file, and what it holds: records, and `Bad` lines with their numbers."""
    header, line_of, _, parse = FORMATS[format]
    data = header + b"".join(map(line_of, range(COUNT)))
    if format == "csv":
        holds = [each for n in range(COUNT) for each in _csv_rows(n)]
    else:
        holds = [_parsed(parse, line_of(n)) for n in range(COUNT)]
    path = folder / f"in.{format}{packing}"
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[packing](data))
    return path, holds


def _parsed(parse, data):
    try:
        return parse(data)
    except (ValueError, TypeError):
        return Bad(data.decode(errors="backslashreplace").rstrip("\n"))


def same(record):
    return record


async def waits(record):
    await asyncio.sleep(0)
    return record


def flat(results):
    """Results, with what stands for failed ones by index, step and text."""
    return [(each.index, each.step, each.record) if isinstance(each, Failed) else each for each in results]


WAYS = {
    "loop": (line(same), {"how": "loop"}),
    "pool": (line(same), {"how": "pool", "workers": 2}),
    "queues": (line(same, step(same, name="again")), {"how": "queues", "workers": 2}),
    "line": (line(same), {"how": "line", "workers": 2}),
    "line of 64": (line(same), {"how": "line", "workers": 2, "batch_size": 64, "start": "launch"}),
    "auto": (line(same), {"how": "auto", "workers": 2}),
    "waiting": (line(waits), {"how": "line", "workers": 1}),
    "serial first": (line(taktline.serial(same), same), {"how": "line", "workers": 2}),
    "serial last": (line(same, taktline.serial(same)), {"how": "line", "workers": 2}),
}


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("way", WAYS)
def test_a_bad_line_fails_alone_in_its_place(tmp_path, way, format, packing):
    if packing and way not in ("loop", "line", "line of 64"):
        pytest.skip("read as with the others")
    path, holds = written(tmp_path, format, packing)
    flow, options = WAYS[way]
    source = taktline.read(path, **FORMATS[format][2])
    run = flow(source, on_error="keep", **options)
    results = list(run)
    due = [(n, "(reading)", str(each)) if isinstance(each, Bad) else each for n, each in enumerate(holds)]
    assert flat(results) == due
    bad = [each for each in results if isinstance(each, Failed)]
    errors = [each.error for each in bad if isinstance(each.error, SourceError)]
    assert len(errors) == len(bad)
    assert all(error.path == str(path) and f"line {error.line:,}" in str(error) for error in errors)
    report = run.report
    assert (report.records_in, report.failed, report.complete) == (len(holds), len(bad), True)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("way", ["loop", "line of 64", "auto", "unordered"])
def test_letters_hold_bad_lines_as_they_stand_in_the_file(tmp_path, way, format):
    path, holds = written(tmp_path, format)
    flow, options = WAYS.get(way) or (line(same), {"how": "line", "workers": 2, "ordered": False})
    source = taktline.read(path, **FORMATS[format][2])
    letters, out = tmp_path / "failed.jsonl", tmp_path / "out.jsonl"
    report = flow.run(source, taktline.write(out), dead_letters=str(letters), **options)
    good = [each for each in holds if not isinstance(each, Bad)]
    results = [json.loads(text) for text in out.read_text().splitlines()]
    if way == "unordered":
        assert Counter(map(repr, results)) == Counter(map(repr, good))
    else:
        assert results == good
    told = sorted((letter.index, letter.step, letter.record) for letter in taktline.read_dead_letters(letters))
    assert told == [(n, "(reading)", str(each)) for n, each in enumerate(holds) if isinstance(each, Bad)]
    assert report.failed == len(told)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("way", ["loop", "line", "auto"])
def test_without_on_error_a_bad_line_ends_the_run_behind_all_before_it(tmp_path, way, format):
    path, holds = written(tmp_path, format)
    first = next(n for n, each in enumerate(holds) if isinstance(each, Bad))
    flow, options = WAYS[way]
    results = []
    with pytest.raises(SourceError) as caught:
        results.extend(flow(taktline.read(path, **FORMATS[format][2]), **options))
    assert results == holds[:first]
    assert caught.value.path == str(path)
    assert caught.value.line is not None


def _sizes(rows):
    return [len(rows)] * len(rows)


@pytest.mark.parametrize("start", ["fork", "launch"])
def test_records_before_a_bad_line_go_to_the_steps_in_batches(tmp_path, start):
    path = tmp_path / "in.jsonl"
    path.write_text("".join('{"n": 1}\n' if n != 900 else "{\n" for n in range(1_000)))
    sizes = []
    with pytest.raises(SourceError, match="line 901"):
        for size in line(taktline.batch(_sizes, 100))(taktline.read(path), how="line", workers=2, start=start):
            sizes.append(size)
    assert len(sizes) == 900
    assert sizes.count(1) < 10  # where a part of the file ends in the middle of a call


def test_the_line_number_of_a_bad_line_does_not_depend_on_the_technique(tmp_path):
    path, _ = written(tmp_path, "csv")
    source = taktline.read(path, types={"n": int})
    told = [
        [(each.index, vars(each.error)["line"], str(each.error), each.record)
         for each in flow(source, on_error="keep", **options) if isinstance(each, Failed)]
        for flow, options in (WAYS["loop"], WAYS["line of 64"], WAYS["pool"], WAYS["auto"])
    ]  # fmt: skip
    assert told[0]
    assert all(each == told[0] for each in told)
    lines = path.read_bytes().split(b"\n")
    for _, number, text, record in told[0]:
        assert f"line {number:,}" in text
        assert lines[number - 1].decode(errors="backslashreplace") in record.split("\n")


def test_bad_lines_of_standard_input_fail_alone(tmp_path):
    path, holds = written(tmp_path, "jsonl")
    (tmp_path / "steps.py").write_text("def same(record):\n    return record\n")
    done = subprocess.run(
        [sys.executable, "-m", "taktline", "run", "steps.py:same", "--in", "-", "--out", "-", "--on-error", "skip",
         "--dead-letters", "failed.jsonl", "--how", "line", "--workers", "2"],
        stdin=path.open("rb"), cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr.decode()
    assert [json.loads(text) for text in done.stdout.splitlines()] == [e for e in holds if not isinstance(e, Bad)]
    assert len(taktline.read_dead_letters(tmp_path / "failed.jsonl")) == sum(isinstance(e, Bad) for e in holds)


def test_a_run_with_a_journal_goes_on_behind_bad_lines(tmp_path):
    path, holds = written(tmp_path, "jsonl")
    source, journal = taktline.read(path), str(tmp_path / "a.journal")
    letters = str(tmp_path / "failed.jsonl")
    for stop_at in (50, 102, 800, None):
        run = line(same)(source, journal=journal, dead_letters=letters, how="line", workers=2, batch_size=40)
        out = tmp_path / "got.jsonl"
        with run, out.open("a") as file:
            for given, each in enumerate(run):
                file.write(json.dumps(each) + "\n")
                if given == stop_at:
                    break
    assert [json.loads(text) for text in (tmp_path / "got.jsonl").read_text().splitlines()][-5:] == holds[-6:-1]
    told = [(letter.index, letter.record) for letter in taktline.read_dead_letters(letters)]
    assert told == [(n, str(each)) for n, each in enumerate(holds) if isinstance(each, Bad)]


def test_a_record_killed_beside_bad_lines_fails_alone(tmp_path):
    path, holds = written(tmp_path, "jsonl")
    results = list(line(kills_at_103)(taktline.read(path), on_error="keep", how="line", workers=2, batch_size=64))
    due = [(n, "(reading)", str(each)) if isinstance(each, Bad) else each for n, each in enumerate(holds)]
    due[103] = (103, "kills_at_103", {"n": 103})
    assert flat(results) == due


def kills_at_103(record):
    if record["n"] == 103:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
    return record


def test_what_is_cut_short_is_no_bad_line_and_ends_the_run(tmp_path):
    path, _ = written(tmp_path, "jsonl", ".gz")
    path.write_bytes(path.read_bytes()[:-20])
    for options in ({"how": "loop"}, {"how": "line", "workers": 2}):
        with pytest.raises(SourceError, match=r"cut|end"):
            list(line(same)(taktline.read(path), on_error="skip", **options))


def test_a_long_bad_line_is_kept_in_part(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{" + b"x" * 1_000_000 + b"\n1\n")
    failed, good = line(same)(taktline.read(path), on_error="keep", how="loop")
    assert good == 1
    assert len(failed.record) < 100_000
    assert failed.record.endswith("…")


def test_a_key_that_a_line_lacks_is_a_bad_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}\n3\n{"a": 4}\n')
    results = list(line(same)(taktline.read(path, columns=["a"]), on_error="keep", how="loop"))
    assert flat(results) == [{"a": 1}, (1, "(reading)", '{"b": 2}'), (2, "(reading)", "3"), {"a": 4}]


def test_a_row_of_parquet_without_a_value_in_python_fails_alone(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {"n": range(200), "at": pa.array([7 if n in (3, 150) else 0 for n in range(200)], pa.timestamp("ns"))}
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=90)
    for options in ({"how": "loop"}, {"how": "line", "workers": 2, "batch_size": 32}):
        results = list(line(same)(taktline.read(tmp_path / "a.parquet"), on_error="keep", **options))
        assert [n for n, each in enumerate(results) if isinstance(each, Failed)] == [3, 150]
        assert [each["n"] for each in results if isinstance(each, dict)] == [n for n in range(200) if n not in (3, 150)]
        assert "n: 150" in results[150].record


def test_the_note_and_the_error_say_what_to_do(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("1\n{\n")
    with pytest.raises(SourceError, match=r"(?s)line 2.*on_error=.skip.*dead_letters="):
        list(line(same)(taktline.read(path), how="loop"))


def twice(record):
    yield record
    if record["n"] == 104:
        raise ValueError(record)
    yield record


@pytest.mark.parametrize("options", [{"how": "loop"}, {"how": "line", "workers": 2, "batch_size": 64}], ids=str)
def test_bad_lines_stand_beside_steps_that_expand_and_fail(tmp_path, options):
    path, holds = written(tmp_path, "jsonl")
    due = []
    for n, each in enumerate(holds):
        due += [(n, "(reading)", str(each))] if isinstance(each, Bad) else [each, each]
        if n == 104:
            due[-2:] = [(n, "twice", each)]
    flow = line(taktline.expand(twice), taktline.batch(list, size=10))
    assert flat(flow(taktline.read(path), on_error="keep", **options)) == due


def test_a_journal_knows_bad_lines_of_a_pipe_again(tmp_path):
    path, holds = written(tmp_path, "jsonl")
    good = [each for each in holds if not isinstance(each, Bad)]
    (tmp_path / "steps.py").write_text(
        "import os\ndef same(record):\n    if record['n'] == 103 and not os.path.exists('mended'):\n"
        "        os.kill(os.getppid(), 9)\n    return record\n"
    )
    for mended in (False, True):
        if mended:
            (tmp_path / "mended").touch()
        with path.open("rb") as lines:
            done = subprocess.run(
                [sys.executable, "-m", "taktline", "run", "steps.py:same", "--in", "-", "--in-format", "jsonl", "--out",
                 "out.jsonl", "--on-error", "skip", "--journal", "a.journal", "--how", "line", "--workers", "1",
                 "--batch-size", "1"],
                stdin=lines, cwd=tmp_path, capture_output=True, check=False,
            )  # fmt: skip
    assert done.returncode == 3, done.stderr.decode()
    assert [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()] == good
