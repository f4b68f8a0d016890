"""The manual's cluster on a laptop, done as it says, on a machine of its own: its commands end whatever runs there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_cookbook import blocks, same

ROOT = Path(__file__).parents[2]
APART = ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]
ALONE = 'ip link set lo up && mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && cd "$0" && exec bash -e commands.sh'


def test_a_cluster_on_a_laptop_in_two_commands(tmp_path):
    if os.geteuid() or subprocess.run([*APART, "ip link set lo up"], capture_output=True).returncode:
        pytest.skip(
            "NOT TESTED, the cluster on a laptop: for a machine of its own this must be root, with unshare and ip"
        )
    found = [block for block in blocks(ROOT / "docs/machines.md") if block.language != "text" or "node" in block.text]
    at = next(n for n, block in enumerate(found) if block.title == "steps.py")
    steps, records, cluster, report, last = found[at : at + 5]
    (tmp_path / steps.title).write_text(steps.text)
    (tmp_path / "commands.sh").write_text(f"{records.text}{cluster.text}{last.text}ray stop\n")
    here = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    here |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [*APART, ALONE, str(tmp_path)],
        env=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{shlex.join(APART)}\n{done.stdout}"
    assert same(done.stdout, f'…{report.text.strip()}…{{"n": 1001}}…'), done.stdout
