"""TaktlineOperator: one task that runs a line from a source into a sink."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias, BaseOperator, BaseOperatorLink, ObjectStoragePath
from airflow.sdk.definitions.template import literal

try:
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, AirflowTaskTimeout
except ImportError:  # before Airflow 3.3
    from airflow.configuration import conf
    from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from taktline import (
    InUse,
    Line,
    LineError,
    Report,
    ResumeError,
    Snapshot,
    TakenOver,
    TaktlineError,
    _urls,
    read,
    read_sql,
    write,
    write_sql,
)
from taktline._files import check_at, refusal, take_away_at
from taktline._recipe.options import CONDITIONAL_SCHEMES, Options, checked
from taktline.abc import Live, Observer, Sink, Source
from taktline.airflow import journals
from taktline.airflow.address import REPORT_KEY, report_path
from taktline.airflow.connection import (
    connection_url,
    google_credentials,
    is_database,
    is_pubsub,
    store_by_connection,
    through,
)
from taktline.airflow.lineage import Lineage, counts, written_by
from taktline.cli.target import line_of
from taktline.errors import did_you_mean
from taktline.views.drawing import plain

AGAIN = 2.0  # seconds until another look at what another run has
PROGRESS = 30.0  # seconds between two progress lines in the task's log
TEMPLATE = ("{{", "{%")
NOTHING = (None, "", "None")  # what a template gives that has no value
MAY_BE_NOTHING = ("source_conn_id", "sink_conn_id", "journal", "dead_letters", "report_html", "report_url")
REPORT = {"sink", "records_in", "records_out", "verdict"}  # what the report of a task has, as it is handed on
NOT_IN_ASSETS = re.compile(r"[^\x20-\x7e]+|#")
OUTCOMES = ("succeed", "fail", "skip")
OPTIONS = tuple(each.name for each in fields(Options))
DAG_MODULE = "unusual_prefix_"  # what Airflow puts before the name of the module that a DAG file becomes


_urls.known_stores.append(store_by_connection)


class Interrupted(KeyboardInterrupt):
    """SIGTERM or the task's timeout: unwinds a run as Ctrl-C does, also out of a step that catches every Exception."""


class _Heard(Observer):
    """Keeps the report of a run that ended, well or not."""

    report: Report | None = None

    def ends(self, report: Report) -> None:
        self.report = report


class ReportLink(BaseOperatorLink):  # type: ignore[misc]
    """The button on a task's page that opens its report by itself, also where that lies elsewhere (`report_url`)."""

    name = "taktline report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Where the report is, or "" where there is none."""
        return str(getattr(operator, "report_link", ""))


def _with_options(init: Callable[..., None]) -> Callable[..., None]:
    """Give `init` every option of a run as a keyword of its own: Airflow reads signatures for default_args and mapping."""
    signature = inspect.signature(init)
    named = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    known = {each.name for each in named}
    options = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default)
        for each in fields(Options)
        if each.name not in known
    ]
    rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
    init.__signature__ = signature.replace(parameters=[*named, *options, rest])  # type: ignore[attr-defined]
    return init


