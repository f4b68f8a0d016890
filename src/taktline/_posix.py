"""What POSIX systems have, and others have not: None there."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def _loaded(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


fcntl = _loaded("fcntl")
resource = _loaded("resource")
