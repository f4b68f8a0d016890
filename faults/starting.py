"""For who starts processes and is not what is tried: a start that fails for a moment is tried again, as taktline's own
launcher does, which says why."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from taktline._crew.launcher import patiently


@contextmanager
def patient_starts() -> Iterator[None]:
    """In this time each start by this process is tried again; `Popen.__init__.__wrapped__` tries it once."""
    once = subprocess.Popen.__init__

    @wraps(once)
    def several(popen: subprocess.Popen[Any], *args: Any, **settings: Any) -> None:
        before = vars(popen).copy()

        def start() -> None:
            popen.__dict__ = before.copy()  # an earlier try has left something
            once(popen, *args, **settings)

        patiently(start)

    subprocess.Popen.__init__ = several  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        subprocess.Popen.__init__ = once  # type: ignore[method-assign]
