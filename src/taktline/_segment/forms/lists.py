"""Batches as plain lists."""

from __future__ import annotations

from typing import Any

from taktline._segment.forms.contract import Columns, Form
from taktline._segment.step_results import listed


class Lists(Form):
    """Plain lists: nothing is converted."""

    def take(self, values: list[Any]) -> Any:
        return values

    def checked(self, result: Any, given: int) -> tuple[Any, int]:
        if type(result) is list:
            return result, len(result)
        return listed(result, given)

    def give(self, result: Any) -> Columns:
        return result if isinstance(result, Columns) else Columns(None, [result])
