"""Modules of the user's own that a worker's machine does not have: their text comes from the caller's process, and they are
modules as any other then, with one state for all that is in them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

Source = tuple[str, bytes, bool]  # the file there, its text, whether it is a package


class CallersModules(MetaPathFinder):
    """Finds what nobody else does. `ask` has the caller's `homes.source_of` a name; each name is asked for once."""

    def __init__(self, ask: Callable[[str], Source | None]) -> None:
        self._ask = ask
        self._none: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # What is said to the caller, and heard, is so in the main thread alone.
        if name in self._none or threading.current_thread() is not threading.main_thread():
            return None
        source = self._ask(name)
        if source is None:
            self._none.add(name)
            return None
        file, _, is_package = source
        return spec_from_loader(name, _CallersSource(source), origin=file, is_package=is_package)


class _CallersSource(Loader):
    """Runs the text of one module."""

    def __init__(self, source: Source) -> None:
        self._file, self._text, _ = source

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = self._file or None
        exec(compile(self._text, self._file, "exec", dont_inherit=True), vars(module))

    def get_source(self, name: str) -> str:
        """For tracebacks."""
        return self._text.decode("utf-8", "replace")


def use(ask: Callable[[str], Source | None]) -> None:
    """From now on what is imported here and is nowhere on this machine is asked of the caller."""
    sys.meta_path.append(CallersModules(ask))
