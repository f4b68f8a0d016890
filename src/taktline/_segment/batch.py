"""What a segment is given and gives back: consecutive values, where each came from, and the failures between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Failure:
    """A record that failed. `place`: how many values of its batch stand before it."""

    place: int
    origin: int  # its record's position in the batch as it was read
    step: str
    error: BaseException
    traceback: str = ""  # of the step's own code, as text
    record: Any = None  # what the step was given; only kept where it never was packed


@dataclass(slots=True)
class Batch:
    """Values in order. `origins[n]`: the position, in the batch as it was read, of the record that value n came from;
    None: value n came from record n."""

    values: list[Any]
    origins: list[int] | None = None
    failures: list[Failure] = field(default_factory=list)

    def origin(self, position: int) -> int:
        """The position, in the batch as it was read, of the record behind the value at `position`."""
        return position if self.origins is None else self.origins[position]

    def fail(self, position: int, step: str, error: BaseException, *, goes_on: bool, traceback: str = "") -> None:
        """The value at `position` failed: take it out, and all after it unless the run goes on."""
        failure = Failure(position, self.origin(position), step, error, traceback)
        if goes_on:
            self.origins = self.origins if self.origins is not None else list(range(len(self.values)))
            del self.values[position], self.origins[position]
            for other in self.failures:
                if other.place > position:
                    other.place -= 1
        else:
            del self.values[position:]
            if self.origins is not None:
                del self.origins[position:]
            self.failures = [other for other in self.failures if other.place < position]
        self.failures.append(failure)
        self.failures.sort(key=lambda each: (each.place, each.origin))
