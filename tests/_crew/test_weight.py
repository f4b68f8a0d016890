"""What steps carry to launched workers is named with its size, and is part of what `auto` reckons with."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from taktline import line
from taktline._crew.weight import Weight, weigh
from taktline._planner.choose import Sample, choose

PROGRAM = """
import sys
from taktline import line
TABLE = {str(n): n for n in range(300_000)}
def parse(n): return str(n)
"""
HOLDERS = {
    "a global": "def enrich(key): return TABLE[key]",
    "a default": "def enrich(key, table=TABLE): return table[key]",
    "a closure": "def made(table): return lambda key: table[key]\nenrich = made(TABLE)\nenrich.__name__ = 'enrich'",
    "a method": "class Shop:\n    def __init__(self): self.table = TABLE\n    def enrich(self, key): return self.table[key]\n"
    "enrich = Shop().enrich",
    "a partial": "import functools\ndef look(table, key): return table[key]\nenrich = functools.partial(look, TABLE)",
}


def say(code: str, folder: Path) -> list[str]:
    (folder / "program.py").write_text(code)
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("holder", HOLDERS)
def test_the_step_that_carries_much_is_named_with_its_size_where_workers_are_launched_alone(holder, tmp_path):
    code = f"""{PROGRAM}{HOLDERS[holder]}
from taktline import step
flow = line(parse, step(enrich, name="enrich"))
for start in ("launch", "fork"):
    run = flow(range(60), how="line", workers=2, start=start)
    assert list(run) == list(range(60))
    print([reason[:21] for reason in run.report.reasons if " MB to each launched worker" in reason])
"""
    assert say(code, tmp_path) == ["[\"step 'enrich' carries\"]", "[]"]


def test_plan_and_check_name_it_too(tmp_path):
    code = f"""{PROGRAM}{HOLDERS["a global"]}
flow = line(parse, enrich)
print([reason[:21] for reason in flow.plan(range(60), start="launch").reasons if " MB to each launched worker" in reason])
print([reason[:21] for reason in flow.plan(range(60), start="fork").reasons if " MB to each launched worker" in reason])
print([(each.step, each.advice) for each in flow.check(range(60)).findings if each.kind == "carry"])
"""
    assert say(code, tmp_path) == ["[\"step 'enrich' carries\"]", "[]", "[('enrich', True)]"]


def test_what_is_small_is_not_spoken_of():
    run = line(abs)(range(60), how="line", workers=1, start="launch")
    assert list(run) == list(range(60))
    assert not [reason for reason in run.report.reasons if "carries" in reason]


def test_no_more_is_packed_to_find_out_than_there_is_time_for():
    table = {str(n): n for n in range(300_000)}
    steps = line(lambda n: table[str(n)]).steps
    weight = weigh(steps, 0.0)
    assert weight is not None
    assert not weight.whole
    assert weight.size < 1 << 20
    assert weight.start_up(2, 2) == float("inf")
    whole = weigh(steps, float("inf"))
    assert whole is not None
    assert whole.whole
    assert whole.size > 3_000_000


def test_auto_moves_only_where_what_is_carried_pays():
    dear = Sample(32, 50, 500_000, 1.0, 0, 500, 500, 500, 500)  # 0.5 ms a record
    light, heavy = Weight((("look", 1_000),), 0.001), Weight((("look", 50_000_000),), 1.0)

    def moves(weight: Weight, remaining: int) -> bool:
        found = choose(dear, workers=2, cores=2, remaining=remaining, elapsed=1, start_up=0.05 + weight.start_up(2, 2))
        return found.move

    assert moves(light, 2_000)
    assert not moves(heavy, 2_000)
    assert moves(heavy, 100_000)


def test_under_auto_a_table_that_costs_more_than_the_work_stays_here(tmp_path):
    code = textwrap.dedent("""
        import time
        from taktline import line
        class Row:
            def __init__(self, n): self.n = n
            def __reduce__(self):
                time.sleep(0.001)
                packed.append(self.n)
                return Row, (self.n,)
        packed = []
        TABLE = {n: Row(n) for n in range(20_000)}
        def look(n):
            time.sleep(0.001)
            return TABLE[n].n
        run = line(look)(range(600), start="launch", workers=2)
        print(list(run) == list(range(600)), run.report.how, len(packed) < 2_000)
        print("carries more than" in run.report.reasons[0])
    """)
    assert say(code, tmp_path) == ["True loop True", "True"]
