"""flow.plan: what it says of lines whose answer is plain, and what it does to the caller's records (nothing)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from crowded import crowded

from taktline import LineError, Plan, batch, line, read, serial, step, write
from taktline._run.trial import try_out


def spin(n):
    for _ in range(20_000):
        n += 1
    return n


def test_cheap_steps_stay_with_the_loop():
    plan = line(abs, str).plan(range(100_000))
    assert (plan.how, plan.workers) == ("loop", 0)
    assert "stay with the loop" in plan.reasons[0]
    assert plan.records == 100_000


def test_a_plan_says_that_other_programs_had_the_cores_while_it_tried():
    with crowded():
        plan = line(spin).plan(range(2_000))
    assert "Other programs took" in plan.doubt
    for shown in (str(plan), plan._repr_html_()):
        assert plan.doubt in " ".join(shown.split())
    assert json.loads(plan.to_json())["doubt"] == plan.doubt


def test_the_text_says_what_was_measured_what_to_do_and_why():
    plan = line(spin, step(str, name="to text")).plan(range(50_000), workers=2)
    text = str(plan)
    for word in ("spin", "to text", "moving", "do ", "why", "predicted", "64 cores", "workers start in"):
        assert word in text
    assert [each.name for each in plan.steps] == ["spin", "to text"]
    assert plan.steps[0].ns_per_record > plan.steps[1].ns_per_record
    assert {(each.how, each.cores) for each in plan.predictions} >= {
        (how, cores) for how in ("loop", "pool", "queues", "line") for cores in (1, 2, 4, 8, 64)
    }
    assert json.loads(plan.to_json())["how"] == plan.how
    assert "<table" in plan._repr_html_()
    assert isinstance(plan, Plan)


def test_a_step_that_waits_is_told_from_one_that_computes():
    plan = line(lambda n: time.sleep(0.002) or n, spin).plan(range(10_000))
    assert plan.steps[0].computing < 0.3 < 0.7 < plan.steps[1].computing
    assert any("tasks=64" in each for each in plan.advice)


def test_large_records_and_little_work_stay_with_the_loop():
    large = [bytes(400_000) for _ in range(20)]
    plan = line(len).plan(large, length=10_000)
    assert plan.how == "loop"
    assert plan.size_in > 400_000


def test_the_callers_records_are_as_they_were():
    records = [{"n": n} for n in range(50)]

    def change(record):
        record["n"] = -1
        return record

    line(change).plan(records)
    assert records == [{"n": n} for n in range(50)]


def test_a_list_is_whole_afterwards_and_of_an_iterator_it_is_said_how_much_is_gone():
    assert not line(abs).plan([1, 2, 3]).advice
    plan = line(abs).plan(iter(range(100)))
    assert any("used up" in each for each in plan.advice)
    assert not plan.length_known
    assert "length unknown" in str(plan)


def test_the_length_of_a_file_is_reckoned(tmp_path):
    """So the times are for it, and not for any other number of records."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"n": 1}\n' * 20_000)
    plan = line(len).plan(read(path))
    assert (plan.length_known, plan.reckoned) == (False, True)
    assert plan.records == pytest.approx(20_000, rel=0.01)
    assert f"of about {plan.records:,} " in str(plan)
    assert line(len).plan(read(path), length=7).records == 7


def test_a_file_that_workers_read_is_planned_so(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"n": 1}\n' * 2000)
    steps, sink = line(lambda record: spin(record["n"])).steps, write(tmp_path / "out.jsonl")
    found = {
        name: try_out(steps, "line", source, 2, encode).costs
        for name, source, encode in [
            ("file", read(path), sink.encoder), ("list", list(read(path)), write(tmp_path / "out.csv").encoder),
        ]
    }  # fmt: skip
    cut, encode = found["file"].cut, found["file"].encode
    assert cut.size == len('{"n": 1}\n')
    assert cut.pack_ns > 0
    assert encode.size == len("20001\n")
    assert (found["list"].cut, found["list"].encode) == (None, None)
    plan = line(lambda record: spin(record["n"])).plan(read(path), sink, length=10**7, workers=2)
    assert plan.how == "loop" or any("workers read the source and encode the results" in why for why in plan.reasons)
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_a_sink_is_checked_by_a_plan_too():
    with pytest.raises(LineError, match="a sink must be"):
        line(abs).plan([1], 5)


def test_an_empty_source_has_a_plan_too():
    plan = line(abs).plan([])
    assert (plan.how, plan.tried, plan.seconds) == ("loop", 0, 0)
    assert str(plan)


def test_a_record_that_fails_is_named():
    plan = line(int).plan(["1", "x", "2"])
    assert any("record 1 in step 'int'" in each for each in plan.advice)


def test_what_cannot_be_sent_stays():
    assert "cannot be sent" in line(lambda n: threading.Lock()).plan(range(100)).reasons[0]
    held = threading.Lock()
    assert line(lambda n: held.locked() or spin(n)).plan(range(1_000)).how == "loop"


def test_a_batch_step_is_dearer_alone():
    def slow_to_call(numbers):
        spin(0)
        return numbers

    plan = line(batch(slow_to_call, size=100)).plan(range(200_000))
    here = {each.how: each for each in plan.predictions if each.cores == plan.cores}
    assert here["loop"].seconds > 10 * here["line"].seconds


def test_steps_of_the_callers_process_have_no_workers():
    plan = line(serial(abs)).plan(range(1_000))
    assert plan.how == "loop"
    assert "caller's process" in plan.reasons[0]


def test_wrong_use_is_refused_and_a_source_that_fails_says_so():
    with pytest.raises(LineError, match="length"):
        line(abs).plan([1], length=-1)
    with pytest.raises(LineError, match="did you mean"):
        line(abs).plan([1], worker=2)  # type: ignore[call-arg]
    with pytest.raises(ZeroDivisionError):
        line(abs).plan(1 // n for n in range(3))


def test_the_command_prints_the_plan(tmp_path):
    (tmp_path / "steps.py").write_text("def shout(text):\n    return text.upper()\n")
    (tmp_path / "in.txt").write_text("a\nb\n" * 50)
    command = [sys.executable, "-m", "taktline.cli.commands", "plan", "steps.py:shout", "--in", "in.txt"]
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "shout" in text
    assert "100 records tried, of about 100" in text
    found = subprocess.run([*command, "--length", "5", "--json"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert json.loads(found)["records"] == 5


def test_large_values_cost_the_steps_no_more_than_they_cost_the_loop():
    """In the loop each is gone before the next is made; where many stand there at once, fresh memory is what is timed."""
    tried = try_out(line(lambda n: bytes(1_000_000), len).steps, "large", range(500), 2)
    costs = tried.costs
    assert sum(costs.mean_ns(n) for n in range(2)) <= costs.loop_ns * 1.01
