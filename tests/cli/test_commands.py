"""The command, run as users run it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

STEPS = """
import os, sys, time
from taktline import line, keep
def parse(row):
    return int(row["n"])
def double(n):
    print("working on", n)
    return {"n": n * 2}
def fussy(n):
    if n == 7:
        raise ValueError("seven, of all")
    return n
def slow(n):
    print(n, flush=True)
    time.sleep(60)
flow = line(parse, keep(lambda n: n % 2), double)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": "{n}"}}\n' for n in range(100)))
    return tmp_path


def taktline(folder, *arguments, **more):
    command = [sys.executable, "-m", "taktline.cli.commands", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, **more)


def test_functions_in_order_run_from_file_to_file(folder):
    done = taktline(folder, "run", "steps.py:parse,double", "--in", "in.jsonl", "--out", "out.jsonl", "--how", "line")
    assert done.returncode == 0, done.stderr
    assert [json.loads(text) for text in (folder / "out.jsonl").read_text().splitlines()] == [
        {"n": 2 * n} for n in range(100)
    ]
    assert "100 in · 100 out" in done.stderr


def test_without_click_the_command_says_what_to_install_and_the_library_works(tmp_path):
    hidden = "import sys; sys.modules['click'] = None; sys.argv = ['taktline', 'doctor']; "
    asked = hidden + "import taktline.__main__ as command; command.main()"
    done = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "the command needs click: pip install 'taktline[cli]'\n")
    used = hidden + "from taktline import line; print(list(line(abs)([-1, 2], how='line', workers=1)))"
    assert subprocess.run([sys.executable, "-c", used], cwd=tmp_path, capture_output=True).stdout == b"[1, 2]\n"


def test_a_saved_report_is_shown_again(folder):
    run = ["run", "steps.py:parse,double", "--in", "in.jsonl", "--out", "out.jsonl", "--report", "run.json"]
    done = taktline(folder, *run)
    shown = taktline(folder, "report", "run.json", "--html", "run.html")
    assert shown.stdout == done.stderr[done.stderr.index(" done ") :]
    assert "100 in" in (folder / "run.html").read_text()
    (folder / "run.json").write_text("[1]")
    wrong = taktline(folder, "report", "run.json")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "is no report" in wrong.stderr


