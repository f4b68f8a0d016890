"""Every way to say what runs over what, and every way a task may end, in one DAG."""

import os
from pathlib import Path

from airflow.sdk import dag, task

from taktline import line
from taktline.airflow import TaktlineOperator, connection_url

DATA = os.environ["TAKTLINE_TEST_DATA"]


def triple(record):  # stands in a DAG file, whose module no worker could import
    return {"n": record["n"] * 3}


def append(record):
    with open(f"{DATA}/called.txt", "a") as file:
        file.write(f"{record['n']}\n")


@dag(schedule=None, tags=["test"], params={"source": "numbers", "nothing": None, "empty": ""})
def small():
    @task
    def numbers():
        return f"{DATA}/numbers.jsonl"

    @task.taktline(sink=f"{DATA}/from_upstream.jsonl", how="line", workers=2)
    def from_upstream(path):
        return line(triple)

    @task.taktline
    def all_from_function(count, params=None):
        assert params["source"] == "numbers"
        records = [{"n": n} for n in range(count)]
        return line(triple), records, f"{DATA}/all_from_function.jsonl", {"how": "loop"}

    @task
    def note(report):
        Path(DATA, "noted.txt").write_text(f"{report['records_in']} {report['how']}")

    @task.taktline(retries=3)
    def no_connection():
        return line(triple), connection_url("no_such_warehouse")

    @task.taktline
    def from_a_connection():
        from taktline import read_sql

        return line(triple), read_sql(connection_url("numbers_db"), "SELECT n FROM numbers"), f"{DATA}/from_db.jsonl"

    note(from_upstream(numbers()))
    all_from_function(count=10)
    no_connection()
    from_a_connection()

    TaktlineOperator(
        task_id="from_file",
        target="steps.py:double,whose",
        source=DATA + "/{{ params.source }}.jsonl",
        sink=DATA + "/{{ task.task_id }}.jsonl",
        how="line",
        workers=2,
        report_html=DATA + "/reports/{{ task.task_id }}.html",
        report_url="https://reports.example/{{ task.task_id }}.html",
    )
    TaktlineOperator(
        task_id="late_url",
        target="steps.py:double",
        source=f"{DATA}/numbers.jsonl",
        journal="{{ 'az' }}://shop/journals/",
        retries=3,
    )
    TaktlineOperator(
        task_id="report_at_a_url",
        target="steps.py:double",
        source=f"{DATA}/numbers.jsonl",
        report_html=f"local://{DATA}/at_a_url.html",
        how="loop",
    )
    TaktlineOperator(
        task_id="a_line_into_a_callable",
        target=line(triple),
        source=[{"n": 1}, {"n": "{{ not a template }}"}],
        sink=append,
    )

    @task.taktline(sink=f"{DATA}/behind.jsonl")
    def behind(report):
        return line(triple)

    behind(from_upstream(numbers()))

    for nothing in ("nothing", "empty"):
        template = f"{{{{ params.{nothing} }}}}"
        TaktlineOperator(
            task_id=f"left_out_{nothing}", target="steps.py:double", source=f"{DATA}/numbers.jsonl",
            sink=f"{DATA}/{{{{ task.task_id }}}}.jsonl", source_conn_id=template, journal=template, dead_letters=template,
            report_html=template, workers=template, how="loop",
        )  # fmt: skip
        TaktlineOperator(
            task_id=f"sink_{nothing}",
            target="steps.py:double",
            source=f"{DATA}/numbers.jsonl",
            sink=template,
            retries=3,
        )
        TaktlineOperator(task_id=f"source_{nothing}", target="steps.py:double", source=template, retries=3)
    TaktlineOperator(
        task_id="parts_by_template",
        target="steps.py:double",
        source=f"{DATA}/numbers.jsonl",
        sink=DATA + "/größe {{ params.source }}/",
        writing={"format": "jsonl", "rows": 1500},
        journal=True,
        how="loop",
    )

    for outcome in ("succeed", "fail", "skip"):
        TaktlineOperator(
            task_id=f"incomplete_{outcome}",
            target="steps.py:refuse_odd",
            source=f"{DATA}/numbers.jsonl",
            sink=f"{DATA}/incomplete_{outcome}.jsonl",
            on_error="skip",
            if_incomplete=outcome,
            workers=1,
        )
    TaktlineOperator(task_id="raises", target="steps.py:refuse_odd", source=f"{DATA}/numbers.jsonl", how="loop")
    TaktlineOperator(task_id="no_line", target="{{ 'steps.py:NUMBER' }}", source=f"{DATA}/numbers.jsonl", retries=3)
    TaktlineOperator.partial(task_id="mapped", target="steps.py:flow", how="loop").expand_kwargs(
        [{"source": f"{DATA}/numbers.jsonl", "sink": f"{DATA}/mapped_{n}.jsonl"} for n in range(2)]
    )


small()
