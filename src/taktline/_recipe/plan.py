"""A technique as data: which steps are fused into which segment, how many workers each has, how large batches are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import lcm

from taktline._recipe.options import Options
from taktline._recipe.steps import Gives, Role, Step
from taktline.errors import LineError

PROCESSES = 32  # that the steps of a long line are shared out over, where each would have one
NEAR = 4  # times the largest size of several batch steps: so large may a batch be that all of them divide


@dataclass(frozen=True, slots=True)
class PlannedSegment:
    """Steps that one function runs, and how many workers run it; 0 workers: the caller's process, in input order."""

    steps: tuple[Step, ...]
    workers: int

    @property
    def waits(self) -> bool:
        """Whether its workers have many records under way at once."""
        return self.workers > 0 and self.steps[0].waits

    @property
    def ahead(self) -> int:
        """Records that each of its workers must have for all of its places to be taken; 0: one is enough."""
        return max((step.tasks or 0 for step in self.steps), default=0) if self.waits else 0

    @property
    def takes_all(self) -> bool:
        """Whether a batch step in it takes as many records at once as there are."""
        return any(step.role is Role.BATCH and step.size is None for step in self.steps)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How a line is run. `batch_size` None: the controller sets it while running."""

    how: str
    segments: tuple[PlannedSegment, ...]
    batch_size: int | None
    reasons: tuple[str, ...] = ()

    @property
    def workers(self) -> int:
        """How many worker processes the plan starts."""
        return sum(segment.workers for segment in self.segments)

    @property
    def call(self) -> int:
        """Records of a batch whose calls of batch steps are full."""
        return full_calls([step for segment in self.segments for step in segment.steps])

    def seeds(self, seed: int | None) -> list[tuple[int, int, int] | None]:
        """For each segment the run's seed, the place of its first step in the line, and the records of a block of lists;
        None where no seed is set."""
        places = accumulate((len(segment.steps) for segment in self.segments[:-1]), initial=0)
        block = block_of_lists([step for segment in self.segments for step in segment.steps])
        return [(seed, place, block) if seed is not None else None for place in places]


def full_calls(steps: Sequence[Step]) -> int:
    """How many records fill the calls of these steps that ask for a size: a multiple of all sizes, where that is not far
    from the largest. 1 where there are none, or an `expand` before them makes any number of a record.

    >>> from taktline._recipe.steps import batch, expand
    >>> full_calls([batch(list, 100), batch(list, 40)]), full_calls([batch(list, 100), batch(list, 64)])
    (200, 100)
    >>> full_calls([expand(list), batch(list, 100)])
    1
    """
    sizes = [1]
    for step in steps:
        if step.role is Role.EXPAND or step.gives is Gives.ANY:
            break
        sizes.append(step.size or 1)
    return _in_common(sizes)


def _in_common(sizes: Sequence[int]) -> int:
    common = lcm(*sizes)
    return common if common <= NEAR * max(sizes) else max(sizes)


def block_of_lists(steps: Sequence[Step]) -> int:
    """Where a seed is set, lists of batch steps begin anew at each multiple of so many records of the source, and what
    goes through together ends at one: so they are the same lists in every run. 1 where there are no batch steps."""
    return _in_common([step.size or 1 for step in steps if step.role is Role.BATCH] or [1])


def takes_tables(steps: Sequence[Step]) -> bool:
    """Whether the first of these steps takes columns as they are."""
    if not steps:
        return False
    first = steps[0]
    if any(callable(step.by) for step in steps):  # which is a function of a record
        return False
    return first.role is Role.BATCH and first.form != "list" and not first.waits


def keyed(steps: Sequence[Step]) -> Step | None:
    """The first step that takes its batches by a key; None where there is none."""
    return next((step for step in steps if step.by is not None), None)


def check_keys(steps: Sequence[Step], options: Options) -> None:
    """Raises LineError where steps that take their batches by a key cannot get whole keys."""
    with_key = [n for n, step in enumerate(steps) if step.by is not None]
    if not with_key:
        return
    one, last = steps[with_key[0]], with_key[-1]
    if options.seed is not None:
        raise LineError(
            f"seed= cannot be kept with batch(by=), of step {one.name!r}: its lists are not always the same ones"
        )
    for n in with_key:
        if steps[n].by != one.by:
            raise LineError(
                f"steps {one.name!r} and {steps[n].name!r} take their batches by two keys, and what is read together can "
                "only be whole by one; make two lines of them, or give both the same by="
            )
    whole = len(line(steps, 2).segments[0].steps)
    for n, step in enumerate(steps[:last]):
        if step.role is Role.EXPAND or step.gives is Gives.ANY:
            why = "makes any number of results of a record"
        elif n + 1 == whole:
            why = f"and step {steps[n + 1].name!r} run apart"
        else:
            continue
        raise LineError(
            f"step {steps[last].name!r} takes its batches by a key of the source's records, and step {step.name!r} before it "
            f"{why}: put that one behind it, or take the batches in a line of its own"
        )


def check_seed(steps: Sequence[Step], options: Options, *, live: bool) -> None:
    """Raises LineError where a seed cannot make random numbers repeatable. `live`: records come when they come."""
    if options.seed is None:
        return
    for step in steps:
        if step.kind == "thread" and step.waits and options.how != "loop":
            raise LineError(
                f"seed= cannot make random numbers repeatable in threads, which share the generators: step {step.name!r} "
                'runs in them. Make it an `async def`, or run with how="loop"'
            )
        if step.role is Role.BATCH:
            _check_lists(step, block_of_lists(steps), options, live)


def check_start(steps: Sequence[Step], options: Options) -> None:
    """Raises LineError where workers of this kind cannot do what a step asks for."""
    if options.start != "threads" or options.how == "loop":
        return
    for step in steps:
        if step.timeout is not None and step.kind != "async" and not step.in_caller:
            raise LineError(
                f'step {step.name!r} has timeout={step.timeout:g}, and start="threads" cannot end a call that takes too '
                'long; use start="launch", make the step an `async def`, or leave out timeout='
            )


def _check_lists(step: Step, block: int, options: Options, live: bool) -> None:
    if step.size is None:
        raise LineError(
            f"seed= needs a size for batch step {step.name!r}: its random numbers are repeatable only where its lists are "
            "always the same. Give it one, such as batch(fn, size=512)"
        )
    for name, value, wrong in (
        ("window", options.window, (options.window or block) < block),
        ("batch_size", options.batch_size, (options.batch_size or block) % block),
    ):
        if wrong:
            raise LineError(
                f"{name}={value} cuts the lists of batch step {step.name!r}, which must always be the same with seed=; "
                f"give {'at least' if name == 'window' else 'a multiple of'} {block:,}"
            )
    if live or options.journal is not None:
        raise LineError(
            f"seed= cannot keep the lists of batch step {step.name!r} the same "
            f"{'over a live source' if live else 'in a run that goes on from a journal'}; leave seed= out"
        )


def technique(how: str, steps: tuple[Step, ...], workers: int, batch_size: int | None = None) -> RunPlan:
    """The plan that `how=` asks for; for "auto", the one to move to when workers pay."""
    if how == "loop" or all(step.in_caller for step in steps):
        return here(steps)
    if how == "pool":
        return pool(steps, workers)
    return queues(steps, workers) if how == "queues" else line(steps, workers, batch_size)


def here(steps: Sequence[Step]) -> RunPlan:
    """All steps in the caller's process."""
    return RunPlan("loop", (PlannedSegment(tuple(steps), 0),), batch_size=1)


