"""Lines as Apache Airflow tasks: `TaktlineOperator`, and `@task.taktline` for a function that returns a line.

Airflow finds both through the provider's entry point; DAG files say `from taktline.airflow import TaktlineOperator` or
`from airflow.sdk import task`. Needs Airflow 3.1: `pip install taktline[airflow]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taktline.airflow.connection import connection_url
    from taktline.airflow.decorator import taktline_task
    from taktline.airflow.operator import ReportLink, TaktlineOperator

__all__ = ["ReportLink", "TaktlineOperator", "connection_url", "get_provider_info", "taktline_task"]

OLDEST = (3, 1)

# Airflow asks every installed package for its provider info: that must work, and be quick, where no line is ever used.
_ON_FIRST_USE = {
    "ReportLink": "taktline.airflow.operator",
    "TaktlineOperator": "taktline.airflow.operator",
    "connection_url": "taktline.airflow.connection",
    "taktline_task": "taktline.airflow.decorator",
}


def get_provider_info() -> dict[str, Any]:
    """What Airflow is told about this provider."""
    return {
        "package-name": "taktline",
        "name": "taktline",
        "description": "Plain step functions as an ordered, batched, multi-process line.",
        "integrations": [{"integration-name": "taktline", "external-doc-url": "", "tags": ["software"]}],
        "operators": [{"integration-name": "taktline", "python-modules": ["taktline.airflow.operator"]}],
        "task-decorators": [{"name": "taktline", "class-name": "taktline.airflow.taktline_task"}],
        "extra-links": ["taktline.airflow.ReportLink"],
    }


def __getattr__(name: str) -> Any:
    """What needs Airflow is imported when it is first asked for."""
    if name in _ON_FIRST_USE:
        from importlib import import_module

        _check_airflow()
        value = globals()[name] = getattr(import_module(_ON_FIRST_USE[name]), name)
        return value
    raise AttributeError(f"module 'taktline.airflow' has no attribute {name!r}")


def _check_airflow() -> None:
    """Raises ImportError where there is no Airflow, or one that is too old for what it is needed for."""
    from importlib.metadata import PackageNotFoundError, version

    for name in ("apache-airflow-core", "apache-airflow"):  # 3 has the first one, 2 the second one alone
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
            raise ImportError(
                f"taktline.airflow needs Airflow {'.'.join(map(str, OLDEST))} or newer, and this is {found}"
            )
        return
    raise ImportError("taktline.airflow needs Airflow, and there is none here: pip install 'taktline[airflow]'")
