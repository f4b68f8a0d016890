"""What a run was made with: versions of what its results may depend on."""

from __future__ import annotations

import sys

LIBRARIES = ("numpy", "pandas", "pyarrow", "polars", "orjson", "sklearn", "torch", "scipy")


def versions() -> dict[str, str]:
    """Python's, taktline's, and those of libraries that are loaded in this process.

    >>> list(versions())[:2]
    ['Python', 'taktline']
    """
    found = {"Python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("taktline", *LIBRARIES):
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            found[name] = version
    return found
