"""Steps that hold anything, and one exception object for all records: an answer in bounded time and room."""

from __future__ import annotations

import sys
from itertools import islice
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from taktline import (
    Failed,
    LineError,
    StepError,
    batch,
    expand,
    keep,
    line,
    per_worker,
    read_dead_letters,
    serial,
    step,
)

EVERY = ["loop", "pool", "queues", "line", "auto"]


class Node:
    def __init__(self, behind=None):
        self.behind = behind


def chain(length):
    node = None
    for _ in range(length):
        node = Node(node)
    return node


def ring():
    node = Node()
    node.behind = Node(node)
    return node


def nested(depth):
    inner = []
    for _ in range(depth):
        inner = [inner]
    return inner


def network(size):
    return {n: {(n * 7 + k) % size: {"weight": k} for k in range(3)} for n in range(size)}


GRAPHS = [lambda: chain(100_000), lambda: nested(100_000), ring, lambda: network(20_000)]


@pytest.mark.parametrize("how", EVERY)
@pytest.mark.parametrize("mock", [Mock, MagicMock])
def test_a_mock_is_a_step_like_any_other(mock, how):
    assert list(line(mock(return_value=5))(range(40), how=how, workers=1)) == [5] * 40
    assert list(line(keep(mock(return_value=False)), expand(mock(return_value=(1, 2))))(range(9), how=how)) == []
    assert repr(line(mock(), step(mock(), name="mine"))).startswith(f"line({mock.__name__}, mine")


def test_a_mock_that_is_async_is_awaited():
    assert list(line(AsyncMock(return_value=5))(range(9), how="loop")) == [5] * 9


@pytest.mark.parametrize("how", EVERY)
@pytest.mark.parametrize("make", GRAPHS)
def test_a_closure_over_a_graph_ends_in_results_or_in_why_it_cannot_go(make, how):
    graph = make()
    flow = line(lambda n: n + (graph is not None))
    too_deep = make not in GRAPHS[2:]
    if too_deep and how not in ("loop", "auto"):
        with pytest.raises(LineError, match="cannot be carried over"):
            flow(range(50), how=how, workers=1, start="launch")
    else:
        assert list(flow(range(50), how=how, workers=1)) == list(range(1, 51))
    assert list(line(step(lambda n: n + (graph is not None), kind="inline"))(range(9), how=how)) == list(range(1, 10))


@pytest.mark.parametrize("how", ["pool", "line"])
def test_a_record_that_is_such_a_graph_costs_itself_alone(how):
    records = [1, chain(100_000), ring(), 2]
    results = list(line(lambda record: type(record).__name__)(records, how=how, workers=1, on_error="keep"))
    assert [each.index if type(each) is Failed else each for each in results] == ["int", 1, "Node", "int"]
    assert isinstance(results[1].error, StepError)


# --- one exception object, raised again and again ---

ONE = ValueError("the same for all")


def fails(n):
    raise ONE


def fails_in_another(n):
    try:
        raise KeyError(n)
    except KeyError:
        raise ONE  # noqa: B904


async def fails_later(n):
    raise ONE


RAISE = {
    "step": fails, "handling another": fails_in_another, "tries": step(fails, retries=2, backoff=0),
    "batch": batch(fails), "like": batch(fails, like=fails), "async": fails_later, "threads": step(fails, tasks=4),
    "serial": serial(fails), "keep": keep(fails), "expand": expand(fails), "batch that waits": batch(fails_later, 10),
    "built": per_worker(lambda: fails),
}  # fmt: skip


@pytest.fixture(autouse=True)
def as_new():
    yield
    ONE.__traceback__ = ONE.__context__ = None
    ONE.__dict__.clear()


@pytest.mark.parametrize("how", ["loop", "line"])
@pytest.mark.parametrize("kind", RAISE)
def test_one_exception_object_raised_1500_times_does_not_grow(kind, how, tmp_path):
    letters = tmp_path / "letters.jsonl"
    line(RAISE[kind]).run(range(1_500), how=how, workers=1, dead_letters=letters)
    sizes = [len(text) for text in letters.read_text().splitlines()]
    assert len(sizes) == 1_500
    assert max(sizes) < 2 * min(sizes) + 1_000  # the first has as much to tell as the last
    assert [letter.index for letter in islice(read_dead_letters(letters), 3)] == [0, 1, 2]
    depth, tb = 0, ONE.__traceback__
    while tb is not None:
        depth, tb = depth + 1, tb.tb_next
    assert depth < 30


@pytest.mark.parametrize("how", ["loop", "line"])
def test_each_record_is_told_of_apart_where_they_share_an_exception(how):
    failed = list(line(fails)(range(200), how=how, workers=1, on_error="keep"))
    assert all(type(each) is Failed and type(each.error) is ValueError for each in failed)
    for n, each in enumerate(failed):
        notes = [note for note in each.error.__notes__ if note.startswith("at record")]
        assert len(notes) == 1
        assert notes[0].startswith(f"at record {n} in step")


def test_runs_that_end_in_the_same_exception_object_add_no_note_each():
    flow = line(fails)
    for _ in range(50):
        with pytest.raises(ValueError, match="the same") as caught:
            list(flow([7], how="loop"))
    assert caught.value is ONE
    assert len(ONE.__notes__) < 10


def test_what_a_batch_step_raises_alone_is_no_consequence_of_what_it_raised_before():
    def divide(numbers):
        return [1 / n for n in numbers]

    (failed,) = (
        each for each in line(batch(divide))([1, 2, 0, 3] * 1, how="loop", on_error="keep") if type(each) is Failed
    )
    assert failed.error.__context__ is None
    flow = line(batch(lambda xs: xs * divide(xs.tolist()), form="numpy"))
    bad = [each for each in flow([4, 5, 0, 6], how="line", workers=1, on_error="keep") if type(each) is Failed]
    assert "During handling" not in "".join(bad[0].error.__notes__)
    assert sys.exc_info() == (None, None, None)
