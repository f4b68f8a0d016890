"""What a batch step is handed: a list, or NumPy arrays, a pandas, Arrow or Polars table. Exact both ways, or refused.

What a column holds follows from each record alone, never from its neighbours, so that a batch gives what its records
give one at a time: a batch that mixes what one column cannot hold exactly (ints and floats, rows with other keys) does
not fit, and whoever called takes a part of it. Libraries are imported where a step asks for their form, not before.
"""

from __future__ import annotations

import functools

from taktline._segment.forms.contract import Columns, Form, Misfit, Unfit, cannot_stand, no_record, not_of_the_form

__all__ = ["Columns", "Form", "Misfit", "Unfit", "cannot_stand", "form_of", "no_record", "not_of_the_form"]


@functools.cache
def form_of(name: str) -> Form:
    """The form of this name; imports its library."""
    if name == "list":
        from taktline._segment.forms.lists import Lists

        return Lists()
    from taktline._segment.forms.libraries import form_of_library

    return form_of_library(name)
