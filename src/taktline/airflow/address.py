"""Where the report of a task is, for who writes it and who shows it."""

from __future__ import annotations

from urllib.parse import urlencode

REPORT_KEY = "taktline_report"  # among what a task hands on: the report of one that failed
URL_PREFIX = "/taktline"
TASK_FIELDS = ("dag_id", "run_id", "task_id", "map_index")


def report_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Where the page of a task's report is, below Airflow's own address.

    >>> report_path("nightly", "manual__2026-01-01T00:00:00+00:00", "score", -1)
    '/taktline/report?dag_id=nightly&run_id=manual__2026-01-01T00%3A00%3A00%2B00%3A00&task_id=score&map_index=-1'
    """
    return f"{URL_PREFIX}/report?{urlencode(dict(zip(TASK_FIELDS, (dag_id, run_id, task_id, map_index), strict=True)))}"
