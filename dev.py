"""Sets up the project inside this checkout and runs what is asked. Needs Python 3.11+ and pip.

python3 dev.py demo             set up, then the demo on real data
python3 dev.py test [args]      set up, then all tests, each file by itself (arguments go to pytest, which then runs alone)
python3 dev.py fast [args]      the tests that start no process, on each Python 3.11 or newer that is found here; on the
                                newest it fails where they leave out a line of the rooms that decide
python3 dev.py coverage [args]  set up, then all tests, or those that are named, and which lines they ran, workers' too
python3 dev.py check            set up, then lint, format, spelling, types and all tests
python3 dev.py bench [args]     set up, then the benchmarks; also: bench article|hub|tables|verdict
python3 dev.py simulate [args]  set up, then a million random lives of the schedule
python3 dev.py faults [args]    set up, then the fault suite; --rivals: with other libraries too, in .venv-rivals (bench too)
python3 dev.py ways [args]      set up, then whole ways, drawn, held against a model in plain Python
python3 dev.py chaos [args]     set up, then a job whose workers and caller are killed at random
python3 dev.py docs [folder]    set up, then build the site into ./site: index.html works without a server too
python3 dev.py pictures [names] set up, then make the pictures in docs/pictures anew, from real runs (needs tmux and Chromium)
python3 dev.py queues [args]    set up, then messages of a queue whose consumers are killed at random
python3 dev.py schedulers       set up .venv-schedulers with Dagster and Prefect, then a run in each that is killed
python3 dev.py airflow [args]   set up .venv-airflow with Apache Airflow, then the tests in a real Airflow; --oldest: in the
                                oldest that is supported, in .venv-airflow-oldest
python3 dev.py hosts [args]     the same, then tasks of that Airflow on two hosts that are killed and frozen at random
python3 dev.py ray [args]       set up .venv-ray with Ray, then the tests on a real cluster of this machine
python3 dev.py ray bench [args] the same, then benchmarks on such a cluster, beside Ray Data and Dask
python3 dev.py ray ways [args]  the same, then whole ways with their workers on such a cluster
"""

import compileall
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.lock"
VENV, RIVALS, AIRFLOW, RAY = (ROOT / name for name in (".venv", ".venv-rivals", ".venv-airflow", ".venv-ray"))
SCHEDULERS, AIRFLOW_OLDEST = (ROOT / name for name in (".venv-schedulers", ".venv-airflow-oldest"))
LOCKS = {
    AIRFLOW: ROOT / "tests" / "airflow" / "requirements.lock",
    AIRFLOW_OLDEST: ROOT / "tests" / "airflow" / "oldest.lock",
    SCHEDULERS: ROOT / "tests" / "schedulers.lock",
}
PROGRAMS = {
    "demo": ("taktline", "demo"),
    "bench": ("benchmarks",),
    "simulate": ("faults.simulation",),
    "faults": ("faults",),
    "chaos": ("faults.chaos",),
    "queues": ("faults.queues",),
    "ways": ("faults.ways",),
    "docs": ("website", "build"),
    "pictures": ("website", "pictures"),
    "test": ("tests.apart",),
    "airflow": ("pytest", "--override-ini=addopts=-ra", "--override-ini=testpaths=tests/airflow"),
    "hosts": ("faults.hosts",),
    "ray": ("pytest", "--override-ini=addopts=-ra", "--override-ini=testpaths=tests/clusters"),
}
MORE = {RIVALS: "rivals", RAY: "ray"}  # environments with the packages of one more group
UV = "uv==0.13.9"
PURE = tuple(f"src/taktline/{room}" for room in ("_schedule", "_planner", "_observe"))  # rooms that decide
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("codespell_lib",),
    ("mypy",),
    ("mypy", "--config-file", "tests/mypy.ini"),
    ("mypy", "--config-file", "tests/airflow/mypy.ini"),
)


def set_up(folder: Path) -> None:
    """A virtual environment in the checkout with the locked packages and the project itself; again only when they change."""
    lock = LOCKS.get(folder, LOCK)
    wanted = hashlib.sha256(
        lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + sys.version.encode()
    ).hexdigest()
    mark = folder / "set-up"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"setting up {folder.name} …", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install_locked(folder, lock)
        install(folder, "--no-deps", "--no-build-isolation", "--editable", ".")
        if folder in MORE:
            install(folder, *group(MORE[folder]))
        mark.write_text(wanted)
    # As an installed package is: each worker would compile anew what it imports where Python is told not to write that.
    for imported in ("src", "tests", "faults"):
        compileall.compile_dir(ROOT / imported, quiet=2)


