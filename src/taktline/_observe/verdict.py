"""Names the bottleneck of a run: where the time went, what shows it, what to do, what that would gain, and what is next.

How full queues are misleads, so it is judged by time alone: who was busy, who waited, who was blocked. A run cannot be
shorter than what each of its parts does one thing after the other, and not shorter than all work over all cores. The
longest of these floors is the bottleneck. What a change gains is reckoned from the floors too: the run is as much
shorter as its highest floor is lower; what the run took beyond that floor stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from taktline._observe.measures import duration
from taktline._observe.snapshot import StepCount, Verdict

FULL = 0.7  # share of the run from which a part is its bottleneck
WAITS = 0.5  # share of the busy time that used the processor, below which workers wait inside their steps
QUEUED = 0.25  # share of the run that workers may wait for a core
CROWDED = 1.4  # cores that a busy worker uses, above which its steps start threads of their own
GIANT = 0.3  # share of the run that a single batch may take
START_UP = 0.4  # share of the run before the workers were ready
BATCH = 80e-6  # seconds that a batch costs hub and worker together, on the machine that this was measured on
TOO_SMALL = 0.002  # seconds of work a batch, below which what a batch costs shows
SHOWS = 0.2  # share of the run that what batches cost takes, from which it shows
WORKER_BATCH = 20e-6  # seconds of it in the worker
RECORD = 200e-9  # seconds that a record costs the hub in large batches: lists, packing and unpacking of small ones
LAUNCH = 0.08  # seconds to start workers, as measured
UNSURE = 0.2  # share of a loop's time by which what was timed of it may be off
TASKS = 64  # records that a step which waits could have under way
NEAR = 0.7  # share of its rate from which a step is held back by it, and not by what it waits for
CHEAP = 1.3  # times the loop from which a run with workers is said to be the slower one
MOVED = 20e-9  # seconds a record of a worker's busy time that are not its steps': lists, packing and unpacking of ints
LOCKED = 1.3  # times the processor time of threads that they are busy, and of one core, where they take turns at it
HALF = 0.5  # of a call's records, below which it is said to have few; of the busy time, from which that matters
SHORT = 0.5  # seconds of a run, below which its shares are not to be judged by
NOISE = 0.3  # share of the cores that other programs may have before times are in doubt
CORES = (1, 2, 4, 8, 16, 32, 64)  # of machines that are not here
WORTH = 1.1  # gain below which nothing is advised


class Group(NamedTuple):
    """Steps that run together, by their number, and how many workers ran them; 0: the caller's process."""

    steps: int
    workers: int
    tasks: int = 0  # records that its steps, which wait, have at once
    rate: float | None = None  # records a second that they may let in
    sizes: tuple[int, ...] = ()  # records that each of its steps takes a call, 0 where it does not say


class Spent(NamedTuple):
    """Where the time of a run went. Seconds; those of workers are summed over them."""

    how: str
    cores: int
    seconds: float
    records: int
    steps: Sequence[StepCount]
    groups: Sequence[Group]
    reading: float = 0.0  # in the source
    handling: float = 0.0  # the caller's process packed, sent, received, unpacked, and ran its own steps of a line
    consuming: float = 0.0  # who takes the results had them: the sink
    start_up: float = 0.0  # until the first worker was ready
    forked: bool = False  # which is as soon as it can be
    workers_cpu: float = 0.0  # processor time of the workers
    queued: float = 0.0  # workers were ready to run and had no core
    longest: tuple[float, int, int] = (0.0, 0, 0)  # the batch that took longest: seconds, first record, records
    batches: int = 0
    together: float = 0.0  # records that travelled together, on average; 0: not known
    batch_size: int | None = None  # where it was asked for
    window: int | None = None  # where it was asked for
    complete: bool = True
    within: bool = False  # the workers are threads of the caller's process
    tables: bool = False  # steps take columns, of which the loop would make a table a row
    live: bool = False  # the source gives records when they come
    others: float = 0.0  # the share of the machine's cores that other programs had

    @property
    def workers(self) -> int:
        return sum(group.workers for group in self.groups)


