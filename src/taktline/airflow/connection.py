"""Airflow's connections as the URLs that `taktline.read_sql` and `taktline.write_sql` take."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from airflow.sdk import BaseHook, ObjectStoragePath

try:
    from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
except ImportError:  # before Airflow 3.3
    from airflow.exceptions import AirflowException, AirflowNotFoundException

from taktline import LineError

DATABASES = ("postgres", "sqlite")
WITHOUT = (
    "http",
    "https",
    "ftp",
    "sftp",
    "pubsub",
    "redis",
    "rediss",
    "kafka",
)  # schemes whose user is no connection of Airflow's
SETTINGS = (
    "sslmode",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslcompression",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "channel_binding",
    "gssencmode",
    "krbsrvname",
    "target_session_attrs",
    "options",
    "application_name",
    "client_encoding",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "passfile",
    "service",
    "hostaddr",
    "load_balance_hosts",
    "require_auth",
)  # of PostgreSQL's client library; what else stands among a connection's extras is of Airflow's own hooks


def connection_url(conn_id: str) -> str:
    """The URL of an Airflow connection to PostgreSQL or SQLite, for `read_sql` and `write_sql` inside a task. What the
    connection's extras say of PostgreSQL's client, such as `sslmode`, stands in it.

    Raises LineError where there is no such connection, or one to something else.

    >>> import os
    >>> os.environ["AIRFLOW_CONN_SHOP"] = "postgres://me:secret@db.example/shop"
    >>> connection_url("shop")
    'postgresql://me:secret@db.example/shop'
    """
    found = _connection(conn_id)
    if found.conn_type == "sqlite":
        return f"sqlite:///{found.host or found.schema or ''}"
    if found.conn_type not in DATABASES:
        raise LineError(
            f"the Airflow connection {conn_id!r} is of type {found.conn_type!r}; only {' and '.join(DATABASES)} are tables"
        )
    person = quote(found.login or "", safe="") + (f":{quote(found.password, safe='')}" if found.password else "")
    host = found.host or ""
    host = f"[{host}]" if host.count(":") > 1 and not set("[,") & set(host) else host  # an address of IPv6
    place = quote(host, safe="[]:,") + (f":{found.port}" if found.port else "")
    settings = {name: value for name, value in found.extra_dejson.items() if name in SETTINGS}
    query = f"?{urlencode(settings, quote_via=quote)}" if settings else ""
    return f"postgresql://{person + '@' if person else ''}{place}/{quote(found.schema or '', safe='')}{query}"


def is_database(conn_id: str) -> bool:
    """Whether an Airflow connection is one to a database that `connection_url` knows. Raises LineError."""
    return _connection(conn_id).conn_type in DATABASES


def google_credentials(conn_id: str) -> Any:
    """The credentials that an Airflow connection to Google Cloud has: of the key in its extras (`keyfile_dict`, `key_path`),
    or of the environment, where it names none. Raises LineError."""
    found = _connection(conn_id)
    if found.conn_type != "google_cloud_platform":
        raise LineError(
            f"the Airflow connection {conn_id!r} is of type {found.conn_type!r}; Pub/Sub needs one of google_cloud_platform"
        )
    extras = {name.removeprefix("extra__google_cloud_platform__"): value for name, value in found.extra_dejson.items()}
    key, path = extras.get("keyfile_dict"), extras.get("key_path")
    if not key and not path:
        return None
    try:
        from google.oauth2.service_account import Credentials

        if path:
            return Credentials.from_service_account_file(path)
        return Credentials.from_service_account_info(json.loads(key) if isinstance(key, str) else key)
    except (ImportError, OSError, ValueError) as error:
        raise LineError(f"the key of the Airflow connection {conn_id!r} cannot be used: {error}") from error


def is_pubsub(url: str) -> bool:
    """Whether this is a subscription or topic."""
    return url.startswith("pubsub://")


def through(conn_id: str, url: str) -> str:
    """A URL of an object store that is reached by an Airflow connection: `s3://bucket/key` as `s3://conn_id@bucket/key`.
    Raises LineError where it is no such URL, or names another connection."""
    scheme, slashes, rest = url.partition("://")
    if not slashes or scheme in (*WITHOUT, ""):
        raise LineError(
            f"the Airflow connection {conn_id!r} is no database, so a URL of an object store is needed with it, such as "
            f"s3://bucket/key, not {url!r}"
        )
    named, at, _ = rest.partition("/")[0].rpartition("@")
    if at and named != conn_id:
        raise LineError(f"{url!r} names the connection {named!r}, and conn_id= says {conn_id!r}; name one of them")
    return url if at else f"{scheme}://{conn_id}@{rest}"


def store_by_connection(url: str) -> tuple[Any, str] | None:
    """File system and path of `s3://conn_id@bucket/key` and its like, by Airflow's providers; None of other URLs."""
    parts = urlsplit(url)
    conn_id, at, _ = parts.netloc.rpartition("@")
    if not at or not conn_id or ":" in conn_id or parts.scheme in WITHOUT:
        return None
    _connection(conn_id)
    path = ObjectStoragePath(url)
    try:
        return path.fs, path.path
    except (ValueError, ImportError, AirflowException) as error:
        raise LineError(
            f"{url!r} cannot be reached by the Airflow connection {conn_id!r}: {error}; install the provider that knows "
            f"{parts.scheme}://, such as apache-airflow-providers-amazon with s3fs"
        ) from error


def _connection(conn_id: str) -> Any:
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise LineError(
            f"there is no Airflow connection {conn_id!r}: add it under Admin, Connections, "
            f"or set the environment variable AIRFLOW_CONN_{conn_id.upper()}"
        ) from error
