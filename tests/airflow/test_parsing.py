"""What Airflow finds out before any task runs: the provider, signatures, assets, and wrong use in one sentence."""

from __future__ import annotations

import doctest
import inspect
import json
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk import DAG, ObjectStoragePath, task

from taktline import LineError, line, write, write_sql
from taktline._recipe.options import Options
from taktline.abc import Live
from taktline.airflow import TaktlineOperator, address, connection, connection_url, decorator, journals
from taktline.airflow import operator as operators

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # before Airflow 3.2
    from airflow.models.dagbag import DagBag

STEPS = Path(__file__).parent / "dags" / "steps.py"
FLOW = f"{STEPS}:flow"


class Queue(Live):
    """Nothing comes of it."""

    def __init__(self, name="queue"):
        self._name = name

    def take(self, most, seconds):
        return None

    def describe(self):
        return self._name


def operator(**given):
    with DAG("dag", schedule=None):
        return TaktlineOperator(**{"task_id": "t", "target": FLOW, "source": "in.jsonl"} | given)


def test_airflow_finds_the_provider():
    manager = ProvidersManager()
    assert manager.providers["taktline"].data["name"] == "taktline"
    assert "taktline" in dict(manager.taskflow_decorators)
    assert "taktline.airflow.ReportLink" in manager.extra_links_class_names


def test_every_option_of_a_run_is_a_keyword_of_the_operator():
    named = inspect.signature(TaktlineOperator).parameters
    assert {each.name for each in fields(Options)} <= set(named)
    assert operator(workers=3, on_error="skip", memory="1GB").options == {
        "workers": 3, "on_error": "skip", "memory": "1GB",
    }  # fmt: skip


def test_default_args_reach_options_too():
    with DAG("dag", schedule=None, default_args={"retries": 4, "workers": 1}):
        made = TaktlineOperator(task_id="t", target=FLOW, source="in.jsonl")
    assert (made.retries, made.options) == (4, {"workers": 1})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"target": f"{STEPS}:NUMBER"}, "NUMBER': a step must be a callable of one record, not int 3"),
        ({"target": f"{STEPS}:doubel"}, "there is no 'doubel' in"),
        ({"target": f"{STEPS}:doubel"}, "did you mean 'double'?"),
        ({"target": "nowhere.py:flow"}, "there is no file"),
        ({"target": "no_such_module:flow"}, "there is no module 'no_such_module'"),
        ({"target": "flow"}, "names no steps; write file.py:parse,enrich,score or module:flow"),
        ({"target": 3}, "target= takes file.py:steps, module:flow or a Line, not int"),
        ({"batch_sizy": 3}, "there is no option 'batch_sizy' of a run or of a task; did you mean 'batch_size'?"),
        ({"retris": 3}, "there is no option 'retris' of a run or of a task; did you mean 'retries'?"),
        ({"workers": 0}, "workers=0: give a whole number of at least 1"),
        ({"if_incomplete": "ignore"}, "if_incomplete='ignore': choose one of 'succeed', 'fail', 'skip'"),
        ({"sink_key": "id"}, "sink_key='id' is of a table; say in which database it is: sink_conn_id="),
        ({"journal": "az://shop/journals/"}, "journal='az://shop/journals/': at a URL this needs a store"),
        ({"journal": "az://shop/{{ ds }}.journal"}, "journal='az://shop/_.journal': at a URL this needs a store"),
        (
            {"dead_letters": "az://shop/{{ params.name }}"},
            "dead_letters='az://shop/_.jsonl': at a URL this needs a store",
        ),
        ({"dead_letters": "file:///failed.jsonl"}, "give its path alone, without file://"),
        ({"dead_letters": "failed.txt"}, "name a file that ends in .jsonl"),
        (
            {"journal": True},
            "journal=True puts the journal beside the sink, and nowhere is no file, nor at s3:// or gs://; name a folder",
        ),
        ({"sink": "/data/out/"}, 'say what the parts of the folder are to be: writing={"format": "parquet"}'),
        ({"sink": "/data/{{ ds }}/", "writing": {"rows": 9}}, "say what the parts of the folder are to be: writing="),
        (
            {"sink": "/o.csv", "writing": {"rowz": 9}},
            "taktline.write has no option 'rowz'; did you mean 'rows'?",
        ),
        ({"reading": {"tipes": "infer"}}, "taktline.read has no option 'tipes'; did you mean 'types'?"),
        ({"writing": {"format": "csv"}}, "writing= says how a path or URL is written, and sink= is nowhere"),
        (
            {"sink": write("/tmp/{{ ds }}.jsonl")},
            "in which no template is filled in: /tmp/{{ ds }}.jsonl; give the path as text, with writing=",
        ),
        (
            {"sink": write_sql("sqlite:///shop.db", "of_{{ ds_nodash }}", key="id")},
            "sink= is an object, in which no template is filled in",
        ),
        ({"source": Queue("redis://shop/0/{{ ds }}")}, "source= is an object, in which no template is filled in"),
        ({"journal": True, "sink": "az://shop/a.jsonl"}, "and 'az://shop/a.jsonl' is no file, nor at s3:// or gs://"),
        ({"journal": True, "sink": "scored", "sink_conn_id": "shop"}, "and 'scored' is no file, nor at s3:// or gs://"),
        (
            {"journal": True, "sink": write_sql("sqlite:///shop.db", "t")},
            "is no file, nor at s3:// or gs://; name a folder",
        ),
        (
            {"journal": True, "sink": write("memory://shop/out/", "jsonl")},
            "and 'memory://shop/out/' is no file, nor at s3:// or gs://",
        ),
    ],
)
def test_wrong_use_is_refused_when_the_dag_is_parsed(given, sentence):
    with pytest.raises(LineError) as refused:
        operator(**given)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_templates_that_may_name_anything_are_left_for_later():
    made = operator(journal="{{ var.value.journals }}", dead_letters="{{ params.letters }}")
    assert (made.journal, made.dead_letters) == ("{{ var.value.journals }}", "{{ params.letters }}")


