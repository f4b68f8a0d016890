"""All options of a run in one table: default, unit, check, help. The API, the command and the docs read it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, TypedDict

from taktline._posix import resource
from taktline._public import named
from taktline._recipe.numbers import is_number, is_whole
from taktline._signals import pass_on
from taktline._urls import is_url
from taktline.abc import Machines, Observer
from taktline.errors import LineError, did_you_mean

Technique: TypeAlias = Literal["auto", "loop", "pool", "queues", "line"]
TECHNIQUES: tuple[Technique, ...] = ("auto", "loop", "pool", "queues", "line")
LETTERS_JSON = (".jsonl", ".ndjson")  # suffixes of dead letters as JSON lines
SQLITE_SUFFIXES = (".sqlite", ".sqlite3", ".db")  # and as a database
CONDITIONAL_SCHEMES = ("s3", "s3a", "gs", "gcs")  # schemes of stores that put objects on conditions


def _option(default: Any, help: str, check: Callable[[Any], Any], flag: str = "text") -> Any:
    return field(default=default, metadata={"help": help, "check": check, "flag": flag})


def _one_of(*allowed: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"choose one of {', '.join(map(repr, allowed))}{did_you_mean(value, allowed)}")
        return value

    check.choices = allowed  # type: ignore[attr-defined]
    return check


def _whole(value: Any) -> Any:
    if value is not None and not is_whole(value, least=1):
        raise ValueError("give a whole number of at least 1, or leave it out")
    return value


def _truth(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("give True or False")
    return value


def _progress(value: Any) -> Any:
    if value is not None and not isinstance(value, bool) and not callable(value):
        raise ValueError("give True, False, None or a callable of one Snapshot")
    return value


def _machines(value: Any) -> Any:
    if value is not None and not isinstance(value, Machines):
        raise ValueError(
            'give taktline.ray(...), or other taktline.abc.Machines; the command takes "ray" or "ray:HOST:PORT"'
        )
    return value


def _observer(value: Any) -> Any:
    for each in value if isinstance(value, (list, tuple)) else [] if value is None else [value]:
        if not isinstance(each, Observer):
            raise ValueError("give a taktline.abc.Observer, or a list of them")
    return value


def _file(value: Any) -> Any:
    if value is not None and (not isinstance(value, (str, os.PathLike)) or not os.fspath(value)):
        raise ValueError("give a path, or leave it out")
    return value


def _file_here(value: Any) -> Any:
    """A file that is written bit by bit: no store of objects can do that."""
    if _file(value) is not None and is_url(os.fspath(value)):
        if os.fspath(value).startswith("file://"):
            raise ValueError("give its path alone, without file://")
        raise ValueError(
            "this is a URL, and the file is written bit by bit, which stores of objects cannot do; give a path, on storage "
            "that the machines share where there are several"
        )
    return value


def _in_a_store(value: Any) -> bool:
    """Whether this is a URL. Raises ValueError where it is one that nothing is put at on a condition."""
    if _file(value) is None or not is_url(os.fspath(value)):
        return False
    if os.fspath(value).startswith("file://"):
        raise ValueError("give its path alone, without file://")
    if os.fspath(value).partition("://")[0].lower() not in CONDITIONAL_SCHEMES:
        raise ValueError(
            "at a URL this needs a store that puts an object on a condition, by which hosts agree on whose it is: that is "
            "known here of S3 (s3://) and Google's store (gs://). Give such a URL, or a path, on storage that the machines "
            "share where there are several"
        )
    return True


def _journal(value: Any) -> Any:
    _in_a_store(value)
    return value


def _letters_file(value: Any) -> Any:
    suffixes = LETTERS_JSON if _in_a_store(value) else (*LETTERS_JSON, *SQLITE_SUFFIXES)
    if value is not None and not os.fspath(value).endswith(suffixes):
        raise ValueError(f"name a file that ends in {', '.join(suffixes)}")
    return value


def _stall(value: Any) -> Any:
    if value is not None and not is_number(value, above=0):
        raise ValueError("give seconds above 0, or None for never")
    return value


def _setup(value: Any) -> Any:
    if value is not None and not callable(value):
        raise ValueError('give a function without arguments; the command takes "module:function" or "file.py:function"')
    return value


def _recycle(value: Any) -> Any:
    if isinstance(value, str) and not value.isdigit() and "%" not in value:
        with suppress(ValueError):
            memory_bytes(value)
            return value
    elif value is None or is_whole(value, least=1):
        return value
    raise ValueError('give records as a whole number of at least 1, or bytes of a worker\'s memory, such as "1GB"')


def _seed(value: Any) -> Any:
    if value is not None and not is_whole(value):
        raise ValueError("give a whole number, or leave it out")
    return value


UNKNOWN_MEMORY = 4 << 30  # bytes, where the system is not asked
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def memory_bytes(value: int | str) -> int:
    """`value` as bytes: an int, "512MB", "2GiB", or "25%" of the memory this process may use.

    >>> memory_bytes("512MB"), memory_bytes(1000)
    (512000000, 1000)
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z%]*)\s*", value) if isinstance(value, str) else None
    if match and (amount := float(match[1])) > 0:
        unit = match[2].upper()
        if unit == "%" and amount <= 100:
            return int(usable_memory() * amount / 100)
        if unit in UNITS:
            return max(1, int(amount * UNITS[unit]))
    raise ValueError('give bytes, such as 500_000_000, "512MB" or "25%"')


