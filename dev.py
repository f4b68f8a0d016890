"""Sets up the project inside this checkout and runs what is asked. Needs Python 3.11+ and pip.

python3 dev.py demo             set up, then the demo on real data
python3 dev.py test [args]      set up, then all tests (arguments go to pytest)
python3 dev.py check            set up, then lint, format, types and all tests
python3 dev.py bench [args]     set up, then the benchmarks
python3 dev.py simulate [args]  set up, then a million random lives of the schedule
python3 dev.py airflow [args]   set up an environment with Apache Airflow, then the tests in a real Airflow
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV, LOCK = ROOT / ".venv", ROOT / "requirements.lock"
AIRFLOW_VENV, AIRFLOW_LOCK = ROOT / ".venv-airflow", ROOT / "tests" / "airflow" / "requirements.lock"
PROGRAMS = {
    "demo": ("taktline.cli.commands", "demo"),
    "bench": ("benchmarks",),
    "simulate": ("faults.simulation",),
}


def set_up(folder: Path = VENV, lock: Path = LOCK) -> None:
    """A virtual environment in the checkout with the locked packages and the project itself; again only when they change."""
    wanted = hashlib.sha256(
        lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + sys.version.encode()
    ).hexdigest()
    mark = folder / "set-up"
    if mark.exists() and mark.read_text() == wanted:
        return
    print(f"setting up {folder.name} …", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    install = [str(python(folder)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, "--requirement", str(lock)], check=True, cwd=ROOT)
    subprocess.run([*install, "--no-build-isolation", "--editable", "."], check=True, cwd=ROOT)
    mark.write_text(wanted)


def python(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


def run(*command: str, folder: Path = VENV) -> None:
    """Run a module of the environment; end with its exit code where it fails."""
    code = subprocess.run(
        [str(python(folder)), "-m", *command], cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ).returncode
    if code:
        sys.exit(code)


def main() -> None:
    """The command."""
    if sys.version_info < (3, 11):
        sys.exit(f"taktline needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    what, rest = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if what not in ("test", "check", "airflow", *PROGRAMS):
        sys.exit(__doc__)
    if what == "airflow":
        set_up(AIRFLOW_VENV, AIRFLOW_LOCK)
        # Each command of Airflow takes seconds to start, many times that on a busy machine.
        own = [f"--override-ini={each}" for each in ("addopts=-ra", "testpaths=tests/airflow", "timeout=600")]
        run("pytest", *own, *rest, folder=AIRFLOW_VENV)
        return
    set_up()
    if what in PROGRAMS:
        run(*PROGRAMS[what], *rest)
    elif what == "check":
        run("ruff", "check", ".")
        run("ruff", "format", "--check", ".")
        run("mypy")
        run("pytest", *rest)
    else:
        run("pytest", *rest)


if __name__ == "__main__":
    main()
