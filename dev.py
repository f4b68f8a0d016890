"""Sets up the project inside this checkout and runs what is asked. Needs Python 3.11+ and pip.

python3 dev.py demo             set up, then the demo on real data
python3 dev.py test [args]      set up, then all tests, each file by itself (arguments go to pytest, which then runs alone)
python3 dev.py fast [args]      the tests that start no process, on each Python 3.11 or newer that is found here
python3 dev.py check            set up, then lint, format, types and all tests
python3 dev.py bench [args]     set up, then the benchmarks; also: bench article, bench verdict, bench tables
python3 dev.py simulate [args]  set up, then a million random lives of the schedule
python3 dev.py faults [args]    set up, then the fault suite; --rivals: with other libraries too, in .venv-rivals
python3 dev.py ways [args]      set up, then whole ways, drawn, held against a model in plain Python
python3 dev.py chaos [args]     set up, then a job whose workers and caller are killed at random
python3 dev.py airflow [args]   set up .venv-airflow with Apache Airflow, then the tests in a real Airflow
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
AIRFLOW_LOCK = ROOT / "tests" / "airflow" / "requirements.lock"
VENV, RIVALS, AIRFLOW = ROOT / ".venv", ROOT / ".venv-rivals", ROOT / ".venv-airflow"
PROGRAMS = {
    "demo": ("taktline", "demo"),
    "bench": ("benchmarks",),
    "simulate": ("faults.simulation",),
    "faults": ("faults",),
    "chaos": ("faults.chaos",),
    "ways": ("faults.ways",),
    "test": ("tests.apart",),
    "airflow": ("pytest", "--override-ini=addopts=-ra", "--override-ini=testpaths=tests/airflow"),
}
CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))


def set_up(folder: Path) -> None:
    """A virtual environment in the checkout with the locked packages and the project itself; again only when they change."""
    lock = AIRFLOW_LOCK if folder == AIRFLOW else LOCK
    wanted = hashlib.sha256(
        lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + sys.version.encode()
    ).hexdigest()
    mark = folder / "set-up"
    if not mark.exists() or mark.read_text() != wanted:
        print(f"setting up {folder.name} …", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install = [python(folder), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--no-deps", "--requirement", str(lock)], check=True, cwd=ROOT)
        subprocess.run([*install, "--no-deps", "--no-build-isolation", "--editable", "."], check=True, cwd=ROOT)
        if folder == RIVALS:
            subprocess.run([*install, *group("rivals")], check=True, cwd=ROOT)
        mark.write_text(wanted)
    # As an installed package is: each worker would compile it anew where Python is told not to write what it compiles.
    compileall.compile_dir(ROOT / "src", quiet=2)


def group(name: str) -> list[str]:
    """The packages of a dependency group."""
    import tomllib  # here, as an old Python has none and is to be told so

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"][name]


def pythons() -> dict[str, str]:
    """The newest interpreter of each Python 3.11 and up on this machine: on the PATH, or installed by pyenv."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(11, 30):
        on_path = shutil.which(f"python3.{minor}")
        for each in [on_path, *sorted(map(str, pyenv.glob(f"3.{minor}.*/bin/python3")))]:
            if each and subprocess.run([each, "-c", ""], capture_output=True).returncode == 0:
                found[f"3.{minor}"] = each
    return found


def run_fast(arguments: list[str]) -> None:
    """The tests that start no process, on each Python, with the few packages that they need."""
    for version, interpreter in pythons().items():
        folder = ROOT / f".venv-{version}"
        wanted = " ".join([interpreter, *group("fast")])
        mark = folder / "set-up"
        if not mark.exists() or mark.read_text() != wanted:
            print(f"setting up {folder.name} …", file=sys.stderr, flush=True)
            subprocess.run([interpreter, "-m", "venv", "--clear", str(folder)], check=True)
            install = [python(folder), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, *group("fast")], check=True, cwd=ROOT)
            mark.write_text(wanted)
        print(f"Python {version}", flush=True)
        run(folder, "pytest", "-m", "fast", "-q", "-p", "no:cacheprovider", "tests", *arguments)


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
    if what not in ("check", "fast", *PROGRAMS):
        sys.exit(__doc__)
    if what == "fast":
        run_fast(rest)
        return
    folder = AIRFLOW if what == "airflow" else VENV
    if what == "faults" and "--rivals" in rest:
        rest.remove("--rivals")
        folder = RIVALS
    set_up(folder)
    if what == "check":
        for check in CHECKS:
            run(folder, *check)
        what = "test"
    program = ("pytest",) if what == "test" and rest else PROGRAMS[what]
    run(folder, *program, *rest)


if __name__ == "__main__":
    main()
