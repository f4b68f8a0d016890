"""The command `taktline`. Results go to standard output where asked; everything else goes to standard error."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from functools import partial, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from taktline import Line, LineError, ResumeError, SourceError, TaktlineError, __version__
from taktline._excerpts import harmless
from taktline._files import check_at, write_at
from taktline._recipe.options import PLANNED, Options
from taktline.abc import Live, Sink, Source, Unread
from taktline.cli import standard
from taktline.cli.completing import paths, targets
from taktline.cli.wording import Asked, as_flags

if TYPE_CHECKING:
    from taktline import Report, Run

DONE, FAILED, WRONG_USAGE, INCOMPLETE, HUNG_UP, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 129, 130, 143
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
CALLS = 5  # of the user's own functions that are shown where one fails
_ENDS = {"Ctrl-C": INTERRUPTED, "SIGTERM": TERMINATED, "SIGHUP": HUNG_UP}


_asked = Asked()  # by this command


class Terminated(KeyboardInterrupt):
    """A signal to end has arrived, named as people call it: unwind and clean up, and end with a code of its own. Any other
    KeyboardInterrupt a step has raised."""


def main() -> None:
    """Entry point of the command."""
    sys.exit(run_main(sys.argv[1:]))


def run_main(arguments: list[str]) -> int:
    """The command with these arguments; its exit code."""
    for number in _ending():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_end)
    standard.fill()
    try:
        code = commands.main(arguments, prog_name="taktline", standalone_mode=False)
        return int(code or DONE)
    except _Raised as raised:
        return _code_of(raised.error)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.Abort as aborted:  # which click makes of what ends a command early
        return _code_of(aborted.__cause__ or aborted)
    except (Exception, KeyboardInterrupt) as error:
        return _code_of(error)


def _code_of(error: BaseException) -> int:
    """Tell what ended the command; its exit code."""
    if isinstance(error, click.ClickException):
        error.show(sys.stderr)
        return WRONG_USAGE
    if isinstance(error, Terminated):
        _tell(f"stopped by {error}; nothing was written")
        return _ENDS[str(error)]
    if isinstance(error, BrokenPipeError) and not hasattr(error, "__taktline__"):
        standard.empty(1)  # whoever read our standard output has had enough
        return FAILED
    if isinstance(error, _WrongUsage):
        error = error.cause
        _tell(_described(error))
        return WRONG_USAGE
    _tell(_described(error))
    return WRONG_USAGE if isinstance(error, (LineError, ResumeError)) else FAILED


class _Commands(click.Group):
    """Click would take an EOFError or a KeyboardInterrupt that a step raises for Ctrl-C, and end in silence where a step
    meets a broken pipe."""

    def invoke(self, ctx: click.Context) -> Any:
        """The command, whose exceptions go up as they are."""
        try:
            return super().invoke(ctx)
        except (EOFError, KeyboardInterrupt, OSError) as error:
            raise _Raised(error) from error


class _Raised(Exception):
    """Carries what a command raised."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class _WrongUsage(Exception):
    """Something is wrong that was found before anything ran."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextmanager
def _before_anything_runs() -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise _WrongUsage(error) from error


def _on_end(number: int, frame: Any) -> None:
    raise Terminated(_called(number))


def _called(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _ending() -> list[int]:
    """The signals that end a command; a terminal's end (SIGHUP) only where nohup has not said that it does not."""
    hung_up = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *hung_up]


def _tell(text: str) -> None:
    standard.say(harmless(text, keep="\n\t"))