class TaktlineOperator(BaseOperator):  # type: ignore[misc]
    """Run `target` over `source` into `sink`, on all cores the task may use; the report becomes the task's XCom.

    `target`: "file.py:parse,score", "module:flow" or a Line; a relative file is looked for beside the DAG file. It is
    loaded when the DAG is parsed, so wrong ones are import errors of the DAG; one with a template when the task runs.
    `check_target=False` leaves that to the run, for targets that take long to load.
    `source`: a path, a glob, a URL, a list of path objects, any iterable of records, or an upstream task's output that is
    one of these. `reading`: keywords of `taktline.read`; a list of texts is one of paths then, not of records.
    `sink`: a path, a URL, a Sink, a callable of one result, or None (results are dropped). `writing`: keywords of
    `taktline.write`, such as `{"format": "parquet"}` for a folder of parts. Fixed absolute paths and URLs become the
    task's inlets and outlets, whose events have the counts of records; an AssetAlias among `outlets` gets what a sink with a
    template has written as its asset. OpenLineage's provider is told of both ends.
    `source_conn_id`, `sink_conn_id`: the Airflow connection that a URL is reached by, which `s3://conn_id@bucket/key` says
    too; or that of a database: then `source` is a query, `sink` the name of a table, and
    `sink_key` the columns that its rows are replaced by.

    `if_incomplete`: what becomes of the task where records were skipped or dead-lettered: "succeed", "fail" (without
    a retry, which would give the same) or "skip". `journal`: a folder (ending in "/"), a file, or True for the folder of
    the sink: what a retry goes on from, one for each task of each DAG run, whose names it gets. At a URL
    (`s3://bucket/journals/`), with a sink at one, a retry may come to any host. The report is on the task's page;
    `report_html`: a file, or a URL, for it as a page of its own; `report_url`: where people open that.

    All other options of a run are taken too, also with templates, and those of any Airflow task. With a journal
    `if_changed="continue"` and `on_lost="restart"` are the defaults here. Raises LineError for wrong ones.

    >>> from airflow.sdk import DAG
    >>> from taktline import line
    >>> with DAG("nightly", schedule=None):
    ...     score = TaktlineOperator(task_id="score", target=line(abs), source="/in.jsonl", sink="/out.jsonl", workers=2)
    >>> score.outlets[0].uri, score.options
    ('file:///out.jsonl', {'workers': 2})
    """

    template_fields: Sequence[str] = (
        "target", "source", "sink", "source_conn_id", "sink_conn_id", "journal", "dead_letters", "report_html", "report_url",
        "later_options",
    )  # fmt: skip
    operator_extra_links = (ReportLink(),)
    may_say_sink = False  # where it writes may be known only when it runs
    ui_color = "#f2d7a7"

    @_with_options
    def __init__(
        self,
        *,
        target: Any,
        source: Any = None,
        sink: Any = None,
        source_conn_id: str | None = None,
        sink_conn_id: str | None = None,
        reading: Mapping[str, Any] | None = None,
        writing: Mapping[str, Any] | None = None,
        sink_key: str | Sequence[str] | None = None,
        check_target: bool = True,
        journal: str | bool | None = None,
        dead_letters: str | None = None,
        if_incomplete: str = "succeed",
        report_html: str | None = None,
        report_url: str | None = None,
        **kwargs: Any,
    ) -> None:
        options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        _refuse_unknown(kwargs, self)
        super().__init__(**kwargs)
        if if_incomplete not in OUTCOMES:
            raise LineError(f"if_incomplete={if_incomplete!r}: choose one of {', '.join(map(repr, OUTCOMES))}")
        _check_keywords("reading", reading, read)
        _check_keywords("writing", writing, write)
        _refuse_hidden_templates("source", source, "reading")
        _refuse_hidden_templates("sink", sink, "writing")
        if writing is not None and not (_is_template(sink) or isinstance(_path(sink), str)):
            raise LineError(f"writing= says how a path or URL is written, and sink= is {_named(sink)}")
        if isinstance(sink, str) and sink.endswith("/") and "format" not in (writing or {}):
            raise LineError(
                f'sink={sink!r}: say what the parts of the folder are to be: writing={{"format": "parquet"}}'
            )
        if journal is True and not _is_template(sink) and not (self.may_say_sink and sink is None):
            _folder_beside(sink, sink_conn_id)
        later = {name: value for name, value in options.items() if _is_template(value)}
        options = {name: value for name, value in options.items() if name not in later}
        checked({**options, "journal": _known_now(journal), "dead_letters": _known_now(dead_letters)})
        if sink_key is not None and sink_conn_id is None:
            raise LineError(f"sink_key={sink_key!r} is of a table; say in which database it is: sink_conn_id=")
        if check_target and not _is_template(target):
            self.line(target)  # raises where it is no line
        self.target = _not_called(target)
        self.source = _not_called(source, is_path=reading is not None)
        self.sink = _not_called(sink)
        self.source_conn_id = source_conn_id
        self.sink_conn_id = sink_conn_id
        self.reading = reading
        self.writing = writing
        self.sink_key = sink_key
        self.check_target = check_target
        self.journal = journal
        self.dead_letters = dead_letters
        self.if_incomplete = if_incomplete
        self.report_html = report_html
        self.report_url = report_url
        self.options = options
        self.later_options = later
        self.report_link = ""
        self._drops = sink is None  # the results, as it was said, and not since a template gave nothing
        self._running = False
        self._lineage: Lineage | None = None
        self.inlets += _assets(source) if source_conn_id is None else []
        self.outlets += _assets(sink) if sink_conn_id is None else []

    def line(self, target: Any) -> Line:
        """The line that a target names. Raises LineError."""
        if isinstance(target, Line):
            return target
        if not isinstance(target, str):
            raise LineError(f"target= takes file.py:steps, module:flow or a Line, not {type(target).__name__}")
        place, colon, names = target.rpartition(":")
        if place.endswith(".py") and not os.path.isabs(place) and self.has_dag():
            place = os.path.join(os.path.dirname(self.dag.fileloc), place)
        try:
            return line_of(f"{place}{colon}{names}")
        except LineError as error:
            raise LineError(f"target={target!r}: {error}") from error

    def execute(self, context: Any) -> dict[str, Any]:
        """Run the line; the report, as plain values."""
        with _wrong_use_is_not_retried():
            return self.drain(self.line(self.target), self.source, self.sink, self.run_options(), context)

    def run_options(self) -> dict[str, Any]:
        """The options of this run, as they were given, templates filled in: one that gave nothing leaves its option out."""
        for name in MAY_BE_NOTHING:
            if getattr(self, name) in NOTHING:
                setattr(self, name, None)
        paths = {"journal": self.journal or None, "dead_letters": self.dead_letters}
        later = {name: _as_option(name, value) for name, value in self.later_options.items()}
        return {name: path for name, path in paths.items() if path is not None} | self.options | later

    def drain(self, flow: Line, source: Any, sink: Any, options: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """Run `flow` from `source` into `sink`, and end the task as the report says."""
        _send_dag_files_by_value()
        options = {"progress": True, **options}
        if options["progress"] is True:
            options["progress"] = self.tell_progress()
        records = self.read_from(source)
        if options.get("journal"):
            options |= self.with_journal(options, records, sink, context)
        if self.sink_conn_id is None:
            _make_folder_of(sink)
        for path in (options.get("journal"), options.get("dead_letters"), options.get("trace"), self.report_html):
            _make_folder_of(path)
        if self.report_html:
            check_at(self.report_html)
        writer = self.written_to(sink)
        once = bool(options.get("journal")) and journals.comes_once(records, writer)
        if once and (before := journals.done_before(options["journal"], context["ti"], writer)) is not None:
            return self.conclude_again(before, options["journal"], writer, context)
        self.log.info("line %s: %s → %s", flow.name, _named(source), _named(sink))
        ended = _Heard()
        observers = options.get("observer") or []
        options["observer"] = [*(observers if isinstance(observers, (list, tuple)) else [observers]), ended]
        ends = {"source": _named(records), "sink": _written(writer)}
        self._lineage = Lineage(records, writer)
        try:
            with self.interruptible():
                report = self.run_when_free(flow, records, writer, options)
        except BaseException as error:
            for note in getattr(error, "__notes__", ()):  # the log's own rendering leaves them out
                self.log.error("%s", note)
            self._lineage.report = ended.report
            if ended.report is not None:
                self.show(ended.report, context)
                context["ti"].xcom_push(key=REPORT_KEY, value=_facts(ended.report, ends))
            raise
        if not report.complete:
            raise AirflowException(f"the run was stopped after {report.records_in:,} records{self._goes_on()}")
        facts = _facts(report, ends)
        if once:
            journals.note_done(options["journal"], context["ti"], facts)
        if report.journal:  # whoever clears a task that ended well wants all of it again
            take_away_at(report.journal)  # another try at the task may have found all done, and done this
        self._lineage.report, self._lineage.ended = report, True
        self.tell_assets(counts(facts), writer, context)
        return self.conclude(report, facts, context)

    def with_journal(self, options: Mapping[str, Any], records: Any, sink: Any, context: Any) -> dict[str, Any]:
        """The options that go with a journal. A later try has it before an earlier one that is frozen. What was mended
        before "clear" holds from there on, and what is gone with a machine is made again, where that doubles nothing.

        The journal is this task's in this DAG run alone: a retry finds it, and no other task goes on with it. Over a
        queue a file is taken as it is named, since the next DAG run is to go on with what an earlier one has noted; whose
        tries are others', so they are not numbered then."""
        place = options["journal"]
        if place is True:
            place = os.path.join(_folder_beside(sink, self.sink_conn_id), "")
        place = os.fspath(place)
        given: dict[str, Any] = {"if_changed": "continue", "on_lost": "restart"}
        if not isinstance(records, Live) or journals.is_folder(place):
            place = journals.own_place(place, context["ti"])
            given["attempt"] = max(1, context["ti"].try_number)
        return {**given, **options, "journal": place}

    def tell_assets(self, told: Mapping[str, int], sink: Any, context: Any) -> None:
        """Have the events of the task's outlets say how many records there were; an alias gets what the sink has written
        as its asset."""
        events = context["outlet_events"]
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                for asset in _assets(written_by(sink)):
                    events[outlet].add(asset, extra=told)
            elif isinstance(outlet, Asset):
                events[outlet].extra.update(told)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """What was read and written, with counts, where OpenLineage's provider asks; of a failed run what it has read."""
        return self._lineage.told() if self._lineage is not None else None

    def read_from(self, source: Any) -> Any:
        """The source of a run: a path, or what a connection reaches, as it is to be read. Raises LineError, SourceError."""
        if isinstance(source, Mapping) and source.keys() >= REPORT:  # of a task before: what it has written is meant
            if source["sink"] is None:
                raise LineError("the task before has no sink that can be read: its report is no source; give source=")
            source = source["sink"]
        source = _path(source)
        if source is None or (isinstance(source, str) and source in NOTHING):
            why = "" if source is None else f"; its template gave {source!r}"
            raise LineError(f"there is no source: give source= a path, records, or an upstream task's output{why}")
        if (conn_id := self.source_conn_id) is not None:
            if not isinstance(source, str):
                raise LineError(f"source_conn_id={conn_id!r} takes a URL or a query for source=, not {_named(source)}")
            if is_database(conn_id):
                return read_sql(connection_url(conn_id), source)
            if is_pubsub(source):
                from taktline import pubsub

                return pubsub.read(source, google_credentials(conn_id))
            source = through(conn_id, source)
        if self.reading is not None:
            return read(
                [_path(each) for each in source] if isinstance(source, (list, tuple)) else source, **self.reading
            )
        if isinstance(source, (list, tuple)) and source and all(map(_is_path_object, source)):
            return read([_path(each) for each in source])
        return read(source) if isinstance(source, str) else source

    def written_to(self, sink: Any) -> Any:
        """The sink of a run, as `read_from` has its source. Raises LineError."""
        sink = _path(sink)
        if not self._drops and (sink is None or (isinstance(sink, str) and sink in NOTHING)):
            raise LineError(
                f"sink=: its template gave {sink!r}; give a path or URL, or leave out sink= to drop the results"
            )
        if (conn_id := self.sink_conn_id) is not None:
            if not isinstance(sink, str):
                raise LineError(
                    f"sink_conn_id={conn_id!r} takes a URL or the name of a table for sink=, not {_named(sink)}"
                )
            if is_database(conn_id):
                return write_sql(connection_url(conn_id), sink, key=self.sink_key)
            if is_pubsub(sink):
                from taktline import pubsub

                return pubsub.write(sink, google_credentials(conn_id))
            sink = through(conn_id, sink)
        return write(sink, **(self.writing or {})) if isinstance(sink, str) else sink

    def run_when_free(self, flow: Line, source: Any, sink: Any, options: Mapping[str, Any]) -> Report:
        """Run the line, as soon as no other run has the journal or the dead letters: such as this very attempt, which a
        queue has delivered twice. That is waited for as long as the task may run."""
        told = None
        while True:
            try:
                return flow.run(source, sink, **options)
            except InUse as error:
                if str(error) != told:
                    told = str(error)
                    self.log.warning("%s; waiting until it has ended", error)
            sleep(AGAIN)

    def tell_progress(self) -> Callable[[Snapshot], None]:
        """A line in the task's log every half minute."""
        due = monotonic() + PROGRESS

        def tell(snapshot: Snapshot) -> None:
            nonlocal due
            if monotonic() >= due:
                due = monotonic() + PROGRESS
                self.log.info("%s", plain(snapshot))

        return tell

    def conclude(self, report: Report, facts: dict[str, Any], context: Any) -> dict[str, Any]:
        """Tell what was done, and end the task as `if_incomplete` says."""
        for text in str(report).splitlines():
            self.log.info("%s", text)
        self.show(report, context)
        return self.ended(facts, context)

    def conclude_again(self, facts: dict[str, Any], journal: str, sink: Any, context: Any) -> dict[str, Any]:
        """End the task of a drain that has ended well before: what it took from its queue does not come again, so another
        one would put less in the place of what it has written."""
        self.log.info(
            "this task has ended well before, and what it took from its queue does not come again: %s stays as it is. To "
            "drain into it once more, take it away first",
            _named(sink),
        )
        take_away_at(journal)  # the task may have been ended in between
        self.report_link = self.address_of_report(context)
        self.tell_assets(counts(facts), sink, context)
        return self.ended(facts, context)

    def ended(self, facts: dict[str, Any], context: Any) -> dict[str, Any]:
        """The facts as the task hands them on; raises what ends it otherwise, where `if_incomplete` says so."""
        if facts["failed"] and self.if_incomplete != "succeed":
            context["ti"].xcom_push(key="return_value", value=facts)
            end = AirflowFailException if self.if_incomplete == "fail" else AirflowSkipException
            raise end(
                f"{facts['failed']:,} of {facts['records_in']:,} records failed; the results of the others are complete"
            )
        return facts

    def show(self, report: Report, context: Any) -> None:
        """Write the report as a page, where that is asked for, and have the task's link lead to it. Where that cannot be the
        log says so, and the task does not fail: its work is done, or its failure is another one."""
        self.report_link = self.address_of_report(context)
        if self.report_html:
            try:
                report.to_html(self.report_html)
            except (OSError, TaktlineError) as error:
                self.log.error("the report could not be written: %s", error)
            else:
                self.report_link = self.report_url or self.report_link
                self.log.info("report: %s", self.report_html)

    def address_of_report(self, context: Any) -> str:
        """Where Airflow shows the report."""
        ti = context["ti"]
        address = conf.get("api", "base_url", fallback="").rstrip("/")
        return str(address + report_path(ti.dag_id, ti.run_id, ti.task_id, ti.map_index))

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """SIGTERM and the task's timeout unwind what runs in here, and end the task for a retry to go on from."""
        timed_out = False

        def time_is_up(number: int, frame: Any) -> None:
            nonlocal timed_out
            timed_out = True
            raise Interrupted

        # Airflow's own exception would count as a failure of the step that it happens to interrupt.
        limited = self.execution_timeout and threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGALRM, time_is_up) if limited else None
        self._running = True
        try:
            yield
        except Interrupted:
            if timed_out:
                raise AirflowTaskTimeout(f"timeout after {self.execution_timeout}{self._goes_on()}") from None
            raise AirflowException(f"stopped by SIGTERM{self._goes_on()}") from None
        finally:
            self._running = False
            if limited:
                signal.signal(signal.SIGALRM, before)

    def _goes_on(self) -> str:
        return "; a retry goes on from the journal" if self.journal else ""

    def on_kill(self) -> None:
        """The task is to end: "mark failed", a shutdown. Airflow calls this inside its handler of SIGTERM."""
        if self._running:
            self._running = False  # a second SIGTERM must not disturb the cleaning up
            raise Interrupted


