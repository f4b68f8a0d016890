"""A program that is killed at random moments and started again, until it ends by itself."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path


def until_done(folder: Path, *command: str, kills: int) -> None:
    """Run Python with these arguments in `folder` until it is done; the first so many times it may be killed."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = 0
    while True:
        child = subprocess.Popen([sys.executable, *command], cwd=folder, env=environment)
        try:
            assert child.wait(chance.uniform(0.1, 0.8) if killed < kills else None) == 0
            break
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            killed += 1
    print("killed", killed, "times")
