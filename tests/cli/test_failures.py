"""What the command says of what went wrong, put together from parts: each sentence stands, and each command can be pasted."""

from __future__ import annotations

import io
import os
import shlex

import pytest

import taktline
from taktline import BatchLengthError, LineError, StepError, WorkerDied, line
from taktline._run.failures import says
from taktline.cli.failures import described, fitting
from taktline.cli.target import line_of
from taktline.cli.wording import Asked
from taktline.errors import DAMAGED_EXIT_CODE, Hanging, Stalled, placed


@pytest.fixture
def asked():
    found = Asked()
    found.opens("steps.py:price", "or ders.jsonl", {"format": None})
    return found


@pytest.mark.parametrize(
    ("exit_code", "says"),
    [
        (3, "the worker ended by itself with exit code 3 at record 7 in step 'price'"),
        (-11, "the worker was killed by SIGSEGV at record 7 in step 'price'"),
        (-9, "the worker was killed by SIGKILL at record 7 in step 'price', often because memory ran out"),
        (None, "the worker was lost at record 7 in step 'price'"),
        (
            DAMAGED_EXIT_CODE,
            "the worker was ended, since descriptors that are not the step's own had been closed or written to, at",
        ),
    ],
)
def test_how_a_worker_ended_is_a_sentence(exit_code, says):
    assert str(WorkerDied(index=7, step="price", exit_code=exit_code)).startswith(says)


def test_one_record_is_one():
    assert "was given 1 record and returned 0 results" in str(BatchLengthError(step="few", given=1, returned=0))
    assert "was given 2,000 records and returned 1 result." in str(BatchLengthError(step="few", given=2000, returned=1))


@pytest.mark.parametrize(
    "error",
    [
        WorkerDied(index=7, step="price", exit_code=-9, excerpt="{'id': 7}"),
        StepError(step="price", type_name="SystemExit", text="4", why="so it is wrapped"),
        StepError(step="price", type_name="TypeError", text="", why="its result cannot be sent", moving=True),
        ValueError("bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_at_a_record_shows_it_once_and_how_to_try_it_alone(asked, error):
    said = described(placed(error, index=7, step="price", record={"id": 7}, source="or ders.jsonl:8"), asked)
    lines = said.splitlines()
    assert lines.count("  record  {'id': 7}") == 1
    assert lines.count("  source  or ders.jsonl:8") == 1
    command = lines[-1].partition("try this one: ")[2]
    assert shlex.split(command) == ["taktline", "check", "steps.py:price", "--in", "or ders.jsonl", "--record", "7"]
    assert all(each.startswith("  ") for each in lines[1:])
    assert ": \n" not in f"{said}\n"
    assert sum(each.startswith("  next ") for each in lines) == 1


def test_a_step_that_ends_the_program_is_shown_with_the_users_own_line(asked):
    def price(order):
        raise SystemExit(order)

    with pytest.raises(StepError) as raised:
        list(line(price)([4], how="loop"))
    said = described(raised.value, asked)
    assert "raise SystemExit(order)" in said
    assert "_segment" not in said


def test_an_exception_of_several_lines_stays_in_its_block(asked):
    said = described(placed(ValueError("first\nsecond"), index=7, step="price", record=1), asked)
    assert "  ValueError: first\n    second\n" in said


def test_notes_speak_in_flags_and_paths_are_named_from_this_folder(asked):
    error = ValueError("bad")
    error.add_note('at record 5\n  record  {"on_error": "on_error=skip"}\n  next    leave such out: on_error="skip"')
    said = described(error, asked)
    assert '  record  {"on_error": "on_error=skip"}' in said
    assert said.endswith("leave such out: --on-error skip")
    here = described(LineError(f"{os.path.join(os.getcwd(), 'a.jsonl')!r} is empty"), asked)
    assert here == "error TK100: 'a.jsonl' is empty"


def test_where_a_worker_hangs_is_told_by_the_users_calls_alone():
    ours = os.path.join(os.path.dirname(taktline.__file__), "_crew", "worker.py")
    calls = [
        'File "steps.py", line 3 in slow',
        'File "<taktline timed>", line 6 in run',
        f'File "{ours}", line 9 in live',
    ]
    stack = "\n".join(["Stack (most recent call first):", *calls])
    said = str(Stalled(seconds=2, workers=(Hanging(0, 5, 7, None, "slow", "", stack),)))
    assert calls[0] in said
    assert not any(each in said for each in calls[1:])
    elsewhere = str(
        Hanging(0, 5, None, (1, 3), None, "", "\n".join([f'File "{ours}", line {n} in read' for n in range(40)]))
    )
    assert 1 < elsewhere.count("\n") < 10


def test_a_file_that_is_no_python_is_named_with_its_line(tmp_path):
    (tmp_path / "steps.py").write_text("\ndef f(:\n")
    with pytest.raises(LineError) as raised:
        line_of(f"{tmp_path / 'steps.py'}:f")
    assert str(raised.value).endswith("SyntaxError: invalid syntax (steps.py, line 2)")


def test_letters_of_lines_alone_are_not_to_be_run_again(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n{"n"\n')
    source, letters = taktline.read(tmp_path / "in.jsonl"), tmp_path / "failed.jsonl"
    report = line(dict).run(source, dead_letters=letters, progress=False)
    assert (report.dead_lettered, report.retry) == (1, "")


class Screen(io.StringIO):
    """A terminal, as far as its width goes: it has no descriptor, so that is what most have."""

    def isatty(self):
        return True


def test_on_a_terminal_the_sentences_of_an_error_are_folded_and_code_data_and_commands_are_not(asked):
    long = "word " * 30
    error = placed(
        ValueError(long),
        index=7,
        step="price",
        record="x" * 100,
        traceback=f'  File "s.py", line 1, in f\n    {long}\n',
    )
    text = described(error, asked)
    lines = fitting(text, Screen()).splitlines()
    whole = [each for each in lines if len(each) > 80]
    assert [each.split()[0] for each in whole] == ["at", "record", "try"]
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    assert fitting(text, io.StringIO()) == text


def test_a_reason_has_the_code_by_which_it_can_be_looked_up():
    assert says(WorkerDied(index=7, step="price", exit_code=-9)).startswith("TK310 WorkerDied: the worker was killed")
    assert says(ValueError("bad")) == "ValueError: bad"
