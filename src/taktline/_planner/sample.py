"""What moving records costs, measured on a few of them; the records and results themselves are only looked at."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from taktline._wire import carry


def moving(values: list[Any]) -> tuple[float, float, str]:
    """Nanoseconds a value to pack and to unpack these values, and why they cannot be moved (empty where they can)."""
    try:
        began = perf_counter_ns()
        parts = carry.pack(values)
        copied = [bytes(part) for part in parts]
        packed = perf_counter_ns()
        carry.unpack(copied)
        done = perf_counter_ns()
    except carry.NotCarried as error:
        return 0.0, 0.0, f"{type(error.error).__name__}: {error.error}"
    except Exception as error:  # a reducer of the user's: anything may happen in it
        return 0.0, 0.0, f"{type(error).__name__}: {error}"
    count = max(1, len(values))
    return (packed - began) / count, (done - packed) / count, ""