def _described(error: BaseException) -> str:
    """An error for the terminal: what happened, to which record and step, where in the user's code, what to do."""
    place = getattr(error, "__taktline__", None)
    code = getattr(error, "code", "TK200")
    if isinstance(error, TaktlineError):
        told = (str(error) or type(error).__name__).split("\n")
        # What is shown of a record is the user's own, whatever it looks like.
        told = [each if each.lstrip().startswith("record ") else as_flags(each) for each in told]
        return "\n".join([f"error {error.code}: {told[0]}", *told[1:]])
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    if place is None:
        lines = [f"error TK000: {what}"]
        if source := _own_line(error, ""):
            lines.append(f"  at {source}")
        return "\n".join([*lines, *(f"  {note}" for note in getattr(error, "__notes__", ()))])
    lines = [
        f"error {code if isinstance(code, str) else 'TK200'}: step {place.step!r} failed on record {place.index:,}"
    ]
    lines.append(f"  {what}")
    if source := _own_line(error, place.traceback):
        lines.append(f"  at {source}")
    lines.append(f"  record  {place.excerpt}")
    if isinstance(error, KeyboardInterrupt):
        lines.append("  next    have the step raise another exception: this one means that somebody has pressed Ctrl-C")
    else:
        lines.append(
            "  next    keep such records aside: --dead-letters failed.jsonl, or leave them out: --on-error skip"
        )
        if _asked.source and _asked.source != "-":
            lines.append(f"          try this one: {_asked.command('check', '--record', str(place.index))}")
    return "\n".join(lines)


def _is_installed(path: str) -> bool:
    """Whether a file is Python's own or of an installed package, or none that is here, such as compiled code."""
    parts = path.split(os.sep)
    return (
        "site-packages" in parts
        or path.startswith(os.path.dirname(os.__file__))
        or path.endswith((".pyx", ".pxi", ".pxd"))
    )


def _own_line(error: BaseException, text: str) -> str:
    """The line of the user's code that raised, from the worker's traceback or the exception's own, and below it those that
    led there."""
    import re
    import traceback

    text = text or "".join(traceback.format_tb(error.__traceback__))
    found = re.findall(r'File "([^"]+)", line (\d+), in .*\n(?:    (.*)\n)?', text)
    # What called taktline (click, the interpreter) stands before its frames, what it called behind them.
    ours = [n for n, each in enumerate(found) if each[0].startswith((_OURS, "<taktline"))]
    own = found[ours[-1] + 1 :] if ours else found
    # Where a library has raised, the user's call of it is what can be mended.
    own = [each for each in own if not _is_installed(each[0])] or own
    lines = [
        f"{os.path.relpath(path) if os.path.isabs(path) else path}:{number}   {source.strip()}"
        for path, number, source in reversed(own[-CALLS:])
    ]
    return "\n  by ".join(lines)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="taktline")
def commands() -> None:
    """Run plain step functions as an ordered, batched, multi-process line.

    \b
    taktline run steps.py:parse,enrich,score --in orders.jsonl --out scored.jsonl
    taktline compare steps.py:parse,enrich,score --in orders.jsonl
    taktline demo
    """


def _on_records(command: Callable[..., Any]) -> Callable[..., Any]:
    """The steps that a command works with, and where it reads their records."""
    path = 'file, folder, pattern, URL, or "-" for standard input'
    format = click.option("--in-format", help="jsonl, csv, tsv, parquet, arrow or text; default: by suffix")
    delimiter = click.option("--delimiter", metavar="SIGN", help='of CSV, such as ";" or "\\t"')
    quoting = click.option(
        "--quoting/--no-quoting", default=None, help="of CSV: whether cells may stand in double quotes"
    )
    encoding = click.option("--encoding", metavar="NAME", help="of CSV and text, such as latin-1  [default: utf-8]")
    header = click.option(
        "--header", metavar="NAMES", help='of CSV without a row of names: "id,name", or "none" for column1, …'
    )
    columns = click.option("--columns", metavar="NAMES", help='only these, such as "id,name"')
    types = click.option(
        "--types", metavar="TYPES", help='of CSV: "n=int,day=date", or "infer": as the first rows are written'
    )
    filters = click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="TERM",
        help='of Parquet: rows such as "year>=2023"; repeated: all hold',
    )
    path_column = click.option("--path-column", metavar="NAME", help="of a column with the name of each record's file")
    where = click.option("--in", "source", required=True, metavar="PATH", shell_complete=paths, help=path)

    @wraps(command)
    def with_reading(
        *, source: str, in_format: str | None, delimiter: str | None, quoting: bool | None, encoding: str | None,
        header: str | None, columns: str | None, types: str | None, path_column: str | None,
        filters: tuple[str, ...], **given: Any,
    ) -> Any:  # fmt: skip
        names = True if header is None else header != "none" and header.split(",")
        delimiter = "\t" if delimiter == "\\t" else delimiter
        reading = {
            "format": in_format, "delimiter": delimiter, "quoting": quoting, "encoding": encoding, "header": names,
            "columns": None if columns is None else columns.split(","), "types": _types(types),
            "path_column": path_column, "filters": _filters(filters),
        }  # fmt: skip
        with standard.input_apart(source):
            return command(source=source, reading=reading, **given)

    made: Callable[..., Any] = with_reading
    for option in (
        filters,
        path_column,
        types,
        columns,
        header,
        encoding,
        quoting,
        delimiter,
        format,
        where,
        click.argument("target", shell_complete=targets),
    ):
        made = option(made)
    return made