@pytest.mark.parametrize("target", ["steps.py:flow", "steps:flow"])
def test_a_line_runs_from_a_file_and_a_module(folder, target):
    done = taktline(folder, "run", target, "--in", "in.jsonl", "--out", "out.jsonl", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert len((folder / "out.jsonl").read_text().splitlines()) == 50


@pytest.mark.parametrize("how", ["loop", "line"])
def test_standard_output_has_nothing_but_data(folder, how):
    done = taktline(
        folder, "run", "steps.py:parse,double", "--in", "-", "--out", "-", "--how", how, "--workers", "2",
        input=(folder / "in.jsonl").read_text(),
    )  # fmt: skip
    assert [json.loads(text)["n"] for text in done.stdout.splitlines()] == [2 * n for n in range(100)]
    assert "working on 99" in done.stderr
    assert done.returncode == 0


def test_a_record_that_fails_ends_with_1_and_says_where(folder):
    done = taktline(folder, "run", "steps.py:parse,fussy", "--in", "in.jsonl", "--out", "out.jsonl", "--how", "line")
    assert done.returncode == 1
    assert "step 'fussy' failed on record 7" in done.stderr
    assert "ValueError: seven, of all" in done.stderr
    assert 'steps.py:11   raise ValueError("seven, of all")' in done.stderr
    assert "--on-error skip" in done.stderr
    assert "taktline/cli" not in done.stderr
    again = next(each.partition("try this one: ")[2] for each in done.stderr.splitlines() if "try this one" in each)
    assert again == "taktline check steps.py:parse,fussy --in in.jsonl --record 7"
    assert "seven, of all" in taktline(folder, *again.split()[1:]).stdout
    assert sorted(os.listdir(folder)) == ["in.jsonl", "steps.py"]


def test_records_left_out_end_with_3(folder):
    arguments = (
        "run",
        "steps.py:parse,fussy",
        "--in",
        "in.jsonl",
        "--out",
        "out.jsonl",
        "--on-error",
        "skip",
        "--json",
    )
    done = taktline(folder, *arguments)
    assert done.returncode == 3
    assert json.loads(done.stderr)["skipped"] == 1
    assert len((folder / "out.jsonl").read_text().splitlines()) == 99


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["steps.py:pars", "--in", "in.jsonl", "--out", "o.jsonl"], "did you mean 'parse'"),
        (
            ["step.py:parse", "--in", "in.jsonl", "--out", "o.jsonl"],
            "there is no file 'step.py'; did you mean 'steps.py'?",
        ),
        (["nothing:parse", "--in", "in.jsonl", "--out", "o.jsonl"], "there is no module 'nothing'"),
        (["steps.py", "--in", "in.jsonl", "--out", "o.jsonl"], "names no steps"),
        (["steps.py:parse", "--in", "on.jsonl", "--out", "o.jsonl"], "did you mean 'in.jsonl'"),
        (["steps.py:parse", "--in", "in.jsonl", "--out", "no/o.jsonl"], "there is no folder"),
        (["steps.py:parse", "--in", "in.jsonl", "--out", "o.jsonl", "--workers", "0"], "--workers 0"),
        (["steps.py:parse", "--in", "in.jsonl", "--out", "o.jsonl", "--how", "lines"], "lines"),
        (["steps.py:parse", "--in", "in.jsonl"], "--out"),
        (["steps.py:parse", "--in", "in.jsonl", "--in", "in.jsonl", "--out", "o.jsonl"], "'--in': it is given 2 times"),
        (["steps.py:parse", "--in", "in.jsonl", "--out", "o.jsonl", "--out", "p"], "'--out': it is given 2 times"),
        (["steps.py:os", "--in", "in.jsonl", "--out", "o.jsonl"], "must be a callable"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_sentence(folder, arguments, says):
    done = taktline(folder, "run", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(folder)) == ["in.jsonl", "steps.py"]


@pytest.mark.parametrize("code", ["", "0", "9", "'usage: …'"])
@pytest.mark.parametrize("name", ["script.py", "script"])
def test_a_script_that_exits_when_it_is_imported_is_wrong_usage_and_never_success(folder, name, code):
    (folder / "script.py").write_text(f"import sys\ndef parse(text):\n    return text\nsys.exit({code})\n")
    for command in (
        ["run", f"{name}:parse", "--in", "in.jsonl", "--out", "o.jsonl"],
        ["check", f"{name}:parse", "--in", "in.jsonl"],
    ):
        done = taktline(folder, *command)
        assert done.returncode == 2
        assert "sys.exit(" in done.stderr
        assert "Traceback" not in done.stderr


def test_in_a_folder_that_is_gone_whole_paths_work_and_others_are_refused(folder, tmp_path_factory):
    whole = [f"{folder}/steps.py:parse", "--in", f"{folder}/in.jsonl"]
    for out, code in ((f"{folder}/o.jsonl", 0), ("o.jsonl", 2)):
        gone = tmp_path_factory.mktemp("gone")
        script = 'rmdir "$PWD"; exec "$@"'
        command = [sys.executable, "-m", "taktline.cli.commands", "run", *whole, "--out", out, "--how", "line"]
        done = subprocess.run(["sh", "-c", script, "sh", *command], cwd=gone, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert code == 0 or "the working folder, which is gone" in done.stderr
    assert len((folder / "o.jsonl").read_text().splitlines()) == 100


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("how", ["loop", "line"])
def test_two_signals_end_the_run_and_leave_nothing(folder, number, code, how):
    command = [
        sys.executable, "-m", "taktline.cli.commands", "run", "steps.py:parse,slow", "--in", "in.jsonl", "--out",
        "o.jsonl", "--how", how, "--workers", "2",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit()  # the step has begun
    assert process.stderr is not None
    process.send_signal(number)
    assert any("once more: at once" in each for each in process.stderr)  # on a busy machine behind a line of progress
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert sorted(os.listdir(folder)) == ["in.jsonl", "steps.py"]


BEGUN = "def begun(n):\n    open('begun', 'w').close()\n    return n\n"


def wait_until_begun(folder, process):
    while not (folder / "begun").exists():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["loop", "line", "auto"])
def test_the_first_signal_ends_a_run_whose_standard_input_is_silent(folder, number, how):
    command = [
        sys.executable, "-m", "taktline.cli.commands", "run", "begun.py:begun", "--in", "-", "--in-format",
        "jsonl", "--out", "o.jsonl", "--how", how, "--workers", "2", "--journal", "o.journal",
    ]  # fmt: skip
    (folder / "begun.py").write_text(BEGUN)
    ours, theirs = os.pipe()
    pipes = {"stdin": ours, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, text=True, **pipes) as process:
        os.close(ours)
        os.write(theirs, b'1\n2\n3\n{"half of')
        wait_until_begun(folder, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        os.close(theirs)
    assert process.returncode == 128 + number, errors
    assert "the same command goes on from here" in errors


def test_what_went_into_a_pipe_before_a_signal_is_not_called_nothing(folder):
    (folder / "begun.py").write_text(BEGUN)
    command = [
        sys.executable,
        "-m",
        "taktline.cli.commands",
        "run",
        "begun.py:begun",
        "--in",
        "-",
        "--in-format",
        "jsonl",
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--out", "-"], cwd=folder, text=True, **pipes) as process:
        assert process.stdin is not None
        process.stdin.write("1\n")
        process.stdin.flush()
        wait_until_begun(folder, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert process.stdout is not None
        assert process.stdout.read() == "1\n"
        assert process.stderr is not None
        assert "what was given out so far is all there is" in process.stderr.read()


def test_what_comes_through_a_pipe_is_read_to_its_end(folder):
    lines = [f"{n} " + "x" * (n % 7_000) for n in range(3_000)]
    command = [
        sys.executable, "-m", "taktline.cli.commands", "run", "builtins:str", "--in", "-", "--in-format", "text",
        "--out", "o.txt",
    ]  # fmt: skip
    for text in ("\n".join(lines), "\n".join(lines) + "\n", "", "no end of a line", "x" * 3_000_000 + "\ny"):
        subprocess.run(command, cwd=folder, input=text, text=True, capture_output=True, check=True)
        assert (folder / "o.txt").read_text().splitlines() == text.splitlines()
        (folder / "o.txt").unlink()


RAISES = """
def interrupt(n):
    return n if n != 7 else by_hand()

def by_hand():
    raise KeyboardInterrupt

def end(n):
    if n == 7:
        raise EOFError("no more")
    return n

def pipe(n):
    if n == 7:
        raise BrokenPipeError(32, "Broken pipe")
    return n

def many(ns):
    return [interrupt(n) for n in ns]
many = __import__("taktline").batch(many, size=10)
"""


@pytest.mark.parametrize("how", ["loop", "auto"])
@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("interrupt", "KeyboardInterrupt"),
        ("end", "EOFError: no more"),
        ("pipe", "BrokenPipeError: [Errno 32] Broken pipe"),
    ],
)
def test_a_step_that_raises_what_signals_and_pipes_raise_is_named(folder, how, step, says):
    (folder / "raises.py").write_text(RAISES)
    (folder / "numbers.jsonl").write_text("".join(f"{n}\n" for n in range(20)))
    done = taktline(folder, "run", f"raises.py:{step}", "--in", "numbers.jsonl", "--out", "o.jsonl", "--how", how)
    assert done.returncode == 1, done.stderr
    assert f"step '{step}' failed on record 7\n  {says}\n" in done.stderr
    assert "Ctrl-C;" not in done.stderr


def test_a_batch_step_that_raises_an_interrupt_is_named(folder):
    (folder / "raises.py").write_text(RAISES)
    (folder / "numbers.jsonl").write_text("".join(f"{n}\n" for n in range(20)))
    done = taktline(folder, "run", "raises.py:many", "--in", "numbers.jsonl", "--out", "o.jsonl")
    assert done.returncode == 1, done.stderr
    assert "KeyboardInterrupt\n" in done.stderr
    assert "in step 'many', at one of 10 records from 0 on" in done.stderr


def test_compare_prints_and_exports_its_table(folder):
    done = taktline(folder, "compare", "steps.py:parse", "--in", "in.jsonl", "--rounds", "1", "--export", "t.md")
    assert done.returncode == 0, done.stderr
    for technique in ("loop", "pool (", "queues", "line, batched", "multiprocessing.Pool.imap"):
        assert technique in done.stdout
    assert (folder / "t.md").read_text().count("| identical") == 6


def test_a_table_that_could_not_be_written_is_refused_before_anything_is_measured(folder):
    done = taktline(folder, "compare", "steps.py:parse", "--in", "in.jsonl", "--export", "nowhere/t.md")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--export 'nowhere/t.md': there is no folder" in done.stderr


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("--workers", "-1", "--workers -1: "),
        ("--stall", "0", "or inf for never"),
        ("--filter", "n>3", "--filter is for"),
    ],
)
def test_what_is_wrong_is_said_in_flags(folder, flag, value, says):
    done = taktline(folder, "run", "steps.py:parse", "--in", "in.jsonl", "--out", "o.jsonl", flag, value)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_comparison_fits_a_terminal_and_makes_a_page(folder):
    done = taktline(folder, "compare", "steps.py:parse,fussy,double", "--in", "in.jsonl", "--rounds", "2", "--on-error",
                    "skip", "--export", "t.html")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80, done.stdout
    assert " predicted: loop " in done.stdout
    assert (folder / "t.html").read_text().startswith("<!doctype html>")


def test_a_failed_run_leaves_its_report(folder):
    for name in ("r.json", "r.html"):
        done = taktline(
            folder, "run", "steps.py:parse,fussy", "--in", "in.jsonl", "--out", "out.jsonl", "--report", name
        )
        assert done.returncode == 1
        assert "step 'fussy' failed on record 7" in done.stderr
    left = json.loads((folder / "r.json").read_text())
    assert (left["complete"], left["error"]) == (False, "ValueError: seven, of all")
    assert (left["source"], left["sink"]) == ("in.jsonl", "out.jsonl")
    assert [(each["step"], each["records"]) for each in left["failures"]] == [("fussy", 1)]
    assert "ValueError: seven, of all" in (folder / "r.html").read_text()


def test_the_calls_that_led_to_an_error_are_shown_in_the_users_own_code_alone(folder):
    (folder / "deep.py").write_text(
        "def parse(row):\n    return lower(row)\ndef lower(row):\n    return int('x')\ndef two(a, b):\n    return a\n"
    )
    for how in ("loop", "line"):
        done = taktline(folder, "run", "deep.py:parse", "--in", "in.jsonl", "--out", "out.jsonl", "--how", how)
        assert (
            "  at deep.py:4   return int('x')\n  by deep.py:2   return lower(row)\n  source  in.jsonl:1\n  record "
            in done.stderr
        )
    done = taktline(folder, "run", "deep.py:two", "--in", "in.jsonl", "--out", "out.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error TK100: step 'two' is called with one argument")


def test_a_record_that_fails_and_is_kept_has_a_row_that_says_so(folder):
    for how in ("loop", "line"):
        done = taktline(folder, "run", "steps.py:parse,fussy", "--in", "in.jsonl", "--out", "out.jsonl", "--how", how,
                        "--on-error", "keep")  # fmt: skip
        assert done.returncode == 3, done.stderr
        rows = [json.loads(each) for each in (folder / "out.jsonl").read_text().splitlines()]
        assert rows[6:9:2] == [6, 8]
        said = {"index": 7, "step": "fussy", "error": "ValueError", "message": "seven, of all", "record": "{'n': '7'}"}
        assert rows[7] == {"failed": said}


def test_a_run_leaves_a_trace(folder):
    done = taktline(folder, "run", "steps.py:parse", "--in", "in.jsonl", "--out", "out.jsonl", "--trace", "run.json")
    assert done.returncode == 0, done.stderr
    assert any(each["name"].startswith("batch ") for each in json.loads((folder / "run.json").read_text()))


def test_doctor_starts_workers(folder):
    done = taktline(folder, "doctor")
    assert done.stdout.count("they work") == 3, done.stdout


def test_help_shows_an_example():
    done = taktline(".", "--help")
    assert "taktline run steps.py:parse,enrich,score" in done.stdout


def test_the_demo_runs_on_real_flights_and_says_where_its_pages_lie(folder):
    done = taktline(folder, "demo", "--limit", "3000", "--part", "500", "--pages", "pages of it")
    assert done.returncode == 0, done.stderr
    assert "results identical in all rows" in done.stdout
    assert "3,000 in" in done.stdout
    *told, compared, run = done.stdout.splitlines()
    assert max(map(len, told)) <= 80
    assert [compared.strip(), run.strip()] == [
        str(folder / "pages of it" / name) for name in ("compared.html", "run.html")
    ]
    assert "<svg" in (folder / "pages of it/compared.html").read_text()
    assert "3,000" in (folder / "pages of it/run.html").read_text()


ODD = """
import os
def parse(row):
    return int(row["n"])
def odd_fails(n):
    if n % 2 and not os.path.exists("mended"):
        raise ValueError(f"odd: {n}")
    return {"n": n}
def twenties_fail(n):
    if 20 <= n["n"] < 30:
        raise ValueError("twenty or so")
    return n
"""


@pytest.fixture
def with_letters(folder):
    (folder / "odd.py").write_text(ODD)
    target = ("odd.py:parse,odd_fails", "--in", "in.jsonl", "--out", "out.jsonl", "--dead-letters", "failed.jsonl")
    done = taktline(folder, "run", *target)
    assert done.returncode == 3, done.stderr
    assert "50 dead-lettered (failed.jsonl)" in done.stderr
    assert "\n retry    taktline retry failed.jsonl odd.py:parse,odd_fails --out out.again.jsonl\n" in done.stderr
    assert len((folder / "out.jsonl").read_text().splitlines()) == 50
    (folder / "mended").touch()
    return folder


def numbers(path):
    return [json.loads(text)["n"] for text in path.read_text().splitlines()]


def letters(folder):
    return [json.loads(text)["index"] for text in (folder / "failed.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("journal", [(), ("--journal", "again.journal")])
def test_retry_runs_dead_letters_again_and_keeps_what_still_fails(with_letters, journal):
    folder = with_letters
    target = ("odd.py:parse,odd_fails,twenties_fail", "--how", "line", "--workers", "2", *journal)
    done = taktline(folder, "retry", "failed.jsonl", *target, "--out", "more.jsonl")
    assert done.returncode == 3, done.stderr
    assert "50 run again: 45 went well, 5 still in failed.jsonl" in done.stderr
    assert numbers(folder / "more.jsonl") == [n for n in range(1, 100, 2) if not 20 <= n < 30]
    assert letters(folder) == [21, 23, 25, 27, 29]
    refused = taktline(folder, "retry", "failed.jsonl", *target, "--out", "more.jsonl")
    assert refused.returncode == 2
    assert "there is a file 'more.jsonl' already" in refused.stderr
    done = taktline(folder, "retry", "failed.jsonl", "odd.py:parse,odd_fails", *journal, "--out", "rest.jsonl")
    assert done.returncode == 0, done.stderr
    assert numbers(folder / "rest.jsonl") == [21, 23, 25, 27, 29]
    assert sorted(os.listdir(folder)) == [
        "in.jsonl", "mended", "more.jsonl", "odd.py", "out.jsonl", "rest.jsonl", "steps.py",
    ]  # fmt: skip


GROWS = """
import os
from taktline import expand, line

def grows(order):
    order["lines"] *= 10
    return order

def lines_of(order):
    if order["id"] % 2 and not os.path.exists("mended"):
        order["lines"].clear()
        raise ValueError("odd")
    return [{"id": order["id"], "line": each} for each in order["lines"]]

flow = line(grows, expand(lines_of))
"""


@pytest.mark.parametrize("how", ["loop", "line"])
def test_retry_of_records_that_steps_have_changed_gives_what_the_first_run_would_have_given(folder, how):
    (folder / "grows.py").write_text(GROWS)
    (folder / "orders.jsonl").write_text("".join(f'{{"id": {n}, "lines": [1, 2]}}\n' for n in range(10)))
    run = ("grows.py:flow", "--how", how, "--workers", "1")
    done = taktline(folder, "run", *run, "--in", "orders.jsonl", "--out", "o.jsonl", "--dead-letters", "failed.jsonl")
    assert done.returncode == 3, done.stderr
    (folder / "mended").touch()
    done = taktline(folder, "retry", "failed.jsonl", *run, "--out", "more.jsonl")
    assert done.returncode == 0, done.stderr
    both = [json.loads(text) for name in ("o.jsonl", "more.jsonl") for text in (folder / name).read_text().splitlines()]
    assert sorted((each["id"], each["line"]) for each in both) == sorted((n, k) for n in range(10) for k in [1, 2] * 10)
    done = taktline(folder, "retry", "failed.jsonl", *run, "--out", "x.jsonl", "--dead-letters", "other.jsonl")
    assert done.returncode == 2
    assert not (folder / "failed.jsonl").exists()


def test_retry_leaves_letters_of_lines_that_could_not_be_read(folder):
    (folder / "odd.py").write_text(ODD)
    (folder / "bad.jsonl").write_text('{"n": 1}\n{"n": \n{"n": 2}\n')
    (folder / "worse.jsonl").write_text("{\n")
    for name in ("bad", "worse"):
        letters = f"{name}-failed.jsonl"
        target = ("odd.py:parse,odd_fails", "--in", f"{name}.jsonl", "--out", "out.jsonl", "--dead-letters", letters)
        assert taktline(folder, "run", *target).returncode == 3
    (folder / "mended").touch()
    done = taktline(folder, "retry", "bad-failed.jsonl", "odd.py:parse,odd_fails", "--out", "more.jsonl")
    assert done.returncode == 3, done.stderr
    assert "1 went well, 1 still in bad-failed.jsonl" in done.stderr
    assert "1 of those are lines that could not be read" in done.stderr
    assert numbers(folder / "more.jsonl") == [1]
    (letter,) = (json.loads(text) for text in (folder / "bad-failed.jsonl").read_text().splitlines())
    assert (letter["step"], letter["record"]) == ("(reading)", '{"n": ')
    kept = (folder / "worse-failed.jsonl").read_bytes()
    done = taktline(folder, "retry", "worse-failed.jsonl", "odd.py:parse,odd_fails", "--out", "worse.out.jsonl")
    assert done.returncode == 2
    assert "all letters in" in done.stderr
    assert (folder / "worse-failed.jsonl").read_bytes() == kept


def test_a_retry_that_fails_leaves_the_letters_as_they_were(with_letters):
    folder = with_letters
    before = (folder / "failed.jsonl").read_text()
    done = taktline(folder, "retry", "failed.jsonl", "odd.py:parse", "--out", "no/more.jsonl")
    assert done.returncode == 2
    done = taktline(folder, "retry", "failed.jsonl", "odd.py:parse,object", "--out", "more.jsonl")
    assert done.returncode == 2
    done = taktline(folder, "retry", "failed.jsonl", "odd.py:parse,os.abc", "--out", "more.jsonl")
    assert done.returncode == 2
    done = taktline(folder, "retry", "failed.jsonl", "odd.py:parse", "--out", "more.txt")
    assert done.returncode == 1, done.stderr
    assert "not str" in done.stderr
    assert (folder / "failed.jsonl").read_text() == before
    assert sorted(os.listdir(folder)) == ["failed.jsonl", "in.jsonl", "mended", "odd.py", "out.jsonl", "steps.py"]


def test_a_finished_journal_is_told_and_other_runs_are_refused(folder):
    command = ("run", "steps.py:parse", "--in", "in.jsonl", "--out", "out.jsonl", "--journal", "j", "--limit", "50")
    assert taktline(folder, *command).returncode == 0
    again = taktline(folder, *command)
    assert again.returncode == 0
    assert "already done; delete 'j' to run it again" in again.stderr
    (folder / "j").write_text("scribbled over")
    refused = taktline(folder, *command)
    assert refused.returncode == 2
    assert "error TK410: 'j' is no journal, or was cut off" in refused.stderr


SAYING = """
import os, subprocess, sys
def saying(row):
    os.write(1, b"RAW")
    os.write(2, b"RAW")
    return row
def asking(row):
    subprocess.run(["cat"], stdout=subprocess.DEVNULL, check=True)
    assert sys.stdin.read() == ""
    return row
"""


def shell(folder, command, text=""):
    (folder / "saying.py").write_text(SAYING)
    command = command.replace("taktline", f"{sys.executable} -m taktline.cli.commands", 1)
    return subprocess.run(["sh", "-c", command], cwd=folder, input=text, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("how", ["loop", "line"])
def test_what_steps_say_is_never_in_a_file_when_the_streams_are_closed(folder, how):
    done = shell(folder, f"taktline run saying.py:saying --in in.jsonl --out out.jsonl --how {how} <&- >&- 2>&-")
    assert done.returncode == 0
    assert (folder / "out.jsonl").read_text() == (folder / "in.jsonl").read_text()


@pytest.mark.parametrize("how", ["auto", "loop", "line"])
@pytest.mark.parametrize("name", ["-", "/dev/stdin --in-format jsonl"])
def test_steps_and_their_programs_find_standard_input_empty(folder, how, name):
    done = shell(
        folder, f"taktline run saying.py:asking --in {name} --limit 20 --out out.jsonl --how {how} --workers 2",
        (folder / "in.jsonl").read_text(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len((folder / "out.jsonl").read_text().splitlines()) == 20


@pytest.mark.parametrize(
    ("streams", "code", "message"),
    [
        ("--in - --out out.jsonl <&-", 2, "standard input is closed: there is nothing to read"),
        ("--in in.jsonl --out - >&-", 2, "standard output is closed: there is nowhere to write to"),
        ("--in in.jsonl --out - --quiet >/dev/full", 1, "standard output cannot be written: No space left on device"),
        ("--in in.jsonl --out out.jsonl 2>/dev/full", 0, ""),
        ("--in in.jsonl --out out.jsonl --report gone/a.json", 2, "there is no folder"),
        ("--in in.jsonl --out out.jsonl --report .json/", 2, "name a .json or .html file"),
        ("--in in.jsonl --out out.jsonl --report in.jsonl/a.json", 2, "there is no folder"),
    ],
)
def test_what_is_wrong_with_a_stream_or_a_report_is_said(folder, streams, code, message):
    done = shell(folder, f"taktline run steps.py:parse,double {streams}")
    assert done.returncode == code
    assert message in done.stderr
    assert "TK000" not in done.stderr
    assert (folder / "out.jsonl").exists() == (code == 0)


@pytest.mark.parametrize(
    "command",
    [
        "--help", "run --help", "--version", "doctor", "explain", "explain TK310", "report run.json",
        "plan steps.py:parse --in in.jsonl", "check steps.py:parse --in in.jsonl",
        "compare steps.py:parse --in in.jsonl --limit 9 --rounds 1",
    ],
)  # fmt: skip
def test_a_standard_output_that_takes_no_more_is_told_by_every_command(folder, command):
    if "run.json" in command:
        shell(folder, "taktline run steps.py:parse --in in.jsonl --out out.jsonl --report run.json")
    done = shell(folder, f"taktline {command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error TK520: standard output cannot be written: No space left")
    assert "click" not in done.stderr


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("steps.py", "'steps.py' names no steps; write steps.py:parse,double,fussy"),
        ("steps.py:", "'steps.py:' names no steps; write steps.py:parse,double,fussy"),
        ("other", "'other' names no steps; write file.py:parse,enrich,score or module:flow"),
        ("steps.py:parse,", "'steps.py:parse,' has a comma with no step beside it"),
    ],
)
def test_a_target_that_names_no_steps_is_answered_with_those_of_the_file(folder, target, said):
    done = taktline(folder, "run", target, "--in", "in.jsonl", "--out", "out.jsonl")
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_a_step_that_parses_what_was_parsed_is_told_of_lines_as_text(folder):
    (folder / "parsing.py").write_text("import json\ndef parse(text):\n    return json.loads(text)\n")
    done = taktline(folder, "run", "parsing.py:parse", "--in", "in.jsonl", "--out", "out.jsonl")
    assert "--in-format text gives text" in done.stderr
    done = taktline(folder, "run", "parsing.py:parse", "--in", "in.jsonl", "--out", "out.jsonl", "--in-format", "text")
    assert done.returncode == 0


def test_a_step_that_reckons_with_cells_of_text_is_told_of_types(folder):
    (folder / "in.csv").write_text("id,amount\n1,2\n")
    (folder / "adding.py").write_text("def add(row):\n    return {'sum': row['amount'] + 1}\n")
    done = taktline(folder, "run", "adding.py:add", "--in", "in.csv", "--out", "out.jsonl")
    assert "the cells of such a file are text: --types infer" in done.stderr
    assert (
        taktline(folder, "run", "adding.py:add", "--in", "in.csv", "--out", "out.jsonl", "--types", "infer").returncode
        == 0
    )


def test_a_report_that_cannot_be_written_in_the_end_is_shown_all_the_same(folder):
    (folder / "run.json.new").mkdir()
    done = shell(folder, "taktline run steps.py:parse --in in.jsonl --out out.jsonl --report run.json")
    assert done.returncode == 1
    assert "100 in · 100 out" in done.stderr
    assert "the report" in done.stderr
    assert "The run itself is done" in done.stderr
    assert len((folder / "out.jsonl").read_text().splitlines()) == 100


@pytest.mark.parametrize("command", ["run", "plan", "compare", "check"])
def test_every_command_that_reads_takes_the_options_of_delimited_text(folder, command):
    (folder / "latin.csv").write_bytes('1;Zoë\n2;"Ü\n'.encode("latin-1") * 20)
    (folder / "named.py").write_text("def name(row):\n    return {'n': int(row['id']), 'name': row['name']}\n")
    options = ("--delimiter", ";", "--no-quoting", "--encoding", "latin-1", "--header", "id,name")
    out = ("--out", "out.jsonl") if command == "run" else ()
    done = taktline(folder, command, "named.py:name", "--in", "latin.csv", *options, *out)
    assert done.returncode == 0, done.stderr
    if command == "run":
        assert [json.loads(text)["name"] for text in (folder / "out.jsonl").read_text().splitlines()][:2] == [
            "Zoë",
            '"Ü',
        ]
    done = taktline(folder, command, "named.py:name", "--in", "latin.csv", "--delimiter", ";;", *out)
    assert done.returncode == 2
    assert "--delimiter is one character" in done.stderr


def test_columns_and_types_of_a_table_are_named_on_the_command_line(folder):
    (folder / "t.csv").write_text("n,day,s\n1,2024-01-02,x\n,2024-01-03,7\n")
    (folder / "show.py").write_text("def show(row):\n    return {'row': repr(row)}\n")

    def shown(*options):
        done = taktline(folder, "run", "show.py:show", "--in", "t.csv", "--out", "-", "--quiet", *options)
        return [json.loads(text)["row"] for text in done.stdout.splitlines()] or done.stderr

    assert shown("--types", "n=int", "--columns", "n") == ["{'n': 1}", "{'n': None}"]
    named = repr({"n": "1", "file": str(folder / "t.csv")})
    assert shown("--columns", "n", "--path-column", "file")[0] == named
    assert shown("--types", "infer") == [
        "{'n': 1, 'day': datetime.date(2024, 1, 2), 's': 'x'}", "{'n': None, 'day': datetime.date(2024, 1, 3), 's': '7'}"
    ]  # fmt: skip
    assert "--filter is for Parquet" in shown("--filter", "n>=1")
    assert "'n~1': give column" in shown("--filter", "n~1")
    assert "'n=whole': give \"infer\", or column=type" in shown("--types", "n=whole")
    assert "has no column 'm'" in shown("--types", "m=int")


def test_a_comparison_over_a_record_that_fails_says_which_and_where(folder):
    done = taktline(folder, "compare", "steps.py:parse,fussy", "--in", "in.jsonl", "--rounds", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ValueError: seven, of all" in done.stderr
    assert 'steps.py:11   raise ValueError("seven, of all")' in done.stderr
    assert "at record 7 in the plain loop" in done.stderr
    assert "next    compare records that do not fail" in done.stderr


@pytest.mark.parametrize(("nohup", "code"), [("", 129), ("nohup ", 0)])
def test_a_terminal_that_is_closed_ends_the_command_cleanly_but_not_under_nohup(folder, nohup, code):
    (folder / "hung.py").write_text(
        "import os, signal\ndef up(n):\n    n == 50 and os.kill(os.getpid(), signal.SIGHUP)\n    return n\n"
    )
    (folder / "numbers.jsonl").write_text("".join(f"{n}\n" for n in range(100)))
    done = shell(folder, f"exec {nohup}taktline run hung.py:up --in numbers.jsonl --out o.jsonl --how loop --quiet")
    assert done.returncode == code, done.stderr
    assert (folder / "o.jsonl").exists() == (code == 0)
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_what_is_suggested_can_be_pasted(folder):
    (folder / "s.py").write_text("def f(row):\n    raise ValueError(row)\n")
    (folder / "a.csv").write_text("n,word\n1,a\n2,b\n")
    given = ["--columns", "n,word", "--types", "n=int,word=str", "--delimiter", ",", "--path-column", "file"]
    said = taktline(folder, "run", "s.py:f", "--in", "a.csv", *given, "--out", "o.jsonl").stderr
    suggested = shlex.split(said[said.index("taktline check ") :].partition("\n")[0])
    assert sorted(suggested[5 : 5 + len(given)]) == sorted(given)
    assert taktline(folder, *suggested[1:]).returncode == 1


def test_refusals_of_ends_speak_in_flags(folder):
    (folder / "out").mkdir()
    (folder / "out" / "mine").touch()
    done = taktline(folder, "run", "steps.py:parse", "--in", "in.jsonl", "--out", "out/", "--out-format", "jsonl")
    assert done.returncode != 0
    assert "--mode replace" in done.stderr


def test_where_a_library_raises_the_own_line_is_shown(folder):
    (folder / "s.py").write_text("import pandas\n\ndef f(row):\n    return pandas.Series(row)['nowhere']\n")
    done = taktline(folder, "run", "s.py:f", "--in", "in.jsonl", "--out", "o.jsonl")
    assert "  at s.py:4   return pandas.Series(row)['nowhere']\n  source  in.jsonl:1\n" in done.stderr, done.stderr
