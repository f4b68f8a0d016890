"""The crew of processes on this machine: they are forked from a template, or launched."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from taktline._crew import contract, launcher, library_limits, protocol, starts
from taktline._crew.callers_side import CallersSide, why_broken
from taktline._crew.contract import PLAIN_ORDERS, Crew, Orders
from taktline._crew.members import Member, WorkerProcesses
from taktline._crew.random_streams import all_generators, own_streams
from taktline._crew.reach import opens_files, reached
from taktline._crew.template import Template
from taktline._recipe.steps import Step
from taktline._segment import policies
from taktline._segment.batch import Batch
from taktline._signals import pass_on
from taktline._wire import identity
from taktline._wire.board import Board
from taktline._wire.channel import Frame
from taktline.errors import WorkersCannotStart


class ProcessCrew(WorkerProcesses, Crew):
    """The crew of processes on this machine. `segments` are the steps of each lane that has workers, None for the others;
    `seeds`, where set, are what Segment takes, one a lane. `start`: "fork", "launch", or "auto", which forks where that
    is shown to be safe; `beside`: why it is not, by what else the run has.

    Raises LineError, naming the step, where a step cannot be carried over to a worker.
    """

    _template: Template | None = None

    def __init__(
        self, segments: Sequence[tuple[Step, ...] | None], *, goes_on: bool, start: str, most: int,
        seeds: Sequence[tuple[int, int, int] | None], setup: Callable[[], object] | None = None,
        tell: Callable[[list[str], list[str]], None] = lambda reasons, missed: None, beside: str = "",
    ) -> None:  # fmt: skip
        _not_while_importing()
        self._segments = segments
        self._side = side = CallersSide(segments, goes_on=goes_on, most=most, seeds=seeds, set_up=setup, tell=tell)
        super().__init__(most=most, limited=any(step.timeout for step in side.steps))
        self._seeds = seeds
        self._goes_on = goes_on
        self._set_up = setup
        self._automatic = start == "auto"
        self.forks = start != "launch"
        self._generators: list[Any] = []
        near = list(reached(side.steps))
        self._opens_files = opens_files(near, setup)
        if self.forks:
            identity.look()
            why, self._generators = starts.look(near)
            if self._automatic and (why := beside or why):
                self.launch_because(why)
        else:
            side.pack()

    def start(self, worker: int, lane: int) -> None:
        try:
            self._start(worker, lane)
        except (WorkersCannotStart, OSError) as error:
            pass_on(error)
            self._untold.append(contract.StartFailed(worker, error))

    def _start(self, worker: int, lane: int) -> None:
        if self.forks and (self._template is None or self._template.lost):
            self._make_template()
        member = self._started(worker, lane)
        if not self.forks:
            self._send(
                member, protocol.SETUP, note=b"%d" % worker, parts=[self._side.setups[lane], self._side.around()]
            )

    def _begin(self, process: launcher.Process, worker: int, lane: int, board: Board) -> None:
        if self.forks:
            assert self._template is not None
            process.fork(self._template, lane, worker, board.descriptor)
        else:
            super()._begin(process, worker, lane, board)

    def prepare(self, batch: Batch, lane: int, *, apart: bool = False) -> None:
        self._side.prepare(batch, lane, apart=apart)

    def send(self, worker: int, seq: int, attempt: int, batch: Batch, orders: Orders = PLAIN_ORDERS) -> None:
        if self._abandoned:
            starts.not_in_a_fork()
        if (member := self._members.get(worker)) is None:
            return
        note, parts = self._side.seal(batch, member.lane, orders)
        member.has[seq] = attempt, batch
        member.channel.send(protocol.LOAD, seq, note, parts, later=True)
        self._unsent.add(worker)

    def close(self, *, gently: bool) -> None:
        super().close(gently=gently or self._opens_files)
        if self._template is not None:
            self._template.close()

    def abandon(self) -> None:
        super().abandon()
        if self._template is not None:
            self._template.abandon()

    def descriptors(self) -> Iterator[int]:
        """What is open here to keep workers alive, and to have more of them; but for their channels."""
        yield from super().descriptors()
        if self._template is not None:
            yield self._template.fileno()

    def launch_because(self, why: str) -> None:
        """Workers are launched, for this reason. Raises LineError where a step cannot be carried over to them."""
        self.forks = False
        self.why = f"workers are launched: {why}"
        try:
            self._side.pack()
        except WorkersCannotStart as error:
            raise WorkersCannotStart(f"{error.message}. Workers are not forked by themselves here: {why}") from None

    def _make_template(self) -> None:
        """The process that workers are forked from; where that turns out not to be safe, they are launched."""
        if self._automatic and (found := starts.why_not_here()):
            self.launch_because(found)
            return
        self._generators = all_generators(self._generators)
        self._template = Template(self._life, self._prepare)
        left = starts.threads_left()
        if left and self._automatic:
            self._template.close()
            self.launch_because(left)
        elif left:
            self.doubts = left
            warnings.warn(
                f'start="fork" is not safe here: {left}, and what belongs to it may hang there. Use start="launch", or '
                '"auto", which looks for this',
                RuntimeWarning,
                stacklevel=2,
            )
        elif self._automatic:
            self.why = (
                "workers are forked: no other thread runs here, and the steps reach nothing that two must not share"
            )

    def _prepare(self) -> None:
        """In the template, before the first worker."""
        from taktline._crew import worker  # noqa: F401 - once for all workers

        library_limits.set_by_call()
        if self._automatic:  # what was asked for shares what it shares
            starts.let_go_of_pipes()

    def _life(self, sock: Any, lifeline: int, board: int, lane: int, number: int) -> NoReturn:
        """What a forked worker does."""
        from taktline._crew import worker

        own_streams(self._generators)
        steps = self._segments[lane]
        assert steps is not None
        segment = worker.segment_of(steps, goes_on=self._goes_on, seed=self._seeds[lane], most=self._most)
        worker.forked(sock, lifeline, Board(board), segment, self._most, number, self._set_up)

    def _heard(self, worker: int, member: Member, message: Frame) -> None:
        kind = message.kind
        if (kind == protocol.DONE or kind == protocol.PART) and not member.unheard:
            self._open(worker, member, message)
        elif kind == protocol.NEED or kind == protocol.WANT:
            self._send(member, protocol.GIVE, parts=self._side.gives(kind, message.note))
        elif kind == protocol.BROKEN:
            self._untold.append(contract.Broken(worker, why_broken(message.note)))
        else:
            self._side.hears(kind, message.note)

    def _aside(self, message: Frame) -> None:
        if message.kind == protocol.BROKEN:
            self._unclosed.append(why_broken(message.note))
        else:
            self._side.hears(message.kind, message.note)

    def _open(self, worker: int, member: Member, message: Frame) -> None:
        """What came of a batch; where it cannot be read back as a whole it is to go again, each result by itself."""
        seq, last = message.seq, message.kind == protocol.DONE
        attempt, sent = member.has.pop(seq) if last else member.has[seq]
        came = self._side.open(
            worker, seq, attempt, member.lane, sent, message.note, message.parts,
            partial(member.channel.buffers, message), last=last,
        )  # fmt: skip
        if came is not None:
            self._untold.append(came)
        elif last:
            self._untold.append(contract.Spoiled(worker, seq, attempt))
        else:  # what of it has come is not known any more
            member.unheard = True
            self.kill(worker)


def _not_while_importing() -> None:
    """Raises WorkersCannotStart in a worker that is still importing what its steps need."""
    if not policies.loading:
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    module = frame.f_globals.get("__name__") if frame is not None else None
    raise WorkersCannotStart(
        f"module {module!r} runs a line when it is imported, and each worker imports it: so each would start workers that "
        'start workers. Put the run into a function, or behind if __name__ == "__main__"'
    )