class _Floor(NamedTuple):
    """Something that takes at least `seconds`, however fast all the rest is."""

    what: str  # "source", "sink", "hub", "cores" or a step
    seconds: float
    place: str  # "caller", "cores", or a group of workers


def judge(spent: Spent) -> Verdict:
    """The verdict on a run.

    >>> work = StepCount("work", 1000, busy=19.0, waiting=0.5, blocked=0.1, ns_per_record=19e6)
    >>> judge(Spent("line", 4, 10.0, 1000, [work], [Group(1, 2)], workers_cpu=19.0)).action
    'More workers help: workers=4 takes about 5.25 s.'
    """
    if not spent.seconds or not (spent.records and any(step.busy for step in spent.steps)):
        begun = bool(spent.records and not spent.complete)
        return Verdict("nothing", "It ended before a record was done." if begun else "There was nothing to do.", "")
    return replace(_judged(spent), doubt=_doubt(spent))


def _doubt(spent: Spent) -> str:
    """Why the verdict may be wrong; empty where nothing speaks against it.

    >>> work = StepCount("work", 1000, busy=0.19, waiting=0.0, blocked=0.0, ns_per_record=19e4)
    >>> _doubt(Spent("loop", 4, 0.2, 1000, [work], []))
    '0.20 s is too short to judge; take the rest as a hint.'
    >>> _doubt(Spent("loop", 4, 9.0, 1000, [work], [], others=0.84))
    'Other programs took 84% of the cores: repeat the run when they have ended.'
    """
    if spent.seconds < SHORT:
        return f"{duration(spent.seconds)} is too short to judge; take the rest as a hint."
    return noise(spent.others, "run")


def noise(others: float, what: str) -> str:
    """Why the figures of a run, a plan or a comparison may be wrong: other programs had this share of the cores. Empty where
    that was little.

    >>> noise(0.84, "plan"), noise(0.1, "plan")
    ('Other programs took 84% of the cores: repeat the plan when they have ended.', '')
    """
    if others <= NOISE:
        return ""
    return f"Other programs took {others:.0%} of the cores: repeat the {what} when they have ended."


def _judged(spent: Spent) -> Verdict:
    for look in (_waited, _small_calls, _loop, _giant, _start_up, _locked, _small_batches, _cheap, _crowded):
        if (found := look(spent)) is not None:
            return found
    floors = _floors(spent)
    top = max(floors, key=lambda floor: floor.seconds)
    if top.seconds < FULL * (spent.seconds - spent.start_up):
        return _nothing_full(spent, floors)
    if top.place == "caller":
        return _caller(spent, floors)
    return _workers(spent, floors, top)


def _waited(spent: Spent) -> Verdict | None:
    """A live source gives what there is: that it is waited for is no fault of anybody's."""
    work = spent.handling + spent.consuming + sum(step.busy for step in spent.steps) / max(1, spent.workers)
    if not spent.live or work >= (1 - FULL) * spent.seconds:
        return None
    return Verdict(
        "source", f"For {1 - work / spent.seconds:.0%} of the run there was nothing to do: the source gave no more.",
        "The line keeps up with what comes.",
    )  # fmt: skip


def what_if(spent: Spent) -> tuple[dict[str, Any], ...]:
    """About how long the run would have taken on other numbers of cores, with as many more or fewer workers, by its
    floors; nothing where it had no workers, or too little time to say."""
    floors = _floors(spent) if spent.workers and any(step.busy for step in spent.steps) else []
    if not floors or spent.seconds < SHORT or any(group.tasks for group in spent.groups):
        return ()
    found = []
    for cores in sorted({*CORES, spent.cores}):
        more = cores / spent.cores
        changed = {floor.place.replace(" ", "_"): floor.seconds / more for floor in floors[1:]}
        then = [*floors[:1], *(floor._replace(seconds=floor.seconds / more) for floor in floors[1:])]
        limit = max(then, key=lambda floor: floor.seconds).what
        found.append(
            {
                "cores": cores, "seconds": _after(spent, floors, **changed), "bottleneck": limit,
                "here": cores == spent.cores,
            }
        )  # fmt: skip
    return tuple(found)


