"""Promise: however a program is started, its line gives the loop's answer, or refuses in one sentence; never a storm."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipapp
from pathlib import Path

import pytest

STARTS = ["fork", "launch", "auto"]
CORE = """
import decimal
RATES = {"a": 1}
def offset(n=0): return n
class Price:
    note = ""
    class Tax:
        __slots__ = ("n",)
        def __init__(self, n): self.n = n
def priced(n):
    seen = RATES, offset(), Price.note, str(decimal.Decimal(1) / 3)
    return Price.Tax(n if seen == ({"a": 2}, 5, "changed", "0.333") else seen)
def results(start, how="line"):
    from taktline import line
    RATES["a"], Price.note, offset.__defaults__, decimal.getcontext().prec = 2, "changed", (5,), 3
    return list(line(priced)(range(60), how=how, workers=2, start=start))
def right(start):
    made = results(start)
    return [each.n for each in made] == list(range(60)) and {type(each) for each in made} == {Price.Tax}
"""


def ended(command: list[str], folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    settings = {"capture_output": True, "text": True, "timeout": 120, "cwd": folder, **settings}
    return subprocess.run(command, **settings)  # type: ignore[call-overload, no-any-return]


# --- a module that runs a line when it is imported ---


@pytest.mark.parametrize("how", ["line", "pool", "auto"])
@pytest.mark.parametrize("start", STARTS)
def test_a_module_that_runs_a_line_when_it_is_imported_starts_no_worker_that_does_so_too(start, how, tmp_path):
    (tmp_path / "shop.py").write_text(
        f"import os\nprint('imported', os.getpid(), flush=True)\n{CORE}\nimport time\n"
        f"def slow(n):\n    time.sleep(0.002)\n    return n\nfrom taktline import line\n"
        f"MADE = list(line(slow)(range(300), how={how!r}, workers=2, start={start!r}))\nassert MADE == list(range(300))\n"
    )
    done = ended([sys.executable, "-c", "import shop; print(len(shop.MADE))"], tmp_path)
    imported = {each for each in done.stdout.splitlines() if each.startswith("imported")}
    assert len(imported) <= 3  # the program, and each worker once
    if start == "launch" and how != "auto":
        assert done.returncode == 1
        error = done.stderr.splitlines()[-1]
        assert error.startswith(
            "taktline.WorkersCannotStart: a worker could not load the steps: module 'shop' runs a line"
        )
    else:
        assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, "300", "")


def test_a_line_inside_a_step_has_workers_as_before(tmp_path):
    (tmp_path / "shop.py").write_text(CORE)
    code = """
        import shop
        from taktline import line
        def inside(n): return [each.n for each in shop.results("launch")]
        print(list(line(inside)([1, 2], how="line", workers=1, start="launch")) == [list(range(60))] * 2)
    """
    assert ended([sys.executable, "-c", textwrap.dedent(code)], tmp_path).stdout == "True\n"


# --- where Python is part of another program ---


FROZEN = """#!{python}
import os, sys
with open("starts.txt", "a") as file: file.write("started\\n")
sys.frozen, sys.executable = True, os.path.abspath(__file__)
{core}
import threading, taktline
thing = threading.Lock() if "--unsafe" in sys.argv else None
def held(n):
    with thing or open(os.devnull): return n
try:
    if "--unsafe" in sys.argv:
        print(list(taktline.line(held)(range(60), how=sys.argv[2], workers=2, start=sys.argv[1])) == list(range(60)))
    else:
        print(right(sys.argv[1]))
except taktline.WorkersCannotStart as error:
    print(error)
"""


def frozen(folder: Path, *arguments: str) -> str:
    program = folder / "program"
    program.write_text(FROZEN.format(python=sys.executable, core=CORE))
    program.chmod(0o755)
    done = ended([str(program), *arguments], folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "starts.txt").read_text() == "started\n"  # it was not started again as a worker
    return done.stdout


@pytest.mark.parametrize("start", ["fork", "auto"])
def test_a_frozen_program_forks(start, tmp_path):
    assert frozen(tmp_path, start, "line") == "True\n"


def test_a_frozen_program_that_cannot_fork_refuses_by_name_and_auto_stays_with_the_loop(tmp_path):
    assert "this program is frozen: " in frozen(tmp_path, "launch", "line")
    (tmp_path / "starts.txt").unlink()
    told = frozen(tmp_path, "auto", "line", "--unsafe")
    assert "this program is frozen: " in told
    assert "a lock, which two processes must not share" in told
    (tmp_path / "starts.txt").unlink()
    assert frozen(tmp_path, "auto", "auto", "--unsafe") == "True\n"


@pytest.mark.parametrize("executable", ["None", "''", "'/bin/true'", "os.path.abspath('uwsgi')"])
def test_where_python_is_part_of_another_program_its_own_python_is_found(executable, tmp_path):
    (tmp_path / "uwsgi").write_text("#!/bin/sh\necho started >> starts.txt\n")
    (tmp_path / "uwsgi").chmod(0o755)
    code = f"{CORE}\nimport os, sys\nsys.executable = {executable}\nprint(right('launch'))"
    done = ended([sys.executable, "-c", code], tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert not (tmp_path / "starts.txt").exists()
    without = "sys.prefix = sys.exec_prefix = sys.base_prefix = '/nowhere'"
    code = f"{CORE}\nimport os, sys\n{without}\nsys.executable = {executable}\nright('launch')"
    done = ended([sys.executable, "-c", code], tmp_path)
    assert "by its name no Python" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "starts.txt").exists()


# --- ways to start a program ---


NOTEBOOK = """
import sys, types
from code import InteractiveInterpreter
shell = InteractiveInterpreter({{"__name__": "__main__"}})
sys.modules["__main__"] = types.ModuleType("__main__")
shell.locals = vars(sys.modules["__main__"])
for cell in ({core!r}, "print(right({start!r}))"):
    shell.runcode(compile(cell, "<ipython-input-1>", "exec"))
