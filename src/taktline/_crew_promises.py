"""What every crew must do, a function a promise, for the tests of those who write one: `taktline.testing.check_crew`.

Each is given `make(*steps, goes_on=True)`, which makes a crew with these steps as its only lane, and `dies`, which ends the
worker that calls it. It raises AssertionError where the promise is not kept, and leaves the crew for its maker to close.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import Callable
from time import sleep
from typing import Any, Protocol

from taktline._crew.contract import PLAIN_ORDERS, Broken, Came, Crew, Ended, Orders, Ready
from taktline._recipe.steps import expand, per_worker
from taktline._segment.batch import Batch
from taktline._segment.values import Encoded

Dies = Callable[[], object]


class Make(Protocol):
    """Makes a crew with these steps as its only lane."""

    def __call__(self, *steps: Any, goes_on: bool = True) -> Crew: ...


def killed() -> None:
    """End this process, as the system does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at(n: int, dies: Dies) -> Callable[[int], int]:
    """A step that ends its worker at this record."""

    def step(record: int) -> int:
        if record == n:
            dies()
        return record * 10

    return step


def ten_times(n: int) -> int:
    """A step."""
    return n * 10


def inverse(n: int) -> float:
    """A step that fails at 0."""
    return 60 / n


def joined(results: list[int]) -> bytes:
    """The bytes of a sink."""
    return b" ".join(b"%d" % result for result in results)


class Refuses:
    """A step that cannot be built."""

    def __init__(self) -> None:
        raise LookupError("no such table")

    def __call__(self, record: object) -> object:
        """Nothing comes to this."""
        return record


