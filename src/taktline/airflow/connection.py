"""Airflow's connections as the URLs that `taktline.read_sql` and `taktline.write_sql` take."""

from __future__ import annotations

from urllib.parse import quote

from airflow.sdk import BaseHook

try:
    from airflow.sdk.exceptions import AirflowNotFoundException
except ImportError:  # before Airflow 3.3
    from airflow.exceptions import AirflowNotFoundException

from taktline import LineError

DATABASES = ("postgres", "sqlite")


def connection_url(conn_id: str) -> str:
    """The URL of an Airflow connection to PostgreSQL or SQLite, for `read_sql` and `write_sql` inside a task.

    Raises LineError where there is no such connection, or one to something else.

    >>> import os
    >>> os.environ["AIRFLOW_CONN_SHOP"] = "postgres://me:secret@db.example/shop"
    >>> connection_url("shop")
    'postgresql://me:secret@db.example/shop'
    """
    try:
        found = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise LineError(
            f"there is no Airflow connection {conn_id!r}: add it under Admin, Connections, "
            f"or set the environment variable AIRFLOW_CONN_{conn_id.upper()}"
        ) from error
    if found.conn_type == "sqlite":
        return f"sqlite:///{found.host or found.schema or ''}"
    if found.conn_type not in DATABASES:
        raise LineError(
            f"the Airflow connection {conn_id!r} is of type {found.conn_type!r}; only {' and '.join(DATABASES)} are tables"
        )
    person = quote(found.login or "", safe="") + (f":{quote(found.password, safe='')}" if found.password else "")
    place = f"{found.host or ''}" + (f":{found.port}" if found.port else "")
    return f"postgresql://{person + '@' if person else ''}{place}/{quote(found.schema or '', safe='')}"