# --- floors ---


def _groups(spent: Spent) -> list[tuple[Group, Sequence[StepCount]]]:
    found, at = [], 0
    for group in spent.groups:
        found.append((group, spent.steps[at : at + group.steps]))
        at += group.steps
    return found


def _floors(spent: Spent) -> list[_Floor]:
    """What each part of a run with workers takes at least: the caller's process, each group of workers, all cores."""
    groups = _groups(spent)
    here = sum(step.busy for group, steps in groups if not group.workers for step in steps)
    caller = spent.reading + max(spent.handling, here) + spent.consuming
    floors = [_Floor(_largest(spent, here), caller, "caller")]
    for n, (group, steps) in enumerate(groups):
        if group.workers:
            busy = sum(step.busy for step in steps)
            floors.append(_Floor(_heaviest(steps).name, busy / group.workers, f"group {n}"))
    busy = min(spent.workers_cpu or 1e99, _busy(spent)) + caller
    return [*floors, _Floor(_heaviest(spent.steps).name, busy / spent.cores, "cores")]


def _largest(spent: Spent, here: float) -> str:
    """What the caller's process spends most on."""
    own = [step for group, steps in _groups(spent) if not group.workers for step in steps]
    parts = {"source": spent.reading, "sink": spent.consuming, "hub": max(0.0, spent.handling - here)}
    parts |= {step.name: step.busy for step in own}
    return max(parts, key=lambda name: parts[name])


def _busy(spent: Spent) -> float:
    return sum(step.busy for group, steps in _groups(spent) if group.workers for step in steps)


def _heaviest(steps: Sequence[StepCount]) -> StepCount:
    return max(steps, key=lambda step: step.busy)


def _after(spent: Spent, floors: list[_Floor], **changed: float) -> float:
    """Seconds of the run with some floors at other values, by their place."""
    now = max(floor.seconds for floor in floors)
    if "caller" in changed:  # what the caller's process need not do, no core has to do
        less = floors[-1].seconds - (floors[0].seconds - changed["caller"]) / spent.cores
        changed = {"cores": less, **changed}
    then = max(changed.get(floor.place.replace(" ", "_"), floor.seconds) for floor in floors)
    return max(1e-6, spent.seconds - now + then)


def _next(floors: list[_Floor], but: str) -> str:
    others = [floor for floor in floors if floor.place not in (but, "cores")]
    return max(others, key=lambda floor: floor.seconds).what if others else ""


# --- cases ---


def _loop(spent: Spent) -> Verdict | None:
    """Everything ran in the caller's process."""
    if spent.workers:
        return None
    busy = sum(step.busy for step in spent.steps)
    # Only some records are timed in a loop. What is left is the consumer's where it is more than their error.
    left = spent.seconds - spent.reading - busy
    consuming = max(spent.consuming, left if left > UNSURE * spent.seconds else 0.0)
    working = max(busy, spent.seconds - spent.reading - consuming)
    parts = {"source": spent.reading, "sink": consuming} | {step.name: step.busy for step in spent.steps}
    what = max(parts, key=lambda name: parts[name])
    share = parts[what] / spent.seconds
    if what == "source":
        return Verdict(
            "source", f"Reading the source takes {share:.0%} of the run.",
            "A faster source is what helps; workers do not.", _gain(spent, spent.seconds - spent.reading),
            _second(parts, what),
        )  # fmt: skip
    if what == "sink" and share > FULL:
        return Verdict(
            "sink", f"{share:.0%} of the time went into the sink.",
            "A faster sink is what helps; workers do not.", _gain(spent, spent.seconds - consuming), _second(parts, what),
        )  # fmt: skip
    top = _heaviest(spent.steps)
    evidence = f"{top.name!r} takes {top.busy / busy:.0%} of the busy time; one process did all of it."
    if spent.how != "loop" or spent.cores < 2:  # the planner has looked at it
        return Verdict(top.name, evidence, f"A cheaper {top.name!r} is what helps.", None, _second(parts, what))
    # Moving a record is not measured in a loop: some 10 µs, for packing and unpacking a small dict both ways.
    moving = spent.records * 10e-6
    line = spent.reading + consuming + LAUNCH + max(moving, (working + moving) / spent.cores)
    if line * WORTH > spent.seconds:
        return Verdict(top.name, evidence, "Stay with the loop: workers would gain nothing.", 1.0)
    return Verdict(
        top.name, evidence, f'how="line" with {spent.cores} workers takes about {duration(line)}.', _gain(spent, line),
        _second(parts, what),
    )  # fmt: skip


