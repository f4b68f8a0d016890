"""Progress of runs from Python: on a real terminal, in a real notebook's kernel, and where there is neither."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest
from views.screen import on_a_terminal, shown

import taktline
from taktline import line
from taktline.views import progress

HEAD = """
import asyncio, logging, sys, threading
from taktline import line, step, batch
from taktline.views import progress, terminal
progress.QUIET, progress.TURN = 0.0, 0.02
drawings = 0
def draws(self, what, *, brief, show=terminal.Region.show):
    global drawings
    show(self, what, brief=brief)
    drawings += self._drawn
terminal.Region.show = draws
def until_drawn(after=50, most=1 << 60):   # records without an end, until progress was drawn twice, and some more
    n = 0
    while drawings < 2 and n < most:
        yield n
        n += 1
    yield from range(n, n + after)
"""
TALKING = """
logging.basicConfig(format="%(message)s")
def talks(n):
    if n % 7 == 0:
        print("said", n)
    elif n % 7 == 1:
        print("to stderr", n, file=sys.stderr)
    elif n % 7 == 2:
        logging.getLogger("steps").warning("logged %s", n)
    elif n % 7 == 3:
        print(*"a line in parts", sep="\\n\\n", end=f" {n}"); print(".", end=""); print()
    elif n % 7 == 4:
        print("x" * 200, n)
    return n
"""
ENTRIES = {
    "iterated": "for each in flow(until_drawn(), **options): pass",
    "run": "flow.run(until_drawn(), **options)",
    "drained": "flow(until_drawn(), **options).drain(lambda each: sys.stdout.write(f'{each}\\n'))",
    "streamed": """
async def main():
    async for each in flow.stream(until_drawn(), **options): pass
asyncio.run(main())
""",
}


def program(body):
    return f"{HEAD}\n{body}\nprint('the end')\n"


@pytest.mark.parametrize("how", ["how='loop'", "how='auto'", "how='line'", "how='line', start='threads'"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_run_is_shown_on_a_terminal_what_steps_print_stays_and_nothing_else(entry, how):
    body = f"{TALKING}\nflow = line(talks, abs)\noptions = dict({how}, batch_size=20, window=200)\n{ENTRIES[entry]}"
    written, code = on_a_terminal(program(body))
    assert code == 0, written
    assert "records · " in written
    lines = shown(written)
    assert not any("records · " in each or "busy" in each for each in lines), lines
    numbers = sorted(int(each.rpartition(" ")[2]) for each in lines if each.startswith("said "))
    assert numbers == list(range(0, numbers[-1] + 1, 7))  # each once, and whole
    last = numbers[-1] + 6
    for start, rest in (("to stderr ", 1), ("logged ", 2)):
        found = sorted(int(each.removeprefix(start)) for each in lines if each.startswith(start))
        assert found[: len(numbers) - 1] == list(range(rest, last - 6, 7))[: len(numbers) - 1]
    assert "the end" in lines


@pytest.mark.parametrize(
    "leaving",
    [
        "run = flow(until_drawn())\nfor each in run:\n    if drawings: break\nrun.close()",
        "for each in flow(until_drawn()):\n    if drawings: break",
        "with flow(until_drawn()) as run:\n    while not drawings: next(run)",
        "kept = flow(until_drawn())\nwhile not drawings: next(kept)",  # it is there until the program ends
        "try:\n    for each in line(lambda n: 1 / (not drawings))(until_drawn()): pass\nexcept ZeroDivisionError: pass",
        "try:\n    for each in flow(until_drawn(), how='line', workers=1):\n        if drawings: raise KeyError\n"
        "except KeyError: pass",
        "print('a line that is not ended', end=' '); flow.run(until_drawn(), how='line', workers=1)",
    ],
)
def test_nothing_is_left_on_the_terminal_however_a_run_ends(leaving):
    written, code = on_a_terminal(program(f"flow = line(abs)\n{leaving}"))
    assert code == 0, written
    assert "records · " in written
    lines = [each for each in shown(written) if each]
    assert lines in (["the end"], ["a line that is not ended", "the end"])


def test_a_thread_that_is_late_draws_nothing_more():
    """On a machine that is busy it may come to draw when the run has ended, or when somebody forks."""
    body = """
from taktline.views.drawing import Doing
region = terminal.Region()
region.stand_in()
region.show(Doing("it", "is early", 0.0), brief=False)
region.withdraw()
region.show(Doing("it", "is late", 0.0), brief=False)
region.stand_in()
region.show(Doing("it", "is there again", 0.0), brief=False)
region.end(None, None)
region.show(Doing("it", "is late", 0.0), brief=False)
"""
    written, code = on_a_terminal(program(body))
    assert code == 0, written
    assert [each in written for each in ("is early", "is there again", "is late")] == [True, True, False]
    assert [each for each in shown(written) if each] == ["the end"]


def test_the_clock_moves_while_a_record_takes_long():
    body = """
