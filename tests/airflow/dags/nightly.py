"""A nightly job over a file of flights. One flight of each file holds the job up until the test lets it go on."""

import os
from datetime import timedelta

from airflow.sdk import dag

from taktline.airflow import TaktlineOperator

DATA = os.environ["TAKTLINE_TEST_DATA"]


@dag(schedule=None, tags=["test"], max_active_runs=4, default_args={"retries": 1, "retry_delay": timedelta(0)})
def nightly():
    TaktlineOperator(
        task_id="score",
        target="flights.py:clean,hold,score",
        source=DATA + "/{{ run_id }}.csv",
        sink=DATA + "/{{ run_id }}.jsonl",
        journal=True,
        how="line",
        workers=2,
        batch_size=20,
        window=200,
    )


@dag(schedule=None, tags=["test"], default_args={"retries": 1, "retry_delay": timedelta(0)})
def timed():
    TaktlineOperator(
        task_id="score",
        target="flights.py:clean,hold,score",
        source=DATA + "/{{ run_id }}.csv",
        sink=DATA + "/{{ run_id }}.jsonl",
        journal=f"{DATA}/",
        execution_timeout=timedelta(seconds=30),
        how="line",
        workers=2,
        batch_size=20,
        window=200,
    )


nightly()
timed()
