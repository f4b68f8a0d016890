"""One measurement in a process of its own.

The same loop runs up to a tenth faster or slower from process to process, as its memory happens to lie. What is forked
inherits that from its parent, and what is launched draws anew; so only rounds in different processes compare the ways.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from taktline._crew.library_limits import MEMORY, ONE_THREAD

# For everybody: the idle threads of a linear algebra library spin for a while, and their time is counted to the process;
# and whether glibc gives memory back after each large array is luck, which makes the same loop 4 times slower or faster.
ALIKE = {**dict.fromkeys(ONE_THREAD, "1"), **MEMORY, "PYTHONWARNINGS": "ignore"}


def anew(measure: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of the benchmarks returns in a new process, as JSON makes of it."""
    command = [sys.executable, "-m", "benchmarks.anew", measure.__module__, measure.__name__, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **ALIKE})
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    module, name, arguments = sys.argv[1:]
    print(json.dumps(getattr(import_module(module), name)(*json.loads(arguments))))


if __name__ == "__main__":
    main()