def long(n):
    while drawings < 3:
        pass
    return n
line(long).run([1], how="loop", progress=True)
"""
    written, code = on_a_terminal(program(body))
    assert code == 0, written
    assert written.count("◄") == 0  # of one step nobody needs to be told that it is the bottleneck
    assert written.count("records · ") >= 3


def test_a_program_that_iterates_has_one_row_and_a_run_has_all():
    one, _ = on_a_terminal(program("for each in line(abs, str)(until_drawn()): pass"))
    all_, _ = on_a_terminal(program("line(abs, str).run(until_drawn())"))
    assert "\x1b[3A" in all_  # back to the first of four rows
    assert not re.search(r"\x1b\[\d+A", one)


@pytest.mark.parametrize("how", ["loop", "line"])
def test_ctrl_c_comes_at_once_and_leaves_no_row(how):
    body = f"""
import os, signal
def presses():
    while drawings < 2: pass
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=presses, daemon=True).start()
import itertools
try:
    line(abs, str).run(itertools.count(), how={how!r})
except KeyboardInterrupt:
    print("stopped")
"""
    written, code = on_a_terminal(program(body))
    assert code == 0, written
    assert [each for each in shown(written) if each] == ["stopped", "the end"]


def test_the_streams_are_the_programs_own_objects_all_the_time():
    body = """
def looks(n):
    assert sys.stdout is out and sys.stderr is err
    return n
out, err = sys.stdout, sys.stderr
line(looks).run(until_drawn(), how="loop")
assert sys.stdout is out and "write" not in vars(out) and "write" not in vars(err)
"""
    written, code = on_a_terminal(program(body))
    assert code == 0, written


@pytest.mark.parametrize(
    "asks", ["flow.compare(range(20_000), rounds=3)", "flow.plan(range(3000))", "flow.check(range(300))"]
)
def test_what_looks_at_a_line_says_what_it_does_now(asks):
    # However fast the machine is: the first step takes its time in this program until something was drawn.
    body = f"""
import os
here = os.getpid()
def waits(n):
    while not drawings and os.getpid() == here:
        pass
    return n
flow = line(waits, str)
assert {asks} is not None
"""
    written, code = on_a_terminal(program(body))
    assert code == 0, written
    assert f" {asks[5:].partition('(')[0]}: " in written
    assert [each for each in shown(written) if each] == ["the end"]


def test_what_looks_at_a_line_is_seen_while_workers_are_at_work():
    """Its row is withdrawn before workers start, and the runs that it makes show nothing themselves."""
    with progress.Status("compare", True) as say:
        say("round 1 of 3: pool (2)")
        shown = progress.View.now
        progress.withdraw()  # as whoever forks does
        assert shown is not None
        assert progress.View.now is None
        for _ in line(abs)(range(10_000_000), how="line", workers=1, progress=progress.hidden):
            if progress.View.now is shown:
                break
        assert progress.View.now is shown
    assert progress.View.now is progress.View.withdrawn is None


def test_how_long_it_takes_is_never_cut_off():
    from taktline.views.drawing import Doing, rows, text

    says = "round 2 of 3: multiprocessing queues, a process a step, and more of it"
    for left, said in ((24.0, " · about 24.0 s left    01:01"), (0.1, "    01:01")):
        shown = text(rows(Doing("compare", says, 61.0, left)))
        assert shown.endswith(said)
        assert len(shown) < 80


def test_a_run_has_a_length_where_its_results_can_be_counted_before():
    from taktline import batch, expand, keep

    assert len(line(abs, batch(list))(range(9))) == 9
    assert len(line(abs)(range(9), on_error="keep")) == 9
    assert bool(line(abs)([]))
    lines = {"'bool'": line(keep(bool)), "'range'": line(expand(range)), "source": line(abs), "fail": line(abs)}
    sources = {"source": (n for n in range(9))}
    options = {"fail": {"on_error": "skip"}}
    for says, flow in lines.items():
        run = flow(sources.get(says, range(9)), **options.get(says, {}))
        with pytest.raises(TypeError, match=says):
            len(run)
        assert bool(run)


def test_tqdm_over_a_run_knows_how_many_results_come():
    tqdm = pytest.importorskip("tqdm")
    tqdm.tqdm.monitor_interval = 0  # no thread of its own, which would stay
    bar = tqdm.tqdm(line(abs)(range(9)), file=io.StringIO())
    assert bar.total == 9
    assert list(bar) == list(range(9))


def test_a_program_says_once_for_all_runs_whether_they_are_shown():
    script = (
        "import taktline\ntaktline.defaults(progress={})\ntaktline.line(abs, name='a name').run(range(30), progress={})"
    )
    for default, asked, lines in ((True, None, 1), (True, False, 0), (False, True, 1), (False, None, 0)):
        command = [sys.executable, "-c", script.format(default, asked)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert len(done.stderr.splitlines()) == lines, (default, asked)
    with pytest.raises(ValueError, match="defaults"):
        taktline.defaults(progress="yes")


def test_nothing_is_lost_of_what_is_written_past_the_programs_streams():
    body = """
