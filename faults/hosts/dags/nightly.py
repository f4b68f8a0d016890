"""Tasks whose sources, outputs, journals and dead letters are all in one store."""

import os
from datetime import timedelta

from airflow.sdk import dag

from taktline.airflow import TaktlineOperator

HOWS = (
    {"how": "line", "workers": 2, "batch_size": 50, "window": 400},
    {"how": "loop"},
    {"how": "auto", "workers": 2},
    {"how": "queues", "workers": 2},
)
BUCKET = "s3://store@nights"


@dag(schedule=None, max_active_tasks=100, default_args={"retries": 200, "retry_delay": timedelta(0)})
def nightly():
    for number in range(int(os.environ["TASKS"])):
        TaktlineOperator(
            task_id=f"task{number}",
            target="steps.py:flow",
            source=f"{BUCKET}/in/{number}.jsonl",
            sink=f"{BUCKET}/{{{{ run_id }}}}/out/{{{{ task.task_id }}}}.jsonl",
            journal=True if number % 2 else f"{BUCKET}/journals/",
            dead_letters=f"{BUCKET}/{{{{ run_id }}}}/failed/{{{{ task.task_id }}}}.jsonl",
            **HOWS[number % len(HOWS)],
        )


nightly()
