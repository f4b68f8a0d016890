"""Where modules come from: which are the user's own, and which of them a worker could not import by their name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from types import FunctionType, ModuleType
from typing import Any

from taktline._signals import pass_on

NOT_OF_USER = {"taktline", "__main__", "__mp_main__", "sitecustomize", "usercustomize", "cloudpickle"}
_found: tuple[Any, tuple[str, ...]] = (None, ())  # what was there at the last look, and what it found
_specs: dict[Any, str | None] = {}  # where an import finds a name
_packages: dict[str, ModuleType] = {}  # modules that were found to be installed, by the names they are loaded under


def loaded() -> Iterator[tuple[str, ModuleType]]:
    """The modules of this process, by their names."""
    for name, module in list(sys.modules.items()):
        if _is_real(module):
            yield name, module


def _is_real(module: Any) -> bool:
    """Whether it is a module that one may look into: what cffi puts there only says that it is one, and one of importlib's
    LazyLoader that nobody has used yet would be loaded."""
    return issubclass(type(module), ModuleType) and type(module).__name__ != "_LazyModule"


def known_as_installed(name: str, module: ModuleType) -> bool:
    """Whether it was seen already that this module is Python's own or an installed package's."""
    return _packages.get(name) is module


def of_user(module: Any) -> bool:
    """Whether a module is the user's own: a file that is neither Python's nor in a folder of installed packages."""
    if not _is_real(module):
        return False
    space = vars(module)
    name, file = space.get("__name__"), space.get("__file__")
    if not isinstance(file, str) or not isinstance(name, str) or name.partition(".")[0] in NOT_OF_USER:
        return False
    return space.get("__spec__") is not None and not installed(file)


def in_place_of_modules() -> dict[str, Any]:
    """Objects of the user's that stand among the modules, by name, and None where a module must not be found."""
    return {
        name: thing for name, thing in list(sys.modules.items())
        if not issubclass(type(thing), ModuleType) and (thing is None or _is_made_by_user(name, type(thing)))
    }  # fmt: skip


def _is_made_by_user(name: str, kind: type) -> bool:
    home = kind.__module__
    if home == name:  # a module that has put an object of its own in its place
        file = _origin(name)
        return file is None or not installed(file)
    return home in ("types", "unittest.mock", *stand_ins()) or of_user(sys.modules.get(home))


def is_found(name: str) -> bool:
    """Whether an import of this name finds something in any interpreter."""
    return _origin(name) is not None


@cache
def installed(file: str) -> bool:
    """Whether a module's file is Python's own, or belongs to an installed package."""
    if {"site-packages", "dist-packages"} & set(file.split(os.sep)):
        return True
    return file.startswith((*_homes(), "<")) or _is_listed(file)


def _is_listed(file: str) -> bool:
    """Whether a package that was put into a folder of the program's lists this file: by `pip install --target`, in a PEX, or
    beside a cloud function."""
    for folder in {os.path.join(path, "") for path in sys.path if path}:
        if file.startswith(folder) and file.removeprefix(folder).partition(os.sep)[0] in _listed(folder):
            return True
    return False


@cache
def _listed(folder: str) -> set[str]:
    """The files and folders right in a folder that belong to packages that were installed into it."""
    found: set[str] = set()
    try:
        packages = [each for each in os.listdir(folder) if each.endswith(".dist-info")]
    except OSError as error:  # there is no such folder
        pass_on(error)
        return found
    for each in packages:
        try:
            with open(os.path.join(folder, each, "RECORD"), encoding="utf-8") as record:
                found |= {line.partition(",")[0].partition("/")[0] for line in record}
        except (OSError, UnicodeError) as error:  # one that lists nothing
            pass_on(error)
    return found


@cache
def _homes() -> tuple[str, ...]:
    """The folders of Python's own modules and of packages."""
    import site

    # What `sysconfig` would say, 3 ms later.
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    paths = {os.path.join(prefix, sys.platlibdir, version) for prefix in (sys.exec_prefix, sys.base_exec_prefix)}
    paths |= {os.path.dirname(os.__file__), *getattr(site, "getsitepackages", list)()}
    return tuple(path.rstrip(os.sep) + os.sep for path in paths)