"""
WAYS = {
    "a script": lambda core, start: (["program.py"], {"program.py": f"{core}\nprint(right({start!r}))"}, None),
    "python -c": lambda core, start: (["-c", f"{core}\nprint(right({start!r}))"], {}, None),
    "standard input": lambda core, start: (["-"], {}, f"{core}\nprint(right({start!r}))\n"),
    "python -m of a package": lambda core, start: (
        ["-m", "shop.sales"],
        {
            "shop/__init__.py": "",
            "shop/prices.py": core,
            "shop/sales.py": "from .prices import *\nfrom . import prices\n"
            f"if __name__ == '__main__':\n    print(right({start!r}))",
        },
        None,
    ),
    "python -m of a package's __main__": lambda core, start: (
        ["-m", "shop"],
        {"shop/__init__.py": "", "shop/__main__.py": f"{core}\nif __name__ == '__main__':\n    print(right({start!r}))"},
        None,
    ),
    "exec": lambda core, start: (
        ["program.py"], {"program.py": f"names = {{}}\nexec({core!r}, names)\nprint(names['right']({start!r}))"}, None,
    ),
    "a module made at run time": lambda core, start: (
        ["program.py"],
        {
            "program.py": "import sys, types\nmodule = sys.modules['made'] = types.ModuleType('made')\n"
            f"exec({core!r}, vars(module))\nimport made\nprint(made.right({start!r}))"
        },
        None,
    ),
    "doctest": lambda core, start: (
        ["program.py"],
        {
            "program.py": f"{core}\ndef tested():\n    '''\n    >>> def more(n): return Price.Tax(n + 1)\n"
            "    >>> from taktline import line\n"
            f"    >>> made = list(line(more)(range(60), how='line', workers=2, start={start!r}))\n"
            "    >>> [each.n for each in made] == list(range(1, 61)) and {type(each) for each in made} == {Price.Tax}\n"
            "    True\n    '''\nimport doctest\nprint(doctest.testmod().failed == 0)"
        },
        None,
    ),
    "cells": lambda core, start: (["program.py"], {"program.py": NOTEBOOK.format(core=core, start=start)}, None),
    **{
        f"pytest, {mode}": lambda core, start, mode=mode: (
            ["program.py"],
            {
                "tests/test_prices.py": f"{core}\ndef test_prices():\n    assert right({start!r})",
                "program.py": "import contextlib, io, pytest\nwith contextlib.redirect_stdout(io.StringIO()) as out:\n"
                f"    code = pytest.main(['-q', '-p', 'no:cacheprovider', '--import-mode={mode}', 'tests'])\n"
                "print(not code or out.getvalue())",
            },
            None,
        )
        for mode in ("prepend", "importlib")
    },
    **{
        f"a process that multiprocessing has started, {method}": lambda core, start, method=method: (
            ["program.py"],
            {
                "program.py": f"{core}\nif __name__ == '__main__':\n    import multiprocessing\n"
                f"    with multiprocessing.get_context({method!r}).Pool(1) as pool:\n"
                f"        print(pool.apply(right, [{start!r}]))"
            },
            None,
        )
        for method in ("spawn", "forkserver")
    },
    "runpy": lambda core, start: (
        ["-c", "import runpy; runpy.run_path('other.py', run_name='__main__')"],
        {"other.py": f"{core}\nprint(right({start!r}))"},
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("way", WAYS)
def test_however_a_program_is_started_workers_have_its_functions_and_classes(way, start, tmp_path):
    arguments, files, text = WAYS[way](CORE, start)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    done = ended([sys.executable, *arguments], tmp_path, input=text)
    assert (done.stdout, done.stderr) == ("True\n", "")


KERNEL = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel()
for cell in ({core!r}, "print(right({start!r}))"):
    client.execute_interactive(cell, timeout=90, output_hook=lambda message: print(message["content"]))
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


@pytest.mark.parametrize("start", ["launch", "auto"])
def test_a_kernel_of_jupyter_is_such_a_program(start, tmp_path):
    done = ended([sys.executable, "-c", KERNEL.format(core=CORE, start=start)], tmp_path)
    assert "'text': 'True\\n'" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("start", STARTS)
def test_a_zip_with_a_program_and_its_modules_works(start, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "prices.py").write_text(CORE)
    (tmp_path / "app" / "__main__.py").write_text(
        f"import prices\n{CORE}\nprint(right({start!r}), prices.right({start!r}))\n"
    )
    zipapp.create_archive(tmp_path / "app", tmp_path / "app.pyz")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    done = ended([sys.executable, os.fspath(tmp_path / "app.pyz")], folder)
    assert (done.stdout, done.stderr) == ("True True\n", "")
