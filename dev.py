"""Sets up the project inside this checkout and runs what is asked. Needs Python 3.11+ and pip.

python3 dev.py demo             set up, then the demo on real data
python3 dev.py test [args]      set up, then all tests (arguments go to pytest)
python3 dev.py check            set up, then lint, format, types and all tests
python3 dev.py bench [args]     set up, then the benchmarks; also: bench article, bench verdict
python3 dev.py simulate [args]  set up, then a million random lives of the schedule
python3 dev.py faults [args]    set up, then the fault suite; --rivals: with other libraries too, in .venv-rivals
python3 dev.py chaos [args]     set up, then a job whose workers and caller are killed at random
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
RIVALS = ROOT / ".venv-rivals"  # what the fault suite compares with; nothing else needs it
LOCK = ROOT / "requirements.lock"
PROGRAMS = {
    "demo": ("taktline.cli.commands", "demo"),
    "bench": ("benchmarks",),
    "simulate": ("faults.simulation",),
    "faults": ("faults",),
    "chaos": ("faults.chaos",),
}


def python(where: Path) -> str:
    """The interpreter of a virtual environment."""
    return str(where / "bin" / "python")


def set_up(where: Path) -> None:
    """A virtual environment in the checkout with the locked packages and the project itself; again only when they change."""
    wanted = hashlib.sha256(
        LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + sys.version.encode()
    ).hexdigest()
    mark = where / "set-up"
    if mark.exists() and mark.read_text() == wanted:
        return
    print(f"setting up {where.name} …", file=sys.stderr, flush=True)
    venv.create(where, with_pip=True, clear=True)
    install = [python(where), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--requirement", str(LOCK)], check=True, cwd=ROOT)
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "--editable", "."], check=True, cwd=ROOT)
    if where == RIVALS:
        subprocess.run([*install, *group("rivals")], check=True, cwd=ROOT)
    mark.write_text(wanted)


def group(name: str) -> list[str]:
    """The packages of a dependency group."""
    import tomllib  # here, as an old Python has none and is to be told so

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"][name]


def run(*command: str, where: Path = VENV) -> None:
    """Run a module of the environment; end with its exit code where it fails."""
    code = subprocess.run(
        [python(where), "-m", *command], cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ).returncode
    if code:
        sys.exit(code)


def main() -> None:
    """The command."""
    if sys.version_info < (3, 11):
        sys.exit(f"taktline needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    what, rest = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if what not in ("test", "check", *PROGRAMS):
        sys.exit(__doc__)
    where = RIVALS if what == "faults" and "--rivals" in rest else VENV
    set_up(where)
    if what in PROGRAMS:
        run(*PROGRAMS[what], *(word for word in rest if word != "--rivals"), where=where)
    elif what == "check":
        run("ruff", "check", ".")
        run("ruff", "format", "--check", ".")
        run("mypy")
        run("pytest", *rest)
    else:
        run("pytest", *rest)


if __name__ == "__main__":
    main()
