"""What the first records cost: their work, and what moving them would cost. Records and results are only looked at."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from taktline._planner.choose import Sample
from taktline._signals import pass_on
from taktline._wire import serialize

RECORDS = 32  # enough to know costs within some 10 %, few enough to be over at once
SINGLY = 256  # records that are timed one by one
LONG = 0.0005  # seconds of a lot that tells the cost of cheap records: the clock and the calls around it weigh nothing
ENOUGH = 0.05  # seconds of work after which even fewer records have said enough
MOVED = 256  # records that are packed and unpacked at once to see what moving costs
MOVED_NS = 1_000_000  # nanoseconds that one such look may take
HEAVY = 2  # looks that must agree before it is believed
LARGE = 1 << 17  # bytes of buffers: above that a copy leaves fresh memory behind and slows down what comes after it
COPY_NS = 0.25  # nanoseconds to copy a byte of them into fresh memory
HEAVY_NS = 250_000  # nanoseconds to move one record: below that looking costs next to nothing


class Sampling:
    """Learns from each lot of records. With `moving` it also packs and unpacks some of them. `singly`: each record was
    timed by itself, so that a few of them tell as much as a long lot."""

    def __init__(self, *, moving: bool, singly: bool = False) -> None:
        self.records = 0
        self.table = 0  # records of the largest table, where the records come in tables
        self.obstacle = ""  # why records or results cannot be moved
        self._moving = moving
        self._singly = singly
        self._look_at = 1  # records after which moving is looked at next
        self._costs = {"in": (0.0, 0.0), "out": (0.0, 0.0)}  # packing, unpacking, in ns a record
        self._lots: list[tuple[int, float, float, float]] = []  # records, and seconds of reading, work and processor
        self._work = 0.0  # ns a record, of the newest lot
        self._heavy = 0  # looks that found moving far dearer than the work
        self._spent = self._last = 0.0  # seconds of work, in all and in the last lot

    @property
    def done(self) -> bool:
        """Whether the costs are known well enough to choose."""
        if not self._moving:
            return self.records >= RECORDS  # nothing is to be chosen: only the report asks what steps cost
        if self.table:  # the first one may have imported
            return len(self._lots) > 1
        if self._heavy >= HEAVY:
            return True
        if self._singly:
            enough = self.records >= SINGLY
        else:  # the first lot may have imported
            enough = self.records >= RECORDS and self._last >= LONG and len(self._lots) > 1
        return enough or (self.records > 1 and self._spent > ENOUGH) or self.records >= 1 << 14

    @property
    def work_ns(self) -> float:
        """Nanoseconds of work a record, in the newest lot."""
        return self._work

    def learn(
        self, records: list[Any], results: list[Any], *, read: float, work: float, cpu: float, count: int | None = None,
        given: int | None = None,
    ) -> None:  # fmt: skip
        """A lot was read in `read` seconds and worked on in `work` seconds, of which `cpu` on the processor. `count` and
        `given`: how many records and results it had, where only some of them are here."""
        if not records:
            return
        looking = not self.done
        count = len(records) if count is None else count
        given = len(results) if given is None else given
        self._count(count, work)
        if looking:
            self._lots.append((count, read, work, cpu))
        if looking and self._moving and (self.records >= self._look_at or self.done) and not self.obstacle:
            self._look_at = self.records * 8
            self._look("in", records, "a record", 1.0)
            self._look("out", results, "a result", given / count)
            moving = sum(map(sum, self._costs.values()))
            if moving > HEAVY_NS and moving > self._work:
                # Large records and little work. One record may be odd; after a second one looking on would cost more
                # than it tells, and so would lots of them, whose memory is fresh each time.
                self._look_at = self.records + 1
                self._heavy += 1
            else:
                self._heavy = 0

    def learn_table(self, count: int, size: int, *, given: int, read: float, work: float, cpu: float) -> None:
        """As `learn`, of a table, whose results of `size` bytes go as they are. So does it itself where it is in memory, of
        `given` bytes; 0 where workers read it."""
        if not count:
            return
        self.table = max(self.table, count)
        self._count(count, work)
        self._lots.append((count, read, work, cpu))
        for way, moved in (("in", given), ("out", size)):
            packing = moved * COPY_NS / count
            self._costs[way] = (2 * packing, packing)  # a stream of Arrow, and copies into and out of shared memory

    def _count(self, count: int, work: float) -> None:
        self.records += count
        self._spent += work
        self._last = work
        self._work = work * 1e9 / count

    def taken(self, seconds: float) -> None:
        """Who takes the results made their bytes of the newest lot, in so many seconds of the processor: workers would."""
        count, read, work, cpu = self._lots[-1]
        self._lots[-1] = count, read, work + seconds, cpu + seconds
        self._work += seconds * 1e9 / count

    def costs(self, here: float) -> Sample:
        """All that was learnt; `here` is the share of the work that stays in the caller's process."""
        (pack_in, unpack_in), (pack_out, unpack_out) = self._costs["in"], self._costs["out"]
        # Over the largest lots, where a call weighs least and one odd lot not all. The first record may have imported.
        lots = self._lots[1:] or self._lots
        most = max((lot[0] for lot in lots), default=0)
        count, read, work, cpu = (sum(each) for each in zip(*(lot for lot in lots if 2 * lot[0] >= most), strict=True))
        work_ns = work * 1e9 / count
        return Sample(
            records=self.records, read=read * 1e9 / count, work=work_ns * (1 - here),
            computing=min(1.0, cpu / work) if work else 1.0, here=work_ns * here, pack_in=pack_in, unpack_in=unpack_in,
            pack_out=pack_out, unpack_out=unpack_out, obstacle=self.obstacle,
        )  # fmt: skip

    def _look(self, way: str, values: list[Any], what: str, ratio: float) -> None:
        def take(many: int, times: int) -> None:
            # The least of several: one alone may have been held up by anything.
            looks = [moving(values[:many], exact=False) for _ in range(times)]
            packing, unpacking, _, obstacle = min(looks, key=lambda look: look[0] + look[1])
            self._costs[way] = (packing * ratio, unpacking * ratio)
            if obstacle:
                self.obstacle = f"{what} cannot be sent between processes: {obstacle}"

        def fits() -> int:
            return int(min(MOVED, len(values), MOVED_NS / max(1.0, sum(self._costs[way]))))

        first = not any(self._costs[way])
        if first:  # a value may be large: one first
            take(1, 1)
        if fits() < 2 and (not first or len(values) > 1):  # that one may have imported what packs it
            take(1, 1)
        if fits() > 1 and not self.obstacle:  # a call costs as much as many small values
            take(fits(), 2)


def moving(values: list[Any], *, exact: bool = True) -> tuple[float, float, float, str]:
    """Nanoseconds a value to pack and to unpack these values, their bytes, and why they cannot be moved (empty where
    they can). Not `exact`: the copies of large buffers are reckoned, not made."""
    count = max(1, len(values))
    try:
        began = perf_counter_ns()
        parts = serialize.pack(values)
        size = sum(map(len, parts))
        if not exact and size - len(parts[0]) > LARGE:
            copying = size * COPY_NS
            return (perf_counter_ns() - began + copying) / count, copying / count, size / count, ""
        copied = [bytes(part) for part in parts]  # as the way through the arena does
        packed = perf_counter_ns()
        serialize.unpack(copied)
        done = perf_counter_ns()
    except serialize.NotSerializable as error:
        return 0.0, 0.0, 0.0, f"{type(error.error).__name__}: {error.error}"
    except Exception as error:  # a reducer of the user's: anything may happen in it
        pass_on(error)
        return 0.0, 0.0, 0.0, f"{type(error).__name__}: {error}"
    return (packed - began) / count, (done - packed) / count, size / count, ""
