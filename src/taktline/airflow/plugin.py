"""The report of a task, on the task's page in Airflow: a plugin that Airflow finds by its entry point.

Airflow does not guard what a plugin serves. The page asks for Airflow's login, and for the right to read the DAG and what its
tasks have handed on, of which the report is one.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from taktline._observe.web import html_page, report_html
from taktline.airflow.address import REPORT_KEY, TASK_FIELDS, URL_PREFIX

# What a report shows of the user's data is escaped; nothing in it may run or be loaded all the same.
HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}

Message = MutableMapping[str, Any]


async def pages(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """The plugin's pages as an ASGI application. Plugins are loaded by every part of Airflow, and only the API server needs
    what this is made of: so it is made at the first request."""
    await _application()(scope, receive, send)


@cache
def _application() -> Any:
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.common.db.common import SessionDep
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from airflow.models.xcom import XComModel
    from fastapi import Depends, FastAPI
    from fastapi.responses import HTMLResponse

    application = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    rights = [Depends(requires_access_dag("GET")), Depends(requires_access_dag("GET", DagAccessEntity.XCOM))]

    def report(session: Any, dag_id: str, run_id: str, task_id: str, map_index: str = "-1") -> HTMLResponse:
        index = int(map_index) if map_index.isdigit() else -1  # a task that is not mapped has none
        for key in (REPORT_KEY, "return_value"):
            for run in dict.fromkeys((run_id, run_id.replace(" ", "+"))):  # where the address was not encoded
                found = session.scalars(
                    XComModel.get_many(
                        run_id=run, key=key, task_ids=task_id, dag_ids=dag_id, map_indexes=index, limit=1
                    )
                ).first()
                if found is not None and (facts := _facts(found.value)) is not None:
                    return HTMLResponse(html_page(facts["name"], report_html(facts)), headers=HEADERS)
        text = "There is no report of this task: it has not ended, or ended before its run began, or it runs no line."
        return HTMLResponse(html_page("taktline", f"<p>{text}</p>"), status_code=404, headers=HEADERS)

    report.__annotations__["session"] = SessionDep
    report.__annotations__["return"] = None
    application.get("/report", dependencies=rights, response_class=HTMLResponse, response_model=None)(report)
    return application


def _facts(value: Any) -> dict[str, Any] | None:
    """What a task has handed on, where that is a report."""
    try:
        facts = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return facts if isinstance(facts, dict) and {"name", "records_in", "verdict"} <= facts.keys() else None


class TaktlinePlugin(AirflowPlugin):  # type: ignore[misc]
    """The report of a task's run, as a tab of the task's page."""

    name = "taktline"
    fastapi_apps = [{"app": pages, "url_prefix": URL_PREFIX, "name": "taktline"}]
    external_views = [
        {
            "name": "taktline report",
            "href": f"{URL_PREFIX.lstrip('/')}/report?"
            + "&".join(f"{name}={{{name.upper()}}}" for name in TASK_FIELDS),
            "url_route": "taktline-report",
            "destination": "task_instance",
        }
    ]
