"""Where results are not those that all must have."""

from __future__ import annotations

from typing import Any

from taktline._run.first_rows import first_unlike
from taktline._segment.equality import alike


def difference(expected: list[Any], results: list[Any], only_some: bool = False) -> str:
    """Why the results are not the loop's, or `only_some`: not the first of them; empty where they are."""
    if len(expected) != len(results) and not (only_some and len(results) < len(expected)):
        return f"differs: {len(results):,} results where the loop has {len(expected):,}"
    for index, (one, other) in enumerate(zip(expected, results, strict=not only_some)):
        same = alike(one, other)
        if same is None:
            return f"cannot be compared: result {index:,} has no == and no equal pickle"
        if not same:
            return f"differs from the loop at result {index:,}"
    return ""


def difference_in_tables(expected: list[Any], results: list[Any], only_some: bool) -> str:
    """Why what came together is not what came of one process, or `only_some`: not the first of it; empty where it is."""
    count, there = sum(map(len, results)), sum(map(len, expected))
    if count != there and not (only_some and count < there):
        return f"differs: {count:,} results where one process has {there:,}"
    unlike = first_unlike(expected, results, alike)
    return f"differs from one process at result {unlike[0]:,}" if unlike is not None else ""