def test_a_wrong_dag_file_is_an_import_error_with_the_sentence(tmp_path):
    text = "from airflow.sdk import DAG\nfrom taktline.airflow import TaktlineOperator\n"
    text += (
        "with DAG('wrong', schedule=None):\n    TaktlineOperator(task_id='t', target='steps.py:flow', source='in')\n"
    )
    (tmp_path / "wrong.py").write_text(text)
    (error,) = DagBag(dag_folder=tmp_path, bundle_path=tmp_path).import_errors.values()
    assert f"LineError: target='steps.py:flow': there is no file '{tmp_path / 'steps.py'}'" in error


def test_fixed_paths_and_urls_are_assets():
    made = operator(source="/data/in.jsonl", sink="s3://bucket/out.jsonl")
    assert [asset.uri for asset in made.inlets] == ["file:///data/in.jsonl"]
    assert [asset.uri for asset in made.outlets] == ["s3://bucket/out.jsonl"]
    made = operator(sink=write("s3://bucket/out/", "jsonl"))
    assert [asset.uri for asset in made.outlets] == ["s3://bucket/out"]
    for unknown in ("/data/{{ ds }}.jsonl", "/data/*.jsonl", "data/in.jsonl", [{"n": 1}]):
        assert operator(source=unknown).inlets == []


@pytest.mark.parametrize(
    ("sink", "uri"),
    [
        ("/data/größe a.jsonl", "file:///data/gr%C3%B6%C3%9Fe%20a.jsonl"),
        ("s3://store@shop/größe a.jsonl", "s3://shop/gr%C3%B6%C3%9Fe a.jsonl"),
        ("s3://shop/a#b.jsonl", "s3://shop/a%23b.jsonl"),
        ("s3://shop/a%20b.jsonl", "s3://shop/a%20b.jsonl"),
        ("s3://shop/" + "k" * 1600, None),
        ("airflow://x", None),
    ],
)
def test_what_airflow_takes_for_no_asset_is_put_so_that_it_does_or_is_none(sink, uri):
    outlets = operator(sink=sink).outlets
    assert [asset.uri for asset in outlets] == ([] if uri is None else [uri])
    assert all(asset.uri.isascii() for asset in outlets)  # else the DAG does not come into the database


def test_a_password_is_not_told():
    assert operators._named("redis://me:hunter2@shop/0/orders?group=g") == "redis://me@shop/0/orders"