def _memory(value: Any) -> Any:
    memory_bytes(value)
    return value


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a line is run. Built by `checked`, so each value has been looked at once, at the door."""

    how: Technique = _option("auto", "technique: auto, loop, pool, queues or line", _one_of(*TECHNIQUES), "choice")
    workers: int | None = _option(None, "worker processes; default: the usable cores", _whole, "int")
    batch_size: int | None = _option(None, "records a batch; default: set while running", _whole, "int")
    window: int | None = _option(None, "most records read ahead of the delivery; default: from memory", _whole, "int")
    memory: int | str = _option("25%", 'bytes in flight at most, such as "512MB" or "25%"', _memory)
    ordered: bool = _option(True, "results in input order, or as they come", _truth, "switch")
    on_error: Literal["raise", "skip", "keep"] = _option(
        "raise", "a record that fails: raise, skip it, or keep a mark in its place", _one_of("raise", "skip", "keep"),
        "choice",
    )  # fmt: skip
    dead_letters: str | os.PathLike[str] | None = _option(
        None, "file for records that fail, .jsonl or .sqlite, or s3://…, gs://…; the run goes on", _letters_file, "path"
    )
    journal: str | os.PathLike[str] | None = _option(
        None, "file that an interrupted run goes on from; or s3://…, gs://…, for any host", _journal, "path"
    )
    attempt: int | None = _option(
        None, "which attempt at the run this is, as a scheduler counts them: it takes the journal over from an earlier one "
        "that is frozen, or still at work", _whole, "int",
    )  # fmt: skip
    if_changed: Literal["refuse", "continue", "restart"] = _option(
        "refuse", "where the journal is of other steps, options or records: refuse, continue behind what is delivered, "
        "or restart", _one_of("refuse", "continue", "restart"), "choice",
    )  # fmt: skip
    on_lost: Literal["refuse", "restart"] = _option(
        "refuse", "where the output that the journal tells of is gone: refuse or restart", _one_of("refuse", "restart"),
        "choice",
    )  # fmt: skip
    progress: bool | Callable[[Any], None] | None = _option(
        None, "show progress; default: on a terminal or in a notebook, after a second", _progress, "switch"
    )
    start: Literal["auto", "fork", "launch", "threads"] = _option(
        "auto", "how workers start: fork (shares memory), launch (works everywhere), threads (nothing is packed; for steps "
        "that let go of Python's lock), auto: fork where that is safe",
        _one_of("auto", "fork", "launch", "threads"), "choice",
    )  # fmt: skip
    stall: float | None = _option(
        300, "seconds without any record done before the run gives up and says what hangs", _stall, "float"
    )
    setup: Callable[[], object] | None = _option(
        None, "module:function or file.py:function, called once in each process before its first record", _setup,
        "function",
    )  # fmt: skip
    recycle: int | str | None = _option(
        None,
        'replace a worker after so many records, or past so many bytes of memory, such as "1GB"',
        _recycle,
        "amount",
    )
    seed: int | None = _option(None, "makes the steps' random numbers repeatable, by record index", _seed, "int")
    trace: str | os.PathLike[str] | None = _option(
        None, "file for what each worker did when, as trace events: ui.perfetto.dev opens it", _file_here, "path"
    )
    observer: Observer | Sequence[Observer] | None = _option(
        None, "who hears what happens in the run", _observer, "none"
    )
    on: Machines | None = _option(
        None, "other machines to run on: ray, or ray:HOST:PORT for the cluster whose head has this address", _machines,
        "machines",
    )  # fmt: skip

    @property
    def cores(self) -> int:
        """The number of workers asked for, or the usable cores, here or `on` other machines."""
        return self.workers or (usable_cores() if self.on is None else self.on.slots())

    @property
    def recycle_records(self) -> int | None:
        """The records after which a worker is replaced."""
        return self.recycle if isinstance(self.recycle, int) else None

    @property
    def recycle_bytes(self) -> int | None:
        """The bytes of memory past which a worker is replaced."""
        return memory_bytes(self.recycle) if isinstance(self.recycle, str) else None

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who hears what happens."""
        given = self.observer
        return () if given is None else (given,) if isinstance(given, Observer) else tuple(given)

    @property
    def goes_on(self) -> bool:
        """Whether the run goes on after a record that fails."""
        return self.on_error != "raise" or self.dead_letters is not None

    @property
    def in_tables(self) -> bool:
        """Whether tables go as the source keeps them together: nothing is said of how many rows go at once."""
        return self.window is None and self.batch_size is None

    @property
    def shows_records(self) -> bool:
        """Whether a record that fails is handed on, as it was read."""
        return self.on_error == "keep" or self.dead_letters is not None


