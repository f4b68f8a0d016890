"""The running taktline as a wheel: what a project elsewhere can be given where no index has this version."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import taktline
from taktline import LineError

OWN = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD")  # notes of the installation that it was


def write_wheel(folder: Path) -> Path:
    """Put a wheel of this version into the folder; its path. Packed again from what was installed, or built where the code
    lies in a checkout. Raises LineError."""
    root = Path(taktline.__file__).resolve().parents[2]
    folder.mkdir(parents=True, exist_ok=True)
    if (root / "pyproject.toml").is_file() and (root / "src" / "taktline" / "__init__.py").is_file():
        return _built(root, folder)
    try:
        installed = distribution("taktline")
    except PackageNotFoundError as error:
        raise LineError(
            "no wheel of this taktline can be made: it is neither installed nor in a checkout; install it by pip"
        ) from error
    return _packed(installed, folder)


def _built(root: Path, folder: Path) -> Path:
    """A wheel of the checkout: by hatchling where it is here, else by pip, which fetches it."""
    before = {*folder.glob("*.whl")}
    hatchling = subprocess.run([sys.executable, "-c", "import hatchling"], capture_output=True).returncode == 0
    builder = ["hatchling", "build", "-t", "wheel", "-d"] if hatchling else ["pip", "wheel", "--no-deps", "-w"]
    source = [] if hatchling else ["."]
    command = [sys.executable, "-m", *builder, str(folder.resolve()), *source]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    made = {*folder.glob("*.whl")} - before
    if done.returncode or len(made) != 1:
        last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
        raise LineError(f"no wheel of {str(root)!r} can be built: {last}; pip install hatchling, and try again")
    return made.pop()


def _packed(installed: Distribution, folder: Path) -> Path:
    """A wheel of the files that the installation notes as its own."""
    about = f"taktline-{installed.version}.dist-info"
    wheel = (installed.read_text("WHEEL") or "").splitlines()
    tag = next((line.removeprefix("Tag: ") for line in wheel if line.startswith("Tag: ")), "py3-none-any")
    target = folder / f"taktline-{installed.version}-{tag}.whl"
    record = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(installed.files or (), key=str):
            name = path.as_posix()
            if path.parts[0] not in ("taktline", about) or "__pycache__" in path.parts or path.name in OWN:
                continue  # a script, or compiled: made anew where it is installed
            try:
                data = Path(str(path.locate())).read_bytes()
            except OSError as error:
                raise LineError(
                    f"no wheel of this taktline can be made: {name!r} of it cannot be read: {error}"
                ) from error
            record.append(f"{name},sha256={_digest(data)},{len(data)}")
            packed.writestr(_entry(name), data)
        record.append(f"{about}/RECORD,,")
        packed.writestr(_entry(f"{about}/RECORD"), "\n".join(record) + "\n")
    return target


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _entry(name: str) -> zipfile.ZipInfo:
    """Without the time: equal versions make equal wheels."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
    return entry