class ClosesSlowly:
    """A step that writes a file when it is closed, and takes some time for it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, record: object) -> object:
        return record

    def close(self) -> None:
        """As a database that is slow to answer."""
        sleep(1.5)
        os.close(tempfile.mkstemp(dir=self._folder)[0])


def until(crew: Crew, kind: type, count: int = 1) -> list[Any]:
    """What is heard until so many of a kind have come."""
    heard: list[Any] = []
    while sum(type(each) is kind for each in heard) < count:
        heard += crew.wait(1)
    return [each for each in heard if type(each) is kind]


def ready(crew: Crew, *workers: int) -> None:
    """Start these workers, and wait for them."""
    for worker in workers:
        crew.start(worker, 0)
    assert {each.worker for each in until(crew, Ready, len(workers))} == set(workers)


def sent(crew: Crew, seq: int, *values: object, orders: Orders = PLAIN_ORDERS, attempt: int = 1) -> Batch:
    """A batch of these values that worker 0 was given."""
    one = Batch(list(values))
    crew.prepare(one, 0)
    crew.send(0, seq, attempt, one, orders)
    return one


def a_batch_comes_back_with_its_number_its_attempt_and_what_the_steps_made_of_it(make: Make, dies: Dies) -> None:
    crew = make(ten_times)
    ready(crew, 0)
    sent(crew, 7, 1, 2, 3, attempt=4)
    (came,) = until(crew, Came)
    assert came[:3] == (0, 7, 4)
    assert (came.batch.values, came.batch.failures, came.last) == ([10, 20, 30], [], True)
    assert came.figures.records == [3]
    assert came.figures.busy > 0


def a_worker_gives_its_batches_back_in_the_order_in_which_it_got_them(make: Make, dies: Dies) -> None:
    crew = make(ten_times)
    ready(crew, 0)
    for seq in range(20):
        sent(crew, seq, seq)
    assert [(came.seq, came.batch.values) for came in until(crew, Came, 20)] == [(n, [n * 10]) for n in range(20)]


def a_large_batch_is_the_hearers_own_whatever_becomes_of_the_worker(make: Make, dies: Dies) -> None:
    crew = make(bytes)
    ready(crew, 0)
    sent(crew, 0, 1 << 18, 1 << 19)
    (came,) = until(crew, Came)
    crew.kill(0)
    until(crew, Ended)
    assert came.batch.values == [bytes(1 << 18), bytes(1 << 19)]


def a_record_that_fails_is_told_in_its_place(make: Make, dies: Dies) -> None:
    crew = make(inverse)
    ready(crew, 0)
    sent(crew, 0, 1, 0, 2)
    (came,) = until(crew, Came)
    (failure,) = came.batch.failures
    assert came.batch.values == [60.0, 30.0]
    assert (failure.place, failure.origin, failure.step) == (1, 1, "inverse")
    assert isinstance(failure.error, ZeroDivisionError)


def what_failed_before_comes_along(make: Make, dies: Dies) -> None:
    for careful in (False, True):
        crew = make(ten_times)
        ready(crew, 0)
        one = Batch([1, 2, 3])
        crew.prepare(one, 0, apart=True)
        error = ValueError("earlier")
        one.fail(1, "earlier", error, goes_on=True)
        crew.send(0, 0, 1, one, Orders(careful))
        (came,) = until(crew, Came)
        assert came.batch.values == [10, 30]
        assert [(each.place, each.origin, each.error) for each in came.batch.failures] == [(1, 1, error)]


def a_careful_batch_gives_the_same(make: Make, dies: Dies) -> None:
    crew = make(inverse)
    ready(crew, 0)
    sent(crew, 0, 1, 0, 2, orders=Orders(careful=True))
    (came,) = until(crew, Came)
    assert came.batch.values == [60.0, 30.0]
    assert [each.origin for each in came.batch.failures] == [1]


def results_may_come_as_the_bytes_of_a_sink(make: Make, dies: Dies) -> None:
    crew = make(ten_times)
    ready(crew, 0)
    sent(crew, 0, 1, 2, orders=Orders(encode=joined))  # type: ignore[arg-type]
    (came,) = until(crew, Came)
    assert type(came.batch.values) is Encoded
    assert (bytes(came.batch.values.data), len(came.batch.values)) == (b"10 20", 2)


def large_bytes_of_a_sink_stay_as_they_were_while_others_come(make: Make, dies: Dies) -> None:
    crew = make(ten_times)
    ready(crew, 0)
    held = []
    for seq in range(40):
        sent(crew, seq, *[seq] * 50_000, orders=Orders(encode=joined))  # type: ignore[arg-type]
        held += until(crew, Came)
    for came in held:
        assert bytes(came.batch.values.data) == joined([came.seq * 10] * 50_000)


def an_endless_record_comes_in_parts_two_ahead_and_one_more_for_each_that_is_asked_for(make: Make, dies: Dies) -> None:
    crew = make(expand(itertools.count), goes_on=False)
    ready(crew, 0)
    sent(crew, 0, 5)
    came = until(crew, Came, 2)
    assert not any(each.last for each in came)
    for _ in range(3):
        assert crew.wait(0.1) == []
        crew.more(0, 0)
        came += until(crew, Came)
    numbers = [n for each in came for n in each.batch.values]
    assert numbers == list(range(5, 5 + len(numbers)))


def a_worker_that_dies_is_told_and_its_number_is_free(make: Make, dies: Dies) -> None:
    crew = make(dies_at(3, dies))
    if not crew.isolates:
        return
    ready(crew, 0, 1)
    sent(crew, 0, 1, 3)
    (ended,) = until(crew, Ended)
    assert ended[:4] == (0, -9, None, False)
    ready(crew, 0)
    sent(crew, 1, 1, 2)
    assert [came.batch.values for came in until(crew, Came)] == [[10, 20]]


def a_careful_worker_that_dies_says_at_which_value(make: Make, dies: Dies) -> None:
    crew = make(ten_times, dies_at(30, dies))
    if not crew.isolates:
        return
    ready(crew, 0)
    sent(crew, 4, 1, 2, 3, 4, orders=Orders(careful=True))
    (ended,) = until(crew, Ended)
    assert ended.place[:3] == (4, 2, 1)


def a_worker_that_is_killed_ends(make: Make, dies: Dies) -> None:
    crew = make(ten_times)
    ready(crew, 0)
    crew.kill(0)
    (ended,) = until(crew, Ended)
    assert ended[:3] == (0, -9 if crew.isolates else None, None)


def what_a_worker_is_told_that_has_just_ended_is_lost(make: Make, dies: Dies) -> None:
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


def nothing_is_heard_of_a_worker_that_may_end_and_its_number_is_free_at_once(make: Make, dies: Dies) -> None:
    crew = make(ten_times)
    ready(crew, 0)
    crew.end(0)
    ready(crew, 0)
    sent(crew, 0, 1)
    heard: list[Any] = []
    while not heard:
        heard = crew.wait(1)
    assert [type(each) for each in heard] == [Came]


def what_was_built_may_take_its_time_to_close(make: Make, dies: Dies) -> None:
    with tempfile.TemporaryDirectory() as folder:
        crew = make(per_worker(ClosesSlowly, folder))
        crew.closing = 60.0
        ready(crew, 0, 1)
        crew.end(0)
        crew.close(gently=True)
        assert len(os.listdir(folder)) == 2
        assert not crew.unclosed()


def steps_that_cannot_be_built_are_told(make: Make, dies: Dies) -> None:
    crew = make(per_worker(Refuses))
    crew.start(0, 0)
    broken = until(crew, Broken)[-1]
    assert broken.worker == 0
    assert isinstance(broken.error, LookupError)


def a_wait_in_which_nothing_happens_ends(make: Make, dies: Dies) -> None:
    crew = make(ten_times)
    ready(crew, 0)
    assert crew.wait(0.01) == []
    assert set(crew.look()) == {0}


def a_crew_may_be_closed_again_and_before_anything_has_started(make: Make, dies: Dies) -> None:
    for gently in (True, False):
        crew = make(ten_times)
        crew.close(gently=gently)
        crew.close(gently=False)


CREW_PROMISES: tuple[Callable[[Make, Dies], None], ...] = (
    a_batch_comes_back_with_its_number_its_attempt_and_what_the_steps_made_of_it,
    a_worker_gives_its_batches_back_in_the_order_in_which_it_got_them,
    a_large_batch_is_the_hearers_own_whatever_becomes_of_the_worker,
    a_record_that_fails_is_told_in_its_place,
    what_failed_before_comes_along,
    a_careful_batch_gives_the_same,
    results_may_come_as_the_bytes_of_a_sink,
    large_bytes_of_a_sink_stay_as_they_were_while_others_come,
    an_endless_record_comes_in_parts_two_ahead_and_one_more_for_each_that_is_asked_for,
    a_worker_that_dies_is_told_and_its_number_is_free,
    a_careful_worker_that_dies_says_at_which_value,
    a_worker_that_is_killed_ends,
    what_a_worker_is_told_that_has_just_ended_is_lost,
    nothing_is_heard_of_a_worker_that_may_end_and_its_number_is_free_at_once,
    what_was_built_may_take_its_time_to_close,
    steps_that_cannot_be_built_are_told,
    a_wait_in_which_nothing_happens_ends,
    a_crew_may_be_closed_again_and_before_anything_has_started,
)
