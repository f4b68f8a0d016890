"""The folder that this process is in, which may be gone: paths that are not absolute begin there."""

from __future__ import annotations

import os

from taktline._signals import pass_on


def working_folder() -> str:
    """The folder that this process is in; empty where it is gone, or its name cannot be read."""
    try:
        return os.getcwd()
    except (FileNotFoundError, PermissionError) as error:
        pass_on(error)
        return ""
