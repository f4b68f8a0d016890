"""Agents as `on=` of a run: whoever places them, they are reached in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taktline._crew.agents import AgentCrew, HelperProcess, site
from taktline._recipe.steps import Step
from taktline.abc import Crew, Machines

LOST_AFTER = 10.0  # seconds
IDLE_AFTER = 60.0


class Agents(Machines):
    """Agents of the placement that `maker` makes, "module:function" of the arguments `of`; people call it what it `says`.

    `lost_after`: seconds after which a machine that says nothing is given up. `start_within`: seconds in which there must be
    one. `idle_after`: seconds after which one that has had nothing to do is let go; None: never."""

    def __init__(
        self, maker: str, of: dict[str, Any], *, says: str, lost_after: float = LOST_AFTER, start_within: float = 60.0,
        idle_after: float | None = IDLE_AFTER,
    ) -> None:  # fmt: skip
        self._maker = maker
        self._of = of
        self._says = says
        self._places: list[int] = []  # as the newest helper has told
        self._asked: HelperProcess | None = None  # that has no run yet
        self._lost_after = lost_after
        self._start_within = start_within
        self._idle_after = idle_after

    def sizes(self) -> list[int]:
        if not self._places:
            self._places = self._helper().places()
        return self._places

    def slots(self) -> int:
        return sum(self.sizes())

    def _helper(self) -> HelperProcess:
        if self._asked is None or not self._asked.is_ours:
            self._asked = HelperProcess(site(self._maker, self._of, self._lost_after))
        return self._asked

    @property
    def says(self) -> str:
        return self._says

    def __repr__(self) -> str:
        return self._says

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_asked": None}

    def crew(
        self, lanes: Sequence[tuple[Step, ...] | None], *, goes_on: bool, workers: int, most: int,
        seeds: Sequence[tuple[int, int, int] | None], setup: Callable[[], object] | None,
        tell: Callable[[list[str], list[str]], None],
    ) -> Crew:  # fmt: skip
        helper = self._helper()
        self._asked = None
        self._places = helper.places()
        return AgentCrew(
            lanes, helper=helper, goes_on=goes_on, workers=workers, most=most, seeds=seeds, setup=setup, tell=tell,
            places=self.slots(), start_within=self._start_within, idle_after=self._idle_after,
        )  # fmt: skip


def agents_here(agents: int, slots: int = 1, has: Sequence[Mapping[str, float]] = (), **settings: Any) -> Agents:
    """Agents that are processes of this machine, with so many places each. `has`: what each is to have besides."""
    of = {"agents": agents, "slots": slots, "has": has}
    return Agents("taktline._crew.agents_here:Here", of, says=f"{agents} agents here", **settings)