def _second(parts: dict[str, float], but: str) -> str:
    others = {name: seconds for name, seconds in parts.items() if name != but and seconds}
    return max(others, key=lambda name: others[name]) if others else ""


def _giant(spent: Spent) -> Verdict | None:
    """One batch took a good part of the run, and the other workers had nothing left to do meanwhile."""
    seconds, first, count = spent.longest
    even = _busy(spent) / max(1, spent.workers)
    if seconds < GIANT * spent.seconds or spent.batches < 2 * spent.workers or seconds < 1.2 * even:
        return None
    what = f"Record {first:,}" if count == 1 else f"The batch of records {first:,} to {first + count - 1:,}"
    left = max(spent.start_up + even, spent.seconds - seconds)
    return Verdict(
        "one giant record", f"{what} takes {duration(seconds)} of the {duration(spent.seconds)}, in one worker.",
        f"Split such records with expand(), or put them first: about {duration(left)} then.", _gain(spent, left),
        _heaviest(spent.steps).name,
    )  # fmt: skip


def _start_up(spent: Spent) -> Verdict | None:
    """The run was over soon after the workers were ready."""
    if spent.start_up < max(START_UP * spent.seconds, *(floor.seconds for floor in _floors(spent))):
        return None
    evidence = f"The workers are ready after {duration(spent.start_up)} of {duration(spent.seconds)}."
    loop = sum(step.busy for step in spent.steps) + spent.reading + spent.consuming
    if loop < spent.seconds:
        action = f"For so few records {_here(spent)} takes about {duration(loop)}."
        return Verdict("start-up", evidence, action, _gain(spent, loop))
    left = spent.seconds - spent.start_up
    change = (
        "More records a run"
        if spent.forked
        else "Let workers be forked (the report's reasons say why not), or more records a run"
    )
    return Verdict(
        "start-up", evidence, f"{change}: without the start about {duration(left)}.",
        _gain(spent, left), _heaviest(spent.steps).name,
    )  # fmt: skip


def _locked(spent: Spent) -> Verdict | None:
    """The workers are threads, and had one core together, though they always had something to do."""
    busy, cpu = _busy(spent) - spent.queued, spent.workers_cpu
    if not spent.within or busy < LOCKED * cpu or not FULL * spent.seconds < cpu < LOCKED * spent.seconds:
        return None
    left = spent.seconds * cpu / busy
    return Verdict(
        "Python's lock",
        f"The {spent.workers} threads had a step to do for {duration(busy)}, and the processor for {duration(cpu)}: one at a "
        "time, for the steps hold Python's lock.",
        f'Processes do not share it: start="launch" takes about {duration(left)}, if records are cheap to move.',
        _gain(spent, left), _heaviest(spent.steps).name,
    )  # fmt: skip


