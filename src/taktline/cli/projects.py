"""Projects to start from, written into an empty folder, or a DAG for one that is there. Their files lie in `project/` and
`astro/`, as they will be there."""

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
ADDED = {Path("dags/nightly_orders.py"), Path("include/lines.py"), Path("include/data/orders.jsonl")}
WHEELS = "wheels"  # the folder of the one that the project installs


def write_project(folder: Path) -> list[Path]:
    """A line, some records and a test, in a folder that is made or is empty; its files. Raises LineError where it is not
    empty."""
    _empty(folder)
    return _written("project", folder, {})


def write_astro(folder: Path) -> list[Path]:
    """An Astro project, in a folder that is made or is empty, with a wheel of this taktline; its files. Raises LineError
    where it is not empty."""
    _empty(folder)
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "taktline"
    made = write_wheel(folder / WHEELS)
    return [made, *_written("astro", folder, {NAME: name, WHEEL: f"./{WHEELS}/{made.name}"})]


def _empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LineError(f"{str(folder)!r} is there and not an empty folder; name a new one, nothing was written")


def _written(kind: str, folder: Path, names: dict[str, str]) -> list[Path]:
    """The files of this kind of project, each with these names replaced."""
    written = []
    for source, path in _templates(files("taktline.cli") / kind):
        text = source.read_text(encoding="utf-8")
        for name, stands_for in names.items():
            text = text.replace(name, stands_for)
        written.append(_write(folder / path, text))
    return written


def add_to_airflow(folder: Path) -> list[Path]:
    """A DAG, its steps and a sample of data in a project that has a folder `dags`; its files. Raises LineError where there
    is none, or a file of these names is there: then nothing is written."""
    if not (folder / "dags").is_dir():
        raise LineError(
            f"{str(folder)!r} has no folder 'dags', in which an Airflow project has its DAGs; name the folder above that one"
        )
    wanted = [(source, folder / path) for source, path in _templates(files("taktline.cli") / "astro") if path in ADDED]
    for _, target in wanted:
        if target.exists():
            raise LineError(f"{str(target)!r} is there already; nothing was written")
    return [_write(target, source.read_text(encoding="utf-8")) for source, target in wanted]


def _write(target: Path, text: str) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LineError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error
    return target


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