@contextmanager
def _wrong_use_is_not_retried() -> Iterator[None]:
    try:
        yield
    except (LineError, ResumeError, TakenOver) as error:
        raise AirflowFailException(str(error)) from error


def _refuse_unknown(given: Mapping[str, Any], operator: BaseOperator) -> None:
    taken: dict[str, None] = {}
    for kind in type(operator).mro():
        if issubclass(kind, BaseOperator):
            taken |= dict.fromkeys(inspect.signature(kind).parameters)
    for name in given:
        if name not in taken and not name.startswith("_") and name != "default_args":
            raise LineError(f"there is no option {name!r} of a run or of a task{did_you_mean(name, taken)}")


def _check_keywords(option: str, given: Mapping[str, Any] | None, function: Callable[..., Any]) -> None:
    """Raises LineError for a keyword that the function does not take."""
    known = [*inspect.signature(function).parameters][1:]
    for name in given or ():
        if name not in known:
            raise LineError(
                f"{option}=: taktline.{function.__name__} has no option {name!r}{did_you_mean(name, known)}"
            )


def _refuse_hidden_templates(name: str, end: Any, option: str) -> None:
    """Raises LineError for a template inside an object, which nobody fills in: a file would be called so. What a query has
    may be PostgreSQL's own."""
    is_query = isinstance(end, Source) and end.shared
    if isinstance(end, (Source, Sink)) and not is_query and any(mark in end.describe() for mark in TEMPLATE):
        raise LineError(
            f"{name}= is an object, in which no template is filled in: {end.describe()}; give the path as text, with "
            f"{option}= for what else there is to say"
        )


