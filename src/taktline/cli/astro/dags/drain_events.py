"""Every quarter of an hour: all messages of a Pub/Sub subscription, until none has come for half a minute, in a file."""

import os
import tempfile
from datetime import datetime, timedelta

from airflow.sdk import Param, dag, task
from include.lines import decoded

from taktline import line

# What is in a half-written file is acknowledged: name a folder that stays, and that the machines share.
OUT = os.environ.get("EVENTS_OUT", tempfile.gettempdir() + "/events")


@dag(
    schedule="*/15 * * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["taktline"],
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    params={
        "subscription": Param("projects/my-project/subscriptions/events", type="string"),
        "idle": Param(30, type="number", description="seconds without a message after which the drain ends"),
    },
)
def drain_events():
    # Messages are acknowledged as the journal notes that their results are safe in the half-written file.
    @task.taktline(sink=OUT + "/{{ run_id }}.jsonl", journal=True, execution_timeout=timedelta(minutes=14))
    def drain(params):
        from taktline.pubsub import subscribe

        # Airflow gives a task that is to end five seconds: three for what is under way, the rest for cleaning up.
        return line(decoded), subscribe(params["subscription"], idle=params["idle"], seconds=600, drain=3)

    drain()


drain_events()
