"""How much memory processes hold, shared pages counted once (PSS), as Linux tells it."""

from __future__ import annotations

import mmap
import os
import re
import sys
from collections.abc import Iterable

from taktline._posix import resource
from taktline._signals import pass_on

PROC = "/proc"


def held(pids: Iterable[int]) -> int:
    """Bytes of memory these processes hold together; 0 for those that are gone or where the system does not tell."""
    return sum(_proportional(pid) for pid in pids)


def tree(pid: int) -> list[int]:
    """This process and all that it and its children have started, as far as the system tells."""
    found = [pid]
    for each in found:  # it grows meanwhile
        try:
            for thread in os.listdir(f"{PROC}/{each}/task"):
                with open(f"{PROC}/{each}/task/{thread}/children", encoding="ascii") as file:
                    found += map(int, file.read().split())
        except OSError as error:  # it has ended
            pass_on(error)
            continue
    return found


def peak_of_this_process() -> int:
    """The most bytes this process has held since it started; 0 where the system does not tell."""
    if resource is None:
        return 0
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _proportional(pid: int) -> int:
    try:
        with open(f"{PROC}/{pid}/smaps_rollup", encoding="ascii") as file:
            found = re.search(r"^Pss:\s+(\d+) kB", file.read(), re.MULTILINE)
    except OSError as error:
        pass_on(error)
        return 0
    return int(found[1]) * 1024 if found else 0


def held_by(pid: int) -> int:
    """Bytes of memory that a process holds, shared pages counted in full: a thousandth of the time that PSS takes. 0 where
    it is gone or the system does not tell."""
    try:
        with open(f"{PROC}/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError as error:
        pass_on(error)
        return 0


def held_here() -> int:
    """Bytes of memory that this process holds; where the system does not tell, the most that it has held."""
    return held_by(os.getpid()) or peak_of_this_process()
