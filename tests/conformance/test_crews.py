"""What every crew must do: the hub knows nothing else of it."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator

import pytest
from crews import CrewHere, Dies

from taktline import expand, per_worker
from taktline._crew.contract import Broken, Came, Crew, Ended, Orders, Ready
from taktline._crew.local import Local
from taktline._crew.threads import ThreadCrew
from taktline._recipe.steps import Step, as_step
from taktline._segment.batch import Batch
from taktline._segment.values import Encoded

CREWS = ["fork", "launch", "threads", "here"]


def dies_at(n: int, *, how: str):
    """A step that ends its worker at this record."""

    def step(record: int) -> int:
        if record == n:
            if how == "here":
                raise Dies
            os.kill(os.getpid(), signal.SIGKILL)
        return record * 10

    return step


def ten_times(n: int) -> int:
    return n * 10


def inverse(n: int) -> float:
    return 60 / n


def joined(results: list[int]) -> bytes:
    return b" ".join(b"%d" % result for result in results)


class Refuses:
    def __init__(self) -> None:
        raise LookupError("no such table")


@pytest.fixture(params=CREWS)
def how(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(how: str) -> Iterator[object]:
    made: list[Crew] = []

    def make(*steps: object, goes_on: bool = True) -> Crew:
        lanes: list[tuple[Step, ...] | None] = [tuple(as_step(step) for step in steps)]
        if how == "here":
            made.append(CrewHere(lanes, goes_on=goes_on))
        elif how == "threads":
            made.append(ThreadCrew(lanes, goes_on=goes_on, most=1 << 20))
        else:
            made.append(Local(lanes, goes_on=goes_on, start=how, most=1 << 20, seeds=[None]))
        return made[-1]

    yield make
    for crew in made:
        crew.close(gently=False)
        crew.close(gently=False)


def until(crew: Crew, kind: type, count: int = 1) -> list:
    """What is heard until so many of a kind have come, all of that kind at the end of it."""
    heard: list = []
    while sum(type(each) is kind for each in heard) < count:
        heard += crew.wait(1)
    return heard


def ready(crew: Crew, *workers: int) -> None:
    for worker in workers:
        crew.start(worker, 0)
    assert {each.worker for each in until(crew, Ready, len(workers))} == set(workers)


def batch(*values: object) -> Batch:
    return Batch(list(values))


def isolated(crew: Crew) -> None:
    """Go on only with a crew whose workers die alone."""
    if not crew.isolates:
        pytest.skip("what ends a worker ends the caller")


def sent(crew: Crew, seq: int, *values: object, orders: Orders = Orders(), attempt: int = 1) -> Batch:  # noqa: B008
    one = batch(*values)
    crew.prepare(one, 0)
    crew.send(0, seq, attempt, one, orders)
    return one


def test_a_batch_comes_back_with_its_number_its_attempt_and_what_the_steps_made_of_it(make):
    crew = make(ten_times)
    ready(crew, 0)
    sent(crew, 7, 1, 2, 3, attempt=4)
    (came,) = until(crew, Came)
    assert came[:3] == (0, 7, 4)
    assert (came.batch.values, came.batch.failures, came.last) == ([10, 20, 30], [], True)
    assert came.figures.records == [3]
    assert came.figures.busy > 0


def test_a_worker_gives_its_batches_back_in_the_order_in_which_it_got_them(make):
    crew = make(ten_times)
    ready(crew, 0)
    for seq in range(20):
        sent(crew, seq, seq)
    assert [(came.seq, came.batch.values) for came in until(crew, Came, 20)] == [(n, [n * 10]) for n in range(20)]


def test_a_large_batch_is_the_hearers_own_whatever_becomes_of_the_worker(make):
    crew = make(bytes)
    ready(crew, 0)
    sent(crew, 0, 1 << 18, 1 << 19)
    (came,) = until(crew, Came)
    crew.kill(0)
    until(crew, Ended)
    assert came.batch.values == [bytes(1 << 18), bytes(1 << 19)]


def test_a_record_that_fails_is_told_in_its_place(make):
    crew = make(inverse)
    ready(crew, 0)
    sent(crew, 0, 1, 0, 2)
    (came,) = until(crew, Came)
    (failure,) = came.batch.failures
    assert came.batch.values == [60.0, 30.0]
    assert (failure.place, failure.origin, failure.step) == (1, 1, "inverse")
    assert isinstance(failure.error, ZeroDivisionError)


@pytest.mark.parametrize("careful", [False, True])
def test_what_failed_before_comes_along(make, careful):
    crew = make(ten_times)
    ready(crew, 0)
    one = batch(1, 2, 3)
    crew.prepare(one, 0, apart=True)
    error = ValueError("earlier")
    one.fail(1, "earlier", error, goes_on=True)
    crew.send(0, 0, 1, one, Orders(careful))
    (came,) = until(crew, Came)
    assert came.batch.values == [10, 30]
    assert [(each.place, each.origin, each.error) for each in came.batch.failures] == [(1, 1, error)]


def test_a_careful_batch_gives_the_same(make):
    crew = make(inverse)
    ready(crew, 0)
    sent(crew, 0, 1, 0, 2, orders=Orders(careful=True))
    (came,) = until(crew, Came)
    assert came.batch.values == [60.0, 30.0]
    assert [each.origin for each in came.batch.failures] == [1]


def test_results_may_come_as_the_bytes_of_a_sink(make):
    crew = make(ten_times)
    ready(crew, 0)
    sent(crew, 0, 1, 2, orders=Orders(encode=joined))
    (came,) = until(crew, Came)
    assert type(came.batch.values) is Encoded
    assert (came.batch.values.data, len(came.batch.values)) == (b"10 20", 2)


def test_an_endless_record_comes_in_parts_two_ahead_and_one_more_for_each_that_is_asked_for(make):
    crew = make(expand(itertools.count), goes_on=False)
    ready(crew, 0)
    sent(crew, 0, 5)
    came = until(crew, Came, 2)
    assert not any(each.last for each in came)
    for _ in range(3):
        assert crew.wait(0.1) == []
        crew.more(0, 0)
        came += until(crew, Came)
    assert [n for each in came for n in each.batch.values] == list(
        range(5, 5 + sum(len(each.batch.values) for each in came))
    )


def test_a_worker_that_dies_is_told_and_its_number_is_free(make, how):
    crew = make(dies_at(3, how=how))
    isolated(crew)
    ready(crew, 0, 1)
    sent(crew, 0, 1, 3)
    (ended,) = until(crew, Ended)
    assert ended[:4] == (0, -9, None, False)
    ready(crew, 0)
    sent(crew, 1, 1, 2)
    assert [came.batch.values for came in until(crew, Came)] == [[10, 20]]


def test_a_careful_worker_that_dies_says_at_which_value(make, how):
    crew = make(ten_times, dies_at(30, how=how))
    isolated(crew)
    ready(crew, 0)
    sent(crew, 4, 1, 2, 3, 4, orders=Orders(careful=True))
    (ended,) = until(crew, Ended)
    assert ended.place[:3] == (4, 2, 1)


def test_a_worker_that_is_killed_ends(make):
    crew = make(ten_times)
    ready(crew, 0)
    crew.kill(0)
    (ended,) = until(crew, Ended)
    assert ended[:3] == (0, -9 if crew.isolates else None, None)


def test_what_a_worker_is_told_that_has_just_ended_is_lost(make):
    crew = make(ten_times)
    ready(crew, 0)
    crew.kill(0)
    sent(crew, 0, 1)
    crew.more(0, 0)
    crew.kill(0)
    assert [each.worker for each in until(crew, Ended)] == [0]
    sent(crew, 1, 1)
    crew.more(0, 1)
    assert crew.holds(0) == 0
    crew.end(0)
    ready(crew, 0)


def test_nothing_is_heard_of_a_worker_that_may_end_and_its_number_is_free_at_once(make):
    crew = make(ten_times)
    ready(crew, 0)
    crew.end(0)
    ready(crew, 0)
    sent(crew, 0, 1)
    assert [type(each) for each in until(crew, Came)] == [Came]


def test_steps_that_cannot_be_built_are_told(make):
    crew = make(per_worker(Refuses))
    crew.start(0, 0)
    broken = until(crew, Broken)[-1]
    assert broken.worker == 0
    assert isinstance(broken.error, LookupError)


def test_a_wait_in_which_nothing_happens_ends(make):
    crew = make(ten_times)
    ready(crew, 0)
    assert crew.wait(0.01) == []
    assert set(crew.look()) == {0}