def _small_batches(spent: Spent) -> Verdict | None:
    """Batches cost more than the work in them: of a size that was asked for, the technique's own one record, or small for
    another reason."""
    single = spent.how in ("pool", "queues")
    asked = single or spent.batch_size is not None
    size = 1 if single else spent.batch_size or int(spent.together)
    if not size or not spent.batches:
        return None
    work = sum(step.busy for step in spent.steps) / spent.batches
    lost = spent.batches * BATCH
    if work > TOO_SMALL or spent.handling < 0.3 * spent.seconds:
        return None
    caller = max(spent.records * RECORD, spent.handling + spent.consuming - lost)
    busy = _busy(spent)
    workers = max(0.1 * busy, busy - spent.batches * WORKER_BATCH) / max(1, spent.workers)
    left = spent.start_up + max(caller, workers)
    # Large batches of cheap records are none, nor are those that are small because the source is slow.
    if not asked and (lost < SHOWS * spent.seconds or spent.reading > spent.handling):
        return None
    change = 'Take how="line"' if single else "Leave batch_size out"
    if not asked:
        change = "Leave window= out" if spent.window is not None else "Give more memory="
    return Verdict(
        "too small batches",
        f"A batch of {size:,} has {duration(work)} of work, and handing it over takes "
        f"{duration(spent.handling / spent.batches)}.",
        f"{change}, so that their size is set while running: about {duration(left)}.", _gain(spent, left),
        _heaviest(spent.steps).name,
    )  # fmt: skip


def _small_calls(spent: Spent) -> Verdict | None:
    """The heaviest step takes many records a call and got few."""
    sizes = [size for group in spent.groups for size in group.sizes or (0,) * group.steps]
    top, size = max(zip(spent.steps, sizes, strict=False), key=lambda each: each[0].busy, default=(None, 0))
    busy = sum(step.busy for step in spent.steps)
    if top is None or not spent.together or spent.records < 2 * size or top.busy < HALF * busy:
        return None
    given = max(1.0, spent.together * top.records / max(1, spent.records))
    if given > HALF * size:
        return None
    if spent.how in ("loop", "pool", "queues"):
        action = 'how="line" fills its calls.'
    elif spent.batch_size is not None and spent.batch_size < size:
        action = f"Leave batch_size out: its calls are full then, of {size:,}."
    elif spent.window is not None and spent.window < 2 * spent.workers * size:
        action = f"A larger window fills its calls: window={2 * max(1, spent.workers) * size}."
    elif given < HALF * spent.together:
        action = f"Few records reach it: batch_size={int(size * spent.together / given):,} fills its calls."
    else:
        action = "So few came together: a source that waits for more, or a larger memory=, fills its calls."
    return Verdict(
        "too small batches", f"{top.name!r} takes {top.busy / busy:.0%} of the busy time, and got {given:,.0f} records a "
        f"call, of the {size:,} that it takes; where a call costs much by itself that is dear.",
        action, None, top.name,
    )  # fmt: skip


def _cheap(spent: Spent) -> Verdict | None:
    """The steps cost less than moving their records: the loop would have been faster."""
    working = max(0.0, sum(step.busy for step in spent.steps) - spent.records * MOVED)
    loop = spent.reading + spent.consuming + working
    if loop * CHEAP > spent.seconds - spent.start_up:
        return None
    busy = min(1.0, _busy(spent) / (spent.workers * spent.seconds))
    return Verdict(
        "hub", f"Working on the records takes {duration(loop)}, moving them {duration(spent.seconds - loop)} more: the "
        f"caller's process moves them for {spent.handling / spent.seconds:.0%} of the run; the workers, busy {busy:.0%}, "
        "unpack and pack them.",
        f"{_here(spent).capitalize()} takes about {duration(loop)}.", _gain(spent, loop),
    )  # fmt: skip


def _here(spent: Spent) -> str:
    """What to choose so that all is done in the caller's process, and its beginning in a sentence."""
    return 'start no processes: start="threads"' if spent.tables else 'stay with the loop: how="loop"'


def _crowded(spent: Spent) -> Verdict | None:
    """Steps that start threads of their own, in more workers than there are cores for them."""
    busy = _busy(spent)
    if busy < 1.0 or spent.workers_cpu < CROWDED * busy or spent.workers_cpu < FULL * spent.cores * spent.seconds:
        return None
    threads = spent.workers_cpu / busy
    return Verdict(
        "threads in the steps", f"Each worker uses {threads:.1f} cores while it is busy: its steps start threads of their "
        f"own, {spent.workers} workers times over.",
        "Give each worker one thread (OMP_NUM_THREADS=1 and the like), or take fewer workers.", None,
        _heaviest(spent.steps).name,
    )  # fmt: skip


