"""What is suggested, wherever it stands, can be pasted into a shell: the command takes it."""

from __future__ import annotations

import html
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import click
import pytest
from present import present

from taktline import line, read
from taktline.cli.commands import commands

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("src/**/*.md")])
STEPS = """
from taktline import batch, keep, line
def parse(row):
    return int(row["n"])
def odd_ones(n):
    return {"n": 1 // (n % 2)}
flow = line(parse, odd_ones)
"""
SCRIPT = """
import taktline
from steps import flow, parse, odd_ones
mine = taktline.line(parse, taktline.batch(lambda some: [1 // (n % 2) for n in some], size=1))
def main():
    for n, each in enumerate([flow, taktline.line(parse, odd_ones), mine]):
        report = each.run(taktline.read("in.jsonl"), dead_letters=f"letters {n}.jsonl")
        print(report.retry)
"""
GUARD = "if __name__ == '__main__':\n"


def suggested(text):
    """The commands that a text names, each to its line's end; those that only tell of a command by its name are none."""
    found = re.findall(r"(?:cd \S+ && )?taktline [a-z]+ [^\n]*", text)
    return [each.rstrip() for each in found if not re.match(r"taktline [a-z]+ [a-zA-Z ]+[,.:]?$", each)]


def check(command):
    """The command takes these words; nothing is run."""
    words = shlex.split(command)
    if words[0] == "cd":
        assert Path(words[1]).is_dir()
        assert words[2] == "&&"
        words = words[3:]
    known = commands.get_command(click.Context(commands), words[1])
    assert known is not None, command
    try:
        known.make_context(words[1], words[2:])
    except click.UsageError as error:
        pytest.fail(f"{command}\n{error.format_message()}")
    return words


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "some one's folder"
    folder.mkdir()
    (folder / "steps.py").write_text(STEPS)
    (folder / "in.csv").write_text("n;m\n" + "".join(f"{n};x y\n" for n in range(10)))
    (folder / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(10)))
    return folder


def taktline(folder, *arguments):
    command = [sys.executable, "-m", "taktline", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


RUN = ("run", "steps.py:parse,odd_ones", "--in", "in.csv", "--delimiter", ";", "--how", "loop")


def test_after_dead_letters_in_the_terminal_the_page_and_the_saved_report(folder):
    into = ["--out", "o ut.jsonl", "--dead-letters", "failed ones.jsonl"]
    done = taktline(folder, *RUN, *into, "--report", "run.json")
    taktline(folder, "report", "run.json", "--html", "run.html")
    elsewhere = taktline(folder.parent, "report", folder / "run.json").stdout
    page = html.unescape(re.sub(r"<[^>]*>", "\n", (folder / "run.html").read_text()))
    here = "taktline retry 'failed ones.jsonl' steps.py:parse,odd_ones --out 'o ut.again.jsonl'"
    way = f"cd {shlex.quote(str(folder))} && "
    assert f" retry    {here}\n" in done.stderr
    assert f" retry    {way}{here}\n" in elsewhere
    assert f"\n{way}{here}\n" in page
    assert f"\n{shlex.join(['taktline', *RUN, *into, '--report', 'run.json'])}\n" in page
    words = check(f"{way}{here}")
    again = taktline(folder, *words[1:])
    assert "5 still in failed ones.jsonl" in again.stderr
    assert (folder / "o ut.again.jsonl").exists()


def test_after_a_run_that_failed_or_stopped(folder):
    done = taktline(folder, *RUN, "--out", "out.jsonl", "--journal", "run.journal", "--report", "run.json")
    shown = taktline(folder, "report", "run.json").stdout
    tried, again = suggested(done.stderr)[-1], suggested(shown)[-1]
    assert check(tried)[1:] == ["check", RUN[1], "--in", "in.csv", "--delimiter", ";", "--record", "0"]
    assert check(again)[1:] == [*RUN, "--out", "out.jsonl", "--journal", "run.journal", "--report", "run.json"]


def test_a_password_is_not_shown_again(folder):
    url = "https://me:hunter2@127.0.0.1:9/in.jsonl"
    done = taktline(folder, "run", "steps.py:parse", "--in", url, "--out", "out.jsonl")
    assert done.returncode
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("guarded", [True, False])
def test_from_python_a_command_where_one_reaches_the_line_and_else_python(folder, guarded):
    """A script that has no guard would be run once more by a command that loads it."""
    (folder / "job.py").write_text(f"{SCRIPT}{GUARD if guarded else 'if True:'}    main()\n")
    done = subprocess.run([sys.executable, "job.py"], cwd=folder, capture_output=True, text=True, timeout=100)
    first, second, third = done.stdout.splitlines()
    assert check(first)[1:] == ["retry", "letters 0.jsonl", "steps.py:flow", "--out", "letters 0.again.jsonl"]
    assert check(second)[3] == "steps.py:parse,odd_ones"
    if guarded:
        words = check(third)
        assert words[3] == "job.py:mine"
        assert "5 still in letters 2.jsonl" in taktline(folder, *words[1:]).stderr
    else:
        assert third == "list(mine(letter.record for letter in taktline.read_dead_letters('letters 2.jsonl')))"


def test_in_a_notebook(folder, monkeypatch):
    """Where nothing has a name that a command could load, what is pasted is Python."""
    monkeypatch.chdir(folder)
    report = line(lambda row: 1 // (row["n"] % 2)).run(read("in.jsonl"), dead_letters="failed.jsonl")
    import taktline

    letters = eval(report.retry, {"taktline": taktline})
    assert letters == [{"n": n} for n in range(0, 10, 2)]
    assert html.escape(report.retry) in report._repr_html_()
    assert f" retry    {report.retry}\n" in f"{report}\n"


def test_what_init_says(folder):
    done = taktline(folder, "init", "my orders")
    there = present(re.search(r"cd .*", done.stderr))[0]
    assert shlex.split(there)[1] == "my orders"
    for each in suggested(done.stderr):
        check(each)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_of_the_manual_is_one(page):
    """Those in blocks, and those in a sentence that have more than their name."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```sh.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^(?: {4}|)(taktline [a-z].*)$", "\n".join(fenced), re.MULTILINE)
    blocks += re.findall(r"^ {4}(taktline [a-z].*)$", text, re.MULTILINE)
    spans = [each.replace("\n", " ") for each in re.findall(r"`(taktline [a-z]+ [^`]+)`", text)]
    for command in [*blocks, *(each for each in spans if page.name != "CHANGELOG.md" and len(each.split()) > 4)]:
        if "…" in command:  # it shows a form
            continue
        words = shlex.split(command.partition(" #")[0].partition(";")[0])
        end = next((n for n, each in enumerate(words) if each in ("|", ">", "2>", "&&", "<", "&")), None)
        with suppress(click.exceptions.Exit):  # of --help
            check(shlex.join(words[:end]))
