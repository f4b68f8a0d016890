"""The states of serial steps between two records of the source, for a run that goes on from its journal.

A serial step runs ahead of what is delivered, one behind another by some batches more. So a border between two batches is
chosen when the first of them passes it; each state is taken when its step does; and the states count once all results
from before the border are delivered. One border at a time is enough, as a journal is written some times a second.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from time import monotonic
from typing import Any

from taktline._recipe.steps import LAMBDA_AT, Step
from taktline._segment.segment import Segment
from taktline.errors import LineError

EVERY = 0.25  # seconds between two borders: two of them for each entry of the journal
SHARE = 20  # times what taking the states took must pass before the next border: at most a twentieth of the run


class States:
    """The states of these serial steps. Raises LineError where one has nothing to save and load."""

    def __init__(self, steps: Sequence[Step]) -> None:
        for step in steps:
            # What a factory builds is only known once it has built it.
            if step.maker is None or isinstance(step.fn, type):
                _check(step, step.fn)
        self._steps = tuple(steps)
        self._keys = _keys(self._steps)
        self._built: list[tuple[Segment, Step, Any]] = []
        self._kept: dict[str, bytes] = {}  # a step's key: its state at the last border that was reached
        self._taken: dict[str, bytes] = {}  # at the border that is under way
        self._border: int | None = None
        self._next = 0.0

    def begin(self, packed: bytes | None) -> None:
        """Go on with what `packed` gave in an earlier process; None: from the start."""
        if packed is not None:
            self._kept = pickle.loads(packed)
        else:  # in this process another run may have used these steps, and may do so again
            self._kept = {self._keys[step.name]: _saved(step, step.fn) for step in self._steps if step.maker is None}

    def built(self, segment: Segment) -> None:
        """The steps of a segment are there: they get the states to begin with."""
        for step, made in segment.stateful():
            _check(step, made)
            self._built.append((segment, step, made))
            key = self._keys[step.name]
            if key not in self._kept:
                self._kept[key] = _saved(step, made)
                continue
            try:
                made.load(pickle.loads(self._kept[key]))
            except Exception as error:
                error.add_note(f"raised while step {step.name!r} was given the state that the journal has of it")
                raise

    def passed(self, segment: Segment, border: int) -> None:
        """A segment is done with all records before `border`, and has not begun with any from there on."""
        if self._border is None:
            if not self._built or segment is not self._built[0][0] or monotonic() < self._next:
                return
            self._border, self._taken, self._next = border, {}, monotonic() + EVERY
        if border != self._border:
            return
        began = monotonic()
        for where, step, made in self._built:
            if where is segment:
                self._taken[self._keys[step.name]] = _saved(step, made)
        ended = monotonic()
        self._next = max(self._next, ended + SHARE * (ended - began))

    def reached(self, records: int) -> bool:
        """The results of so many records are delivered: whether `packed` gives the states behind just those now."""
        if self._border is None or records < self._border:
            return False
        there = records == self._border and len(self._taken) == len(self._steps)
        if there:
            self._kept = self._taken
        self._border = None
        return there

    def packed(self) -> bytes:
        """The states at the last border that was reached, or at the start."""
        return pickle.dumps(self._kept)


def _keys(steps: Sequence[Step]) -> dict[str, str]:
    """By which key the state of each step is kept: its name. That of a lambda tells its place, which is another one once
    something above it has changed: they are counted."""
    lambdas = [step.name for step in steps if step.name.startswith(LAMBDA_AT)]
    return {step.name: step.name for step in steps} | {name: f"lambda {n}" for n, name in enumerate(lambdas, 1)}


def _check(step: Step, made: Any) -> None:
    if not (callable(getattr(made, "save", None)) and callable(getattr(made, "load", None))):
        raise LineError(
            f"step {step.name!r} is serial: its state is lost with the process, so journal= cannot go on behind it. Give "
            "serial() an object that is called with each record and has save(), which returns its state, and load(state); "
            "or leave out the journal"
        )


def _saved(step: Step, made: Any) -> bytes:
    """The state of a step as it is now, whatever becomes of it."""
    try:
        return pickle.dumps(made.save(), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        error.add_note(
            f"raised while the state of step {step.name!r} was taken for the journal: save() must return "
            "bytes, or what can be pickled"
        )
        raise