def _caller(spent: Spent, floors: list[_Floor]) -> Verdict:
    """The caller's process is busy all the time: with the source, the sink, its own steps, or as the hub."""
    floor = floors[0]
    share = f"{min(1.0, floor.seconds / spent.seconds):.0%}"
    idle = _idle(spent)
    behind = _next(floors, "caller")
    if floor.what == "source":
        # Batches are small because the source is slow; from a fast one they would be large.
        handling = max(spent.records * RECORD, spent.handling - spent.batches * BATCH)
        left = _after(spent, floors, caller=min(spent.handling, handling) + spent.consuming)
        return Verdict(
            "source", f"Reading the source takes {spent.reading / spent.seconds:.0%} of the run; the workers {idle}.",
            f"A faster source is what helps, more workers do not: at best {duration(left)}.", _gain(spent, left), behind,
        )  # fmt: skip
    if floor.what == "sink":
        left = _after(spent, floors, caller=floor.seconds - spent.consuming)
        return Verdict(
            "sink", f"{spent.consuming / spent.seconds:.0%} of the time went into the sink; the workers {idle}.",
            f"A faster sink is what helps, more workers do not: at best {duration(left)}.", _gain(spent, left), behind,
        )  # fmt: skip
    if floor.what != "hub":
        step = next(step for step in spent.steps if step.name == floor.what)
        left = _after(spent, floors, caller=floor.seconds - step.busy / 2)
        return Verdict(
            step.name, f"{step.name!r} runs in the caller's process and takes {step.busy / spent.seconds:.0%} of the run; "
            f"the workers {idle}.",
            f"Leave in it only what needs the order: half as dear, about {duration(left)}.", _gain(spent, left), behind,
        )  # fmt: skip
    evidence = (
        f"The caller's process is busy {share} of the run, {spent.handling / spent.seconds:.0%} with moving records and "
        f"results; the workers {idle}."
    )
    left = _after(spent, floors, caller=floor.seconds - spent.handling / 2)
    return Verdict(
        "hub", evidence, f"Move less: results half as large take about {duration(left)}. More workers do not help.",
        _gain(spent, left), behind,
    )  # fmt: skip


def _idle(spent: Spent) -> str:
    """How much of the run the workers had nothing to do."""
    there = [step for group, steps in _groups(spent) if group.workers for step in steps]
    whole = spent.workers * spent.seconds
    return (
        f"wait {min(1.0, sum(step.waiting for step in there) / whole):.0%} and are blocked "
        f"{min(1.0, sum(step.blocked for step in there) / whole):.0%} of it"
    )


