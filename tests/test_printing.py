"""What stands in the place of a stream's `write`: for workers in threads, and for whoever draws on a terminal."""

import contextvars
import io
import threading
from typing import Any

import pytest

from taktline import _printing

worker = contextvars.ContextVar("worker", default=False)


class Both:
    """A stream that two want to be told of: workers, who write whole lines, and somebody who draws."""

    def __init__(self):
        self.stream: Any = io.StringIO()
        self.aside = 0

    def workers(self):
        write = _printing.put_in(self.stream)
        write.is_workers = worker.get
        return write

    def draws(self):
        write = _printing.put_in(self.stream)
        write.step_aside = self.steps
        return write

    def steps(self):
        self.aside += 1


def in_a_worker(function):
    context = contextvars.copy_context()
    context.run(worker.set, True)
    thread = threading.Thread(target=context.run, args=(function,))
    thread.start()
    thread.join()


@pytest.mark.parametrize("first", ["workers", "draws"])
@pytest.mark.parametrize("leaves", ["workers", "draws"])
def test_two_who_want_it_have_the_same_and_leave_in_any_order(first, leaves):
    both = Both()
    have = {each: getattr(both, each)() for each in sorted(["workers", "draws"], key=lambda each: each != first)}
    assert have["workers"] is have["draws"]
    in_a_worker(lambda: print("a", "b", file=both.stream))
    assert (both.stream.getvalue(), both.aside) == ("a b\n", 1)  # once, though it came in parts
    have["workers"].leave()
    assert "write" in vars(both.stream)
    have["draws"].leave()
    assert "write" not in vars(both.stream)


def test_a_write_that_a_worker_has_looked_up_before_somebody_draws_finds_it_aside():
    both = Both()
    both.workers()
    write = both.stream.write
    both.draws()
    in_a_worker(lambda: write("late\n"))
    assert both.aside == 1


def test_lines_that_workers_have_begun_are_no_lines_that_others_are_in():
    both = Both()
    workers, _ = both.workers(), both.draws()
    in_a_worker(lambda: both.stream.write("begun"))
    assert not workers.in_line
    print("whole", file=both.stream)
    workers.end_lines()
    assert (both.stream.getvalue(), workers.in_line) == ("whole\nbegun", True)


def test_what_somebody_else_has_put_in_is_there_again_and_what_is_put_in_over_it_stays():
    both, said = Both(), []
    both.stream.write = said.append
    write = both.draws()
    both.stream.write("to theirs")
    write.leave()
    assert said == ["to theirs"]
    assert both.stream.write == said.append
    write = both.draws()
    over = both.stream.write = lambda text: write(text.upper())
    write.leave()
    assert both.stream.write is over
    both.stream.write("still")
    assert said[-1] == "STILL"


@pytest.mark.parametrize("stream", [None, object(), print])
def test_a_stream_that_bears_nothing_put_in_is_let_be(stream):
    with pytest.raises((AttributeError, TypeError)):
        _printing.put_in(stream)
