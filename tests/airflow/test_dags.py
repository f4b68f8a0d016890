"""`airflow dags test` over DAGs that use the operator and the decorator in every way there is."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing

import pytest
from conftest import airflow

NUMBERS = [{"n": n} for n in range(2000)]


@pytest.fixture(scope="module")
def small(home, metadata):
    """The DAG `small`, run once; its log."""
    write(home / "data" / "numbers.jsonl", NUMBERS)
    with closing(sqlite3.connect(home / "data" / "numbers.db")) as database, database:
        database.execute("CREATE TABLE numbers (n INTEGER)")
        database.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(10)])
    connection = json.dumps({"conn_type": "sqlite", "host": f"{home}/data/numbers.db"})
    return airflow("dags", "test", "small", env=os.environ | {"AIRFLOW_CONN_NUMBERS_DB": connection}).stdout


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def read(path):
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_each_task_ends_as_it_should(small, metadata):
    assert metadata.states("small") == {
        "numbers": "success", "from_upstream": "success", "all_from_function": "success", "note": "success",
        "from_file": "success", "a_line_into_a_callable": "success",
        "incomplete_succeed": "success", "incomplete_fail": "failed", "incomplete_skip": "skipped",
        "raises": "failed", "no_line": "failed", "mapped[0]": "success", "mapped[1]": "success",
        "no_connection": "failed", "from_a_connection": "success",
        "late_url": "failed", "report_at_a_url": "success", "from_upstream__1": "success", "behind": "success",
        "numbers__1": "success", "parts_by_template": "success",
        "left_out_nothing": "success", "left_out_empty": "success", "sink_nothing": "failed", "sink_empty": "failed",
        "source_nothing": "failed", "source_empty": "failed",
    }, small  # fmt: skip


def test_an_upstream_value_is_the_source(small, data):
    assert read(data / "from_upstream.jsonl") == [{"n": n * 3} for n in range(2000)]
    assert (data / "noted.txt").read_text() == "2000 line"


def test_the_function_says_all(small, data, metadata):
    assert read(data / "all_from_function.jsonl") == [{"n": n * 3} for n in range(10)]
    assert metadata.xcom("small", "all_from_function")["how"] == "loop"


def test_workers_start_inside_a_task(small, data):
    records = read(data / "from_file.jsonl")
    assert [record["n"] for record in records] == [n * 2 for n in range(2000)]
    (task,) = {record["parent"] for record in records}
    assert task not in {record["process"] for record in records}


def test_the_report_is_the_xcom_and_the_data_is_not(small, metadata):
    report = metadata.xcom("small", "from_file")
    assert (report["records_in"], report["records_out"], report["workers"]) == (2000, 2000, 2)
    assert report["verdict"]["evidence"]
    assert metadata.xcom("small", "incomplete_fail")["skipped"] == 1000
    assert metadata.xcom("small", "incomplete_skip")["skipped"] == 1000


def test_the_log_has_report_and_verdict(small):
    assert "line double → whose" in small
    assert "2,000 in · 2,000 out" in small
    assert "verdict" in small
    assert "1,000 of 2,000 records failed; the results of the others are complete" in small
    assert "at record 1 in step 'refuse_odd'" in small


def test_the_report_is_a_page_with_a_link(small, data, metadata):
    assert "double → whose" in (data / "reports" / "from_file.html").read_text()
    link = metadata.xcom("small", "from_file", "_link_ReportLink")
    assert link == "https://reports.example/from_file.html"


def test_a_report_at_a_url_is_there(small, data):
    assert "double" in (data / "at_a_url.html").read_text()


def test_a_report_tells_its_ends_and_is_a_source_as_its_sink(small, data, metadata):
    report = metadata.xcom("small", "from_file")
    assert (report["source"], report["sink"]) == (f"{data}/numbers.jsonl", f"{data}/from_file.jsonl")
    assert read(data / "behind.jsonl") == [{"n": n * 9} for n in range(2000)]


def test_the_report_of_a_failed_task_is_kept(small, metadata):
    report = metadata.xcom("small", "raises", "taktline_report")
    assert (report["records_in"], report["complete"]) == (2, False)
    assert report["source"].endswith("numbers.jsonl")
    link = metadata.xcom("small", "raises", "_link_ReportLink")
    assert "/taktline/report?dag_id=small&run_id=manual__" in link
    assert link.endswith("&task_id=raises&map_index=-1")


def test_no_url_becomes_a_folder_here(small, home, metadata):
    assert "journal='az://shop/journals/small.late_url." in small
    assert metadata.rows("select try_number from task_instance where task_id = 'late_url'") == [(1,)]
    assert not [path for path in home.rglob("*") if path.name.endswith(":")]


def test_lines_callables_and_records_pass_untouched_by_templates(small, data):
    assert (data / "called.txt").read_text() == "3\n" + "{{ not a template }}" * 3 + "\n"


def test_what_was_left_out_does_not_hide_the_rest(small, data):
    for outcome in ("succeed", "fail", "skip"):
        assert read(data / f"incomplete_{outcome}.jsonl") == [{"n": n} for n in range(0, 2000, 2)]


def test_wrong_use_found_late_is_one_sentence_and_not_tried_again(small, metadata):
    assert "target='steps.py:NUMBER': a step must be a callable of one record, not int 3" in small
    assert "there is no Airflow connection 'no_such_warehouse': add it under Admin, Connections, or set" in small
    tries = metadata.rows("select try_number from task_instance where task_id in ('no_line', 'no_connection')")
    assert tries == [(1,), (1,)]


def test_a_connection_is_a_database(small, data):
    assert read(data / "from_db.jsonl") == [{"n": n * 3} for n in range(10)]


def test_a_template_that_gives_nothing_leaves_its_option_out_and_is_no_sink_and_no_source(small, home, data, metadata):
    for nothing in ("nothing", "empty"):
        assert read(data / f"left_out_{nothing}.jsonl") == [{"n": n * 2} for n in range(2000)]
    for given in ("'None'", "''"):
        assert f"sink=: its template gave {given}; give a path or URL" in small
        assert f"or an upstream task's output; its template gave {given}" in small
    tries = metadata.rows("select try_number from task_instance where task_id like 'sink_%' or task_id like 'source_%'")
    assert tries == [(1,)] * 4
    assert not [path for path in home.iterdir() if path.name.startswith("None")]


def test_parts_are_written_where_a_template_says(small, data):
    parts = sorted((data / "größe numbers").glob("part-*"))
    assert [len(read(part)) for part in parts] == [1500, 500]


def test_mapped_tasks(small, data):
    for n in range(2):
        assert read(data / f"mapped_{n}.jsonl") == [{"n": n * 2} for n in range(2000)]
