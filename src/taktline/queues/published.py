"""Sinks whose results are out when a write returns: nothing is left to commit, and nothing can be taken back."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from taktline._excerpts import excerpt
from taktline.abc import Resumable
from taktline.errors import SinkError


class Published(Resumable):
    """Publishes, and returns when that is confirmed: so what was written is safe. A run that goes on from a journal publishes
    again what was published after the journal's last mark."""

    forks = False
    visible = True
    takes_failed = False

    def begin(self, run: str) -> None:
        self.open()

    def save(self, mark: str) -> Any:
        return True

    def resume(self, run: str, position: Any) -> str | None:
        self.open()
        return None

    def finished(self, run: str, position: Any) -> bool:
        return True

    def commit(self) -> None:
        self.suspend()

    def abort(self) -> None:
        self.suspend()

    @abstractmethod
    def suspend(self) -> None:
        """Let go of the client; may be called again."""


def bytes_of(result: Any, message: str, at: int) -> bytes:
    """What a result that is no `message` yet holds. Raises SinkError where it cannot be published; `at`: its place in the
    batch."""
    if isinstance(result, str):
        return result.encode()
    if isinstance(result, (bytes, bytearray, memoryview)):
        return bytes(result)
    raise SinkError(
        f"a result of type {type(result).__name__} cannot be published\n  result  {excerpt(result)}\n"
        f"  next    end the line with a step that makes it a {message}, bytes or str",
        at=at,
    )