def test_the_decorator_takes_what_the_operator_takes():
    with DAG("dag", schedule=None):

        @task.taktline(sink="/data/out.jsonl", workers=1, execution_timeout=timedelta(hours=1), pool_slots=2)
        def numbers():
            return line(abs), [1, 2]

        made = numbers().operator
    assert made.options == {"workers": 1}
    assert [asset.uri for asset in made.outlets] == ["file:///data/out.jsonl"]
    assert made.pool_slots == 2


class Instance:
    """A task as it runs, as far as its journal is called after it."""

    try_number = 2

    def __init__(self, dag_id="dag", task_id="t", run_id="manual", map_index=-1):
        self.dag_id, self.task_id, self.run_id, self.map_index = dag_id, task_id, run_id, map_index


def journal_of(instance, journal, records=(), sink=None, **given):
    """Where a task's journal is."""
    return operator(**given).with_journal({"journal": journal}, records, sink, {"ti": instance})["journal"]


def test_each_task_of_each_run_has_a_journal_of_its_own(tmp_path):
    instance, name = Instance(run_id="today", map_index=3), "dag.t.today.3.journal"
    assert journal_of(instance, f"{tmp_path}/") == f"{tmp_path}/{name}"
    assert journal_of(instance, str(tmp_path)) == f"{tmp_path}/{name}"
    assert journal_of(instance, True, sink=f"{tmp_path}/out.jsonl") == f"{tmp_path}/{name}"
    assert journal_of(instance, True, sink=f"file://{tmp_path}/out.jsonl") == f"{tmp_path}/{name}"
    assert journal_of(instance, "s3://shop/journals/") == f"s3://shop/journals/{name}"
    assert (
        journal_of(instance, True, sink="s3://shop/out/a.jsonl", sink_conn_id="store") == f"s3://store@shop/out/{name}"
    )
    for sink, folder in [
        (write(f"{tmp_path}/a.jsonl"), tmp_path), (write(f"{tmp_path}/out/", "jsonl"), tmp_path),
        (write("s3://shop/out/a.jsonl"), "s3://shop/out"), (write("s3://shop/out/", "csv"), "s3://shop"),
    ]:  # fmt: skip
        assert journal_of(instance, True, sink=sink) == f"{folder}/{name}"
    with pytest.raises(LineError, match=r"is no file, nor at s3:// or gs://"):
        journal_of(instance, True, sink="az://shop/a.jsonl")
    said = task.taktline(journal=True, task_id="says")(lambda: None)().operator  # the function says where it writes
    beside = said.with_journal({"journal": True}, [], write(f"{tmp_path}/a.jsonl"), {"ti": instance})["journal"]
    assert beside == f"{tmp_path}/{name}"


def test_a_file_is_a_journal_for_each_run_but_over_a_queue():
    instance = Instance(run_id="today")
    assert journal_of(instance, "/data/one.journal") == "/data/one.dag.t.today.journal"
    assert operator().with_journal({"journal": "/data/one.journal"}, [], None, {"ti": instance})["attempt"] == 2
    over_a_queue = operator().with_journal({"journal": "/data/one.journal"}, Queue(), None, {"ti": instance})
    assert over_a_queue == {"journal": "/data/one.journal", "if_changed": "continue", "on_lost": "restart"}
    assert journal_of(instance, "/data/", Queue()) == "/data/dag.t.today.journal"


