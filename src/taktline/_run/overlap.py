"""Whether two batches overlap in two threads: tried on the next records of a run, whose results count as any others."""

from __future__ import annotations

from time import perf_counter

from taktline._crew import contract
from taktline._observe import cores
from taktline._planner.choose import Sample
from taktline._recipe.options import Options
from taktline._recipe.plan import RunPlan
from taktline._run.crews import threads_for
from taktline._segment.batch import Batch

OVERLAP_THREADS = 2
LOOKS = 3  # the first of which counts for nothing: what it meets is new to its thread
BATCH = 0.005  # seconds of work in each of the batches, at most
COPY = (
    0.001  # seconds that a copy of its results may take: of larger ones the trial would pay for fresh memory above all
)
COMPUTING = 0.5  # share of their work that uses the processor, from which steps do not wait


def records_for(sample: Sample) -> int:
    """How many records a batch of the trial has, whose costs are these."""
    return max(1, int(min(BATCH * 1e9 / sample.work, COPY * 1e9 / max(1.0, sample.unpack_out))))


class Overlap:
    """Two workers of a crew that a hub may go on with."""

    def __init__(self, plan: RunPlan, options: Options) -> None:
        self.crew = threads_for(plan, options)
        self.broken: BaseException | None = None  # why they cannot work
        self.records = 0  # of all looks that count,
        self.seconds = 0.0  # what both threads together took for them,
        self.cpu = 0.0  # and their processor time
        self.figures: dict[int, contract.Figures] = {}  # of each worker, the newest
        self._starting = set(range(OVERLAP_THREADS))
        self._looks = 0
        for worker in range(OVERLAP_THREADS):
            self.crew.start(worker, 0)

    def ready(self) -> bool:
        """Whether both wait for a batch, or never will."""
        for heard in self.crew.wait(0):
            self._hear(heard)
        return not self._starting or self.broken is not None

    @property
    def done(self) -> bool:
        """Whether it was looked often enough, or is of no use."""
        return self._looks >= LOOKS or self.broken is not None

    def run(self, batches: list[Batch], records: int, orders: list[contract.Orders]) -> list[Batch | None]:
        """What comes of these batches, one a thread, which are of so many records; None where one cannot be read."""
        came: dict[int, Batch | None] = {}
        before = self._cpu()
        tasks = self.crew.tasks()
        queued = [cores.queued([task]) for task in tasks]
        began = perf_counter()
        for worker, batch in enumerate(batches):
            self.crew.prepare(batch, 0)
            self.crew.send(worker, worker, 0, batch, orders[worker])
        while len(came) < len(batches):
            for heard in self.crew.wait(1.0):
                if isinstance(heard, contract.Came):
                    came[heard.seq], self.figures[heard.worker] = heard.batch, heard.figures
                elif isinstance(heard, contract.Spoiled):
                    came[heard.seq] = None
                else:
                    self._hear(heard)
                    if self.broken is not None:
                        raise self.broken
        if self._looks and len(batches) == OVERLAP_THREADS:
            self.records += records
            # Where other programs have the cores, that is not for the threads to answer for; but who waits for Python's lock
            # asks for a core now and then, too: so no more is left out than both were without one.
            without = min(cores.queued([n]) - q for n, q in zip(tasks, queued, strict=True))
            seconds = perf_counter() - began - without
            cpu = [(now - then) / 1e9 for now, then in zip(self._cpu(), before, strict=True)]
            self.cpu += sum(cpu)
            self.seconds += max(seconds, *cpu)
        self._looks += 1
        return [came[n] for n in range(len(batches))]

    def of(self, sample: Sample) -> float:
        """How many times the speed of the loop, whose records cost this; 0 where nothing was seen."""
        if not self.seconds:
            return 0.0
        faster = min(float(OVERLAP_THREADS), self.records * sample.work / 1e9 / self.seconds)
        # What a record costs is another time more, where others use the machine: of steps that compute it is known too how
        # much of the processor both have had at once.
        return min(faster, self.cpu / self.seconds) if sample.computing > COMPUTING else faster

    def _cpu(self) -> list[int]:
        """Nanoseconds of the processor that each thread has had so far."""
        return [self.figures[n].cpu if n in self.figures else 0 for n in range(OVERLAP_THREADS)]

    def _hear(self, heard: contract.Heard) -> None:
        self._starting.discard(heard.worker)
        if isinstance(heard, (contract.Broken, contract.StartFailed)):
            self.broken = self.broken or heard.error
