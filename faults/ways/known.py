"""What the line is known not to hold yet: a way of which one of these is true may differ."""

from __future__ import annotations

from collections.abc import Callable

from faults.ways.case import Case

NOT_YET: dict[str, Callable[[Case], bool]] = {}


def not_yet(case: Case) -> str:
    """Why this way may differ; empty where it must not."""
    return next((reason for reason, is_one in NOT_YET.items() if is_one(case)), "")
