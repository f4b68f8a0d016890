"""From measured costs to a technique, with the reasons in words. Decides on numbers alone."""

from __future__ import annotations

from typing import NamedTuple

FORKED = 0.015  # seconds until forked workers take records,
LAUNCHED = 0.05  # until launched ones do,
MODULE = 0.00025  # and for each module that the caller has beside taktline's own: they may import it too
OWN = 190  # modules
BESIDE = 0.6  # share of the loop's speed at which work goes on here meanwhile
WORTHWHILE_GAIN = 1.15  # predicted gain below which the hand-over is not worth its risk
HUB_NS = 80  # nanoseconds a record that the hub spends beside pickling: list, queue, delivery
OVERLAP = 1.25  # times the loop's speed in two threads, from which they are taken,
PREFERRED = 0.9  # and share of what processes would gain: there is less to go wrong, and nothing to pack
CALL_NS = 20_000  # nanoseconds of work in a call, below which no step lets go of Python's lock for long
TRY = 0.03  # seconds of work left, or done where nobody knows how much is left: trying threads takes some 20 ms
LOOP_AGAIN_SHARE = 0.8  # share of what a record costs with workers, below which the loop is gone back to


class Sample(NamedTuple):
    """What the first records cost, in nanoseconds a record."""

    records: int
    read: float
    work: float  # all steps that workers may run, wall time
    computing: float  # share of the work that used the processor, 0 to 1; the rest waited
    here: float  # steps that stay in the caller's process
    pack_in: float
    unpack_in: float
    pack_out: float
    unpack_out: float
    obstacle: str = ""  # why records or results cannot go to workers at all

    def of_many(self, count: int) -> Sample:
        """What so many of them cost, that are handed over as one."""
        return self._replace(
            read=self.read * count, work=self.work * count, here=self.here * count, pack_in=self.pack_in * count,
            unpack_in=self.unpack_in * count, pack_out=self.pack_out * count, unpack_out=self.unpack_out * count,
        )  # fmt: skip


class Choice(NamedTuple):
    """`move`: start workers, processes or `threads`. `final`: staying is thought over again only when the work costs
    something else."""

    move: bool
    final: bool
    reason: str
    gain: float = 1.0  # times the loop's speed, as predicted
    threads: bool = False  # move to threads, which overlap


def without_the_hub(sample: Sample, *, records: bool, results: bool) -> Sample:
    """What it costs where workers read the `records` themselves, or make the bytes of the `results` that are written."""
    if records:
        sample = sample._replace(read=0.0, work=sample.work + sample.read, pack_in=0.0, unpack_in=0.0)
    return sample._replace(pack_out=0.0, unpack_out=0.0) if results else sample


def choose(
    sample: Sample, *, workers: int, cores: int, remaining: int | None, elapsed: float, returns: int = 0,
    start_up: float = LAUNCHED, what: str = "record",
) -> Choice:  # fmt: skip
    """Stay in the loop or move to workers. `remaining` records, where known; `elapsed` seconds of this run so far;
    `returns`: how often it came back from workers, each of which makes another move harder; `start_up`: seconds until
    workers take records; `what`: what is handed over at once and counted here, where it is no record.

    >>> dear = Sample(8, 50, 800_000, 1.0, 0, 500, 500, 500, 500)
    >>> choose(dear, workers=2, cores=2, remaining=100_000, elapsed=0).move
    True
    >>> large = Sample(8, 50, 300_000, 1.0, 0, 400_000, 200_000, 400_000, 200_000)
    >>> print(choose(large, workers=2, cores=2, remaining=100_000, elapsed=0).reason)
    stay with the loop: moving a record costs 1.2 ms, working on it 300 µs
    """
    if sample.obstacle:
        return Choice(False, True, f"stay with the loop: {sample.obstacle}")
    if workers < 2 and sample.computing > 0.5:
        return Choice(False, True, "stay with the loop: there is one core to use")
    loop, line = _paces(sample, workers, cores)
    gain = loop / line
    moving = sample.pack_in + sample.unpack_in + sample.pack_out + sample.unpack_out + HUB_NS
    if gain < WORTHWHILE_GAIN * (1 + returns / 2):
        return Choice(False, True, reason_to_stay(moving, sample.work, what))
    # What is left is done at the loop's pace, or, while workers start, at a part of it, and then at theirs.
    if remaining is not None and remaining * (loop - line) / 1e9 < start_up * (1 - BESIDE * line / loop):
        return Choice(False, True, f"stay with the loop: {remaining:,} {what}s are done before workers have started")
    if remaining is None and elapsed < start_up:
        return Choice(False, False, "stay with the loop: it is not known yet whether the source is long enough")
    return Choice(True, True, reason_to_move(workers, moving, sample.work, gain, what), gain)


