"""Batch steps that give another number of results: masks, and which result comes of which record."""

from __future__ import annotations

import sys
from typing import Any

from taktline._arrow import rows_at
from taktline._segment.forms import Misfit

MASK = "a mask: as many True and False as records, in an array, a Series or a list"


LABELS = (
    "a mask whose index has the labels of the rows that were given, each once, or none of its own "
    "(call to_numpy() for one that is in their order)"
)


def positions(mask: Any, given: Any) -> tuple[list[int], int]:
    """Where a mask is True of the batch that was `given`, and how long it is. Raises Misfit where it is none."""
    library = type(mask).__module__.partition(".")[0]
    if library == "pandas" and hasattr(mask, "index") and len(mask) == len(given):
        mask = _in_order(mask, given)
    if _has_no_type(mask, library):
        mask = next(getattr(mask, name) for name in ("tolist", "to_list", "to_pylist") if hasattr(mask, name))()
    elif library in ("pandas", "pyarrow", "polars", "numpy"):
        mask = _array(mask, library)
        return sys.modules["numpy"].flatnonzero(mask).tolist(), len(mask)
    if not isinstance(mask, (list, tuple)) or not all(
        each is None or isinstance(each, bool) or type(each).__name__ in ("bool_", "bool") for each in mask
    ):
        raise Misfit(MASK)
    return [at for at, each in enumerate(mask) if each], len(mask)


def _in_order(mask: Any, given: Any) -> Any:
    """A mask of pandas with its rows in the order of those that were given, as `given[mask]` has it: by label. One that
    numbers its rows from 0 has no labels of theirs, and is in their order."""
    numbers = sys.modules["pandas"].RangeIndex(len(mask))
    labels = given.index if type(given).__module__.partition(".")[0] == "pandas" else numbers
    if mask.index.equals(labels) or mask.index.equals(numbers):
        return mask
    if not mask.index.is_unique or (at := mask.index.get_indexer_for(labels)).min() < 0:
        raise Misfit(LABELS)
    return mask.take(at)


def _has_no_type(mask: Any, library: str) -> bool:
    """Whether it is one column of values of any kind, or of nulls alone: a batch may have nothing but what is missing."""
    if library in ("pandas", "numpy"):
        return getattr(getattr(mask, "dtype", None), "kind", "") == "O" and mask.ndim == 1 and hasattr(mask, "tolist")
    return (library == "polars" and str(getattr(mask, "dtype", "")) == "Null") or (
        library == "pyarrow" and str(getattr(mask, "type", "")) == "null"
    )


def _array(mask: Any, library: str) -> Any:
    """A mask of a library as an array of NumPy's."""
    if library == "pandas" and getattr(getattr(mask, "dtype", None), "kind", "") == "b" and mask.ndim == 1:
        return mask.to_numpy(dtype=bool, na_value=False)
    if library == "pyarrow" and str(getattr(mask, "type", "")) == "bool" and hasattr(mask, "fill_null"):
        filled = mask.fill_null(False)
        return filled.to_numpy() if hasattr(filled, "chunks") else filled.to_numpy(False)
    if library == "polars" and str(getattr(mask, "dtype", "")) == "Boolean":
        return mask.fill_null(False).to_numpy()
    if library == "numpy" and getattr(mask, "ndim", 0) == 1 and mask.dtype.kind == "b":
        filled = getattr(mask, "filled", None)  # of a masked one
        return mask if filled is None else filled(False)
    raise Misfit(MASK)


def picked(form: str, state: Any, at: list[int]) -> Any:
    """What stands at these rising positions, in the form."""
    if form == "list":
        return [state[n] for n in at]
    if form == "numpy" or type(state).__module__.partition(".")[0] == "numpy":
        if isinstance(state, dict):
            return {name: array[at] for name, array in state.items()}
        return tuple(array[at] for array in state) if isinstance(state, tuple) else state[at]
    library = type(state).__module__.partition(".")[0]
    if library == "pandas":
        return renumbered(state.take(at), len(at))
    return state[at] if form == "polars" else rows_at(state, at)


def renumbered(state: Any, count: int) -> Any:
    """A batch of pandas with an index of its own: labels that come twice, or not at all, are no places any more."""
    if type(state).__module__.partition(".")[0] != "pandas":
        return state
    return state.set_axis(sys.modules["pandas"].RangeIndex(count))


def places(state: Any, first: int, given: int) -> list[int] | None:
    """Of which record, counted from the first one, each result comes, as the index of a pandas object tells that began
    with `first`; None where nothing tells."""
    index = getattr(state, "index", None)
    if index is None or type(state).__module__.partition(".")[0] != "pandas" or index.dtype.kind not in "iu":
        return None
    told: list[int] = (index.to_numpy() - first).tolist()
    fits = not told or (told[0] >= 0 and told[-1] < given)
    return told if fits and index.is_monotonic_increasing else None
