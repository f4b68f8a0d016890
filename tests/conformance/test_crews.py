"""What every crew must do: the hub knows nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crews import CrewHere, Dies

from taktline._crew.contract import Crew
from taktline._crew.machines import agents_here
from taktline._crew.processes import ProcessCrew
from taktline._crew.threads import ThreadCrew
from taktline._crew_promises import CREW_PROMISES, killed
from taktline._recipe.steps import Step, as_step

CREWS = ["fork", "launch", "threads", "here", "agents"]


@pytest.fixture(params=CREWS)
def how(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(how: str) -> Iterator[Callable[..., Crew]]:
    made: list[Crew] = []

    def make(*steps: object, goes_on: bool = True) -> Crew:
        lanes: list[tuple[Step, ...] | None] = [tuple(as_step(step) for step in steps)]
        if how == "here":
            made.append(CrewHere(lanes, goes_on=goes_on))
        elif how == "agents":
            made.append(
                agents_here(2, slots=2).crew(
                    lanes,
                    goes_on=goes_on,
                    workers=2,
                    most=1 << 20,
                    seeds=[None],
                    setup=None,
                    tell=lambda why, missed: None,
                )
            )
        elif how == "threads":
            made.append(ThreadCrew(lanes, goes_on=goes_on, most=1 << 20))
        else:
            made.append(ProcessCrew(lanes, goes_on=goes_on, start=how, most=1 << 20, seeds=[None]))
        return made[-1]

    yield make
    for crew in made:
        crew.close(gently=False)
        crew.close(gently=False)


def raises() -> None:
    raise Dies


@pytest.mark.parametrize("promise", CREW_PROMISES, ids=lambda promise: promise.__name__)
def test_a_crew_keeps(promise: Callable[..., None], make: Any, how: str) -> None:
    promise(make, raises if how == "here" else killed)