def _workers(spent: Spent, floors: list[_Floor], top: _Floor) -> Verdict:
    """Workers, or all cores, are busy all the time."""
    groups = {f"group {n}": each for n, each in enumerate(_groups(spent)) if each[0].workers}
    place = top.place if top.place in groups else max(groups, key=lambda p: sum(s.busy for s in groups[p][1]))
    group, steps = groups[place]
    step, busy = _heaviest(steps), sum(each.busy for each in steps)
    whole = group.workers * spent.seconds
    evidence = (
        f"{step.name!r} takes {step.busy / sum(each.busy for each in spent.steps):.0%} of the busy time; its workers are "
        f"busy {min(1.0, busy / whole):.0%}, waiting {sum(s.waiting for s in steps) / whole:.0%}, blocked "
        f"{sum(s.blocked for s in steps) / whole:.0%} of the run."
    )
    behind, key = _next(floors, place), place.replace(" ", "_")
    if group.rate is not None and spent.records > NEAR * group.rate * spent.seconds:
        return Verdict(
            step.name, f"{evidence} Its rate lets {group.rate:g} records a second in.",
            "A higher rate= is what would help.", None, behind,
        )  # fmt: skip
    if group.tasks:
        left = _after(spent, floors, **{key: busy / group.workers / 2})
        return Verdict(
            step.name, evidence,
            f"More records at once: tasks={2 * group.tasks} takes about {duration(left)}, if what it waits for bears it.",
            _gain(spent, left), behind,
        )  # fmt: skip
    cpu = spent.workers_cpu
    if cpu and cpu + spent.queued < WAITS * _busy(spent):
        left = _after(spent, floors, **{key: (cpu + (busy - cpu) / TASKS) / group.workers})
        return Verdict(
            step.name, f"{evidence} They use the processor only {cpu / _busy(spent):.0%} of that: {step.name!r} waits.",
            f"step({step.name}, tasks={TASKS}) works on {TASKS} records at once: about {duration(left)}.",
            _gain(spent, left), behind,
        )  # fmt: skip
    if spent.queued > QUEUED * whole:
        return _no_core(spent, evidence)
    if len(groups) == 1 and group.workers < spent.cores and top.place != "cores":
        left = _after(spent, floors, **{key: busy / spent.cores, "cores": (busy + floors[0].seconds) / spent.cores})
        action = f"More workers help: workers={spent.cores} takes about {duration(left)}."
        return Verdict(step.name, evidence, action, _gain(spent, left), behind)
    times = []
    for more in (2, 4):
        cores = floors[-1].seconds / more
        times.append((spent.cores * more, _after(spent, floors, **{key: busy / group.workers / more, "cores": cores})))
    said = ", ".join(f"{cores} cores take about {duration(left)}" for cores, left in times)
    action = f"More cores and workers help: {said}; or a cheaper {step.name!r}."
    return Verdict(step.name, evidence, action, _gain(spent, times[0][1]), behind)


def _no_core(spent: Spent, evidence: str) -> Verdict:
    """Workers were ready to run, and other processes had the cores."""
    share = spent.queued / (spent.workers * spent.seconds)
    left = max(1e-6, spent.seconds - spent.queued / spent.workers)
    many = f"{spent.workers} workers are too many for {spent.cores} cores"
    who = many if spent.workers > spent.cores else "other programs have them"
    return Verdict(
        "cores", f"{evidence} For {share:.0%} of the run a worker was ready and had no core: {who}.",
        f"More cores, or other programs ended: about {duration(left)}.", _gain(spent, left), _heaviest(spent.steps).name,
    )  # fmt: skip


def _nothing_full(spent: Spent, floors: list[_Floor]) -> Verdict:
    """No part is busy all the time: the end of the run, the window, or other programs."""
    busy = min(1.0, _busy(spent) / (spent.workers * spent.seconds))
    caller = floors[0].seconds / spent.seconds
    evidence = f"Nothing is busy all the time: the workers {busy:.0%}, the caller's process {caller:.0%}."
    if spent.queued > QUEUED * spent.workers * spent.seconds:
        return _no_core(spent, evidence)
    seconds, _, count = spent.longest
    if spent.batch_size is not None and count > 1 and seconds > 0.1 * spent.seconds:
        left = max(floor.seconds for floor in floors) + spent.start_up
        return Verdict(
            "too large batches", evidence, f"Batches of {spent.batch_size:,} are too large to be shared out evenly: leave "
            f"batch_size out, about {duration(left)}.", _gain(spent, left), _heaviest(spent.steps).name,
        )  # fmt: skip
    if spent.start_up > 0.1 * spent.seconds:
        return Verdict(
            "start-up", f"{evidence} The workers are ready after {duration(spent.start_up)}.",
            "Balanced otherwise: it weighs less in a longer run.", None, _heaviest(spent.steps).name,
        )  # fmt: skip
    return Verdict(
        "balance", evidence, "Balanced: little to gain by other settings. A window= that was asked for may be too small, or "
        "other programs use the cores.", 1.0, _heaviest(spent.steps).name,
    )  # fmt: skip


def _gain(spent: Spent, seconds: float) -> float | None:
    return spent.seconds / max(seconds, 1e-6) if spent.complete else None