def _on_results(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a command writes results."""
    written = [
        click.option("--out-format", help="jsonl, csv, tsv, parquet, arrow or text; default: by suffix"),
        click.option("--rows", type=int, help="of a folder of parts: results of each"),
        click.option(
            "--partition-by", metavar="NAMES", help='of a folder of parts: columns that make folders, "year,month"'
        ),
        click.option("--mode", help="of a folder that is there already: replace or append"),
        click.option("--codec", help="of Parquet and of a folder of parts, such as zstd or gzip"),
        click.option("--level", type=int, help="of the codec, or of a file packed by its suffix"),
        click.option("--row-group", type=int, help="of Parquet: most rows of a row group"),
    ]

    @wraps(command)
    def with_writing(
        *, out_format: str | None, rows: int | None, partition_by: str | None, mode: str | None, codec: str | None,
        level: int | None, row_group: int | None, **given: Any,
    ) -> Any:  # fmt: skip
        writing = {
            "format": out_format, "rows": rows, "partition_by": partition_by and partition_by.split(","), "mode": mode,
            "codec": codec, "level": level, "row_group": row_group,
        }  # fmt: skip
        return command(writing=writing, **given)

    made: Callable[..., Any] = with_writing
    for option in reversed(written):
        made = option(made)
    return made


def _filters(terms: tuple[str, ...]) -> Any:
    """What --filter says. Raises BadParameter."""
    import json
    import re

    made = []
    for term in terms:
        found = re.fullmatch(r"([^=<>!]+?)\s*(<=|>=|!=|==?|<|>)\s*(.*)", term.strip())
        if found is None:
            raise click.BadParameter(
                f"{term!r}: give column, =, !=, <, <=, > or >=, and a value", param_hint="--filter"
            )
        column, sign, text = found.groups()
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        made.append((column, sign, value))
    return made or None


def _types(named: str | None) -> Any:
    """What --types names. Raises BadParameter."""
    if named is None or named == "infer":
        return named
    from datetime import date, datetime, time
    from decimal import Decimal

    known = {each.__name__.lower(): each for each in (int, float, bool, str, date, datetime, time, Decimal)}
    types = {}
    for each in named.split(","):
        column, _, kind = each.rpartition("=")
        if not column or kind.lower() not in known:
            raise click.BadParameter(
                f'{each!r}: give "infer", or column=type,…; types are {", ".join(known)}', param_hint="--types"
            )
        types[column] = known[kind.lower()]
    return types


class _Amount(click.ParamType):  # type: ignore[type-arg]
    """A whole number of records, or text such as "1GB"."""

    name = "amount"

    def convert(self, value: Any, *_: Any) -> Any:
        return int(value) if str(value).isdigit() else value


def _run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is shown of a run, and every option of a run as a flag, from the table of options."""
    command = _flags([each.name for each in fields(Options)])(command)
    command = click.option("--quiet", is_flag=True, help="no progress, no report")(command)
    return click.option("--json", "as_json", is_flag=True, help="the report as JSON, on standard error")(command)


def _flags(names: Collection[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Some options of a run as flags, from the table of options."""
    return partial(_flagged, names)


def _flagged(names: Collection[str], command: Callable[..., Any]) -> Callable[..., Any]:
    for each in reversed([each for each in fields(Options) if each.name in names]):
        kind, help = each.metadata["flag"], each.metadata["help"]
        flag = "--" + each.name.replace("_", "-")
        if kind == "choice":
            choices = click.Choice(each.metadata["check"].choices)
            command = click.option(
                flag, each.name, type=choices, default=None, help=f"{help}  [default: {each.default}]"
            )(command)
        elif kind in ("int", "float"):
            number = int if kind == "int" else float
            command = click.option(flag, each.name, type=number, default=None, help=help)(command)
        elif kind == "switch":
            command = click.option(f"{flag}/--no-{flag[2:]}", each.name, default=None, help=help)(command)
        elif kind == "path":
            command = click.option(flag, each.name, metavar="PATH", shell_complete=paths, default=None, help=help)(
                command
            )
        elif kind == "function":
            command = click.option(
                flag, each.name, metavar="FUNCTION", shell_complete=targets, default=None, help=help
            )(command)
        elif kind == "amount":
            command = click.option(flag, each.name, metavar="AMOUNT", default=None, help=help, type=_Amount())(command)
        elif kind == "text":
            command = click.option(flag, each.name, default=None, help=f"{help}  [default: {each.default}]")(command)
    return command


@commands.command()
@_on_records
@click.option(
    "--out",
    "sink",
    required=True,
    metavar="PATH",
    shell_complete=paths,
    help='file, URL, folder of parts such as out/, or "-" for standard output',
)
@_on_results
@click.option("--limit", type=click.IntRange(1), help="only the first so many records")
@click.option(
    "--report",
    "saved",
    metavar="PATH",
    shell_complete=paths,
    help="save the report to PATH.json, for taktline report, or PATH.html; also a URL",
)
@_run_options
def run(
    target: str, source: str, sink: str, reading: dict[str, Any], writing: dict[str, Any], limit: int | None,
    saved: str | None, as_json: bool, quiet: bool, **options: Any,
) -> int:  # fmt: skip
    """Run TARGET over the records of a file into another.

    \b
    taktline run steps.py:parse,enrich,score --in orders.jsonl --out scored.jsonl
    taktline run shop.lines:nightly --in 'in/*.csv.gz' --out out.jsonl --on-error skip
    taktline run shop.lines:nightly --in orders.parquet --out out/ --out-format parquet --rows 500000

    TARGET is file.py:function,function,… or module:flow or file.py:flow. Exit code 0: done; 1: failed;
    2: wrong usage, nothing ran; 3: done, but records were left out; 129, 130, 143: stopped by a signal. With --journal, the
    same command goes on where it was stopped or killed.
    """
    from taktline import write
    from taktline.cli.target import function_of

    with standard.output_apart(sink) as out:
        with _before_anything_runs():
            if saved is not None and not saved.endswith((".json", ".html")):
                raise LineError(f"--report {saved!r}: name a .json or .html file")
            saved = _made_later("--report", saved)
            flow, records = _opened(target, source, reading)
            options["setup"] = function_of("--setup", options["setup"])
            writer = write(out, **writing)
            _check_apart(records, writer, options, {"--report": saved})
        if limit is not None and isinstance(records, Live):
            raise LineError(
                f"--limit {limit}: {records.describe()!r} gives records when they come; limit it in its URL"
            )
        if limit is not None:
            records = _First(records, limit)
        return _carried_out(flow, records, writer, options, as_json=as_json, quiet=quiet, saved=saved).code


@commands.command()
@click.argument("letters", metavar="FILE", shell_complete=paths)
@click.argument("target", shell_complete=targets)
@click.option(
    "--out", "sink", required=True, metavar="PATH", shell_complete=paths, help='a new file, or "-" for standard output'
)
@click.option("--out-format", help="jsonl, csv, tsv or text; default: by suffix")
@_run_options
def retry(
    letters: str, target: str, sink: str, out_format: str | None, as_json: bool, quiet: bool, **options: Any
) -> int:
    """Run the dead letters in FILE again; those that still fail stay in it.

    \b
    taktline retry failed.jsonl steps.py:parse,enrich,score --out more.jsonl

    Results go to a file of their own, which must not be there yet. Records that were pickled are unpickled: use only
    files that you trust. Letters of lines that could not be read stay in FILE. Exit code 0: all went well; 3: some still
    fail; else as `taktline run`.
    """
    from taktline import write
    from taktline.cli.again import Again
    from taktline.cli.target import function_of, line_of

    with standard.output_apart(sink) as out:
        with _before_anything_runs():
            flow: Line = line_of(target)
            _asked.target = target
            options["setup"] = function_of("--setup", options["setup"])
            again = Again(letters, options.get("journal"))
            if os.path.isfile(sink) and not again.goes_on:
                raise LineError(f"there is a file {sink!r} already, which may hold results; name a new one")
            if options.get("dead_letters") is not None:
                raise LineError(f"what still fails stays in {letters!r}; leave out --dead-letters")
            writer = write(out, out_format)
            _check_apart(None, writer, options, {"FILE": letters, "FILE's records that fail again": again.pending})
        with again:
            options["dead_letters"] = again.pending
            ended = _carried_out(flow, again.records, writer, options, as_json=as_json, quiet=quiet, letters=letters)
            if not ended.complete:
                return ended.code
            well, still = again.done()
    _tell(
        f"{well + still:,} run again: {well:,} went well, {still:,} still in {letters}"
        if still
        else f"all {well:,} went well"
    )
    if again.unread:
        _tell(
            f"{again.unread:,} of those are lines that could not be read, which no step can be given: mend them where they "
            "were read from, and run that again"
        )
    return INCOMPLETE if still else DONE


def _opened(target: str, source: str, reading: dict[str, Any]) -> tuple[Line, Source]:
    """The line and its records, as a command names them."""
    from taktline import read
    from taktline.cli.target import line_of

    _asked.opens(target, source, reading)
    return line_of(target), read(source, **reading)


class _First(Source):
    """The first so many records of a source."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self._limit = limit

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self._source), self._limit)

    def read(self, unread: list[Unread]) -> Iterator[Any]:
        return islice(self._source.read(unread), self._limit)

    def beside(self, sink: Sink, *, journal: bool) -> Source:
        return _First(self._source.beside(sink, journal=journal), self._limit)

    def about(self) -> int | None:
        try:
            known: int | None = len(self._source)  # type: ignore[arg-type]
        except TypeError:
            known = self._source.about()
        return self._limit if known is None else min(self._limit, known)

    def describe(self) -> str:
        return self._source.describe()

    def reads(self, path: str) -> bool:
        return self._source.reads(path)

    def fingerprint(self) -> Any:
        known = self._source.fingerprint()
        return None if known is None else [known, self._limit]

    def untold(self) -> str:
        return self._source.untold()


class _Ended(NamedTuple):
    code: int
    complete: bool


def _carried_out(
    flow: Line, records: Any, writer: Any, options: dict[str, Any], *, as_json: bool, quiet: bool,
    letters: str | None = None, saved: str | None = None,
) -> _Ended:  # fmt: skip
    """Run it, with progress and signals. `letters`: where the report is to say that dead letters are; `saved`: the file
    that the report goes to."""
    from taktline.views.progress import hidden, view_for

    for flag, wanted in (("--progress", options.get("progress")), ("--json", as_json)):
        if quiet and wanted:
            raise LineError(f"{flag} says how to show what --quiet says is not to be shown; leave one of the two out")
    given = {name: value for name, value in options.items() if value is not None}
    asked = given.pop("progress", None)
    progress = None if quiet else view_for(asked, silent=False)
    run = flow(records, progress=progress or hidden, **given)
    signals = _Signals(run, live=isinstance(records, Live))
    try:
        with signals:
            report = run.drain(writer)
    except BaseException as error:
        if signals.first is None or not isinstance(error, KeyboardInterrupt):  # a step may raise that too
            if saved is not None:
                _save(run.report, saved)
            raise
        report = run.report
    if letters is not None:
        report = replace(report, dead_letters=letters)
    if not quiet:
        _tell(report.to_json() if as_json else _in_flags(report, writer.describe()))
    if saved is not None:
        _save(report, saved)
    if signals.first is not None and not report.complete:
        _tell(f"stopped by {signals.first}; {_what_is_left(report.journal, writer.describe())}")
        return _Ended(_ENDS[signals.first], False)
    return _Ended(INCOMPLETE if report.failed else DONE, True)


def _in_flags(report: Report, out: str) -> str:
    """A report as text, in the words of the command."""
    text = as_flags(str(report))
    if report.dead_lettered and report.dead_letters is not None:
        asked = f"taktline retry {report.dead_letters} TARGET --out PATH"
        text = text.replace(asked, _asked.retry(report.dead_letters, out))
    return text


def _made_later(flag: str, place: str | None) -> str | None:
    """The place of a file that is written at the end, in whatever folder the process is then. Raises LineError where it
    could not be made now."""
    if place is None or (path := check_at(place)) is None:
        return place
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise LineError(f"{flag} {path!r}: there is no folder {folder!r}; make it first")
    if os.path.isdir(path):
        raise LineError(f"{flag} {path!r} is a folder; name a file")
    put_in_place = path.endswith(".json") or not os.path.exists(path)  # else it is written into
    if not os.access(folder if put_in_place else path, os.W_OK):
        raise LineError(f"{flag} {path!r} cannot be written to")
    return os.path.abspath(path)


def _save(report: Report, path: str) -> None:
    try:
        if path.endswith(".html"):
            report.to_html(path)
        else:
            write_at(path, f"{report.to_json()}\n".encode())
    except OSError as error:
        then = "The run itself is done" if report.complete else "The run itself was stopped"
        raise standard.cannot_be_written(f"the report {path!r}", error, then) from error


@commands.command()
@click.argument("saved", metavar="FILE", shell_complete=paths)
@click.option(
    "--html", "page", metavar="PATH", shell_complete=paths, help="write it as one HTML file, to a path or a URL"
)
def report(saved: str, page: str | None) -> None:
    """Show the report of an earlier run, saved by `taktline run --report FILE.json`.

    \b
    taktline report nightly.json --html nightly.html
    """
    import json

    from taktline._observe import pages, web

    _check_apart(None, None, {}, {"FILE": saved, "--html": page})
    page = _made_later("--html", page)
    try:
        with open(saved, encoding="utf-8") as file:
            facts = json.load(file)
        text, fragment = pages.report_text(facts), web.report_html(facts)
    except OSError as error:
        raise LineError(f"{saved!r} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LineError(f"{saved!r} is no report: save one with taktline run --report FILE.json") from error
    print(text)
    if page is not None:
        try:
            write_at(page, web.html_page(facts["name"], fragment).encode())
        except OSError as error:
            raise standard.cannot_be_written(f"the page {page!r}", error, "The report is above") from error


def _what_is_left(journal: str | None, out: str) -> str:
    if journal is not None:
        return "the same command goes on from here"
    if out == "a stream":
        return "what was given out so far is all there is"
    return "no output file was made. With --journal FILE a run that is stopped can go on later"


class _Signals:
    """While a run lasts, the first signal to end lets it finish what is in flight; the second stops it at once."""

    def __init__(self, run: Run, *, live: bool) -> None:
        self._run = run
        self._live = live  # the run itself sees to SIGTERM: at the first one it ends well
        self._before: dict[int, Any] = {}
        self.first: str | None = None

    def __enter__(self) -> None:
        for number in _ending():
            if self._live and number == signal.SIGTERM:
                continue
            self._before[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.first is not None:
            raise KeyboardInterrupt
        self.first = _called(number)
        self._run.stop()
        # Not print(): the signal may have come in the middle of one, and a stream cannot be entered twice.
        above = "\x1b[J" if os.isatty(2) else ""  # of progress, which is drawn from the cursor on
        left = f"{self._run.snapshot().in_flight:,} in flight are finished first"
        with suppress(OSError):  # the terminal is gone
            os.write(2, f"{above}{self.first}, stopping: {left}; once more: at once\n".encode())


def _check_apart(source: Any, sink: Any, options: dict[str, Any], more: dict[str, str | None]) -> None:
    """Raises LineError where two of the files of a command are one."""
    from taktline._run.ends import check_apart

    check_apart(
        source, sink, {"--dead-letters": options.get("dead_letters"), "--journal": options.get("journal"), **more}
    )


_json = click.option("--json", "as_json", is_flag=True, help="JSON in place of the text")


@commands.command()
@_on_records
@click.option("--out", metavar="PATH", shell_complete=paths, help="where a run would write; nothing is written")
@click.option("--length", type=click.IntRange(0), help="how many records there are, for the predicted times")
@_flags(PLANNED)
@_json
def plan(
    target: str, source: str, reading: dict[str, Any], out: str | None, length: int | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Try the first records; say what to do, why, and how long it takes here and on other machines.

    \b
    taktline plan steps.py:parse,enrich,score --in orders.jsonl --length 1000000
    """
    from taktline import write
    from taktline.cli.target import function_of

    with _before_anything_runs():
        flow, records = _opened(target, source, reading)
        sink = write(out) if out is not None else None
        options["setup"] = function_of("--setup", options["setup"])
    given = {name: value for name, value in options.items() if value is not None}
    found = flow.plan(records, sink, length=length, **given)
    print(found.to_json() if as_json else as_flags(str(found)), flush=True)


@commands.command()
@_on_records
@click.option(
    "--limit", type=click.IntRange(1), help="the first so many records; 20,000 by default, 1,000 for steps over columns"
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="how often, in turn")
@click.option("--workers", type=click.IntRange(1), help="worker processes; default: the usable cores")
@click.option("--export", metavar="FILE", help="write it to FILE.md, FILE.json or FILE.html too")
@click.option("--on-error", type=click.Choice(["raise", "skip"]), help="a record that fails  [default: raise]")
@_flags(("setup",))
@_json
def compare(
    target: str, source: str, reading: dict[str, Any], limit: int, rounds: int, workers: int | None,
    export: str | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Measure the four techniques on your own steps, and the standard library's ways beside them.

    \b
    taktline compare steps.py:parse,enrich,score --in orders.jsonl --limit 50000
    """
    from taktline.cli.target import function_of

    with _before_anything_runs():
        if export is not None and not export.endswith((".md", ".json", ".html")):
            raise LineError(f"--export {export!r}: name a .md, .json or .html file")
        flow, records = _opened(target, source, reading)
        _check_apart(records, None, {}, {"--export": export})
        options["setup"] = function_of("--setup", options["setup"])
    if export is not None:
        export = os.path.abspath(export)  # a step may change the folder
    given = {name: value for name, value in options.items() if value is not None}
    _print_comparison(
        flow, records, limit=limit, rounds=rounds, workers=workers, export=export, as_json=as_json, **given
    )


@commands.command()
@_on_records
@click.option("--limit", default=1_000, show_default=True, type=click.IntRange(1), help="the first so many records")
@click.option("--record", type=click.IntRange(0), help="only this record, by its index, with its value after each step")
@_flags(("on_error", "dead_letters", "setup"))
@_json
def check(
    target: str, source: str, reading: dict[str, Any], limit: int, record: int | None, as_json: bool, **options: Any
) -> int:  # fmt: skip
    """Tell before a long run what would go wrong: in steps, records, batches and workers.

    \b
    taktline check steps.py:parse,enrich,score --in orders.jsonl
    taktline check steps.py:parse --in orders.jsonl --record 48211

    Exit code 0: fine, or advice only; 1: something was found; 2: wrong usage.
    """
    from taktline.cli.target import function_of

    with standard.output_apart("-") as out, _before_anything_runs():
        flow, records = _opened(target, source, reading)
        options["setup"] = function_of("--setup", options["setup"])
        given = {name: value for name, value in options.items() if value is not None}
        found = flow.check(records, limit=limit, record=record, **given)
        assert not isinstance(out, str)
        out.write(f"{found.to_json() if as_json else as_flags(str(found))}\n".encode())
        out.flush()
    return DONE if found.fine else FAILED


def _print_comparison(
    flow: Line, records: Any, *, export: str | None = None, as_json: bool = False, **options: Any
) -> None:  # fmt: skip
    import shutil

    from taktline._observe import pages

    table = flow.compare(records, **options)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else pages.WIDTH
    print(table.to_json() if as_json else pages.comparison_text(table.to_dict(), columns), flush=True)
    if export is not None:
        try:
            if export.endswith(".html"):
                table.to_html(export)
            else:
                with open(export, "w", encoding="utf-8") as file:
                    file.write(table.to_markdown() if export.endswith(".md") else table.to_json())
        except OSError as error:
            raise standard.cannot_be_written(f"the table {export!r}", error, "It is above") from error


@commands.command()
@click.option("--limit", type=click.IntRange(1), help="only the first so many of the 336,776 flights")
@click.option("--part", default=20_000, show_default=True, type=click.IntRange(1), help="flights for the comparison")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="rounds of the comparison")
def demo(limit: int | None, part: int, rounds: int) -> None:
    """Show the main job on real data: the flights that left New York City in 2013.

    Compares the techniques on a part of them, then runs all of them with the technique that pays.
    """
    from taktline.cli import demo as flights
    from taktline.views.progress import hidden, view_for

    with _before_anything_runs():
        flow = flights.line_for_flights()
        rows = flights.flight_rows(limit)
    print(f"{len(rows):,} flights out of New York City in 2013, as text rows; steps: {flow.name}\n", flush=True)
    _print_comparison(flow, rows, limit=part, rounds=rounds)
    print(f'\nall {len(rows):,} flights, how="auto":\n', flush=True)
    late = flights.Tally()
    report = flow.run(rows, late, progress=view_for(None, silent=False) or hidden)
    print(f"{report}\n\n{late}")


@commands.command()
@click.option("--astro", "folder", required=True, metavar="DIR", help="write an Astro project into this folder")
def init(folder: str) -> None:
    """Write a project to start from.

    \b
    taktline init --astro orders

    The folder must be new or empty. With --astro: all that `astro dev start` and `astro deploy` need, with DAGs that
    run lines, and tests.
    """
    from pathlib import Path

    from taktline.cli.projects import write_astro

    written = write_astro(Path(folder))
    _tell(f"{len(written)} files in {folder}\n next  cd {folder} && astro dev start")


@commands.command()
def doctor() -> None:
    """Look at this machine: cores, memory, limits, and whether workers start here."""
    import platform
    import resource
    from time import perf_counter

    from taktline import line
    from taktline._observe.measures import duration, size
    from taktline._recipe.options import usable_cores, usable_memory

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    print(f"taktline   {__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    print(f"cores      {usable_cores()} usable of {os.cpu_count()}")
    print(f"memory     {size(usable_memory())} usable")
    print(f"files      {soft:,} may be open")
    absolute: Line[int, int] = line(abs)
    starts: tuple[Literal["launch", "fork", "threads"], ...] = ("launch", "fork", "threads")
    for start in starts:
        began = perf_counter()
        good = list(absolute(range(-8, 0), how="line", workers=2, start=start)) == [8, 7, 6, 5, 4, 3, 2, 1]
        print(
            f"workers    start={start!r}: {'they work' if good else 'WRONG RESULTS'}, {duration(perf_counter() - began)}"
        )
    report = absolute.run(range(8), how="line", workers=2)
    print(f"           start='auto' in this process: {report.reasons[-1]}")


if __name__ == "__main__":
    main()
