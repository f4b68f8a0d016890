"""A machine whose cores other programs have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def crowded() -> Iterator[None]:
    """Three programs a core that compute all the time."""
    busy = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(busy) for _ in range(3 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for each in others:
            each.kill()
            each.wait()
