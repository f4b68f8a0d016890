"""Names the bottleneck of a run from its busy, waiting and blocked times: evidence, what to do, what that would gain."""

from __future__ import annotations

from collections.abc import Sequence

from taktline._observe.snapshot import StepCount, Verdict

FULL = 0.85  # share of its time that something at the limit is busy
EVEN = 0.4  # share of the busy time from which one step stands out


def judge(
    *, how: str, workers: int, cores: int, seconds: float, reading: float, steps: Sequence[StepCount], complete: bool
) -> Verdict:
    """The verdict on a run of `seconds`, of which `reading` were spent in the source. Times in seconds."""
    busy = sum(step.busy for step in steps)
    if not seconds or not busy:
        return Verdict("nothing", "There was nothing to do.", "")
    top = max(steps, key=lambda step: step.busy)
    share = top.busy / busy
    heaviest = f"{top.name!r} takes {share:.0%} of the busy time"
    if reading > FULL * seconds:
        return Verdict(
            "source", f"Reading the source takes {reading / seconds:.0%} of the run.",
            "A faster source is what would help; more workers would not.",
        )  # fmt: skip
    if workers == 0:
        return Verdict(
            top.name, f"{heaviest}; one process did all of it.",
            f'More processes: how="line", or a cheaper {top.name!r}.' if how == "loop" and cores > 1 else "",
        )  # fmt: skip
    used = min(1.0, busy / (workers * seconds))
    evidence = f"{heaviest}; the workers are busy {used:.0%} of the run."
    if used < FULL and reading + 0.0 < seconds:
        return Verdict(
            "hand-over", evidence, "The workers wait for the caller's process: larger batches or fewer workers may help."
        )  # fmt: skip
    gain = seconds / max(reading, busy / (workers * 2), 1e-9)
    act = f"More workers would help: with {workers * 2} cores and workers about {seconds / gain:.1f} s."
    if share > EVEN:
        act += f" Or make {top.name!r} cheaper."
    return Verdict(top.name, evidence, act, gain if complete else None)
