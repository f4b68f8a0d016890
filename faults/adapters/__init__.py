"""One file a library: how its own documentation says that ordered results are had from worker processes."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

from faults.job import Adapter
from taktline import __version__

# Column names and the module that makes them; in the order of the table. A module is imported when it is used.
MODULES = {
    "loop": "loop",
    "Pool.imap": "pool",
    "ProcessPoolExecutor.map": "executor",
    "mpire": "mpire",
    "joblib": "joblib",
    "pypeln": "pypeln",
    "streamable": "streamable",
    "taktline loop": "taktline",
    "taktline pool": "taktline",
    "taktline queues": "taktline",
    "taktline line": "taktline",
    "taktline auto": "taktline",
    "taktline launched": "taktline",
    "taktline threads": "taktline",
    "taktline agents": "taktline",
}
OURS = tuple(name for name in MODULES if name.startswith("taktline"))
PACKAGES = ("mpire", "joblib", "pypeln", "streamable", "taktline")


def adapter(name: str) -> Adapter:
    """The adapter of a column."""
    module = import_module(f"faults.adapters.{MODULES[name]}")
    found: Adapter = next(each for each in module.ADAPTERS if each.name == name)
    return found


def available(name: str) -> bool:
    """Whether the library of a column is installed here."""
    return MODULES[name] not in PACKAGES or find_spec(MODULES[name]) is not None


def versions() -> dict[str, str]:
    """The versions of the packages that are installed here."""
    found = {package: version(package) for package in PACKAGES if package != "taktline" and find_spec(package)}
    return found | {"taktline": __version__}
