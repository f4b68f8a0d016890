"""The policy of `how="auto"`: whether a run that has begun in the caller's process is to go on with workers, and when all is
open again. It knows what records have cost and what moving would; it reads nothing, starts nothing and moves nothing."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from taktline._observe.counters import LaneCount
from taktline._observe.measures import size
from taktline._planner import choose
from taktline._planner.sample import Sampling
from taktline._recipe.options import Options, usable_cores
from taktline._recipe.plan import RunPlan
from taktline._recipe.steps import Role, Step
from taktline._run.meter import Meter
from taktline._run.reader import Reader
from taktline.views.progress import withdraw

if TYPE_CHECKING:
    from taktline._crew.weight import Weight

OTHER = 3.0  # times that work must cost more or less than what was decided on
CERTAIN = 3  # lots in a row
COPIES = 2  # times what a copy of the results takes, below which steps cost no more than to put results together
LONG = 64 << 20  # bytes of files of columns: to read, work on and write so many takes the better part of a second,
LONG_TEXT = 16 << 20  # and of lines, of which each byte takes some four times as long


def _may_share(plan: RunPlan, options: Options, reader: Reader) -> bool:
    """Whether workers may be threads of this process: where nothing is asked for that they cannot give."""
    asks = options.goes_on or options.journal or options.recycle or options.seed is not None or reader.live
    steps = plan.segments[0].steps
    apart = len(plan.segments) > 1 or any(step.timeout or step.waits for step in steps)
    # What comes of an expand comes in pieces, which may be endless: the trial of two threads takes a batch as a whole.
    pieces = any(step.role is Role.EXPAND for step in steps)
    return options.start in ("auto", "threads") and not (asks or apart or pieces) and (options.window or 2) > 1


class Auto:
    """Decides for one run. `plan`: the one to move to, None where there is nothing to decide. `singly`: records go through
    one by one here. `encoded`: workers would make the bytes of results. `beside`: why nothing can be forked beside the
    run's ends."""

    def __init__(
        self, steps: tuple[Step, ...], options: Options, reader: Reader, meter: Meter, *, plan: RunPlan | None, singly: bool,
        encoded: bool, beside: str,
    ) -> None:  # fmt: skip
        self.moves = plan is not None
        self._call = min((step.size or 1 for step in steps), default=1) if plan is None else plan.call
        self._may_share = plan is not None and _may_share(plan, options, reader)
        self._overlap = 0.0  # times the loop's speed of two threads, as tried out
        self._steps = steps
        self._options = options
        self._reader = reader
        self._meter = meter
        self._singly = singly
        self._encoded = encoded
        self._beside = beside
        self._would_fork: bool | None = None  # not looked at yet
        self._weight: Weight | None = None  # what the steps carry, once it is known
        self._weighed_for = 0.0  # seconds that this was given
        self._settled = 0  # reasons that stay
        self._returns = 0
        self.begin()

    def begin(self) -> None:
        """All is open: records are looked at anew."""
        self.sampling = Sampling(moving=self.moves, singly=self._singly)
        self._decided_on = 0.0  # nanoseconds of work a record at the last decision
        self._changed = 0  # lots in a row that cost something else

    @property
    def is_open(self) -> bool:
        """Whether what was decided stands on costs that are no longer so."""
        return self._changed >= CERTAIN

    def compare(self) -> None:
        """Does the newest lot cost something else than what was decided on?"""
        ratio = self.sampling.work_ns / self._decided_on if self._decided_on else 1.0
        self._changed = self._changed + 1 if self.moves and not 1 / OTHER < ratio < OTHER else 0

    @property
    def begins_there(self) -> str:
        """Why workers are to have all from the first record on; empty where that is to be seen here. Nothing moves where they
        read the source and make the sink's bytes themselves: what they gain is more than their start costs, whatever the
        steps cost, if there is enough of it. To try it here would import here what they import."""
        cores = min(self._options.cores, usable_cores())
        long = LONG_TEXT if self._reader.is_text else LONG
        if not (self.moves and self._apart and cores > 1 and self._reader.weight >= long):
            return ""
        return (
            f"move to {self._options.cores} workers: they read, work on and pack {size(self._reader.weight)} themselves, and "
            "nothing of that is moved"
        )

    @property
    def _apart(self) -> bool:
        """Whether tables never pass through this process: workers gain by that as much as threads would, whose trial takes
        longer than such workers need to start."""
        reader, asks = self._reader, self._options.start != "threads"
        return asks and self._encoded and reader.tables and reader.splits and not reader.in_memory

    @property
    def _locked(self) -> bool:
        """Whether threads would wait for each other in the steps."""
        return any(step.role is not Role.BATCH or step.form in ("list", "pandas") for step in self._steps)

    def tries_threads(self, lane: LaneCount) -> choose.Sample | None:
        """What records cost, where it is to be seen now how far two threads overlap; else None."""
        sample = self._sample(lane)
        if self._is_copying(sample) or (self._apart and self._locked and self._for_processes(lane).move):
            return None
        if not self._may_overlap(sample) or not (self._is_long(sample) or self._for_processes(lane).move):
            return None
        self._may_share = False  # once is enough
        if self._options.start == "auto":
            from taktline._crew import starts

            if starts.not_for_threads(self._steps):
                return None
        return sample

    def _is_copying(self, sample: choose.Sample) -> bool:
        """Whether to put results together takes about as long as to make them, of a table in memory."""
        return self._reader.in_memory and sample.work < COPIES * sample.unpack_out

    def tried_threads(self, overlap: float) -> None:
        """So many times the loop's speed they have; 0: they do not work."""
        self._overlap = overlap

    def _may_overlap(self, sample: choose.Sample) -> bool:
        workers = self._options.cores
        return self._may_share and choose.may_overlap(
            sample, call=self.sampling.table or self._call, workers=workers, cores=usable_cores()
        )

    def _is_long(self, sample: choose.Sample) -> bool:
        return choose.is_long(sample, remaining=self._reader.remaining, elapsed=self._meter.elapsed)

    def _sample(self, lane: LaneCount) -> choose.Sample:
        shares = [count.busy for count in lane.steps()]
        here = sum(b for b, s in zip(shares, self._steps, strict=True) if s.in_caller) / max(1e-9, sum(shares))
        reads = self._reader.splits and not self._reader.in_memory
        return choose.without_the_hub(self.sampling.costs(here), records=reads, results=self._encoded)

    def decide(self, lane: LaneCount) -> choose.Choice:
        """Whether to move now, by what was sampled and the counters of the steps here."""
        choice = self._for_processes(lane)
        if self._overlap:
            return choose.of_threads(self._overlap, choice, workers=self._options.cores, cores=usable_cores())
        # Of a source that does not tell its length it is seen later whether threads are worth a try.
        untried = not choice.move and self._reader.remaining is None and self._may_overlap(self._sample(lane))
        return choice._replace(final=False) if untried else choice

    def _for_processes(self, lane: LaneCount) -> choose.Choice:
        options, sample = self._options, self._sample(lane)
        if options.start == "threads":
            return choose.Choice(False, True, "stay with the loop: threads are not shown to be faster")
        self._decided_on = sample.work + sample.here
        remaining, rows = self._reader.remaining, self.sampling.table
        if rows:  # a table is handed over as one thing
            sample = sample.of_many(rows)
            remaining = None if remaining is None else -(-remaining // rows)
        choose_for = partial(
            choose.choose, sample, workers=options.cores, cores=usable_cores(), remaining=remaining,
            what="table" if rows else "record", elapsed=self._meter.elapsed, returns=self._returns,
        )  # fmt: skip
        choice = choose_for(start_up=choose.start_up(forks=options.start != "launch", modules=0))
        if choice.move and not self._forks():  # looked at only where it matters: it takes a millisecond or two
            launched = choose.start_up(forks=False, modules=len(sys.modules))
            choice = choose_for(start_up=launched)
            if choice.move and (heavy := self._carried(sample)):
                choice = choose_for(start_up=launched + heavy)
                if not choice.move:
                    choice = choice._replace(
                        reason=f"{choice.reason}; {self._weight or 'the steps carry much to each'}"
                    )
        return choice

    def decided(self, choice: choose.Choice) -> None:
        """This holds from now on: the report says why."""
        reasons = self._meter.reasons
        if reasons[-1:] != [choice.reason]:
            reasons[self._settled :] = [choice.reason]
        if choice.move:
            self._settled = len(reasons)

    def came_back(self, reason: str) -> None:
        """The workers have ended, and all is open again; the next move has more to overcome."""
        self._meter.reasons.append(reason)
        self._settled = len(self._meter.reasons)
        self._returns += 1
        self._changed = CERTAIN
        self._overlap = 0.0

    def _forks(self) -> bool:
        """Whether workers would be forked, as it looks now."""
        if self._would_fork is None:
            from taktline._crew import starts
            from taktline._crew.reach import reached

            withdraw()  # with its thread, which no fork would have
            may = self._options.start == "auto" and not self._beside
            safe = may and not starts.look(list(reached(self._steps)))[0]
            self._would_fork = self._options.start == "fork" or safe
        return self._would_fork

    def _carried(self, sample: choose.Sample) -> float:
        """Seconds that what the steps carry adds to the start of launched workers. To know it takes as long as to pack it,
        so not more is spent on it than a small part of what was done so far, or is to be gained."""
        from taktline._crew import weight

        cores = usable_cores()
        if self._weight is None or not self._weight.whole:
            left, elapsed = self._reader.remaining, self._meter.elapsed
            workers = self._options.cores
            gain = choose.saved(sample, workers=workers, cores=cores, records=left) if left is not None else 0.0
            seconds = max(elapsed / 40, gain / 20)
            if seconds > 2 * self._weighed_for:
                self._weighed_for = seconds
                self._weight = weight.weigh([step for step in self._steps if not step.in_caller], seconds)
        return self._weight.start_up(self._options.cores, cores) if self._weight is not None else 0.0
