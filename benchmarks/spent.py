"""Processor time of all processes of a measurement, whoever has started them and whether they are still there.

A group of the system's counts it, which whatever starts from here belongs to. What the clock says depends on who else is at
work on the machine; this does so far less.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import sleep

LEAVES = 100  # tries to leave a group
FIRST, SECOND = "cpuacct", ""  # the controller's name in groups of the first version; those of the second have none


@contextmanager
def counted() -> Iterator[Callable[[], float] | None]:
    """Have this process and all that it starts in a group of their own: what tells their seconds of processor time so far.
    None where the system has no such groups, or does not let us make one."""
    for name, at in _groups():
        group = at / f"taktline-bench-{os.getpid()}"
        try:
            group.mkdir()
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            continue
        try:
            yield partial(_seconds, group, name)
        finally:
            _leave(group, at)
        return
    yield None


def _groups() -> Iterator[tuple[str, Path]]:
    """The groups that this process is in, by version."""
    if not Path("/proc/self/cgroup").exists():
        return
    mounts = [entry.split()[1:4] for entry in Path("/proc/self/mounts").read_text().splitlines()]
    for entry in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = entry.split(":", 2)
        for at, kind, options in mounts:
            if names == SECOND and kind == "cgroup2":
                yield SECOND, Path(at + path)
            elif FIRST in names.split(",") and kind == "cgroup" and FIRST in options.split(","):
                yield FIRST, Path(at + path)


def _seconds(group: Path, name: str) -> float:
    if name == FIRST:
        return int((group / "cpuacct.usage").read_text()) / 1e9
    (used,) = (
        line.split()[1] for line in (group / "cpu.stat").read_text().splitlines() if line.startswith("usage_usec")
    )
    return int(used) / 1e6


def _leave(group: Path, at: Path) -> None:
    """Back to where everybody came from: a group goes when nobody is in it. Those that are ending may take a moment."""
    for _ in range(LEAVES):
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):  # it has ended
                (at / "cgroup.procs").write_text(pid)
        with suppress(OSError):
            group.rmdir()
            return
        sleep(0.1)
    print(f"{group} is left behind: some process in it does not end", file=sys.stderr)