import os
def raw(n):
    os.write(1, b"<%d>\\n" % n)
    return n
line(raw).run(until_drawn(), how="loop")
"""
    written, code = on_a_terminal(program(body))
    assert code == 0
    numbers = [int(number) for number in re.findall(r"^<(\d+)>", "\n".join(shown(written)), re.MULTILINE)]
    assert len(numbers) > 50
    assert numbers == list(range(len(numbers)))


def test_a_run_shows_nothing_where_it_was_told_so_or_in_another_thread_or_is_short():
    quiet = "line(abs).run(until_drawn(most=200_000), how='loop'{more})"
    silent = [
        quiet.format(more=", progress=False"),
        "import os; os.environ['TAKTLINE_PROGRESS'] = '0'\n" + quiet.format(more=""),
        "t = threading.Thread(target=lambda: " + quiet.format(more="") + "); t.start(); t.join()",
        "import os; os.environ['NO_COLOR'] = '1'\n" + quiet.format(more=""),
        "progress.QUIET = 600.0\n" + quiet.format(more=""),
    ]
    for body in silent:
        written, code = on_a_terminal(program(body))
        assert (shown(written), code) == (["the end", ""], 0), body
        assert "\x1b" not in written, body


def test_a_run_inside_a_step_of_a_run_does_not_disturb_what_is_shown():
    body = """
def inner(n):
    line(abs).run(range(200), how="loop", progress=True)
    return n
line(inner).run(until_drawn(after=2), how="loop")
"""
    written, code = on_a_terminal(program(body))
    assert code == 0, written
    assert [each for each in shown(written) if "200 of 200 records" not in each and each] == ["the end"]


def test_a_file_that_output_goes_to_has_the_prints_alone(tmp_path):
    body = f"{TALKING}\nlogging.disable()\nline(talks).run(until_drawn(), how='loop')"
    with open(tmp_path / "out", "wb") as file:
        written, code = on_a_terminal(program(body), stdout=file)
    assert code == 0
    assert "records · " in written
    lines = (tmp_path / "out").read_text()
    assert "\x1b" not in lines
    assert "said 0\n" in lines


@pytest.mark.parametrize(
    ("asked", "variable", "lines"),
    [("None", None, 0), ("True", None, 1), ("True", "0", 0), ("None", "1", 1), ("False", "1", 1), ("None", "0", 0)],
)
def test_without_a_terminal_a_line_is_written_where_it_was_asked_for(asked, variable, lines):
    script = f"from taktline import line\nline(abs, name='a name').run(range(30), progress={asked})"
    env = {**os.environ, "TAKTLINE_PROGRESS": variable or ""}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True)
    assert [each.startswith("a name: 30 of 30 records") for each in done.stderr.splitlines()] == [True] * lines
    assert done.stdout == ""


def test_a_wrong_word_in_the_environment_is_refused_at_the_door(monkeypatch):
    monkeypatch.setenv("TAKTLINE_PROGRESS", "yes")
    with pytest.raises(ValueError, match="TAKTLINE_PROGRESS='yes': give 1"):
        line(abs)([1])


@pytest.mark.parametrize(
    "spoils",
    [
        "sys.stderr.close()", "sys.stderr = None", "sys.stderr = object()", "import os; os.closerange(2, 3)",
        "sys.stderr = open('/dev/full', 'w', buffering=1)",
        "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 2)",
        "sys.stderr.reconfigure(encoding='ascii', errors='strict')",
        "sys.stderr.reconfigure(encoding='shift_jis', errors='strict')",
        "sys.stderr = type('Odd', (), {'write': lambda s, t: 1 / 0, 'isatty': lambda s: True, 'fileno': lambda s: 2})()",
    ],
)  # fmt: skip
@pytest.mark.parametrize("when", ["before", "within"])
def test_a_broken_standard_error_costs_the_run_nothing(spoils, when, tmp_path):
    body = f"""
out = open(sys.argv[1], "w")
def spoil():
    {spoils}
def some():
    {"spoil()" if when == "within" else "pass"}
    yield from range(100)
{"spoil()" if when == "before" else ""}
for asked in (True, None):
    out.write(str(list(line(abs)(some(), how="loop", progress=asked)) == list(range(100))))