def test_no_two_tasks_have_one_journal_and_each_name_is_one_of_a_file():
    long = "t" * 250
    instances = [
        Instance(run_id="a:b"), Instance(run_id="a~b"), Instance(run_id="a_b"),
        Instance("dag.t", "u"), Instance("dag", "t.u"), Instance(run_id="a.3"), Instance(run_id="a", map_index=3),
        Instance(long, long, "1"), Instance(long, long, "2"), Instance("größe" * 40), Instance("größe" * 40, run_id="b"),
        Instance("größe"), Instance("gr__e"),
    ]  # fmt: skip
    names = [journals.name_of(each) for each in instances]
    assert len(set(names)) == len(instances)
    for name in names:
        assert len(f".{name}.journal.done.new".encode()) < 255
        assert "/" not in name


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        ("postgres://me:p%40ss@db.example:5433/shop", "postgresql://me:p%40ss@db.example:5433/shop"),
        ("postgres://db.example/shop", "postgresql://db.example/shop"),
        (
            json.dumps(
                {
                    "conn_type": "postgres",
                    "host": "::1",
                    "port": 5433,
                    "login": "größe",
                    "password": "/?#%: é",
                    "schema": "a b",
                }
            ),
            "postgresql://gr%C3%B6%C3%9Fe:%2F%3F%23%25%3A%20%C3%A9@[::1]:5433/a%20b",
        ),
        ('{"conn_type": "sqlite", "host": "/data/shop.db"}', "sqlite:////data/shop.db"),
        (
            "postgres://me@db.example/shop?sslmode=verify-full&sslrootcert=%2Fetc%2Froot.crt&cursor=dictcursor",
            "postgresql://me@db.example/shop?sslmode=verify-full&sslrootcert=%2Fetc%2Froot.crt",
        ),
    ],
)
def test_connections_are_urls(connection, url, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", connection)
    assert connection_url("shop") == url


def test_connections_to_something_else_are_refused(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", "http://shop.example")
    with pytest.raises(LineError, match="is of type 'http'; only postgres and sqlite are tables"):
        connection_url("shop")


def test_pubsub_gets_the_key_of_a_connection(monkeypatch, tmp_path):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key = {
        "type": "service_account", "client_email": "worker@shop.example", "token_uri": "https://token.example",
        "private_key": made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    }  # fmt: skip
    (tmp_path / "key.json").write_text(json.dumps(key))
    source, sink = "pubsub://projects/shop/subscriptions/s?idle=1", "pubsub://projects/shop/topics/t"
    for extra in ({"keyfile_dict": json.dumps(key)}, {"key_path": str(tmp_path / "key.json")}, {}):
        monkeypatch.setenv("AIRFLOW_CONN_GOOGLE", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))
        asked = operator(source=source, sink=sink, source_conn_id="google", sink_conn_id="google")
        for credentials in (asked.read_from(source)._settings.credentials, asked.written_to(sink)._credentials):
            assert getattr(credentials, "service_account_email", None) == ("worker@shop.example" if extra else None)
    monkeypatch.setenv("AIRFLOW_CONN_GOOGLE", "aws://")
    with pytest.raises(LineError, match="Pub/Sub needs one of google_cloud_platform"):
        asked.read_from(source)


def test_a_url_is_reached_by_a_connection():
    assert connection.through("shop", "s3://bucket/a.jsonl") == "s3://shop@bucket/a.jsonl"
    assert connection.through("shop", "s3://shop@bucket/a.jsonl") == "s3://shop@bucket/a.jsonl"
    with pytest.raises(LineError, match="names the connection 'other', and conn_id= says 'shop'"):
        connection.through("shop", "s3://other@bucket/a.jsonl")
    for wrong in ("/a.jsonl", "SELECT 1", "https://shop.example/a.jsonl"):
        with pytest.raises(LineError, match="so a URL of an object store is needed with it"):
            connection.through("shop", wrong)


def test_options_may_be_templates_and_mean_what_they_say():
    made = operator(workers="{{ params.workers }}", memory="1GB", on_error="{{ params.on_error }}")
    assert made.options == {"memory": "1GB"}
    assert made.later_options == {"workers": "{{ params.workers }}", "on_error": "{{ params.on_error }}"}
    meant = [
        ("workers", "3", 3), ("workers", "None", None), ("stall", "2.5", 2.5), ("recycle", "1GB", "1GB"),
        ("recycle", "100", 100), ("ordered", "False", False), ("on_error", "skip", "skip"), ("workers", 3, 3),
    ]  # fmt: skip
    for name, said, value in meant:
        assert operators._as_option(name, said) == value
    with pytest.raises(LineError, match="workers='many': its template gave this, which is no int"):
        operators._as_option("workers", "many")


def test_a_heavy_target_is_left_to_the_run():
    assert operator(target="nowhere.py:flow", check_target=False).target == "nowhere.py:flow"


def test_the_connection_in_a_url_is_no_part_of_the_asset():
    made = operator(source="s3://shop@bucket/in.jsonl", sink=ObjectStoragePath("s3://shop@bucket/out.jsonl"))
    assert [asset.uri for asset in made.inlets] == ["s3://bucket/in.jsonl"]
    assert [asset.uri for asset in made.outlets] == ["s3://bucket/out.jsonl"]
    assert operator(source="SELECT 1", source_conn_id="shop", sink="orders", sink_conn_id="shop").outlets == []


@pytest.mark.parametrize("module", [operators, decorator, connection, address, journals])
def test_the_examples_in_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert not failed
    assert tried
