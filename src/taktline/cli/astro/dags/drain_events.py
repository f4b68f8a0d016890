"""Every quarter of an hour: all messages of a Pub/Sub subscription, until none has come for half a minute, in a file."""

import os
from datetime import datetime, timedelta

from airflow.sdk import Param, dag, task
from include.lines import decoded

from taktline import line

OUT = os.environ.get("EVENTS_OUT", "/tmp/events")


@dag(
    schedule="*/15 * * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["taktline"],
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={"subscription": Param("projects/my-project/subscriptions/events", type="string")},
)
def drain_events():
    # A message is acknowledged when its result is safe in the file: what a killed task took comes again.
    @task.taktline(sink=OUT + "/{{ run_id }}.jsonl", execution_timeout=timedelta(minutes=14))
    def drain(params):
        from taktline.pubsub import subscribe

        return line(decoded), subscribe(params["subscription"], idle=30, limit=100_000)

    drain()


drain_events()
