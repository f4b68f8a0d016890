"""What the shell completes behind the command: paths, and the functions of a file. Nothing of the user's is run for it."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from glob import escape, glob
from importlib.machinery import PathFinder
from typing import Any

from click.shell_completion import CompletionItem


def paths(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Files and folders, by the shell's own means."""
    return [CompletionItem(incomplete, type="file")]


def targets(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """A file's or module's functions and lines, behind a colon or a comma; before it, files of Python and folders."""
    place, colon, names = incomplete.rpartition(":")
    if not colon:
        found = [f"{path}{os.sep}" if os.path.isdir(path) else f"{path}:" for path in glob(f"{escape(incomplete)}*")]
        return [CompletionItem(each) for each in sorted(found) if each.endswith((".py:", os.sep))]
    before, comma, begun = names.rpartition(",")
    given = f"{place}:{before}{comma}"
    return [
        CompletionItem(given + name, help=says)
        for name, says in functions(place)
        if name.startswith(begun) and name not in before.split(",")
    ]


def errors(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Codes and classes of errors."""
    from taktline.cli.explaining import explanations

    names = [(name, each) for each in explanations() for name in (each.code, each.name) if " " not in name]
    begun = incomplete.lower()
    return [CompletionItem(name, help=each.name) for name, each in names if name.lower().startswith(begun)]


def functions(place: str) -> Iterator[tuple[str, str]]:
    """Names at the top of a file or module that may be steps or lines, each with the first line of what it says of itself."""
    path = place if place.endswith(".py") else _file_of(place)
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names, says = [node.name], ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign) and isinstance(node.value, (ast.Call, ast.Lambda)):
            names, says = [each.id for each in node.targets if isinstance(each, ast.Name)], ""
        else:
            continue
        yield from ((name, says.partition("\n")[0]) for name in names if not name.startswith("_"))


def _file_of(module: str) -> str:
    """Where a module is, without importing it or its package; empty where there is none."""
    path: Any = [os.getcwd()]
    spec = None
    for n, part in enumerate(module.split(".")):
        if (spec := PathFinder.find_spec(part, path if n else [*path, *sys.path])) is None:
            return ""
        path = spec.submodule_search_locations
    return spec.origin or "" if spec is not None else ""
