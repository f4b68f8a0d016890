"""The caller's side of what is said with workers, whoever carries it: seals batches, opens answers, equips launched workers
with the steps and their surroundings, answers what they ask for, and passes on what they print, log and warn of."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any

from taktline._crew import contract, envelope, launcher, library_limits, protocol, surroundings, worker_streams
from taktline._crew import weight as weights
from taktline._crew.cells import in_cells
from taktline._crew.contract import Orders
from taktline._recipe.steps import Step
from taktline._segment.batch import Batch
from taktline._signals import pass_on
from taktline._wire import identity, serialize
from taktline._wire.homes import source_of, stand_ins
from taktline.errors import LineError, WorkersCannotStart

Tell = Callable[[list[str], list[str]], None]
ASIDE = {
    protocol.SAID: worker_streams.heard,
    protocol.LOGGED: surroundings.heard_log,
    protocol.WARNED: surroundings.heard_warning,
}


class CallersSide:
    """For one crew. `segments` are the steps of each lane that has workers, None for the others; `seeds`, where set, are
    what Segment takes, one a lane; `most`: bytes of an arena; `set_up`: what each worker calls before its first record;
    `elsewhere`: workers are on machines that may not have the user's modules."""

    def __init__(
        self, segments: Sequence[tuple[Step, ...] | None], *, goes_on: bool, most: int,
        seeds: Sequence[tuple[int, int, int] | None], set_up: Callable[[], object] | None, tell: Tell,
        elsewhere: bool = False,
    ) -> None:  # fmt: skip
        self._elsewhere = elsewhere
        self.steps = [step for steps in segments for step in steps or ()]
        self.setups: list[bytes] = []  # a lane each, once they are packed
        self._segments = segments
        self._seeds = seeds
        self._goes_on = goes_on
        self._most = most
        self._set_up = set_up
        self._tell = tell
        self._around: surroundings.Caller | None = None
        self._heavy: list[str] = []  # what of it is large, in words
        self._first = [steps[0].name if steps else "" for steps in segments]
        self._last = [steps[-1].name if steps else "" for steps in segments]
        self._onward = [bool(behind) for behind in (*segments[1:], None)]  # what comes of a lane goes to workers again

    # --- batches ---

    def prepare(self, batch: Batch, lane: int, *, apart: bool = False) -> None:
        """Have a batch as it will be sent to this lane."""
        pack = envelope.pack_each if apart else envelope.pack
        pack(batch, self._first[lane], goes_on=self._goes_on)

    def seal(self, batch: Batch, lane: int, orders: Orders) -> tuple[bytes, list[serialize.Bytes]]:
        """The note and the payload of a batch for a worker of this lane."""
        return envelope.seal(batch, self._first[lane], orders, goes_on=self._goes_on)

    def open(
        self, worker: int, seq: int, attempt: int, lane: int, sent: Batch, note: bytes, parts: Sequence[serialize.Bytes],
        buffers: Callable[[], Sequence[Any]], *, last: bool,
    ) -> contract.Came | None:  # fmt: skip
        """What came of the batch that was `sent`, of an answer's note and payload; None where it cannot be read back as a
        whole. `buffers`: the large ones among the parts, for keeps."""
        figures, count, outcome = envelope.open_note(note)
        try:
            batch, newest = envelope.open_answer(
                count, outcome, parts, buffers, sent, self._last[lane], goes_on=self._goes_on, onward=self._onward[lane]
            )
        except envelope.Unreadable:
            return None
        return contract.Came(worker, seq, attempt, batch, sum(map(len, parts)), figures, last, newest)

    # --- what launched workers need ---

    def pack(self) -> None:
        """Have the steps as bytes. Raises LineError, naming the step, where one cannot be carried over."""
        launcher.interpreter()
        stand_ins(anew=True)  # a name may have got another file since the last run
        identity.look()
        self.setups = [
            self._setup(steps, seed) if steps else b"" for steps, seed in zip(self._segments, self._seeds, strict=True)
        ]

    def around(self) -> bytes:
        """The caller's surroundings, as they were when they were first asked for: for all workers, whenever they start."""
        if self._around is None:
            self._around = surroundings.Caller(
                self.steps, [self._set_up] if self._set_up else [], library_limits.environment()
            )
            self._tell(*self._around.first())
            self._tell(self._heavy, [])
        return self._around.packed

    def _setup(self, steps: tuple[Step, ...], seed: tuple[int, int, int] | None) -> bytes:
        try:
            file = io.BytesIO()
            weight = weights.pack(steps, (steps, self._set_up), file)  # in one: they share their globals
            segment = file.getvalue()
        except Exception as error:
            pass_on(error)
            found = serialize.which_function([*(step.name for step in steps), "setup="], [*steps, self._set_up])
            name, why = found if found is not None else (steps[0].name, error)
            raise LineError(
                f"step {name!r} cannot be carried over to a worker process: {type(why).__name__}: {why}. "
                'Build what it needs in the worker with per_worker(), keep the step here with kind="inline", '
                'or share this process\'s memory with start="fork"'
            ) from why
        if weight.size > weights.NOTED_BYTES:
            self._heavy.append(str(weight))
        setup = protocol.Setup(
            path=[str(entry) for entry in sys.path], argv=list(sys.argv), stand_ins=stand_ins(), segment=segment,
            goes_on=self._goes_on, most=self._most, seed=seed, elsewhere=self._elsewhere,
        )  # fmt: skip
        return pickle.dumps(tuple(setup))

    # --- what they say ---

    def hears(self, kind: int, note: bytes) -> bool:
        """Pass on what a worker says beside its batches; whether it was that."""
        if kind in ASIDE:
            ASIDE[kind](note)
        elif kind == protocol.DIFFERS and self._around is not None:
            self._tell(*self._around.differing(note))
        else:
            return False
        return True

    def gives(self, kind: int, note: bytes) -> list[serialize.Bytes]:
        """What a worker asks for by NEED, WANT or MODULE; empty where there is no such thing."""
        if kind == protocol.MODULE:
            source = source_of(pickle.loads(note))
            return [pickle.dumps(source)] if source is not None else []
        if kind == protocol.WANT:
            given = self._around.give(note) if self._around is not None else None
            return [given] if given is not None else []
        module, name = pickle.loads(note)
        thing = getattr(sys.modules.get(module), name, None)
        return [serialize.pack_functions(thing, root=thing)] if thing is not None else []


def why_broken(note: bytes) -> BaseException:
    """What a worker says that cannot work."""
    broken = protocol.CannotWork(*pickle.loads(note))
    carried = serialize.SerializedError(*broken.error)
    if broken.built:
        trace = in_cells(broken.traceback)
        error = serialize.unpack_error(carried, step="(building the steps)", trace=trace)
        error.add_note("in the worker:\n    " + trace.rstrip().replace("\n", "\n    "))
        return error
    if carried.type_name == WorkersCannotStart.__name__:
        return WorkersCannotStart(f"a worker could not load the steps: {carried.text}")
    return WorkersCannotStart(
        f"a worker could not load the steps: {carried.type_name}: {carried.text}. "
        "What the steps import must be importable in a fresh interpreter with the same sys.path.\n"
        + broken.traceback.rstrip()
    )
