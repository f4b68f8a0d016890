"""The fault suite over taktline: each fast scenario with `line`, whose workers are forked
there, every second one with launched workers or one of the other techniques in turn too; and
over the standard library, where its verdicts are known. `python3 dev.py faults` runs all of them with all."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from faults.__main__ import guarded, settled
from faults.chaos import chaos
from faults.guard import Result
from faults.scenario import Complete, FailsAt, Seen, Told, Verdict, names
from faults.scenarios import scenario, scenarios

OTHERS = (
    "taktline launched",
    "taktline auto",
    "taktline launched",
    "taktline pool",
    "taktline queues",
    "taktline threads",
    "taktline agents",
    "taktline loop",
)
FAST = [each.name for each in scenarios() if each.fast]
PAIRS = [("taktline line", name) for name in FAST]
PAIRS += [
    (other, name)
    for other, name in zip(itertools.cycle(OTHERS), FAST[::2], strict=False)
    if other != "taktline agents" or "command" not in scenario(name).needs  # the command knows no agents without Ray
]


@pytest.fixture(scope="module")
def verdicts(request):
    """The verdict of each pair that is asked for; two runs at once, as they mostly wait."""
    asked = [item.callspec.params["pair"] for item in request.session.items if "verdicts" in item.fixturenames]
    threads = ThreadPoolExecutor(2)
    futures: dict[tuple[str, str], Future[Result]] = {
        pair: threads.submit(settled, pair[0], scenario(pair[1])) for pair in asked
    }
    yield futures
    threads.shutdown(cancel_futures=True)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: ": ".join(pair))
def test_taktline_passes(verdicts, pair):
    result = verdicts[pair].result()
    if result.verdict in (Verdict.NOTHING_TO_ASK, Verdict.NOT_HERE):
        pytest.skip(f"{result.verdict.value}: {result.why}")
    assert result.verdict is Verdict.PASS, result.why


@pytest.mark.parametrize(
    ("adapter", "name", "verdict"),
    [
        ("loop", "nothing goes wrong", Verdict.PASS),
        ("loop", "a record that kills its worker: SIGKILL", Verdict.NOTHING_TO_ASK),
        ("loop", "dead letters", Verdict.NOT_OFFERED),
        ("loop", "failed records are left out", Verdict.NOT_OFFERED),
        ("loop", "the error says which record it was", Verdict.UNCLEAR),
        ("Pool.imap", "functions without a name", Verdict.NOT_OFFERED),
        ("Pool.imap", "StopIteration in a step", Verdict.LOSS),
        ("Pool.imap", "a record that kills its worker: SIGKILL", Verdict.HANG),
        ("ProcessPoolExecutor.map", "an endless source", Verdict.UNBOUNDED),
        ("ProcessPoolExecutor.map", "SIGKILL to the caller, a step asleep", Verdict.LEFT),
    ],
    ids=str,
)
def test_the_suite_sees_what_it_is_made_to_see(adapter, name, verdict):
    limit = 10.0 if verdict is Verdict.HANG else 120.0  # the others end, however busy the machine is
    assert guarded(adapter, scenario(name), limit=limit).verdict is verdict


def test_no_two_scenarios_have_one_name():
    assert len({each.name for each in scenarios()}) == len(scenarios())


def seen(told, **others):
    return Seen(**{"ended": True, "exit_code": 0, "seconds": 1.0, "told": [told], "left": [], "output": "", "errors": "",
                   "beyond": "", "folder": None, **others})  # fmt: skip


@pytest.mark.parametrize(
    ("expect", "told", "verdict"),
    [
        (Complete(), Told(results=3, due=3, same_until=3), Verdict.PASS),
        (Complete(), Told(results=2, due=3, same_until=2), Verdict.LOSS),
        (Complete(), Told(results=3, due=3, same_until=1, same_sorted=True), Verdict.ORDER),
        (Complete(), Told(results=3, due=3, same_until=1), Verdict.LOSS),
        (Complete(), Told(error="ValueError: bad"), Verdict.UNCLEAR),
        (Complete(), Told(wrong="left behind: a file"), Verdict.LEFT),
        (FailsAt(7), Told(results=7, same_until=7, error="bad record 7"), Verdict.PASS),
        (FailsAt(7), Told(results=7, same_until=7, error="bad record 500,007"), Verdict.UNCLEAR),
        (FailsAt(7), Told(results=7, same_until=7), Verdict.LOSS),
        (FailsAt(7), Told(results=5, same_until=5, error="bad record 7"), Verdict.UNCLEAR),
        (FailsAt(7, ("ValueError",)), Told(results=7, same_until=7, error="KeyError: 7"), Verdict.UNCLEAR),
    ],
    ids=repr,
)
def test_verdicts_follow_from_what_was_seen(expect, told, verdict):
    assert expect.judge(seen(told))[0] is verdict
    assert expect.judge(seen(told, ended=False))[0] is Verdict.HANG


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("at record 1,733 in step", True),
        ("at record 1733", True),
        ("the value 501733", True),
        ("File x.py, line 1733, in f", False),
        ("record 11733 or 17331", False),
    ],
)
def test_an_error_names_a_record_by_index_or_value(text, named):
    assert names(text, 1_733) is named


@pytest.mark.parametrize("job", ["lines", "parquet", "partitions"])  # python3 dev.py chaos --job folders: all
def test_nothing_is_lost_or_doubled_while_everything_is_killed(job):
    seed = random.SystemRandom().randrange(1 << 32)
    toll = chaos(kills=6 if job == "lines" else 3, records=3_000, seed=seed, name=job)
    assert toll.clean, f"seed {seed}: {toll}"
