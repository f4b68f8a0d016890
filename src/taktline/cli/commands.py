"""The command `taktline`. Results go to standard output where asked; everything else goes to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from taktline import InUse, Line, LineError, ResumeError, SourceError, __version__
from taktline._excerpts import harmless
from taktline._files import check_at, is_there, write_at
from taktline._observe import pages
from taktline._recipe.options import PLAN_OPTIONS, Options
from taktline.abc import Live, Source
from taktline.cli import standard
from taktline.cli.completing import errors, paths, targets
from taktline.cli.ending import EXIT_CODES, Signals, Terminated, caught
from taktline.cli.failures import described, fitting
from taktline.cli.first import First
from taktline.cli.flags import flags, on_records, on_results, only_one, run_options
from taktline.cli.wording import Asked, as_flags, in_flags

if TYPE_CHECKING:
    from taktline import Comparison, Report, Run

DONE, FAILED, WRONG_USAGE, INCOMPLETE = range(4)
FIRST_COMMANDS = (  # in a new project
    "taktline check steps.py:flow --in orders.jsonl",
    "taktline run steps.py:flow --in orders.jsonl --out labels.jsonl",
    "python -m pytest",
)


_asked = Asked()  # by this command


def main() -> None:
    """Entry point of the command."""
    sys.exit(run_main(sys.argv[1:]))


def run_main(arguments: list[str]) -> int:
    """The command with these arguments; its exit code."""
    with caught():
        standard.fill()
        _asked.begins(arguments)
        try:
            code = commands.main(arguments, prog_name="taktline", standalone_mode=False)
            return int(code or DONE)
        except _Raised as raised:
            return _code_of(raised.error)
        except click.exceptions.Exit as ended:
            return ended.exit_code
        except click.Abort as aborted:  # which click makes of what ends a command early
            return _code_of(aborted.__cause__ or aborted)
        except OSError as error:  # of no command: the version could not be shown
            standard.empty(1)
            return _code_of(standard.cannot_be_written("standard output", error))
        except (Exception, KeyboardInterrupt) as error:
            return _code_of(error)


def _code_of(error: BaseException) -> int:
    """Tell what ended the command; its exit code."""
    if isinstance(error, click.ClickException):
        error.show(sys.stderr)
        return WRONG_USAGE
    if isinstance(error, Terminated):
        _tell(f"stopped by {error}; nothing was written")
        return EXIT_CODES[str(error)]
    if isinstance(error, BrokenPipeError) and not hasattr(error, "__taktline__"):
        standard.empty(1)  # whoever read our standard output has had enough
        return FAILED
    if isinstance(error, _WrongUsage):
        error = error.cause
        _tell(fitting(described(error, _asked), sys.stderr))
        return WRONG_USAGE
    _tell(fitting(described(error, _asked), sys.stderr))
    if isinstance(error, InUse):  # it may be started again when the other run has ended
        return FAILED
    return WRONG_USAGE if isinstance(error, (LineError, ResumeError)) else FAILED


def _show_help(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        standard.show(ctx.get_help())
        ctx.exit()


class _Command(click.Command):
    """Click would write its help past the streams as they are set up here."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """The option that shows it."""
        if (option := super().get_help_option(ctx)) is not None:
            option.callback = _show_help
        return option


class _Commands(_Command, click.Group):
    """Click would take an EOFError or a KeyboardInterrupt that a step raises for Ctrl-C, and end in silence where a step
    meets a broken pipe."""

    command_class = _Command

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
        if error.away:  # the command may be started again
            raise
        raise _WrongUsage(error) from error


def _tell(text: str) -> None:
    standard.say(harmless(text, keep="\n\t"))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="taktline")
def commands() -> None:
    """Run plain step functions as an ordered, batched, multi-process line.

    \b
    taktline run steps.py:parse,enrich,score --in orders.jsonl --out scored.jsonl
    taktline compare steps.py:parse,enrich,score --in orders.jsonl
    taktline demo
    """


@commands.command()
@on_records
@click.option(
    "--out",
    "sink",
    required=True,
    multiple=True,
    callback=only_one,
    metavar="PATH",
    shell_complete=paths,
    help='file, URL, folder of parts such as out/, or "-" for standard output',
)
@on_results
@click.option("--limit", type=click.IntRange(1), help="only the first so many records")
@click.option(
    "--serve",
    metavar="PORT",
    help="show how it is at http://127.0.0.1:PORT/, with /healthz and /metrics; 0.0.0.0:PORT to all",
)
@click.option("--otel", is_flag=True, help="tell OpenTelemetry of the run: taktline[otel], and an SDK")
@click.option(
    "--report",
    "saved",
    metavar="PATH",
    shell_complete=paths,
    help="save the report to PATH.json, for taktline report, or PATH.html; also a URL",
)
@run_options
def run(
    target: str, source: str, sink: str, reading: dict[str, Any], writing: dict[str, Any], limit: int | None,
    serve: str | None, otel: bool, saved: str | None, as_json: bool, quiet: bool, **options: Any,
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
            _asked.sets_up(options["setup"])
            options["setup"] = function_of("--setup", options["setup"])
            writer = write(out, **writing)
            _check_apart(records, writer, options, {"--report": saved})
            if serve is not None:
                from taktline.cli.serving import address

                address(serve)
        if limit is not None and isinstance(records, Live):
            raise LineError(
                f"--limit {limit}: {records.describe()!r} gives records when they come; limit it in its URL"
            )
        if limit is not None:
            records = First(records, limit)
        if otel:
            from taktline.otel import Telemetry

            options["observer"] = Telemetry()
        _asked.out_format = writing["format"]
        return _carried_out(flow, records, writer, options, as_json=as_json, quiet=quiet, saved=saved, serve=serve).code


@commands.command()
@click.argument("letters", metavar="FILE", shell_complete=paths)
@click.argument("target", shell_complete=targets)
@click.option(
    "--out", "sink", required=True, metavar="PATH", shell_complete=paths, help='a new file, or "-" for standard output'
)
@click.option("--out-format", help="jsonl, csv, tsv or text; default: by suffix")
@run_options
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
            _asked.sets_up(options["setup"])
            options["setup"] = function_of("--setup", options["setup"])
            again = Again(letters, options.get("journal"))
            if options.get("dead_letters") is not None:
                raise LineError(f"what still fails stays in {letters!r}; leave out --dead-letters")
            writer = write(out, out_format)
            _asked.out_format = out_format
            taken = os.path.isfile(sink) or any("://" in each and is_there(each) for each in writer.writes())
            if taken and not again.goes_on:
                raise LineError(f"there is a file {sink!r} already, which may hold results; name a new one")
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


class _Ended(NamedTuple):
    code: int
    complete: bool


def _carried_out(
    flow: Line, records: Any, writer: Any, options: dict[str, Any], *, as_json: bool, quiet: bool,
    letters: str | None = None, saved: str | None = None, serve: str | None = None,
) -> _Ended:  # fmt: skip
    """Run it, with progress and signals. `letters`: where the report is to say that dead letters are; `saved`: the file
    that the report goes to; `serve`: where its health is to be seen."""
    from taktline.views.progress import hidden, view_for

    for flag, wanted in (("--progress", options.get("progress")), ("--json", as_json)):
        if quiet and wanted:
            raise LineError(f"{flag} says how to show what --quiet says is not to be shown; leave one of the two out")
    given = {name: value for name, value in options.items() if value is not None}
    asked = given.pop("progress", None)
    progress = None if quiet else view_for(asked, silent=False)
    run = flow(records, progress=progress or hidden, **given)
    with _health(serve, run, given.get("stall", Options().stall)):
        return _run_to_its_end(run, records, writer, as_json=as_json, quiet=quiet, letters=letters, saved=saved)


@contextmanager
def _health(serve: str | None, run: Run, stall: float | None) -> Iterator[None]:
    """The page that tells how the run is, where that is asked for."""
    if serve is None:
        yield
        return
    from taktline.cli.serving import HealthPage

    health = HealthPage(serve, stall)
    health.watch(run.snapshot)
    _tell(f"serving {health.url}, {health.url}healthz and {health.url}metrics")
    try:
        yield
    finally:
        health.close()


def _run_to_its_end(
    run: Run, records: Any, writer: Any, *, as_json: bool, quiet: bool, letters: str | None, saved: str | None
) -> _Ended:
    signals = Signals(run, live=isinstance(records, Live))
    try:
        with signals:
            report = run.drain(writer)
    except BaseException as error:
        if signals.first is None or not isinstance(error, KeyboardInterrupt):  # a step may raise that too
            if saved is not None:
                _save(_as_asked(run.report, letters, writer.describe()), saved)
            raise
        report = run.report
    report = _as_asked(report, letters, writer.describe())
    if not quiet:
        _tell(report.to_json() if as_json else pages.report_text(report.to_dict(), standard.columns(sys.stderr)))
    if saved is not None:
        _save(report, saved)
    if signals.first is not None and not report.complete:
        _tell(f"stopped by {signals.first}; {_what_is_left(report.journal, writer.describe())}")
        return _Ended(EXIT_CODES[signals.first], False)
    return _Ended(INCOMPLETE if report.failed else DONE, True)


def _as_asked(report: Report, letters: str | None, out: str) -> Report:
    """A report in the words of the command, with commands to be pasted."""
    letters = letters or report.dead_letters
    again = _asked.retry(letters, out) if report.retry and letters is not None else ""
    return replace(in_flags(report), dead_letters=letters, retry=again, command=_asked.words)


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

    from taktline._observe import web

    _check_apart(None, None, {}, {"FILE": saved, "--html": page})
    page = _made_later("--html", page)
    try:
        with open(saved, encoding="utf-8") as file:
            facts = json.load(file)
        text = pages.report_text(facts, standard.columns(sys.stdout), as_flags)
        fragment = web.report_html(facts)
    except OSError as error:
        raise LineError(f"{saved!r} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LineError(f"{saved!r} is no report: save one with taktline run --report FILE.json") from error
    standard.show(text)
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
    return "no output file was made\n  next    with --journal FILE a run that is stopped can go on later"


def _check_apart(source: Any, sink: Any, options: dict[str, Any], more: dict[str, str | None]) -> None:
    """Raises LineError where two of the files of a command are one."""
    from taktline._run.ends import check_apart

    check_apart(
        source, sink, {"--dead-letters": options.get("dead_letters"), "--journal": options.get("journal"), **more}
    )


_json = click.option("--json", "as_json", is_flag=True, help="JSON in place of the text")


@commands.command()
@on_records
@click.option("--out", metavar="PATH", shell_complete=paths, help="where a run would write; nothing is written")
@click.option("--length", type=click.IntRange(0), help="how many records there are, for the predicted times")
@flags(PLAN_OPTIONS)
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
    text = pages.plan_text(found.to_dict(), standard.columns(sys.stdout), as_flags)
    standard.show(found.to_json() if as_json else text)


@commands.command()
@on_records
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="the first so many records; 20,000 by default, 1,000 for steps over columns, "
    "1,000,000 rows in whole row groups where they go as tables",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="how often, in turn")
@click.option("--workers", type=click.IntRange(1), help="worker processes; default: the usable cores")
@click.option("--export", metavar="FILE", help="write it to FILE.md, FILE.json or FILE.html too")
@click.option("--on-error", type=click.Choice(["raise", "skip"]), help="a record that fails  [default: raise]")
@flags(("setup",))
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
        export = _made_later("--export", export)
        options["setup"] = function_of("--setup", options["setup"])
    given = {name: value for name, value in options.items() if value is not None}
    _print_comparison(
        flow, records, limit=limit, rounds=rounds, workers=workers, export=export, as_json=as_json, **given
    )


@commands.command()
@on_records
@click.option("--limit", default=1_000, show_default=True, type=click.IntRange(1), help="the first so many records")
@click.option("--record", type=click.IntRange(0), help="only this record, by its index, with its value after each step")
@flags(("on_error", "dead_letters", "setup", "on"))
@_json
def check(
    target: str, source: str, reading: dict[str, Any], limit: int, record: int | None, as_json: bool, **options: Any
) -> int:
    """Tell before a long run what would go wrong: in steps, records, batches and workers.

    \b
    taktline check steps.py:parse,enrich,score --in orders.jsonl
    taktline check steps.py:parse --in orders.jsonl --record 48211

    Exit code 0: fine, or advice only; 1: something was found; 2: wrong usage.
    """
    from taktline.cli.target import function_of

    width, encoding = standard.columns(sys.stdout), sys.stdout.encoding
    with standard.output_apart("-") as out, _before_anything_runs():
        flow, records = _opened(target, source, reading)
        options["setup"] = function_of("--setup", options["setup"])
        given = {name: value for name, value in options.items() if value is not None}
        found = flow.check(records, limit=limit, record=record, **given)
        assert not isinstance(out, str)
        text = found.to_json() if as_json else pages.check_text(found.to_dict(), width, as_flags)
        out.write(f"{text}\n".encode(encoding, standard.PLAIN))
        out.flush()
    return DONE if found.fine else FAILED


def _print_comparison(
    flow: Line, records: Any, *, export: str | None = None, as_json: bool = False, **options: Any
) -> Comparison:
    table = flow.compare(records, **options)
    text = pages.comparison_text(table.to_dict(), standard.columns(sys.stdout))
    standard.show(table.to_json() if as_json else text)
    if export is not None:
        try:
            if export.endswith(".html"):
                table.to_html(export)
            else:
                with open(export, "w", encoding="utf-8") as file:
                    file.write(table.to_markdown() if export.endswith(".md") else table.to_json())
        except OSError as error:
            raise standard.cannot_be_written(f"the table {export!r}", error, "It is above") from error
    return table


@commands.command()
@click.option("--limit", type=click.IntRange(1), help="only the first so many of the 336,776 flights")
@click.option("--part", default=6_000, show_default=True, type=click.IntRange(1), help="flights for the comparison")
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help="rounds of the comparison")
@click.option(
    "--pages", "folder", metavar="DIR", help="write the pages with pictures here  [default: a new folder in /tmp]"
)
def demo(limit: int | None, part: int, rounds: int, folder: str | None) -> None:
    """Show the main job on real data: the flights that left New York City in 2013.

    Compares the techniques on a part of them, then runs all of them with the technique that pays. Both have a page with
    pictures. Some 20 seconds on two cores; --part 20000 --rounds 3 measures more, and takes longer.
    """
    import tempfile
    from pathlib import Path

    from taktline.cli import demo as flights
    from taktline.views.progress import hidden, view_for

    with _before_anything_runs():
        flow = flights.line_for_flights()
        rows = flights.flight_rows(limit)
        pages = Path(folder or tempfile.mkdtemp(prefix="taktline-demo-")).absolute()
        try:
            pages.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LineError(f"the folder {folder!r} for the pages cannot be made: {error.strerror or error}") from error
    standard.show(f"{len(rows):,} flights out of New York City in 2013, as text rows; steps: {flow.name}\n")
    compared = _print_comparison(flow, rows, limit=part, rounds=rounds)
    standard.show(f'\nall {len(rows):,} flights, how="auto":\n')
    late = flights.Tally()
    report = flow.run(rows, late, progress=view_for(None, silent=False) or hidden)
    standard.show(f"{report}\n\n{late}")
    compared.to_html(pages / "compared.html")
    report.to_html(pages / "run.html")
    standard.show(f"\nthe same with pictures, for a browser:\n  {pages / 'compared.html'}\n  {pages / 'run.html'}")


@commands.command()
@click.argument("name", required=False, metavar="[NAME]", shell_complete=paths)
@click.option("--astro", "astro", metavar="DIR", help="write an Astro project into this folder")
@click.option("--airflow", metavar="DIR", help="add a DAG to the Airflow or Astro project in this folder")
def init(name: str | None, astro: str | None, airflow: str | None) -> None:
    """Write a project to start from, or add to one.

    \b
    taktline init orders
    taktline init --astro orders
    taktline init --airflow .

    The folder must be new or empty. It gets steps.py with a line, orders.jsonl with some records, and test_steps.py. With
    --astro: all that `astro dev start` and `astro deploy` need, with DAGs that run lines, and tests. With --airflow, to a
    project that is there: dags/nightly_orders.py, its steps in include/lines.py and a sample of data; nothing is replaced.
    """
    import shlex
    from pathlib import Path

    from taktline.cli.projects import add_to_airflow, write_astro, write_project

    if sum(each is not None for each in (name, astro, airflow)) != 1:
        raise click.UsageError(
            "name one folder: taktline init NAME, taktline init --astro DIR, or taktline init --airflow DIR"
        )
    if airflow is not None:
        names = "".join(f"\n  {path}" for path in add_to_airflow(Path(airflow)))
        _tell(f"written:{names}\n next  airflow dags test nightly_orders")
        return
    folder = name or astro or ""
    if astro is not None:
        written = write_astro(Path(folder))
        _tell(f"{len(written)} files in {folder}\n next  cd {shlex.quote(folder)} && astro dev start")
        return
    written = write_project(Path(folder))
    there = [f"cd {shlex.quote(folder)}", *FIRST_COMMANDS]
    _tell(f"{', '.join(path.name for path in written)} in {folder}\n next  " + "\n       ".join(there))


@commands.command()
@click.argument("name", required=False, shell_complete=errors)
def explain(name: str | None) -> None:
    """Tell at length what an error means, why it comes, and what to do. NAME is its code or its class.

    \b
    taktline explain TK310
    taktline explain WorkerDied
    """
    from taktline.cli.explaining import explanation_of, explanations

    if name is None:
        standard.show("\n".join(f"{each.code}  {each.name}" for each in explanations()))
        return
    found = explanation_of(name)
    width = standard.columns(sys.stdout)
    told = (
        part if part.startswith("    ") else pages.folded(part.replace("\n", " "), 0, width)
        for part in found.text.split("\n\n")
    )
    standard.show("\n\n".join([f"{found.code} {found.name}", *told]))


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
    _show_fact(
        "taktline", f"{__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    _show_fact("cores", f"{usable_cores()} usable of {os.cpu_count()}")
    _show_fact("memory", f"{size(usable_memory())} usable")
    _show_fact("files", f"{soft:,} may be open")
    absolute: Line[int, int] = line(abs)
    starts: tuple[Literal["launch", "fork", "threads"], ...] = ("launch", "fork", "threads")
    for start in starts:
        began = perf_counter()
        good = list(absolute(range(-8, 0), how="line", workers=2, start=start)) == [8, 7, 6, 5, 4, 3, 2, 1]
        works = "they work" if good else "WRONG RESULTS"
        _show_fact("workers", f"start={start!r}: {works}, {duration(perf_counter() - began)}")
    report = absolute.run(range(8), how="line", workers=2)
    _show_fact("", f"start='auto' in this process: {report.reasons[-1]}")


def _show_fact(name: str, says: str) -> None:
    """One of what `doctor` tells, folded to the terminal."""
    standard.show(f"{name:<10} {pages.folded(says, 11, standard.columns(sys.stdout))}")


if __name__ == "__main__":
    main()
