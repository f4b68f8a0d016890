"""Steps that do harm, and some that do none. Each harmful one gives its record back unchanged where it does nothing:
so the loop without harm says what the results must be."""

from __future__ import annotations

import ctypes
import decimal
import itertools
import os
import random
import signal
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

BASE = 500_000  # records are BASE + index: a number that an error can be searched for
CALLER = "FAULTS_CALLER"  # the caller's process id
ADAPTER = "FAULTS_ADAPTER"  # the adapter that runs the job
ATTEMPT = "FAULTS_ATTEMPT"  # "1" the first time that the caller is started, "2" the second
NOTES = "FAULTS_NOTES"  # a file that any process may append lines to


def note(text: str) -> None:
    """Append a line that the caller and the guard can read; one write, so that lines of several processes stay whole."""
    file = os.open(os.environ[NOTES], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, f"{text}\n".encode())
    os.close(file)


def notes() -> list[str]:
    """All lines so far."""
    try:
        with open(os.environ[NOTES], encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def caller() -> int:
    """The process id of the program that runs the job."""
    return int(os.environ[CALLER])


class Harm:
    """A step that gives its record back, unless it does harm."""

    def __call__(self, record: Any) -> Any:
        self.strike(record)
        return record

    def strike(self, record: Any) -> None:
        """Do harm, if this is the record for it."""
        raise NotImplementedError


# --- harmless ---


def double(n: int) -> int:
    return n * 2


def halve(n: int) -> int:
    return n // 2


def same(value: Any) -> Any:
    return value


def odd(n: int) -> bool:
    return n % 2 == 1


def few(n: int) -> list[int]:
    """From none to three of it."""
    return [n] * (n % 4)


def kilobytes(n: int) -> bytes:
    return bytes(n * 1000)


def first_of(row: list[int]) -> int:
    return row[0]


def number_in(record: dict[str, int]) -> int:
    return record["n"]


def last_in(record: dict[str, Any]) -> int:
    return int(record["last"][-1])


MISSING = object()  # tested with `is`, as a default for what is not there often is
GENERATOR = random.Random()
RATE = 0.0  # set by the program when it runs


def is_missing(value: Any) -> tuple[Any, bool]:
    return value, value is MISSING


def draw(record: Any) -> int:
    return GENERATOR.getrandbits(64)


def priced(n: int) -> str:
    """As the settings say that are made at run time: a module's own, and decimal's."""
    return str(decimal.Decimal(n) / 7 * decimal.Decimal(str(RATE)))


def without_end(n: int) -> Any:
    return itertools.count(n)


@dataclass(frozen=True)
class Pace(Harm):
    """Every record takes so long."""

    seconds: float = 0.001

    def strike(self, record: Any) -> None:
        time.sleep(self.seconds)


@dataclass(frozen=True)
class Waits(Harm):
    """A step that waits, for many records at once: a coroutine function, or a plain one that is run in threads."""

    fn: Callable[[Any], Any]
    tasks: int = 16


@dataclass(frozen=True)
class Uneven(Harm):
    """Records take from nothing to 8 ms, so that they finish out of order."""

    def strike(self, record: Any) -> None:
        time.sleep(record * 7 % 5 * 0.002)


class Sign(Harm):
    """Notes the process that works, once."""

    noted = 0

    def strike(self, record: Any) -> None:
        if Sign.noted != os.getpid():
            Sign.noted = os.getpid()
            note(f"worker {os.getpid()}")


@dataclass(frozen=True)
class Strike(Harm):
    """At one record sends a signal to a worker that does not have it; with `every` to all workers. Once."""

    at: int
    number: int
    every: bool

    def strike(self, record: Any) -> None:
        if record != BASE + self.at or "struck" in notes():
            return
        note("struck")
        end = time.monotonic() + 5
        while not (others := [pid for pid in workers() if pid != os.getpid()]) and time.monotonic() < end:
            time.sleep(0.01)
        for pid in others if self.every else others[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, self.number)
        if self.every and os.getpid() != caller():
            os.kill(os.getpid(), self.number)


def workers() -> list[int]:
    """The processes that have signed and are not the caller."""
    found = [int(line.split()[1]) for line in notes() if line.startswith("worker ")]
    return [pid for pid in found if pid != caller()]


# --- exceptions ---


class TwoFacts(Exception):
    """Is made of two things and keeps one text: pickle makes it anew with one and fails."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class HoldsLock(Exception):
    """Cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


@dataclass(frozen=True)
class Raise(Harm):
    """Raises at one record."""

    at: int
    make: Callable[[], BaseException]
    slow: float = 0.0

    def strike(self, record: Any) -> None:
        if record == BASE + self.at:
            time.sleep(self.slow)
            raise self.make()


class Fails(Harm):
    """Raises at every record."""

    def strike(self, record: Any) -> None:
        raise ValueError("bad")


@dataclass(frozen=True)
class RaiseTwice(Harm):
    """Raises at one record, the first two times that it sees it, in whatever process."""

    at: int

    def strike(self, record: Any) -> None:
        if record == BASE + self.at and notes().count("raised") < 2:
            note("raised")
            raise ConnectionError("not now")


# --- the end of a worker ---


@dataclass(frozen=True)
class Send:
    """Send a signal to this process."""

    number: int

    def __call__(self) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(1)  # signals of other threads may come a moment later


def read_address_zero() -> None:
    ctypes.string_at(0)


@dataclass(frozen=True)
class Leave:
    """Leave the process at once, without cleaning up."""

    code: int

    def __call__(self) -> None:
        os._exit(self.code)


@dataclass(frozen=True)
class Die(Harm):
    """Ends its process at some records."""

    at: tuple[int, ...]
    how: Callable[[], None]

    def strike(self, record: Any) -> None:
        if record - BASE in self.at:
            self.how()


def close_all() -> None:
    """As what makes itself a daemon does."""
    os.closerange(3, 65_536)


def write_everywhere() -> None:
    """Some bytes into every socket that there is."""
    for descriptor in range(3, 256):
        with suppress(OSError):
            os.write(descriptor, b"hello\n") if stat.S_ISSOCK(os.fstat(descriptor).st_mode) else None


class Sealed:
    """A value that does harm to the process that packs it."""

    def __init__(self, record: Any, how: Callable[[], None]) -> None:
        self.record = record
        self.how = how

    def __reduce__(self) -> Any:
        self.how()
        return int, (self.record,)


@dataclass(frozen=True)
class Seal:
    """Gives some records back sealed."""

    at: tuple[int, ...]
    how: Callable[[], None]

    def __call__(self, record: Any) -> Any:
        return Sealed(record, self.how) if record - BASE in self.at else record


@dataclass(frozen=True)
class TakeSignal(Harm):
    """Takes SIGUSR2 for itself at its first record, and works for so long then."""

    seconds: float

    def strike(self, record: Any) -> None:
        if record == BASE:
            signal.signal(signal.SIGUSR2, signal.SIG_DFL)
            time.sleep(self.seconds)


# --- being stuck ---


def asleep() -> None:
    time.sleep(600)


def in_c_code() -> None:
    """In one call of C code, with the interpreter's lock held, for hours."""
    sum(range(10**13))


@dataclass(frozen=True)
class Stick(Harm):
    """Does not come back from one record."""

    at: int
    how: Callable[[], None]

    def strike(self, record: Any) -> None:
        if record == BASE + self.at:
            note("stuck")
            self.how()


# --- the caller ---


@dataclass(frozen=True)
class SignalCaller(Harm):
    """Sends the caller a signal at one record, in the first attempt; then works on, or gets stuck."""

    at: int
    number: int
    then: Callable[[], None] | None = None
    group: bool = False  # to the whole foreground group, as Ctrl-C does

    def strike(self, record: Any) -> None:
        if record == BASE + self.at and os.environ[ATTEMPT] == "1" and "signalled" not in notes():
            note("signalled")
            if self.group:
                os.killpg(caller(), self.number)
            else:
                os.kill(caller(), self.number)
            if self.then is not None:
                self.then()


@dataclass(frozen=True)
class InterruptTwice(Harm):
    """Sends the caller SIGINT at one record, then again, and never comes back."""

    at: int

    def strike(self, record: Any) -> None:
        if record == BASE + self.at:
            for _ in range(2):
                os.kill(caller(), signal.SIGINT)
                time.sleep(1)
            time.sleep(600)


# --- values ---


class Hostile:
    """Compares with nothing, and is neither true nor false."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    __hash__ = None  # type: ignore[assignment]


class Unreadable:
    """Goes into a pickle and does not come out of it."""

    def __reduce__(self) -> Any:
        return refuse, ()


def refuse() -> None:
    raise RuntimeError("does not come back")


@dataclass(frozen=True)
class Give(Harm):
    """Gives something else at one record."""

    at: int
    make: Callable[[], Any]

    def __call__(self, record: Any) -> Any:
        return self.make() if record == BASE + self.at else record


@dataclass
class RunningTotal:
    """A step with state: the sum of all records so far."""

    total: int = 0

    def __call__(self, n: int) -> int:
        self.total += n
        return self.total

    def save(self) -> int:
        return self.total

    def load(self, state: int) -> None:
        self.total = state


# --- surroundings ---

HELD = threading.Lock()  # some library's lock: a thread of the caller holds it for a while


class TakeLock(Harm):
    """Takes and gives back the lock that a thread of the caller may hold."""

    def strike(self, record: Any) -> None:
        with HELD:
            pass


class Say(Harm):
    """Prints a line a record."""

    def strike(self, record: Any) -> None:
        print(f"record {record}")


class InAFolder(Harm):
    """Works in another folder for a while, which each process has one of."""

    def strike(self, record: Any) -> None:
        before, wanted = os.getcwd(), ("/", "/usr")[record % 2]
        os.chdir(wanted)
        try:
            time.sleep(0.005)
            if os.getcwd() != wanted:
                raise RuntimeError(f"record {record} is in {os.getcwd()}, not in {wanted}")
        finally:
            os.chdir(before)


class Seeds(Harm):
    """Draws the numbers that its record asks for, from the generator that each process has one of."""

    def strike(self, record: Any) -> None:
        random.seed(record)
        time.sleep(0.005)
        if random.random() != random.Random(record).random():
            raise RuntimeError(f"record {record} has another one's number")


class KeepsAlarm(Harm):
    """Has a limit of its own for each record, by a signal: only a process's first thread may."""

    def strike(self, record: Any) -> None:
        before = signal.signal(signal.SIGALRM, lambda number, frame: None)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            signal.pause()
        finally:
            signal.signal(signal.SIGALRM, before)


class Log(Harm):
    """Logs a warning for some records."""

    def strike(self, record: Any) -> None:
        import logging

        if record % 100 == 0:
            logging.getLogger("faults.step").warning("record %d", record)


@dataclass(frozen=True)
class Hoard(Harm):
    """Wants more memory than there is, at one record."""

    at: int

    def strike(self, record: Any) -> None:
        if record == BASE + self.at:
            bytearray(1 << 40)


class Inside(Harm):
    """Runs a job of its own, in the same way, for each record."""

    def strike(self, record: Any) -> None:
        from faults.adapters import adapter
        from faults.job import Job

        with adapter(os.environ[ADAPTER]).run(Job(lambda: range(50), (double,)), range(50)) as results:
            if list(results) != list(range(0, 100, 2)):
                raise RuntimeError("the run inside lost results")


def load_a_model() -> None:
    """An initialiser that takes long."""
    if os.getpid() != caller():
        time.sleep(4)


def quit_at_once() -> None:
    """An initialiser that ends its worker."""
    if os.getpid() != caller():
        os._exit(3)


def fail_at_once() -> None:
    """An initialiser that raises, as the import of a missing module does."""
    raise ImportError("no module named 'model'")