def stand_ins(*, anew: bool = False) -> tuple[str, ...]:
    """The modules whose contents go by value, since workers cannot or must not import them: `__main__`, those that were
    loaded by their path or made at run time, and those that cloudpickle was told of. `anew`: whatever was found before."""
    global _found
    by_value: set[str] = getattr(sys.modules.get("cloudpickle"), "list_registry_pickle_by_value", set)()
    around = (len(sys.modules), frozenset(by_value), tuple(sys.path))
    if anew or _found[0] != around:
        if anew:
            _specs.clear()
        homeless = {
            name for name, module in loaded() if not known_as_installed(name, module) and _is_homeless(name, module)
        }
        # In a process that multiprocessing has started the program is a module of this name, in no other one.
        mains = ("__main__", *(["__mp_main__"] if "__mp_main__" in sys.modules else ()))
        _found = (around, (*mains, *sorted({*by_value, *homeless} - {*mains})))
    return _found[1]


def _is_homeless(name: str, module: Any) -> bool:
    """Whether an import of its name in a fresh interpreter would not find this module."""
    space = vars(module)
    if name.partition(".")[0] in NOT_OF_USER or space.get("__name__") != name:
        return False
    spec, file = space.get("__spec__"), space.get("__file__")
    if spec is None and file is None:
        return type(module) is ModuleType and _is_written(name, module) and _origin(name) is None
    file = file or getattr(spec, "origin", None)
    if not isinstance(file, str):
        return False
    if installed(file):
        _packages[name] = module
        return False
    found = _origin(name)
    return found is None or (found != file and os.path.realpath(found) != os.path.realpath(file))


def _is_written(name: str, module: ModuleType) -> bool:
    """Whether something in it says that it comes from there: what extensions make for themselves is left alone."""
    kinds = (FunctionType, type)
    return any(
        isinstance(each, kinds) and getattr(each, "__module__", None) == name for each in list(vars(module).values())
    )


def _origin(name: str) -> str | None:
    """The file that an import of this name finds, in any interpreter with this sys.path; None where it finds none."""
    above = name.rpartition(".")[0]
    parent = sys.modules.get(above) if above else None
    if above and (not _is_real(parent) or _is_homeless(above, parent)):
        return None
    path = list(getattr(parent, "__path__", ())) if above else None
    key = (name, tuple(path if path is not None else sys.path))
    if key not in _specs:
        _specs[key] = _looked_up(name, path)
    return _specs[key]


def _looked_up(name: str, path: list[str] | None) -> str | None:
    for finder in (PathFinder, *_installed_finders()):
        try:
            spec = finder.find_spec(name, path)
        except Exception as error:  # somebody's own finder
            pass_on(error)
            continue
        if spec is not None:
            return spec.origin or ""
    return None


def source_of(name: str) -> tuple[str, bytes, bool] | None:
    """The file, the text and whether it is a package, of a module of the user's own that is written in Python; None of all
    others. It need not be loaded. A package without a file of its own has no text."""
    path: list[str] | None = None
    spec: Any = None
    parts = name.split(".")
    for n in range(len(parts)):
        finders = (PathFinder, *_installed_finders())
        spec = next((found for each in finders if (found := each.find_spec(".".join(parts[: n + 1]), path))), None)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    file = spec.origin if spec.has_location else None
    if parts[0] in NOT_OF_USER or installed(file or next(iter(path or ()), "<")):
        return None
    if file is None:
        return "", b"", True
    if not file.endswith(".py"):
        return None
    with open(file, "rb") as source:
        return file, source.read(), spec.submodule_search_locations is not None


def _installed_finders() -> list[Any]:
    """Those that a package has brought along, such as for what is installed to be edited: other interpreters have them
    too. One that this program has made they have not."""
    found = []
    for finder in sys.meta_path:
        kind = finder if isinstance(finder, type) else type(finder)
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if isinstance(file, str) and installed(file) and hasattr(finder, "find_spec"):
            found.append(finder)
    return found