def install_locked(folder: Path, lock: Path) -> None:
    """The packages of a lock: by uv, which takes a third of pip's time, where that can be had; else by pip."""
    by_uv = [python(folder), "-m", "uv", "pip", "install", "--quiet", "--python", python(folder), "--compile-bytecode"]
    locked = ["--no-deps", "--require-hashes", "--requirement", str(lock)]
    try:
        install(folder, UV)
        subprocess.run([*by_uv, *locked], check=True, cwd=ROOT)
    except subprocess.CalledProcessError:
        install(folder, *locked)


def install(folder: Path, *what: str) -> None:
    """Have the environment's pip install this. Raises CalledProcessError."""
    pip = [python(folder), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *what], check=True, cwd=ROOT)


def group(name: str) -> list[str]:
    """The packages of a dependency group."""
    import tomllib  # here, as an old Python has none and is to be told so

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"][name]


def pythons() -> dict[str, str]:
    """The newest interpreter of each Python 3.11 and up on this machine: this one, on the PATH, or installed by pyenv."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(11, 30):
        on_path = shutil.which(f"python3.{minor}")
        running = sys.executable if minor == sys.version_info[1] else None
        for each in [running, on_path, *sorted(map(str, pyenv.glob(f"3.{minor}.*/bin/python3")))]:
            if each and subprocess.run([each, "-c", ""], capture_output=True).returncode == 0:
                found[f"3.{minor}"] = each
    return found


def run_fast(arguments: list[str]) -> None:
    """The tests that start no process, on each Python, with the few packages that they need."""
    found = pythons()
    newest = list(found)[-1]
    for version, interpreter in found.items():
        folder = ROOT / f".venv-{version}"
        wanted = " ".join([interpreter, *group("fast")])
        mark = folder / "set-up"
        if not mark.exists() or mark.read_text() != wanted:
            print(f"setting up {folder.name} …", file=sys.stderr, flush=True)
            subprocess.run([interpreter, "-m", "venv", "--clear", str(folder)], check=True)
            install(folder, *group("fast"))
            mark.write_text(wanted)
        print(f"Python {version}", flush=True)
        fast = ("pytest", "-m", "fast", "-q", "-p", "no:cacheprovider", *(arguments or ("tests", *PURE)))
        if arguments or version != newest:
            run(folder, *fast)
        else:
            measure(folder, *fast, only=PURE, least=100)


def measure(folder: Path, *command: str, only: tuple[str, ...] = ("src/taktline",), least: int = 0) -> None:
    """Run a module of the environment and say which lines and branches of these folders it did not come by, in any of its
    processes. Ends with its exit code where it fails, and with coverage's where it came by fewer than `least` per cent."""
    os.environ["COVERAGE_FILE"] = str(folder / "coverage")
    run(folder, "coverage", "erase")
    try:
        run(folder, "coverage", "run", "-m", *command)
    finally:
        run(folder, "coverage", "combine", "--quiet")
        include = ",".join(f"{each}/*" for each in only)
        run(folder, "coverage", "report", "--show-missing", f"--fail-under={least}", "--include", include)


def python(folder: Path) -> str:
    """The interpreter of an environment."""
    return str(folder / "bin" / "python")


def run(folder: Path, *command: str) -> None:
    """Run a module of the environment; end with its exit code where it fails."""
    code = subprocess.run(
        [python(folder), "-m", *command], cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ).returncode
    if code:
        sys.exit(code)


def main() -> None:
    """The command."""
    if sys.version_info < (3, 11):
        sys.exit(f"taktline needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    what, rest = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if what not in ("check", "coverage", "fast", "schedulers", *PROGRAMS):
        sys.exit(__doc__)
    if what == "fast":
        run_fast(rest)
        return
    folder = {"airflow": AIRFLOW, "hosts": AIRFLOW, "ray": RAY}.get(what, VENV)
    if what in ("faults", "bench") and "--rivals" in rest:
        rest.remove("--rivals")
        folder = RIVALS
    if folder == AIRFLOW and "--oldest" in rest:
        rest.remove("--oldest")
        folder = AIRFLOW_OLDEST
    set_up(folder)
    if what == "coverage":
        measure(folder, *(("pytest", *rest) if rest else PROGRAMS["test"]))
        return
    if what == "schedulers":
        set_up(SCHEDULERS)
        os.environ["TAKTLINE_SCHEDULERS"] = python(SCHEDULERS)
        what, rest = "test", ["tests/test_schedulers.py", *rest]
    if what == "check":
        for check in CHECKS:
            run(folder, *check)
        what = "test"
    program = ("pytest",) if what == "test" and rest not in ([], ["--whole"]) else PROGRAMS[what]
    if what == "ray" and rest[:1] == ["bench"]:
        program, rest = ("benchmarks", "ray"), rest[1:]
    if what == "ray" and rest[:1] == ["ways"]:
        program, rest = ("faults.ways", "--ray"), rest[1:]
    run(folder, *program, *rest)


if __name__ == "__main__":
    main()
