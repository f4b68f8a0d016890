"""Tasks whose assets, and whose lineage, are looked at."""

import os

from airflow.sdk import Asset, AssetAlias, dag, task

from taktline import line, read_sql, write, write_sql
from taktline.airflow import TaktlineOperator

DATA = os.environ["TAKTLINE_TEST_DATA"]


def odd(record):
    if record["n"] % 2 == 0:
        raise ValueError("even")
    return record


@dag(schedule=None, tags=["test"])
def traced():
    TaktlineOperator(
        task_id="fixed",
        target=line(odd),
        source=f"{DATA}/traced.jsonl",
        sink=f"{DATA}/traced-fixed.jsonl",
        on_error="skip",
    )
    TaktlineOperator(
        task_id="by_template",
        target=line(odd),
        source=DATA + "/{{ 'tra' }}ced.jsonl",
        sink=DATA + "/traced-{{ dag.dag_id }}.jsonl",
        on_error="skip",
        outlets=[AssetAlias("scored"), Asset("told")],
    )

    @task.taktline(outlets=[AssetAlias("tables")])
    def by_function():
        database = f"sqlite:///{DATA}/traced.db"
        return line(dict), read_sql(database, "SELECT n FROM numbers"), write_sql(database, "more", key="n")

    @task.taktline
    def into_a_folder():
        return line(dict), f"{DATA}/lot-*.jsonl", write(f"{DATA}/traced-out/", "jsonl")

    TaktlineOperator(task_id="fails", target=line(odd), source=f"{DATA}/traced.jsonl", sink=f"{DATA}/traced-none.jsonl")
    by_function()
    into_a_folder()


traced()
