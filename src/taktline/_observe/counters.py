"""Adds up what workers counted: records, busy, waiting and blocked time a step, from the newest figures of each worker."""

from __future__ import annotations

from collections.abc import Sequence

from taktline._observe.snapshot import StepCount

Numbers = Sequence[int]


class LaneCount:
    """The counters of one lane: its steps, over all workers that ever ran them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._newest: dict[int, tuple[int, int, int, int, int, Numbers, Numbers, Numbers]] = {}
        self._past = [0] * (5 + 3 * len(self.names))

    def note(
        self, worker: int, busy: int, waiting: int, blocked: int, cpu: int, retried: int,
        records: Numbers, timed_records: Numbers, timed_ns: Numbers,
    ) -> None:  # fmt: skip
        """The newest figures of a worker, since it started; times in nanoseconds."""
        self._newest[worker] = (busy, waiting, blocked, cpu, retried, records, timed_records, timed_ns)

    def busy_of(self, worker: int) -> int:
        """Nanoseconds this worker had been busy when it last told."""
        return self._newest[worker][0] if worker in self._newest else 0

    def retire(self, worker: int) -> None:
        """The worker has ended; another may take its number."""
        if (last := self._newest.pop(worker, None)) is not None:
            flat = [*last[:5], *last[5], *last[6], *last[7]]
            self._past = [a + b for a, b in zip(self._past, flat, strict=True)]

    def totals(self) -> tuple[int, int, int, int, int, Numbers, Numbers, Numbers]:
        """busy, waiting, blocked, cpu in nanoseconds, retries, and records, timed records and timed nanoseconds a step."""
        sums = list(self._past)
        for last in list(self._newest.values()):  # another thread may look, while a worker is added
            flat = [*last[:5], *last[5], *last[6], *last[7]]
            sums = [a + b for a, b in zip(sums, flat, strict=True)]
        n = len(self.names)
        return (*sums[:5], sums[5 : 5 + n], sums[5 + n : 5 + 2 * n], sums[5 + 2 * n :])  # type: ignore[return-value]

    def steps(self) -> list[StepCount]:
        """What each step did. A segment's busy time is shared out as the records timed step by step say."""
        busy, waiting, blocked, _, _, records, timed_records, timed_ns = self.totals()
        costs = [ns / timed if timed else 0.0 for ns, timed in zip(timed_ns, timed_records, strict=True)]
        weights = [cost * count for cost, count in zip(costs, records, strict=True)]
        whole = sum(weights)
        counts = []
        for n, name in enumerate(self.names):
            share = weights[n] / whole if whole else 1 / len(self.names)
            mine = busy * share / 1e9
            counts.append(
                StepCount(
                    name=name,
                    records=records[n],
                    busy=mine,
                    waiting=waiting * share / 1e9,
                    blocked=blocked * share / 1e9,
                    ns_per_record=mine * 1e9 / records[n] if records[n] else 0.0,
                )
            )
        return counts
