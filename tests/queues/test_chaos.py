"""A slice of `python3 dev.py queues`: some messages, a few kills, both ways, each broker."""

from __future__ import annotations

import pytest

from faults import brokers, queues


@pytest.mark.parametrize("way", queues.WAYS)
@pytest.mark.parametrize("broker", sorted(queues.QUEUES))
def test_nothing_is_lost_and_keys_keep_their_order(broker, way):
    pytest.importorskip({"redis": "redis", "kafka": "confluent_kafka"}[broker])
    try:
        toll = queues.run(broker, way, messages=4000, kills=3, keys=10, seed=7)
    except brokers.NoServer as none:
        pytest.skip(str(none))
    assert not toll.wrong, str(toll)
    assert toll.killed.total() == 3


def test_what_does_not_hold_is_found():
    whole = [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert not list(queues.wrong_with(whole, 4, 2, once=True))
    assert list(queues.wrong_with([*whole, (0, 1)], 4, 2, once=True)) == ["key 0: number 1 came after 1"]
    assert not list(queues.wrong_with([*whole, (0, 1)], 4, 2, once=False))
    assert list(queues.wrong_with(whole[:3], 4, 2, once=False)) == ["key 1: ended at 0, not at 1"]
    swapped = list(queues.wrong_with([(0, 1), *whole], 4, 2, once=False))
    assert swapped == ["key 0: number 1 came right after -1"]