class RunOptions(TypedDict, total=False):
    """All options of a run as keywords, for a function of yours that hands them on:

    >>> from typing import Unpack
    >>> from taktline import RunOptions, line
    >>> def nightly(records: list[int], **options: Unpack[RunOptions]) -> list[int]:
    ...     return line(abs)(records, **options).to_list()
    >>> nightly([-1, 2], how="loop")
    [1, 2]
    """

    how: Technique
    workers: int | None
    batch_size: int | None
    window: int | None
    memory: int | str
    ordered: bool
    on_error: Literal["raise", "skip", "keep"]
    dead_letters: str | os.PathLike[str] | None
    journal: str | os.PathLike[str] | None
    attempt: int | None
    if_changed: Literal["refuse", "continue", "restart"]
    on_lost: Literal["refuse", "restart"]
    progress: bool | Callable[[Any], None] | None
    start: Literal["auto", "fork", "launch", "threads"]
    stall: float | None
    setup: Callable[[], object] | None
    recycle: int | str | None
    seed: int | None
    trace: str | os.PathLike[str] | None
    observer: Observer | Sequence[Observer] | None
    on: Machines | None


class CompareOptions(TypedDict, total=False):
    """All that `flow.compare` takes beside the records, as keywords, for a function of yours that hands them on."""

    limit: int | None
    rounds: int
    workers: int | None
    reference: bool
    predictions: bool
    progress: bool | Callable[[str], None] | None
    on_error: Literal["raise", "skip"]
    setup: Callable[[], object] | None


class CheckOptions(TypedDict, total=False):
    """All that `flow.check` takes beside the source, as keywords, for a function of yours that hands them on."""

    limit: int
    record: int | None
    on_error: Literal["raise", "skip", "keep"]
    dead_letters: str | os.PathLike[str] | None
    setup: Callable[[], object] | None
    on: Machines | None
    progress: bool | Callable[[str], None] | None


# What is told to a step and not to a run, and by which builder; a test holds it to their signatures.
OF_STEPS = {
    **dict.fromkeys(("kind", "tasks", "retries", "backoff", "timeout", "rate", "resources"), "step"),
    **dict.fromkeys(("size", "form", "by", "like", "verify"), "batch"),
}


# What other libraries call an option.
ELSEWHERE = {
    **dict.fromkeys(("n_jobs", "jobs", "nb_workers", "num_proc", "processes", "concurrency", "cores", "threads"), "workers"),
    **dict.fromkeys(("chunksize", "chunk_size"), "batch_size"),
    **dict.fromkeys(("prefetch", "buffer_size", "maxsize", "pre_dispatch"), "window"),
    **dict.fromkeys(("verbose", "progress_bar", "show_progress", "tqdm"), "progress"),
    **dict.fromkeys(("backend", "mode", "method", "technique", "executor"), "how"),
    **dict.fromkeys(("checkpoint", "resume", "state"), "journal"),
    **dict.fromkeys(("errors", "error", "ignore_errors", "skip_errors", "return_exceptions"), "on_error"),
    "initializer": "setup", "init": "setup", "maxtasksperchild": "recycle", "max_tasks_per_child": "recycle",
    "mp_context": "start", "start_method": "start", "context": "start", "random_state": "seed",
}  # fmt: skip


