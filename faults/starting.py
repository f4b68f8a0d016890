"""For who starts processes and is not what is tried: a start that fails for a moment is tried again.

On virtual machines inside of others an exec was seen to fail with EFAULT, about once in 10,000 on a busy machine, although
all its arguments lie where they should. taktline's own launcher sees to that itself.
"""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

STARTS = 5


@contextmanager
def patient_starts() -> Iterator[None]:
    """In this time each start by this process is tried up to STARTS times; `Popen.__init__.__wrapped__` tries it once."""
    once = subprocess.Popen.__init__

    @wraps(once)
    def patiently(popen: subprocess.Popen[Any], *args: Any, **settings: Any) -> None:
        for _ in range(STARTS - 1):
            try:
                return once(popen, *args, **settings)
            except OSError as error:
                if error.errno != errno.EFAULT:
                    raise
            vars(popen).clear()  # as it was before
        return once(popen, *args, **settings)

    subprocess.Popen.__init__ = patiently  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        subprocess.Popen.__init__ = once  # type: ignore[method-assign]
