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
BLOCKS = blocks(ROOT / "docs/machines.md")
FILES = {block.title: block.text for block in BLOCKS if block.title}
APART = ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]
ALONE = 'ip link set lo up && mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && cd "$0" && exec bash -e commands.sh'


def done_apart(commands: str, folder: Path) -> str:
    """What these commands print, on a machine of its own: some of them end whatever runs there."""
    if os.geteuid() or subprocess.run([*APART, "ip link set lo up"], capture_output=True).returncode:
        pytest.skip(
            "NOT TESTED, the guide to clusters: for a machine of its own this must be root, with unshare and ip"
        )
    (folder / "steps.py").write_text(FILES["steps.py"])
    (folder / "commands.sh").write_text(f"{commands}\nray stop\n")
    here = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    here |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [*APART, ALONE, str(folder)], env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert done.returncode == 0, f"{shlex.join(APART)}\n{done.stdout}"
    return done.stdout


def test_a_cluster_on_a_laptop_in_two_commands(tmp_path):
    found = [block for block in BLOCKS if block.language != "text" or "node" in block.text]
    at = next(n for n, block in enumerate(found) if block.title == "steps.py")
    records, cluster, report, last = found[at + 1 : at + 5]
    printed = done_apart(f"{records.text}{cluster.text}{last.text}", tmp_path)
    assert same(printed, f'…{report.text.strip()}…{{"n": 1001}}…'), printed


def test_a_program_that_is_submitted_finds_the_cluster_that_it_is_on(tmp_path):
    """As a RayJob does it."""
    job = tmp_path / "job"
    job.mkdir()
    for name in ("steps.py", "nightly.py"):
        (job / name).write_text(FILES[name])
    records = next(block.text for block in BLOCKS if "in.jsonl; done" in block.text or "> in.jsonl" in block.text)
    commands = (
        f'{records}\nexport DATA="$PWD"\nray start --head --num-cpus=2\n'
        f"cd job && ray job submit --address=http://127.0.0.1:8265 --working-dir . -- {entrypoint()}\n"
    )
    printed = done_apart(commands, tmp_path)
    assert " 1,000 in · 1,000 out" in printed
    assert "workers run on node " in printed
    results = "".join(path.read_text() for path in sorted((tmp_path / "out").glob("*.jsonl")))
    assert results == "".join(f'{{"n": {n + 1}}}\n' for n in range(1, 1001))


def manifest():
    return pytest.importorskip("yaml").safe_load(FILES["rayjob.yaml"])


def entrypoint() -> str:
    return manifest()["spec"]["entrypoint"]


def test_kubernetes_takes_the_pods_of_the_job_and_all_have_one_image():
    validate = pytest.importorskip("kubernetes_validate")
    cluster = manifest()["spec"]["rayClusterSpec"]
    pods = [each["template"]["spec"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    for n, pod in enumerate(pods):
        named = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{n}"}, "spec": pod}
        validate.validate(named, validate.latest_version(), strict=True)
    assert len({container["image"] for pod in pods for container in pod["containers"]}) == 1
    assert all({"name": "DATA"}.items() <= pod["containers"][0]["env"][0].items() for pod in pods)
