"""What a TARGET on the command line means: "module:flow", "file.py:flow", or functions in order, "file.py:parse,score"."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any

from taktline import Line, LineError, line
from taktline.errors import did_you_mean

EXAMPLES = 3  # functions of a file that are named as an example


def line_of(target: str) -> Line:
    """The line that a TARGET names. Raises LineError, in one sentence, for whatever is wrong with it."""
    place, colon, names = target.rpartition(":")
    if not colon or not place or not names:
        raise LineError(f"{target!r} names no steps; write {_example(place or names)}")
    if not all(map(str.strip, names.split(","))):
        raise LineError(f"{target!r} has a comma with no step beside it; leave it out")
    module = _from_file(place) if place.endswith(".py") else _from_name(place)
    found = [_attribute(module, place, name.strip()) for name in names.split(",")]
    if len(found) == 1 and isinstance(found[0], Line):
        return found[0]
    return line(*found)


def _example(place: str) -> str:
    """What a TARGET looks like, with the functions of the file where it is one."""
    from taktline.cli.completing import functions

    there = [name for name, _ in functions(place)] if os.path.isfile(place) else []
    return f"{place}:{','.join(there[:EXAMPLES])}" if there else "file.py:parse,enrich,score or module:flow"


def function_of(flag: str, target: str | None) -> Any:
    """The function that a flag such as --setup names as module:function or file.py:function; None where it is not given."""
    if target is None:
        return None
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise LineError(f"{flag} {target!r} names no function; write file.py:function or module:function")
    return _attribute(_from_file(place) if place.endswith(".py") else _from_name(place), place, name.strip())


def _from_file(path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise LineError(f"there is no file {path!r}{_near(path)}")
    folder, file = os.path.split(os.path.abspath(path))
    # Not the bare stem: a file called queue.py must not stand in the standard library's place.
    name = f"taktline_target_{file[:-3]}"
    if (known := sys.modules.get(name)) is not None and os.path.samefile(str(known.__file__), path):
        return known  # of another flag
    spec = importlib.util.spec_from_file_location(name, path, loader=_Script(name, path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, folder)
    sys.modules[name] = module
    _loading(path, lambda: spec.loader.exec_module(module))
    # Workers get its functions by value: they need not import the file, whose top level may do anything.
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    return module


def _near(path: str) -> str:
    """Which file beside it may be meant."""
    folder, name = os.path.split(path)
    try:
        there = [each for each in os.listdir(folder or ".") if each.endswith(".py")]
    except OSError:
        return f": there is no folder {folder!r}"
    return did_you_mean(name, there, lambda near: repr(os.path.join(folder, near)))


class _Script(SourceFileLoader):
    """Loads a file as Python loads a script: nothing is written beside it."""

    def set_data(self, *_: Any, **__: Any) -> None:
        """In the place of writing into a folder `__pycache__`."""


def _from_name(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise LineError(f"there is no module {name!r}; for a file write its path with .py")
    module: ModuleType = _loading(name, lambda: importlib.import_module(name))
    return module


def _loading(what: str, load: Any) -> Any:
    try:
        return load()
    except (
        SystemExit
    ) as error:  # of a script without a guard around its own program: nothing would be run, and 0 returned
        code = "" if error.code is None else error.code
        raise LineError(
            f"{what!r} cannot be loaded: it calls sys.exit({code}) when it is imported; put its program behind "
            'if __name__ == "__main__":'
        ) from error
    except Exception as error:
        calls = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith("<frozen ")]
        # Of a file that is no Python the error itself says where.
        where = "" if isinstance(error, SyntaxError) else f" (at {calls[-1].filename}:{calls[-1].lineno})"
        raise LineError(f"{what!r} cannot be loaded: {type(error).__name__}: {error}{where}") from error


def _attribute(module: ModuleType, place: str, name: str) -> Any:
    if not hasattr(module, name):
        hint = did_you_mean(name, [each for each in vars(module) if not each.startswith("__")])
        raise LineError(f"there is no {name!r} in {place!r}{hint}")
    return getattr(module, name)
