"""What a run did over time, in a bounded number of figures however long it goes: for the pictures of its report."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Any

SAMPLES = 240  # most points over time; from then on half as many, twice as far apart
CELLS = 240  # most cells of a worker's row
MARKS = 60  # most marks; of those behind them it is told how many there were
IDLE = -1


class History:
    """Points over time, which step each worker was at, and what happened when.

    A row of cells is sampled: a cell says which step its worker was at in the middle of it. A batch that went through
    several steps fused into one spent in each the share that the step takes of all of them.

    >>> history = History()
    >>> history.worked(2, 0.0, 1.0, 3)
    >>> [(worker, cells) for worker, cells in history.rows(1.0, [[0.5, 0.5]] * 4)][0][0]
    2
    """

    def __init__(self) -> None:
        self._every = 0.25  # seconds between two points, at least
        self._points: list[tuple[float, ...]] = []
        self._width = 0.001  # seconds of a cell
        self._cells: dict[
            int | None, dict[int, tuple[int, float]]
        ] = {}  # by worker: the lane, and how far in its batch
        self._marks: list[tuple[float, str, str]] = []
        self._more = 0

    def point(self, at: float, *figures: float) -> None:
        """These are the figures now."""
        if self._points and at - self._points[-1][0] < self._every * 0.9:
            return
        self._points.append((at, *figures))
        if len(self._points) > SAMPLES:
            self._points = self._points[::2]
            self._every *= 2

    def last(self, at: float, *figures: float) -> None:
        """These are the figures at the end."""
        if self._points and at <= self._points[-1][0]:
            return
        self._points.append((at, *figures))

    def mark(self, at: float, kind: str, says: str) -> None:
        """This happened: workers died, the run moved, records failed."""
        if len(self._marks) < MARKS:
            self._marks.append((at, kind, says))
        else:
            self._more += 1

    def worked(self, worker: int | None, began: float, ended: float, lane: int) -> None:
        """A worker, or the caller's process (None), had a batch in work."""
        began = max(0.0, began)  # steps that wait may be longer at work, taken together, than the run lasts
        width, known = self._width, worker in self._cells
        cell = int(began / width + 0.5)  # the first one whose middle lies behind the beginning
        if known and (cell + 0.5) * width >= ended:  # most batches are shorter than a cell
            return
        while ended / self._width > CELLS:
            self._halve()
        width = self._width
        cell = int(began / width + 0.5)
        row = self._cells.setdefault(worker, {})
        if not known:  # who had work at all is shown, however short it was
            row[min(cell, int(ended / width))] = lane, 0.0
        while (middle := (cell + 0.5) * width) < ended:
            row[cell] = lane, (middle - began) / (ended - began)
            cell += 1

    def _halve(self) -> None:
        self._width *= 2
        for worker, row in self._cells.items():
            self._cells[worker] = {cell // 2: what for cell, what in row.items() if cell % 2 or cell + 1 not in row}

    def rows(self, seconds: float, shares: list[list[float]]) -> list[tuple[int | None, list[int]]]:
        """By worker: the number of the step that it was at in each cell, IDLE where at none. `shares`: by lane, of its
        steps; all lanes' steps are numbered through."""
        firsts = [sum(map(len, shares[:lane])) for lane in range(len(shares))]
        count = min(CELLS, max(1, int(seconds / self._width + 0.5)))
        rows = []
        for worker in sorted(self._cells, key=lambda worker: -1 if worker is None else worker):
            cells = [IDLE] * count
            for cell, (lane, through) in self._cells[worker].items():
                if lane < len(shares):
                    cells[min(cell, count - 1)] = firsts[lane] + _step_at(through, shares[lane])
            rows.append((worker, cells))
        return rows

    def to_dict(self, seconds: float, shares: list[list[float]]) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "points": [list(point) for point in self._points],
            "marks": [list(mark) for mark in self._marks],
            "more_marks": self._more,
            "cell_seconds": self._width,
            "rows": [[worker, _packed(cells)] for worker, cells in self.rows(seconds, shares)],
        }


def _step_at(through: float, shares: list[float]) -> int:
    ends = list(accumulate(shares if any(shares) else [1.0] * len(shares)))
    return min(bisect_right(ends, through * ends[-1]), len(ends) - 1)


def _packed(cells: list[int]) -> list[list[int]]:
    """Runs of equal cells: the step and how many."""
    runs: list[list[int]] = []
    for cell in cells:
        if runs and runs[-1][0] == cell:
            runs[-1][1] += 1
        else:
            runs.append([cell, 1])
    return runs
