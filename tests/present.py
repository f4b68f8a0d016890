"""What may be None, and is there: a test that finds nothing fails here, and type checkers know the rest."""

from __future__ import annotations

from typing import TypeVar

Thing = TypeVar("Thing")


def present(thing: Thing | None) -> Thing:
    """What is there."""
    assert thing is not None
    return thing