def pool(steps: Sequence[Step], workers: int) -> RunPlan:
    """Every worker runs the whole chain, one record at a time."""
    return RunPlan("pool", _cut(steps, workers), batch_size=1)


def line(steps: Sequence[Step], workers: int, batch_size: int | None = None, reasons: tuple[str, ...] = ()) -> RunPlan:
    """Fused segments, batched and pipelined."""
    return RunPlan("line", _cut(steps, workers), batch_size, reasons)


def queues(steps: Sequence[Step], workers: int, costs: Sequence[float] | None = None) -> RunPlan:
    """A process a step, or a share of `workers` by cost, at least one each; one record at a time. Batch steps of one
    form stay together: nothing is converted between them. So do neighbours where there are more steps than a machine
    should have processes.

    >>> [s.workers for s in queues([Step(abs, "a"), Step(abs, "b")], 5, costs=[3.0, 1.0]).segments]
    [4, 1]
    """
    groups: list[list[int]] = []
    many = -(-len(steps) // PROCESSES)
    together = max((n for n, each in enumerate(steps) if each.by is not None), default=0)  # where keys are known
    for n, each in enumerate(steps):
        if n and (n <= together or steps[n - 1].joins(each) or (len(groups[-1]) < many and _fuse(steps[n - 1], each))):
            groups[-1].append(n)
        else:
            groups.append([n])
    weights = [0.0 if steps[ns[0]].in_caller else sum(costs[n] if costs else 1.0 for n in ns) for ns in groups]
    segments = []
    for ns, share in zip(groups, _shares(weights, workers), strict=True):
        first = steps[ns[0]]
        count = 0 if first.in_caller else min(share, _own(first) or share)
        count = first.workers or count if first.resources else count
        segments.append(PlannedSegment(tuple(steps[n] for n in ns), count))
    return RunPlan("queues", tuple(segments), batch_size=1)


def _cut(steps: Sequence[Step], workers: int) -> tuple[PlannedSegment, ...]:
    """Fuse neighbours; cut only where a step must run in the caller's process or has a worker count of its own."""
    groups: list[list[Step]] = []
    for each in steps:
        if groups and _fuse(groups[-1][-1], each):
            groups[-1].append(each)
        else:
            groups.append([each])
    return tuple(
        PlannedSegment(tuple(group), 0 if group[0].in_caller else _wide(group[0], workers)) for group in groups
    )


def _wide(first: Step, workers: int) -> int:
    """How many workers a segment has; where other machines have what it needs, their other places are no matter."""
    own = _own(first)
    return own if own is not None and first.resources else min(own or workers, workers)


def _fuse(one: Step, other: Step) -> bool:
    """Whether one function may run both of these neighbours."""
    alike = (one.in_caller, one.waits, _own(one), one.resources) == (
        other.in_caller, other.waits, _own(other), other.resources,
    )  # fmt: skip
    return alike and (other.waits or _own(other) is None)


def _own(step: Step) -> int | None:
    """The workers of a step that differ from those of the line: one with a rate, or that waits, needs only one."""
    return step.workers or (1 if step.waits or step.rate else None)


def _shares(costs: Sequence[float], workers: int) -> list[int]:
    """One worker each, and each further one to the step with the most cost a worker."""
    shares = [1] * len(costs)
    for _ in range(workers - sum(cost > 0 for cost in costs)):
        heaviest = max(range(len(costs)), key=lambda n: costs[n] / shares[n])
        shares[heaviest] += 1
    return shares
