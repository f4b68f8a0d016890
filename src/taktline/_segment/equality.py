"""Whether two values are the same: exactly, or as far as a tolerance says. `==` of users' values may do anything."""

from __future__ import annotations

import math
import pickle
from datetime import datetime, time
from typing import Any


def same(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Whether two results are equal, floats within the relative `tolerance`. NaN equals NaN, 1 does not equal 1.0 or True.

    >>> same({"a": [1, 2.0]}, {"a": [1, 2.0]}), same(1, 1.0), same(0.1 + 0.2, 0.3), same(0.1 + 0.2, 0.3, 1e-9)
    (True, False, False, True)
    """
    one, other = _plain(one), _plain(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        close = tolerance > 0 and math.isclose(one, other, rel_tol=tolerance)
        return close or one == other or bool(one != one and other != other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name], tolerance) for name, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    return _equal(one, other)


def kept(before: Any, after: Any) -> bool:
    """Whether nothing of a value was lost on its way: as `same`, and the order of keys, time zones and trailing zeros too.

    >>> from decimal import Decimal
    >>> kept(Decimal("2.5"), Decimal("2.50")), kept({"a": 1, "b": 2}, {"b": 2, "a": 1})
    (False, False)
    """
    if type(before) is not type(after):
        return False
    if isinstance(before, dict):
        return list(before) == list(after) and all(kept(value, after[name]) for name, value in before.items())
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(kept, before, after))
    if hasattr(before, "as_tuple"):  # a Decimal
        return bool(before.as_tuple() == after.as_tuple())
    if isinstance(before, (datetime, time)):
        zones = before.utcoffset() == after.utcoffset() and before.tzname() == after.tzname()
        return bool(zones and before.fold == after.fold and before == after)
    return same(before, after)


def alike(one: Any, other: Any) -> bool | None:
    """Whether `==` or equal pickles say that two values are the same; None where neither says anything.

    >>> alike([1], [1]), alike(1, 2), alike(lambda: 1, lambda: 1)
    (True, False, None)
    """
    if one is other:
        return True
    kind: Any = type(one)
    try:
        if kind is type(other) and pickle.dumps(one) == pickle.dumps(other):
            return True
    except Exception:  # what cannot be pickled may still be equal
        tells = kind.__eq__ is not object.__eq__  # whether they are the same object says nothing of what they hold
    else:
        tells = True
    try:
        equal = one == other
        found = bool(equal.all()) if hasattr(equal, "all") else bool(equal)
    except Exception:  # a hostile __eq__: no answer is to be had
        return None
    return found if found or tells else None


def _plain(value: Any) -> Any:
    """NumPy's scalars and arrays as Python's, without importing NumPy."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    return value


def _equal(one: Any, other: Any) -> bool:
    try:
        if one == other:
            return True
    except Exception:  # an == that raises, or that answers with more than yes or no
        pass
    try:
        return pickle.dumps(one) == pickle.dumps(other)
    except Exception:  # neither == nor a pickle tells: nothing says that they differ
        return True
