"""Every night: the orders of a file, scored, in a new file. A task that was killed goes on where it stopped."""

import os
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

from airflow.sdk import dag, task

from taktline.airflow import TaktlineOperator

ORDERS = Path(__file__).parents[1] / "include" / "data" / "orders.jsonl"
# A retry needs the journal and the half-written file: where tasks move between machines, name a folder they share.
OUT = os.environ.get("ORDERS_OUT", tempfile.gettempdir() + "/orders")


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["taktline"],
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
)
def nightly_orders():
    score = TaktlineOperator(
        task_id="score",
        target="../include/lines.py:nightly",
        source=ORDERS,
        sink=OUT + "/{{ dag_run.run_after | ds }}.jsonl",
        journal=True,
        report_html=OUT + "/{{ dag_run.run_after | ds }}.html",
        execution_timeout=timedelta(hours=2),
    )

    @task
    def tell(report):
        print(f"{report['records_in']} orders in, {report['records_out']} scored in {report['seconds']:.1f} s")

    tell(score.output)


nightly_orders()
