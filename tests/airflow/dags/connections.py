"""Sources and sinks that are reached by connections: objects of a store, tables, queries."""

import os

from airflow.sdk import ObjectStoragePath, dag

from taktline import line
from taktline.airflow import TaktlineOperator

DATA = os.environ["TAKTLINE_TEST_DATA"]
BUCKET = "s3://store@base-bucket"


def double(record):
    return {"n": record["n"] * 2}


def run(task_id, source, sink, **given):
    return TaktlineOperator(task_id=task_id, target=line(double), source=source, sink=sink, how="loop", **given)


@dag(schedule=None, tags=["test"], params={"base": "base"})
def connections():
    records = f"{DATA}/in.jsonl"
    put = run("put", records, "s3://{{ params.base }}-bucket/a.jsonl", sink_conn_id="store")
    more = run("put_more", records, f"{BUCKET}/b.jsonl")
    both = [ObjectStoragePath(f"{BUCKET}/b.jsonl"), ObjectStoragePath("s3://base-bucket/a.jsonl", conn_id="store")]
    mixed = [records, "s3://store@{{ params.base }}-bucket/a.jsonl"]
    [put, more] >> run("get", "s3://base-bucket/a.jsonl", f"{DATA}/get.jsonl", source_conn_id="store")
    [put, more] >> run("pattern", f"{BUCKET}/*.jsonl", f"{DATA}/pattern.jsonl")
    [put, more] >> run("objects", both, f"{DATA}/objects.jsonl")
    [put, more] >> run("files", mixed, ObjectStoragePath(f"{BUCKET}/out/files.jsonl"), reading={})
    run("journaled", records, f"{BUCKET}/out/journaled.jsonl", journal=f"{DATA}/journals/")
    run("unknown", records, "s3://nobody@base-bucket/a.jsonl", retries=3)
    table = run("table", records, "numbers", sink_conn_id="base", sink_key="n", journal=f"{DATA}/journals/")
    query = "SELECT n FROM numbers WHERE n < {{ 10 }} ORDER BY n"
    table >> run("query", query, f"{DATA}/query.jsonl", source_conn_id="base")
    run("typed", f"{DATA}/few.csv", f"{DATA}/typed.jsonl", reading={"types": "infer"})
    run("lite", "SELECT n FROM few", f"{DATA}/lite.jsonl", source_conn_id="lite")


connections()