def _is_template(value: Any) -> bool:
    """Whether the value is only known when the task runs: an upstream task's output, or a text with a template."""
    return _is_resolved_later(value) or (isinstance(value, str) and any(mark in value for mark in TEMPLATE))


def _is_resolved_later(value: Any) -> bool:
    return hasattr(value, "iter_references")  # what all of Airflow's promises of a value have


def _not_called(value: Any, *, is_path: bool = False) -> Any:
    """The value for a templated field: Airflow would call what is callable there, and look for templates in records.
    `is_path`: a list is one of paths, which may have templates."""
    value = _path(value)
    if value is None or isinstance(value, str) or _is_resolved_later(value):
        return value
    return [_path(each) for each in value] if is_path and isinstance(value, (list, tuple)) else literal(value)


def _is_path_object(value: Any) -> bool:
    return isinstance(value, (os.PathLike, ObjectStoragePath))


def _path(value: Any) -> Any:
    """A path object as text, that of an object store as its URL with the connection in it; anything else as it is."""
    if isinstance(value, ObjectStoragePath):
        return str(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _as_option(name: str, value: Any) -> Any:
    """What a template has given for an option of a run, as the value that it means."""
    (kind,) = (each.metadata["flag"] for each in fields(Options) if each.name == name)
    if not isinstance(value, str):
        return value
    if value in ("", "None"):
        return None
    try:
        if kind == "switch":
            return {"true": True, "false": False}[value.lower()]
        if kind in ("int", "float"):
            return float(value) if kind == "float" else int(value)
    except (KeyError, ValueError):
        raise LineError(f"{name}={value!r}: its template gave this, which is no {kind}") from None
    return int(value) if kind == "amount" and value.isdigit() else value


def _folder_beside(sink: Any, conn_id: str | None) -> str:
    """The folder that a sink's file, folder of parts or object is in. Raises LineError where a journal cannot be there."""
    place = _written(sink) if isinstance(sink, Sink) else _path(sink)
    if isinstance(place, str) and place != "-":
        if place.partition("://")[0].lower() in CONDITIONAL_SCHEMES:
            return (through(conn_id, place) if conn_id is not None else place).rstrip("/").rpartition("/")[0]
        here = _urls.local(place)
        if here is not None and conn_id is None:  # with a connection it is a table
            return os.path.dirname(os.path.abspath(here.rstrip("/")))
    what = repr(place) if isinstance(place, str) else _named(sink)
    raise LineError(
        f"journal=True puts the journal beside the sink, and {what} is no file, nor at s3:// or gs://; name a folder: "
        'journal="/…/"'
    )


def _known_now(path: Any) -> Any:
    """A path as far as it is known when the DAG is parsed: something stands for each template in it."""
    if path is True:
        return "a file beside the sink"
    if not isinstance(path, str) or not _is_template(path):
        return None if _is_resolved_later(path) else path or None
    suffix = ".jsonl" if path.endswith(("}}", "%}")) else ""
    return re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "_", path) + suffix


