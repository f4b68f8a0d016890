"""The form of each library. It is imported where a step asks for its form, not before."""

from __future__ import annotations

import functools

from taktline._segment.forms.columns import ColumnsForm


@functools.cache
def form_of_library(name: str) -> ColumnsForm:
    """The form of this name, which is a library's; imports that."""
    match name:
        case "numpy":
            from taktline._segment.forms.numpy import Arrays

            return Arrays()
        case "pandas":
            from taktline._segment.forms.pandas import Frames

            return Frames()
        case "arrow":
            from taktline._segment.forms.arrow import Arrow

            return Arrow()
        case "polars":
            from taktline._segment.forms.polars import Polars

            return Polars()
    raise AssertionError(name)