def may_overlap(sample: Sample, *, call: int, workers: int, cores: int) -> bool:
    """Whether two threads may be the faster ones. `call`: records that a step takes at once.

    >>> heavy = Sample(8, 50, 1e6, 1.0, 0, 2e6, 1e6, 2e6, 1e6)
    >>> may_overlap(heavy, call=1, workers=2, cores=2), may_overlap(heavy, call=1, workers=1, cores=2)
    (True, False)
    """
    return min(workers, cores) > 1 and sample.work * call > CALL_NS and sample.work > sample.read + sample.here


def is_long(sample: Sample, *, remaining: int | None, elapsed: float) -> bool:
    """Whether the run is long enough for threads to be tried."""
    return (elapsed if remaining is None else remaining * sample.work / 1e9) > TRY


def of_threads(overlap: float, choice: Choice, *, workers: int, cores: int) -> Choice:
    """What to do where two threads are so many times as fast as the loop, and else this would be done.

    >>> stay = Choice(False, True, "stay with the loop: moving a record costs 1 ms, working on it 1 ms")
    >>> of_threads(1.9, stay, workers=2, cores=2).reason
    'move to 2 threads: two of them are 1.9 times as fast as the loop, and nothing is packed'
    >>> of_threads(1.0, stay, workers=2, cores=2).reason
    'stay with the loop: moving a record costs 1 ms, working on it 1 ms; two threads are 1.0 times as fast'
    """
    alone = max(0.0, 2 / overlap - 1)  # share of the work that only one thread can do at a time (Amdahl)
    gain = 1 / (alone + (1 - alone) / min(workers, cores))
    if overlap < OVERLAP or gain < PREFERRED * choice.gain:
        return choice._replace(reason=f"{choice.reason}; two threads are {overlap:.1f} times as fast")
    reason = (
        f"move to {workers} threads: two of them are {overlap:.1f} times as fast as the loop, and nothing is packed"
    )
    return Choice(True, True, reason, gain, threads=True)


def _paces(sample: Sample, workers: int, cores: int) -> tuple[float, float]:
    """Nanoseconds a record in the loop, and with workers once they have started."""
    loop = sample.read + sample.work + sample.here
    hub = sample.read + sample.here + sample.pack_in + sample.unpack_out + HUB_NS
    worker = sample.work + sample.unpack_in + sample.pack_out
    cpu = hub + sample.work * sample.computing + sample.unpack_in + sample.pack_out
    line = max(hub, worker / workers, cpu / cores)
    return loop, line


def saved(sample: Sample, *, workers: int, cores: int, records: int) -> float:
    """Seconds that workers save on so many records, but for their start."""
    loop, line = _paces(sample, workers, cores)
    return max(0.0, records * (loop - line) / 1e9)


def start_up(*, forks: bool, modules: int) -> float:
    """Seconds until workers take records; `modules` are imported here."""
    return FORKED if forks else LAUNCHED + MODULE * max(0, modules - OWN)


def reason_to_stay(moving: float, work: float, what: str = "record") -> str:
    """In words; nanoseconds a record.

    >>> reason_to_stay(1.1e6, 100_000)
    'stay with the loop: moving a record costs 1.1 ms, working on it 100 µs'
    """
    return f"stay with the loop: {_costs(moving, work, what)}"


def reason_to_move(workers: int, moving: float, work: float, gain: float, what: str = "record") -> str:
    """In words; nanoseconds a record, `gain` as a multiple of the loop's speed."""
    costs = _costs(moving, work, what)
    return f"move to {workers} worker{'s' * (workers != 1)}: {costs}; predicted {gain:.1f} times the loop"


def reason_to_return(here: float, there: float) -> str:
    """In words; nanoseconds a record.

    >>> reason_to_return(900, 12_000)
    'a record would cost 900 ns here, with workers it costs 12 µs'
    """
    return f"a record would cost {_time(here)} here, with workers it costs {_time(there)}"


def _costs(moving: float, work: float, what: str) -> str:
    return f"moving a {what} costs {_time(moving)}, working on it {_time(work)}"


def _time(ns: float) -> str:
    if ns < 1_000:
        return f"{ns:.0f} ns"
    return f"{ns / 1_000:.3g} µs" if ns < 1_000_000 else f"{ns / 1e6:.2g} ms"
