"""Which of a machine's devices each worker of an agent sees: its share of what was reserved for all of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

# Where libraries look for the GPUs that are theirs: who reserves some for an agent says so there.
VISIBLE_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def share(devices: list[str], place: int, places: int) -> list[str]:
    """What a worker sees of these: its own ones, or, where there are fewer devices than places, one with others.

    >>> share(["0", "1", "2", "3"], 1, 2), share(["0"], 1, 2), share(["0", "1"], 2, 3)
    (['2', '3'], ['0'], ['0'])
    """
    if len(devices) < places:
        return [devices[place % len(devices)]]
    return devices[place * len(devices) // places : (place + 1) * len(devices) // places]


class Devices:
    """Those of one agent, for as many workers as it has `places`; 0: none were reserved, and all see what is there."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._place_of: dict[int, int] = {}

    def environment(self, worker: int, living: Iterable[int]) -> dict[str, str]:
        """What a worker that starts beside these is to have in its environment."""
        seen = {name: os.environ[name].split(",") for name in VISIBLE_DEVICES if os.environ.get(name)}
        if not self._places or not seen:
            return {}
        self._place_of = {each: self._place_of[each] for each in living if each in self._place_of}
        taken = Counter(self._place_of.values())
        place = self._place_of[worker] = min(range(self._places), key=lambda place: taken[place])
        return {name: ",".join(share(devices, place, self._places)) for name, devices in seen.items()}
