"""`@task.taktline`: a function that returns a line, and what to run it over, as a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
from airflow.sdk.definitions.template import literal

from taktline import Line, LineError
from taktline.airflow.operator import TaktlineOperator, _wrong_use_is_not_retried


class TaktlineDecoratedOperator(DecoratedOperator, TaktlineOperator):  # type: ignore[misc]
    """A task whose function says, when it runs, what line runs over what."""

    template_fields = (*DecoratedOperator.template_fields, *TaktlineOperator.template_fields)
    template_fields_renderers = {**DecoratedOperator.template_fields_renderers}
    custom_operator_name = "@task.taktline"
    may_say_sink = True

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(python_callable=python_callable, target=literal("the function's line"), **kwargs)

    def execute(self, context: Any) -> dict[str, Any]:
        """Ask the function, then run its line; the report, as plain values."""
        with _wrong_use_is_not_retried():
            said = self.python_callable(*self.op_args, **self.named_arguments({**context, **self.op_kwargs}))
            flow, source, sink, options = self.understood(said)
            return self.drain(flow, source, sink, {**self.run_options(), **options}, context)

    def named_arguments(self, known: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the function asks for by name, of Airflow's context and of the keywords it was called with."""
        parameters = list(inspect.signature(self.python_callable).parameters.values())[len(self.op_args) :]
        if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
            return known
        return {each.name: known[each.name] for each in parameters if each.name in known}

    def first_argument(self) -> Any:
        """What the call gave the function's first parameter, by its signature and in whatever order it was called; the
        parameter's default where it gave nothing. Those that Airflow fills in by their names are passed over."""
        parameters = inspect.signature(self.python_callable).parameters.values()
        if self.op_args:
            return self.op_args[0]
        for each in parameters:
            if each.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                return None
            if each.name in self.op_kwargs:
                return self.op_kwargs[each.name]
            if each.name not in KNOWN_CONTEXT_KEYS:
                return None if each.default is inspect.Parameter.empty else each.default
        return None

    def understood(self, said: Any) -> tuple[Line, Any, Any, Mapping[str, Any]]:
        """Line, source, sink and options of this run. Raises LineError where the function returned something else."""
        said_all = said if isinstance(said, tuple) else (said,)
        if not 1 <= len(said_all) <= 4 or not isinstance(said_all[0], Line):
            raise LineError(
                f"the function of task {self.task_id!r} returned {type(said).__name__}; return a line, or a line and a "
                "source, then perhaps a sink and a dict of options"
            )
        unsaid: tuple[Any, ...] = (None, self.first_argument() if self.source is None else self.source, self.sink, {})
        flow, source, sink, options = (*said_all, *unsaid[len(said_all) :])
        if not isinstance(options, Mapping):
            raise LineError(f"the function of task {self.task_id!r} returned options of type {type(options).__name__}")
        return flow, source, sink, options


def taktline_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a function a task that runs the line it returns; `@task.taktline` in a DAG file.

    The function returns `line, source` and, where wanted, `sink` and a dict of options of the run; or the line alone:
    then its source is the decorator's `source=`, or what the call gives the function's first parameter, such as an
    upstream task's output. Keywords of the decorator are those of TaktlineOperator.

    >>> from airflow.sdk import DAG, task
    >>> from taktline import line
    >>> with DAG("nightly", schedule=None):
    ...     @task.taktline(sink="/out.jsonl", workers=2)
    ...     def score():
    ...         return line(abs), range(-5, 0)
    ...     done = score()
    >>> done.operator.options
    {'workers': 2}
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=TaktlineDecoratedOperator, **kwargs
    )
