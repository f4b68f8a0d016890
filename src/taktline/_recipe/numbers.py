"""Whether what a user gave is a number: True and False are none, though Python counts with them."""

from __future__ import annotations


def is_whole(value: object, least: int | None = None) -> bool:
    """Whether it is an int, of at least so much.

    >>> is_whole(3, least=1), is_whole(0, least=1), is_whole(True), is_whole(2.0)
    (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


def is_number(value: object, *, above: float | None = None) -> bool:
    """Whether it is an int or a float, and larger than `above`.

    >>> is_number(0.5, above=0), is_number(0, above=0), is_number(0), is_number(True)
    (True, False, True, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (above is None or value > above)
