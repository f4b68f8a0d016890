"""Promise: with workers on agents, as on several machines, the same holds: tests of other files, once more, over agents."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from promises.test_endless_results import *  # noqa: F403
from promises.test_setup_and_recycle import *  # noqa: F403

from taktline._crew.machines import agents_here
from taktline._run import crews


@pytest.fixture(autouse=True, scope="module")
def on_agents() -> Iterator[None]:
    """Workers that would be launched, or that nobody has said how to start, are at one of two agents."""
    own = crews.crew_for

    def crew_for(plan: Any, options: Any, meter: Any, beside: str = "") -> Any:
        if options.on is not None or options.start not in ("auto", "launch"):
            return own(plan, options, meter, beside)
        return agents_here(2, slots=2).crew(
            [segment.steps if segment.workers else None for segment in plan.segments], goes_on=options.goes_on,
            workers=max(segment.workers for segment in plan.segments), most=crews._most(plan, options),
            seeds=plan.seeds(options.seed), setup=options.setup, tell=partial(crews._told, meter),
        )  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crews, "crew_for", crew_for)
        yield
