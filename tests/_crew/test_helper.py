"""When an agent is given up that does not answer."""

from __future__ import annotations

from taktline._crew.helper import STARTING, Beats


def vain(beats: Beats, *, has_spoken: bool) -> int:
    """How often it is listened for in vain until it is given up."""
    return next(n for n in range(1, 10_000) if beats.lost(1, came=False, has_spoken=has_spoken))


def test_who_has_spoken_and_never_answered_a_beat_is_given_up_as_soon_as_others():
    assert vain(Beats(10), has_spoken=True) == 10


def test_who_has_answered_is_given_up_after_as_many():
    beats = Beats(10)
    assert not beats.lost(1, came=True, has_spoken=False)
    assert vain(beats, has_spoken=True) == 10


def test_who_has_said_nothing_may_still_be_starting():
    assert vain(Beats(10), has_spoken=False) == STARTING + 10
    assert vain(Beats(4), has_spoken=False) == (STARTING + 4) * 10 / 4


def test_who_speaks_late_is_given_up_soon_after_that_and_once():
    beats = Beats(10)
    assert not any(beats.lost(1, came=False, has_spoken=False) for _ in range(30))
    assert vain(beats, has_spoken=True) == 10
    assert not any(beats.lost(1, came=False, has_spoken=True) for _ in range(100))
