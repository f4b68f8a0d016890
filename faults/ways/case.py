"""A whole way, drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

from faults.ways import model
from faults.ways.sinks import SINKS, Target
from faults.ways.sources import SOURCES, Origin
from faults.ways.steps import ALWAYS, DEADLY, ENTRIES, FAULTS, KINDS, SERIAL, SHAPES, Spec, number
from taktline._recipe.options import Options

STARTS = [each for field in fields(Options) if field.name == "start" for each in field.metadata["check"].choices]
STARTS.append("agents")  # as on several machines
IN_WORKERS = ("pool", "queues", "line")
TIMEOUT = 2.0  # seconds; what does not hang is done in far less


@dataclass(frozen=True)
class Case:
    """All of it. `journal`: None, or what happens to the run that has one."""

    seed: int
    origin: Origin
    steps: tuple[Spec, ...]
    target: Target
    options: dict[str, Any]
    letters: str = ""  # the suffix of the file for dead letters
    journal: str | None = None
    kills: tuple[tuple[str, int], ...] = ()  # what the caller is killed by: so many of such events

    @property
    def goes_on(self) -> bool:
        return self.options.get("on_error", "raise") != "raise" or bool(self.letters)

    @property
    def ordered(self) -> bool:
        return bool(self.options.get("ordered", True))

    def __str__(self) -> str:
        options = " ".join(f"{key}={value!r}" for key, value in self.options.items())
        options += f" dead_letters={self.letters}" if self.letters else ""
        kills = ", then ".join(f"{count} of {what}" for what, count in self.kills)
        journal = f"\n  journal  {self.journal}{f': killed after {kills}' if kills else ''}" if self.journal else ""
        return (
            f"way {self.seed}\n  source   {self.origin}\n  steps    {' → '.join(map(str, self.steps))}\n"
            f"  options  {options}\n  sink     {self.target}{journal}"
        )


def case_of(seed: int, *, elsewhere: bool = False) -> Case:
    """The way with this seed, always the same one as long as the tables are the same. `elsewhere`: its workers are on other
    machines, whatever was drawn for their start."""
    return _Drawing(seed, elsewhere).case()


class _Drawing:
    def __init__(self, seed: int, elsewhere: bool) -> None:
        self.seed = seed
        self.elsewhere = elsewhere
        self.chance = Random(seed)

    def likely(self, share: float) -> bool:
        return self.chance.random() < share

    def one_of(self, *values: Any) -> Any:
        return self.chance.choice(values)

    def kind_of(self, table: dict[str, Any], *, without: tuple[str, ...] = ()) -> str:
        names = [name for name in table if name not in without]
        return self.chance.choices(names, [table[name].drawn for name in names])[0]

    def case(self) -> Case:
        target = self.target()
        origin = self.origin(target)
        rows = SOURCES[origin.kind].gives in ("row", "cells") if self.likely(0.8) else not self.likely(0.5)
        steps = self.steps(origin, target, rows=rows)
        if any(spec.by for spec in steps) and not SQL & {origin.kind}:
            origin = replace(origin, repeat=self.one_of(1, 2, 3, 3, 7))
        options = self.options()
        letters = self.one_of("jsonl", "sqlite") if self.likely(0.15) else ""
        journal, kills = self.journal(origin, target)
        case = Case(self.seed, origin, steps, target, options, letters, journal, kills)
        if self.likely(0.03) and not SQL & {origin.kind, target.kind}:
            case = self.dear(case)
        return self.last_looks(self.with_fault(case))

    def dear(self, case: Case) -> Case:
        """So much work that it pays to move to workers, in the midst of it."""
        origin = replace(case.origin, count=self.chance.randrange(2_000, 4_000), fault="", odd="")
        if SOURCES[origin.kind].faults and self.likely(0.5):
            origin = replace(origin, fault=SOURCES[origin.kind].faults[0], at=self.chance.randrange(origin.count))
        first = 1 if case.steps[0].kind in ENTRIES else 0
        steps = (*case.steps[:first], Spec("map", "dear", 3, 1, dear=True), *case.steps[first:])
        steps = tuple(step for step in steps if step.kind not in HEAVY)
        options = {"how": self.one_of("auto", "auto", "line"), "workers": 2, "start": case.options["start"]}
        return replace(case, origin=origin, steps=steps, options=options, journal=None, kills=())

    # --- the ends ---

    def target(self) -> Target:
        kind = self.kind_of(SINKS)
        sink = SINKS[kind]
        fault = self.one_of(*sink.faults) if sink.faults and self.likely(0.25) else ""
        at = self.chance.randrange(1, 60) if fault else 0
        return Target(kind, self.one_of(*sink.packings), sink.file and self.likely(0.3), fault, at)

    def origin(self, target: Target) -> Origin:
        kind = self.kind_of(SOURCES, without=("async",))
        if target.kind == "stream" and self.likely(0.5):
            kind = "async"
        about = SOURCES[kind]
        count = self.one_of(0, 1, self.chance.randrange(2, 40), *[self.chance.randrange(20, 400)] * 5)
        odd = self.one_of(*about.oddities) if about.oddities and self.likely(0.3) else ""
        packing = self.one_of(*about.packings)
        files = self.one_of(1, 1, 2, 3) if len(about.packings) > 1 and odd == "" else 1
        fault = self.one_of(*about.faults) if about.faults and count and self.likely(0.3) else ""
        if fault == "is cut":
            odd, files = "", 1
            fault = fault if packing or kind != "txt" else ""
        at = self.chance.randrange(count) if count else 0
        return Origin(
            kind, count, self.chance.randrange(200), self.one_of(1, 1, 3), packing, files, odd, fault, at,
            self.chance.uniform(0.05, 0.97),
        )  # fmt: skip

    # --- the steps ---

    def steps(self, origin: Origin, target: Target, *, rows: bool) -> tuple[Spec, ...]:
        specs: list[Spec] = []
        gives = SOURCES[origin.kind].gives
        if gives != ("row" if rows else "number") or self.odd_rows(origin):
            specs.append(Spec("row of" if rows else "number of", "entry"))
        key = "n" if gives in ("row", "cells") else "itself"
        for place in range(self.one_of(0, 1, 1, 2, 2, 3, 3, 4, 5)):
            specs.append(self.step(place, rows=rows, key=key))
        shape = SINKS[target.kind].shape
        if shape == "as text" or (shape == "as row" and not rows) or not specs:
            specs.append(Spec(shape, "exit"))
        return tuple(specs)

    def odd_rows(self, origin: Origin) -> bool:
        """Whether its records have more in them than the sinks take, or are not to be kept."""
        return origin.fault in EVERY_RECORD or self.likely(0.2)

    def step(self, place: int, *, rows: bool, key: str) -> Spec:
        """`key`: by what name a record of the source has its number."""
        kind = self.kind_of(KINDS, without=(*(() if rows else ("changes it",)), *(BY_KEY if place else ())))
        about, like = KINDS[kind], False
        many = self.one_of(1, 2, 4) if about.where == "waits" or kind in COUNTED else None
        if about.batches and about.where == "worker" and not about.first:
            like = self.likely(0.4)
        return Spec(
            kind, f"{kind.replace(' ', '_')}_{place}", self.one_of(1, 3, 5), self.chance.randrange(9),
            self.one_of(2, 3, 4, 5), self.one_of(None, 1, 3, 7, 50, 200) if about.batches else None, self.likely(0.5),
            like, like and self.likely(0.3), key if about.first else "", many,
            retries=1 if about.where != "caller" and self.likely(0.08) else 0,
        )  # fmt: skip

    # --- how it is run ---

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "how": self.one_of("loop", "pool", "queues", "line", "line", "line", "auto", "auto"),
            "workers": self.one_of(1, 1, 2, 2, 2, 2, 3), "start": self.one_of(*STARTS),
        }  # fmt: skip
        if self.elsewhere:
            options["start"] = "agents"
        more = {
            "batch_size": self.one_of(1, 3, 16, 64), "window": self.one_of(1, 5, 40, 300),
            "memory": self.one_of("100KB", "5MB"), "on_error": self.one_of("skip", "skip", "keep"), "ordered": False,
            "seed": 7, "recycle": self.one_of(30, 100),
        }  # fmt: skip
        shares = {
            "batch_size": 0.3,
            "window": 0.2,
            "memory": 0.1,
            "on_error": 0.35,
            "ordered": 0.12,
            "seed": 0.05,
            "recycle": 0.04,
        }
        return options | {key: more[key] for key, share in shares.items() if self.likely(share)}

    def journal(self, origin: Origin, target: Target) -> tuple[str | None, tuple[tuple[str, int], ...]]:
        if not self.likely(0.22) or (target.fault and (target.fault, target.kind) != ("is left", "loop")):
            return None, ()
        taken = target.kind == "loop" and not target.fault
        if not SOURCES[origin.kind].again or (SINKS[target.kind].make is None and not taken):
            if target.fault == "is left" and target.kind == "loop":
                return "goes on after it was left", ()
            return "is run again", ()
        what = self.one_of("is run again", "goes on after the mend", "goes on after SIGKILL", "goes on after SIGKILL")
        if what != "goes on after SIGKILL":
            return what, ()
        events = ["results taken" if taken else "results into the sink", "operations on files"]
        events += ["records out of the source"] if origin.kind in OWN else []
        kills = [(self.one_of(*events), self.chance.randrange(1, 40)) for _ in range(self.one_of(1, 1, 2))]
        return what, tuple(kills)

    # --- what goes wrong in a step ---

    def with_fault(self, case: Case) -> Case:
        """Something goes wrong in one of the steps, at numbers that come to it."""
        mends = case.journal == "goes on after the mend"
        if not (mends or self.likely(0.6)):
            return case
        place = self.chance.randrange(len(case.steps))
        spec = case.steps[place]
        numbers = sorted({number(value) for value in model.reaching(case, place) if spec.kind not in ENTRIES})
        faults = self.faults_of(case, spec, last=place == len(case.steps) - 1)
        if mends:
            faults = [each for each in faults if each == "raises Boom"]
        if not numbers or not faults:
            return case
        fault = self.one_of(*faults)
        few = fault in DEADLY or fault == "hangs"
        at = frozenset(self.chance.sample(numbers, min(len(numbers), 1 if few else self.one_of(1, 1, 2, 5))))
        changed = replace(
            spec, fault=fault, at=at, timeout=TIMEOUT if fault == "hangs" else None,
            like=spec.like and not few and fault not in ALWAYS, retries=0 if few else spec.retries,
        )  # fmt: skip
        changed = replace(changed, verify=changed.like and changed.verify)
        made = replace(case, steps=(*case.steps[:place], changed, *case.steps[place + 1 :]))
        if few and sum(number(value) in at for value in model.reaching(case, place)) > 3:
            return case  # each costs a worker or two
        return made

    def faults_of(self, case: Case, spec: Spec, *, last: bool) -> list[str]:
        about = KINDS[spec.kind]
        if spec.kind in SHAPES:
            sink = SINKS[case.target.kind]
            return (
                ["cannot be written"] if sink.refuses and sink.shape == spec.kind and spec.kind not in ENTRIES else []
            )
        if spec.kind in SERIAL:
            return []
        faults = ["raises Boom"] * 6 + ["raises Odd", "raises StopIteration", "raises SystemExit"]
        if about.where == "waits":  # what an event loop makes of these is its own
            faults = ["raises Boom"] * 6 + ["raises Odd"]
        apart = case.options["how"] in IN_WORKERS or (case.options["how"] == "auto" and case.goes_on)
        if about.where != "caller" and apart:
            faults += [*DEADLY, "hangs"]
        if about.batches:
            faults += ALWAYS * 2
        if last and case.options["how"] in IN_WORKERS and about.where == "worker" and about.role == "map":
            faults += ["gives what cannot be pickled"] * (spec.kind in ("map", "made", "own workers"))
        return [each for each in faults if each in FAULTS]

    def last_looks(self, case: Case) -> Case:
        """Take out what has no one answer."""
        if case.options["start"] == "fork" and any(step.kind == "polars" for step in case.steps):
            case = replace(case, options=case.options | {"start": "launch"})  # Polars may hang in a fork
        if any(step.by for step in case.steps) and case.options.get("window", 300) < 2 * case.origin.repeat + 1:
            case = replace(case, options=case.options | {"window": 300})  # a key that is larger ends the run
        if case.options["start"] == "threads" and any(step.fault in NOT_IN_THREADS for step in case.steps):
            case = replace(case, options=case.options | {"start": "auto"})
        if case.options["start"] == "agents" and case.options["how"] == "loop":
            case = replace(case, options=case.options | {"start": "auto"})
        serial = [n for n, step in enumerate(case.steps) if step.kind in SERIAL]
        if serial and case.goes_on and any(step.role == "expand" for step in case.steps[: serial[-1]]):
            # What a record that fails has added to the state is not promised.
            steps = tuple(replace(step, fault="", at=frozenset(), timeout=None) for step in case.steps)
            case = replace(case, steps=steps)
        if case.journal == "goes on after the mend" and not any(step.fault for step in case.steps):
            case = replace(case, journal="is run again")
        if case.journal == "goes on after the mend":
            options = {key: value for key, value in case.options.items() if key != "on_error"}
            case = replace(case, letters="", options=options)
        return case


EVERY_RECORD = ("has nanoseconds", "its query fails", "gives one row again and again", "clears what it gave")
SQL = {name for name in (*SOURCES, *SINKS) if "SQL" in name}
COUNTED = ("own workers", "by array")
NOT_IN_THREADS = (*DEADLY, "hangs", "gives what cannot be pickled")  # who dies there is the caller; nothing is packed
BY_KEY = tuple(name for name, about in KINDS.items() if about.first)
HEAVY = ("pandas", "polars", "arrow", *BY_KEY)
OWN = [name for name, about in SOURCES.items() if about.again and about.gives in ("number",)]
