"""Flags that several commands have: where records come from, where results go, and the options of a run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields
from functools import partial, wraps
from typing import Any

import click

from taktline import LineError
from taktline._recipe.options import Options
from taktline.cli import standard
from taktline.cli.completing import paths, targets


def only_one(_: click.Context, option: click.Parameter, given: tuple[str, ...]) -> str | None:
    """The path that an option names. Where it is given again, Click would leave out all but the last one without a word."""
    if len(given) > 1:
        several = "; several files are a folder or a pattern, such as 'in/*.jsonl'" if "--in" in option.opts else ""
        raise click.BadParameter(f"it is given {len(given)} times{several}", param=option)
    return given[0] if given else None


def on_records(command: Callable[..., Any]) -> Callable[..., Any]:
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
    where = click.option(
        "--in",
        "source",
        required=True,
        multiple=True,
        callback=only_one,
        metavar="PATH",
        shell_complete=paths,
        help=path,
    )

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


def on_results(command: Callable[..., Any]) -> Callable[..., Any]:
    """How a command writes results."""
    written = [
        click.option("--out-format", help="jsonl, csv, tsv, parquet, arrow or text; default: by suffix"),
        click.option("--rows", type=int, help="of a folder of parts: results of each"),
        click.option("--size", help='of a folder of parts: bytes of each at most, such as "64MB"'),
        click.option(
            "--partition-by", metavar="NAMES", help='of a folder of parts: columns that make folders, "year,month"'
        ),
        click.option(
            "--roll",
            type=float,
            metavar="SECONDS",
            help="of a folder, with a source that does not end: a file is whole, and there, after so long or after --rows",
        ),
        click.option("--mode", help="of a folder that is there already: replace or append"),
        click.option("--codec", help="of Parquet and of a folder of parts, such as zstd or gzip"),
        click.option("--level", type=int, help="of the codec, or of a file packed by its suffix"),
        click.option("--row-group", type=int, help="of Parquet: most rows of a row group"),
    ]

    @wraps(command)
    def with_writing(
        *, out_format: str | None, rows: int | None, size: str | None, partition_by: str | None, mode: str | None,
        roll: float | None, codec: str | None, level: int | None, row_group: int | None, **given: Any,
    ) -> Any:  # fmt: skip
        writing = {
            "format": out_format, "rows": rows, "size": size, "partition_by": partition_by and partition_by.split(","),
            "mode": mode, "roll": roll, "codec": codec, "level": level, "row_group": row_group,
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


class _On(click.ParamType):  # type: ignore[type-arg]
    """Other machines: "ray", or "ray:HOST:PORT"."""

    name = "machines"

    def convert(self, value: Any, *_: Any) -> Any:
        from taktline import ray

        kind, colon, address = str(value).partition(":")
        if kind != "ray" or bool(colon) != bool(address):
            raise LineError(f"--on {value}: give ray, or ray:HOST:PORT with the address of the cluster's head")
        return ray(str(value) if address.startswith("//") else address or None)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is shown of a run, and every option of a run as a flag, from the table of options."""
    command = flags([each.name for each in fields(Options)])(command)
    command = click.option("--quiet", is_flag=True, help="no progress, no report")(command)
    return click.option("--json", "as_json", is_flag=True, help="the report as JSON, on standard error")(command)


def flags(names: Collection[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
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
        elif kind == "machines":
            command = click.option(flag, each.name, metavar="MACHINES", default=None, help=help, type=_On())(command)
        elif kind == "text":
            command = click.option(flag, each.name, default=None, help=f"{help}  [default: {each.default}]")(command)
    return command