def _make_folder_of(path: Any) -> None:
    """Make the folder of a file that is to be written, where it is one here: a task begins on a machine where nothing is."""
    if not isinstance(path, (str, os.PathLike)) or (name := os.fspath(path)) == "-":
        return
    if name.startswith("file://") or "://" not in name:
        here = check_at(name)
        assert here is not None  # it is a file
        try:
            os.makedirs(folder := os.path.dirname(os.path.abspath(here)), exist_ok=True)
        except OSError as error:
            raise refusal(error, f"the folder {folder!r} of {name!r} cannot be made", folder) from error


def _assets(end: Any) -> list[Asset]:
    """The asset that a source or sink is: a path or URL that is the same in every run, as far as that is known here."""
    end = _written(end) if isinstance(end, Sink) else _path(end)
    if not isinstance(end, str) or any(mark in end for mark in (*TEMPLATE, "*", "?", "[")):
        return []
    uri = end
    if os.path.isabs(end):
        uri = Path(end).as_uri()
    elif "://" in end:
        scheme, _, rest = end.partition("://")
        place, slash, path = rest.partition("/")
        # Airflow takes no other characters, and nothing behind a "#".
        uri = NOT_IN_ASSETS.sub(lambda found: quote(found[0]), f"{scheme}://{place.rpartition('@')[2]}{slash}{path}")
    else:
        return []
    try:
        return [Asset(uri)]
    except ValueError:  # Airflow has rules of its own for some schemes, and for lengths: then it is none
        return []


def _send_dag_files_by_value() -> None:
    """Steps that stand in a DAG file go to the workers as they are: the module's name exists in this process alone."""
    import cloudpickle

    for name, module in list(sys.modules.items()):
        if name.startswith(DAG_MODULE):
            cloudpickle.register_pickle_by_value(module)


def _facts(report: Report, ends: Mapping[str, Any]) -> dict[str, Any]:
    """A report as it is handed on to other tasks: plain values, with what was read and where the results are."""
    return {**json.loads(report.to_json()), **ends}


def _written(sink: Any) -> str | None:
    """Path or URL of what a sink writes, as another task can read it; None where it is something else."""
    places = sink.writes() if isinstance(sink, Sink) and not sink.shared else []
    return str(places[0]) if len(places) == 1 else None


def _named(end: Any) -> str:
    if end is None:
        return "nowhere"
    if isinstance(end, str):
        return _urls.shown(end)
    describe = getattr(end, "describe", None)
    return describe() if callable(describe) else type(end).__name__
