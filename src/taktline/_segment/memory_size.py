"""How much memory values take, about: what comes of a record may be more than there is."""

from __future__ import annotations

from sys import getsizeof
from typing import Any

from taktline._signals import pass_on

HELD_BYTES = 1 << 30  # bytes of one record's results that may be held in memory, where nobody says how many
NODES = 64  # values looked at in one: of larger ones the rest is taken to be alike
WHOLE = (int, float, str, bytes, bool, type(None))


def amount(value: Any) -> int:
    """Bytes that a value takes, with what it holds; some 100 ns for a number, a microsecond for a small dict.

    >>> amount(7) < amount("seven" * 10) < amount({"seven": list(range(7))}) < amount(bytes(1 << 20))
    True
    """
    if type(value) in WHOLE:
        return getsizeof(value)
    total, looked, left = 0, 0, [value]
    while left and looked < NODES:
        each = left.pop()
        looked += 1
        try:
            total += getsizeof(each)
        except Exception as error:  # a `__sizeof__` of the user's
            pass_on(error)
            continue
        if isinstance(each, dict):
            left += [inner for pair in each.items() for inner in pair]
        elif isinstance(each, (list, tuple, set, frozenset)):
            left += each
        elif isinstance(inner := getattr(each, "__dict__", None), dict):
            left.append(inner)
        elif isinstance(size := getattr(each, "nbytes", None), int):  # an array over memory that is not its own
            total += max(0, size - getsizeof(each))
    return total * (looked + len(left)) // looked
