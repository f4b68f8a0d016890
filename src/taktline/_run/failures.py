"""The records of a run that failed, by step and kind of error."""

from __future__ import annotations

from typing import Any

from taktline import _excerpts as excerpts
from taktline.errors import TaktlineError

KINDS = 50  # that are told apart
EXAMPLES = 3  # of each


class FailuresByKind:
    """Counts failed records; of the first kinds, and the first records of each, it keeps what they say."""

    def __init__(self) -> None:
        self.by_step: dict[str, int] = {}
        self._kinds: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, index: int, step: str, error: BaseException, record: Any) -> None:
        self.by_step[step] = self.by_step.get(step, 0) + 1
        kind = step, type(error).__name__
        if kind not in self._kinds:
            if len(self._kinds) >= KINDS:
                return
            reason = excerpts.masked(says(error).partition("\n")[0][:200])
            self._kinds[kind] = {"step": step, "reason": reason, "records": 0, "examples": []}
        found = self._kinds[kind]
        found["records"] += 1
        if len(found["examples"]) < EXAMPLES:
            found["examples"].append([index, excerpts.excerpt(record)])

    def told(self) -> tuple[dict[str, Any], ...]:
        """A row a kind: its step, what its first error says, how many records, and some of them with their index."""
        return tuple({**each, "examples": [list(one) for one in each["examples"]]} for each in self._kinds.values())


def says(error: BaseException) -> str:
    """An error's class and what it says; one of taktline's own has its code in front, by which it can be looked up."""
    kind = f"{error.code} {type(error).__name__}" if isinstance(error, TaktlineError) else type(error).__name__
    try:
        return f"{kind}: {error}".removesuffix(": ")
    except Exception:  # an exception of somebody's, that cannot say what it is
        return kind