out.flush()
import os; os._exit(0)
"""
    on_a_terminal(program(body), str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "TrueTrue"


def test_an_ascii_terminal_is_shown_ascii():
    body = "line(abs).run(until_drawn(), how='loop')"
    written, code = on_a_terminal(program(body), env={"PYTHONIOENCODING": "ascii"})
    assert code == 0
    assert written.isascii()
    assert "records | " in written


def test_a_terminal_is_told_of_by_nothing_that_must_be_installed():
    body = "sys.modules['rich'] = None\nline(abs).run(until_drawn(), how='loop')"
    written, code = on_a_terminal(program(body))
    assert code == 0
    assert "records · " in written


def test_a_step_that_holds_the_stream_itself_can_be_carried_while_progress_is_shown():
    body = """
out = sys.stdout
def talks(n, out=out):
    print(n, file=out)
    return n
line(lambda n: n, talks).run(until_drawn(), how="loop")
def source():
    yield from until_drawn()
    list(line(talks)(range(3), how="line", workers=1, start="launch"))
drawings = 0
line(abs).run(source(), how="loop")
"""
    written, code = on_a_terminal(program(body))
    assert code == 0, written


def test_a_callable_is_given_the_last_snapshot_and_what_it_raises_ends_the_workers():
    seen = []
    line(abs).run(range(100), progress=seen.append)
    assert seen[-1].records_out == 100

    def raises(snapshot):
        if snapshot.records_out == 100:
            raise ValueError("of progress")

    run = line(abs)(range(100), how="line", workers=2, progress=raises)
    results = iter(run)
    next(results)
    engine = run._life.engine
    with pytest.raises(ValueError, match="of progress"):
        list(results)
    assert engine._crew is None  # closed, with its workers


NOTEBOOK = """
from taktline import line
from taktline.views import progress, notebook
progress.QUIET, progress.TURN = 0.0, 0.02
drawings = 0
def draws(self, what, *, brief, show=notebook.Notebook.show):
    global drawings
    show(self, what, brief=brief)
    drawings += 1
notebook.Notebook.show = draws
def waits(n):  # within one record
    while drawings < 3:
        pass
    return n
def run(**options):
    global drawings
    drawings = 0
    return line(waits, name="of cell").run(range(50), how="loop", **options)
"""


def cells(*sources, **environment):
    """The outputs of a notebook's cells, as they stand in its file."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in (NOTEBOOK, *sources)])
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        done = nbclient.NotebookClient(made, timeout=120, kernel_name="python3").execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return [cell.outputs for cell in done.cells[1:]]


def reports(outputs):
    """What kind of output each one is, and how often a report stands in it."""
    return [(each.output_type, str(each.get("data", {}).get("text/html", "")).count("<h3>of cell")) for each in outputs]


def test_a_notebook_shows_one_output_that_becomes_the_report_exactly_once():
    value, statement, again, iterated, short, silent, failed = cells(
        "run()",
        "report = run()",
        "report",
        "drawings = 0\nresults = list(line(waits, name='of cell')(range(50), how='loop'))\nlen(results)",
        "progress.QUIET = 600\nline(abs, name='of cell').run(range(3))",
        "progress.QUIET = 0; drawings = 3\nlen(line(waits)(range(50), progress=False))",
        "def fails(n):\n    if waits(n) == 7: raise KeyError('seven')\n"
        "drawings = 0\ntry:\n    line(fails, name='of cell').run(range(50), how='loop')\nexcept KeyError: pass",
    )
    assert reports(value) == [("display_data", 1)]
    assert reports(statement) == [("display_data", 1)]
    assert reports(again) == [("display_data", 1)]
    assert reports(iterated) == [("display_data", 1), ("execute_result", 0)]
    assert reports(short) == [("display_data", 1)]
    assert reports(silent) == [("execute_result", 0)]
    assert reports(failed) == [("display_data", 1)]
    assert "50 in · 50 out" in value[0].data["text/plain"]


def test_a_notebook_shows_nothing_where_the_environment_says_so():
    (outputs,) = cells("drawings = 3\nlen([*line(waits)(range(50))])", TAKTLINE_PROGRESS="0")
    assert reports(outputs) == [("execute_result", 0)]


def test_the_environment_is_looked_at_in_the_programs_own_main_thread_alone(monkeypatch):
    monkeypatch.setattr(progress, "_where", lambda: "terminal")
    for name in ("TAKTLINE_PROGRESS", "CI"):
        monkeypatch.delenv(name, raising=False)
    assert progress.view_for(None) is None  # under pytest
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert progress.view_for(None) is not None
    monkeypatch.setenv("CI", "true")
    assert progress.view_for(None) is None
    monkeypatch.delenv("CI")
    monkeypatch.setattr(progress.policies, "in_callers_process", False)
    assert progress.view_for(None) is None
