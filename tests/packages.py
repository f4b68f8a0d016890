"""Packages for the tests, installed as pip does it."""

from __future__ import annotations

from pathlib import Path


class Packages:
    """Packages in a folder that is on the path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def install(self, name: str, code: str, group: str, **entries: str) -> None:
        module = name.replace("-", "_")
        (self._folder / f"{module}.py").write_text(code)
        info = self._folder / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        named = "".join(f"{each} = {target}\n" for each, target in entries.items())
        (info / "entry_points.txt").write_text(f"[{group}]\n{named}")
