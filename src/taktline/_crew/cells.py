"""Tracebacks of workers, with the lines of code that only the caller's process knows: cells of a notebook, what was typed."""

from __future__ import annotations

import linecache
import re

from taktline._notebook import cell_of

# A place without its line: the file is not there, or the process that wrote it down does not know what stands in it.
_PLACE = re.compile(r'^  File "([^"\n]+)", line (\d+), in (.*)\n(    .*\n)?', re.MULTILINE)


def in_cells(trace: str) -> str:
    """The text of a traceback with source lines where this process has them, and cells called as the notebook calls them.

    >>> import linecache
    >>> linecache.cache["<cell 1>"] = (8, None, ["pass\\n", "1 / 0\\n"], "<cell 1>")
    >>> print(in_cells('  File "<cell 1>", line 2, in half\\nZeroDivisionError: division by zero'))
      File "<cell 1>", line 2, in half
        1 / 0
    ZeroDivisionError: division by zero
    """

    def told(found: re.Match[str]) -> str:
        path, line, name, source = found.groups()
        source = source or (f"    {known}\n" if (known := linecache.getline(path, int(line)).strip()) else "")
        cell = cell_of(path)
        where = f'File "{path}"' if cell is None else f"Cell {cell}"
        return f"  {where}, line {line}, in {name}\n{source}"

    return _PLACE.sub(told, trace)
