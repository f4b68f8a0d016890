"""What the runs gave, kept in a file: so that columns which are run on demand stay beside those that run every day."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.adapters import MODULES, versions
from faults.guard import Result
from faults.scenario import Verdict

FILE = Path(__file__).with_name("results.json")


@dataclass
class Results:
    """The last verdict of each scenario and adapter, with the versions that it was reached with; and other figures."""

    cells: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # by adapter, then scenario
    versions: dict[str, str] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)  # of the chaos run and of the simulation, as sentences

    @classmethod
    def load(cls) -> Results:
        return cls(**json.loads(FILE.read_text(encoding="utf-8"))) if FILE.exists() else cls()

    def save(self) -> None:
        FILE.write_text(json.dumps(self.__dict__, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def add(self, result: Result) -> None:
        """Put a result in the place of an older one."""
        column = self.cells.setdefault(result.adapter, {})
        column[result.scenario] = {"verdict": result.verdict.value, "why": result.why}
        package = MODULES[result.adapter]
        here = versions()
        self.versions["Python"] = f"{platform.python_version()}, {platform.system()}"
        if package in here:
            self.versions[package] = here[package]

    def verdict(self, adapter: str, scenario: str) -> Verdict | None:
        cell = self.cells.get(adapter, {}).get(scenario)
        return Verdict(cell["verdict"]) if cell else None

    def why(self, adapter: str, scenario: str) -> str:
        return str(self.cells.get(adapter, {}).get(scenario, {}).get("why", ""))
