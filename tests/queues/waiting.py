"""Events are waited for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

PATIENCE = 120.0  # seconds


def until(holds: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until this holds, or the process has ended, which is a failure."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if process is not None and process.poll() is not None:
            pytest.fail(f"it ended with {process.returncode}: {process.stderr.read() if process.stderr else ''}")
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.01)
