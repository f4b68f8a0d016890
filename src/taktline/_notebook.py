"""The notebook that this process is the kernel of, and its cells. IPython is not imported for that: where it is not, there
is no notebook."""

from __future__ import annotations

import sys
from typing import Any


def shell() -> Any:
    """IPython's shell that runs in this process; None where there is none."""
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()


def kernel() -> Any:
    """The kernel that this process is; None where it is none."""
    return getattr(shell(), "kernel", None)


def cell_of(path: str) -> str | None:
    """What the notebook calls the cell that is known to Python by this path, such as "In[3]"; None: it is no cell's."""
    named = getattr(getattr(shell(), "compile", None), "format_code_name", None)
    found = named(path) if named is not None else None
    return None if found is None else str(found[1])