def checked(given: Mapping[str, Any]) -> Options:
    """Options from keywords. Raises LineError that names the option, what it may be, and the nearest known name.

    >>> checked({"batch_sizy": 10})
    Traceback (most recent call last):
    ...
    taktline.LineError: there is no option 'batch_sizy'; did you mean 'batch_size'?
    """
    known = {each.name: each for each in fields(Options)}
    for name, value in given.items():
        if name not in known:
            builder = OF_STEPS.get(name)
            hint = did_you_mean(ELSEWHERE.get(name, name), known) or f"; known are {', '.join(known)}"
            raise LineError(
                f"there is no option {name!r}{f' of a run; a step has it: {builder}(fn, {name}=…)' if builder else hint}"
            )
        try:
            known[name].metadata["check"](value)
        except (ValueError, TypeError) as error:
            raise LineError(f"{name}={value!r}: {error}") from None
    options = Options(**given)
    if options.journal is not None and not options.ordered:
        raise LineError("journal= needs results in input order; leave out ordered=False")
    if options.recycle is not None and options.how == "loop":
        raise LineError('recycle= replaces worker processes, and how="loop" has none; leave one of the two out')
    if options.recycle is not None and options.start == "threads":
        raise LineError('recycle= replaces worker processes, and start="threads" has none; leave one of the two out')
    if options.seed is not None and options.start == "threads":
        raise LineError(
            'seed= cannot make random numbers repeatable in threads, which share the generators; leave out start="threads"'
        )
    if options.on is not None and options.how == "loop":
        raise LineError(
            'on= has records run on other machines, and how="loop" runs them here; leave one of the two out'
        )
    if options.on is not None and options.start in ("fork", "threads"):
        raise LineError(f"workers on other machines are launched; leave out start={options.start!r}")
    for name in ("attempt", "if_changed", "on_lost"):
        if given.get(name) not in (None, "refuse") and options.journal is None:
            raise LineError(f"{name}={given[name]!r} says what to do with a journal; give journal= too")
    return options


def in_words(options: Options) -> dict[str, str]:
    """The options that were given, but for who watches.

    >>> in_words(checked({"workers": 2, "setup": print, "how": "auto"}))
    {'workers': '2', 'setup': 'print'}
    """
    return {
        each.name: str(getattr(value, "__qualname__", value))[:200]
        for each in fields(Options)
        if (value := getattr(options, each.name)) != each.default and each.name not in ("progress", "observer")
    }


_progress_by_default: bool | None = None


def defaults(*, progress: bool | None) -> None:
    """Say once for a whole program whether runs show their progress, where they are not told themselves: True, False, or
    None, which leaves it to where the program runs. TAKTLINE_PROGRESS, 0 or 1, is stronger.

    >>> defaults(progress=False)
    >>> defaults(progress=None)
    """
    global _progress_by_default
    if progress is not None and not isinstance(progress, bool):
        raise LineError(f"defaults(progress={progress!r}): give True, False or None")
    _progress_by_default = progress


def default_progress() -> bool | None:
    """What `defaults` was told of progress."""
    return _progress_by_default


# Options that change what a plan says.
PLAN_OPTIONS = ("how", "workers", "batch_size", "window", "memory", "on_error", "dead_letters", "start", "setup", "on")


def check_planned(options: Options) -> None:
    """Raises LineError for an option that a plan has no use for."""
    for each in fields(Options):
        if each.name not in (*PLAN_OPTIONS, "progress") and getattr(options, each.name) != each.default:
            raise LineError(
                f"flow.plan() has no use for {each.name}={getattr(options, each.name)!r}: it would say the same without; "
                f"leave it out. It uses {', '.join(PLAN_OPTIONS)}"
            )
    if options.start == "threads":
        raise LineError(
            'flow.plan() reckons with processes, not with start="threads": how far two threads get in each other\'s way is '
            'only seen in a run. Run with how="auto", whose report says it'
        )


def check_taken(entry: str, given: Mapping[str, Any], taken: Collection[str]) -> None:
    """Raises LineError for what an entry point does not take."""
    for name in given:
        if name not in taken:
            known = ", ".join(f"{each}=" for each in taken)
            of_run = f"; a run has it: flow(records, {name}=…)" if name in Options.__dataclass_fields__ else ""
            hint = did_you_mean(name, taken) or of_run
            raise LineError(f"{entry} does not take {name}={hint}{'' if hint.endswith('?') else '.'} It takes {known}")


def usable_cores() -> int:
    """How many cores this process may use: its affinity, cut by the container's quota; at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError) as error:  # not on this system, or refused by a sandbox
        pass_on(error)
        cores = os.cpu_count() or 1
    quota = _first_line("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return max(1, cores)


def usable_memory() -> int:
    """How many bytes of memory this process may use: the machine's, cut by the container's limit and its own."""
    if resource is None:
        return UNKNOWN_MEMORY
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    container = _first_line("/sys/fs/cgroup/memory.max")
    if container.isdigit():
        limits.append(int(container))
    own, _ = resource.getrlimit(resource.RLIMIT_AS)
    if own != resource.RLIM_INFINITY:
        limits.append(own)
    return min(limits)


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.readline().strip()
    except OSError as error:  # no such control group here
        pass_on(error)
        return ""


named(globals())
