"""What a tool that measures coverage is told of steps in worker processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import taktline

PROGRAM = """
import sys

from taktline import line


def halved(n):
    if n % 2:
        return None
    return n // 2


if __name__ == "__main__":
    list(line(halved)(range(100), how="pool", workers=2, start=sys.argv[1], progress=False))
"""
SETTINGS = """
[run]
patch = subprocess, _exit, fork
parallel = true
"""


@pytest.mark.parametrize("start", ["fork", "launch"])
def test_lines_that_workers_ran_are_covered(tmp_path, start):
    pytest.importorskip("coverage")
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / ".coveragerc").write_text(SETTINGS)

    def coverage(*arguments):
        command = [sys.executable, "-m", "coverage", *arguments]
        paths = {"PYTHONPATH": str(Path(taktline.__file__).parents[1]), "PATH": "/usr/bin:/bin"}
        subprocess.run(command, cwd=tmp_path, env=paths, check=True, capture_output=True)

    coverage("run", "program.py", start)
    coverage("combine")
    coverage("json", "--include=program.py")
    ran = json.loads((tmp_path / "coverage.json").read_text())["files"]["program.py"]
    assert ran["missing_lines"] == []
