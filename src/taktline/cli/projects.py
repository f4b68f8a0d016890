"""Whole projects to start from, written into an empty folder. Their files lie in `astro/`, as they will be there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from taktline import LineError
from taktline.cli.wheel import write_wheel

HIDDEN = "dot_"  # stands for the dot of a name: a .gitignore among the sources would be in force here, too
NAME, WHEEL = "PROJECT_NAME", "TAKTLINE_WHEEL"
WHEELS = "wheels"  # the folder of the one that the project installs


def write_astro(folder: Path) -> list[Path]:
    """An Astro project, in a folder that is made or is empty, with a wheel of this taktline; its files. Raises LineError
    where it is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LineError(f"{str(folder)!r} is there and not an empty folder; name a new one, nothing was written")
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "taktline"
    made = write_wheel(folder / WHEELS)
    written = [made]
    for source, path in _templates(files("taktline.cli") / "astro"):
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text(encoding="utf-8").replace(NAME, name).replace(WHEEL, f"./{WHEELS}/{made.name}")
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise LineError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error
        written.append(target)
    return written


def _templates(folder: Traversable, below: Path = Path()) -> Iterator[tuple[Traversable, Path]]:
    """Each file below the folder, with the path that it gets."""
    for each in sorted(folder.iterdir(), key=lambda each: each.name):
        if each.name == "__pycache__":
            continue
        name = "." + each.name.removeprefix(HIDDEN) if each.name.startswith(HIDDEN) else each.name
        if each.is_dir():
            yield from _templates(each, below / name)
        else:
            yield each, below / name
