"""The tutorial and the cookbook, done as their pages say: files are written, commands run, and what they print stands there.

On such a page a block with a title is a file; `python` with output behind it is run; `sh` is run; and `text` behind one of
them is what it printed, with … for what differs from time to time.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "docs/tutorial.md", *ROOT.glob("docs/cookbook/*.md")])
BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE = 120  # seconds for one program, on a machine that is busy


class Block(NamedTuple):
    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(page.read_text(encoding="utf-8"))]


def missing(block: Block, own: set[str]) -> set[str]:
    """The packages that a block asks for, beside the page's own files, and that are not here."""
    named = set()
    if block.language == "sh":
        named |= set(re.findall(r"python -m (\w+)", block.text))
    elif block.title.endswith(".py"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Import):
                named |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                named.add(node.module)
    return {name for name in {name.split(".")[0] for name in named} - own if find_spec(name) is None}


def printed(command: list[str], folder: Path) -> str:
    here = os.environ | {
        "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": f"{folder}/.bin:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def same(said: str, wanted: str) -> bool:
    pattern = ".*?".join(map(re.escape, wanted.strip().split("…")))
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


@pytest.fixture
def folder(tmp_path):
    """A folder in which `python` and `taktline` are those of this test."""
    (tmp_path / ".bin").mkdir()
    for name, start in (("python", ""), ("taktline", " -m taktline")):
        command = tmp_path / ".bin" / name
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{start} "$@"\n')
        command.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page, folder):
    found = blocks(page)
    own = {block.title.removesuffix(".py") for block in found}
    lacking: set[str] = set()
    told = 0
    for block, then in zip(found, [*found[1:], Block("", "", "")], strict=True):
        if block.title:
            (folder / block.title).write_text(block.text)
        runs = block.language == "sh" or (block.title.endswith(".py") and then.language == "text")
        if packages := missing(block, own):
            lacking |= packages
            if runs:
                continue
        if not runs:
            continue
        command = ["bash", "-c", block.text] if block.language == "sh" else [sys.executable, block.title]
        said = printed(command, folder)
        if then.language == "text":
            told += 1
            assert same(said, then.text), f"{page.name} says\n{then.text}\nand it is\n{said}"
    if lacking:
        pytest.skip(f"a part of {page.name} needs {', '.join(sorted(lacking))}; {told} other programs did as they say")
    assert told, f"{page.name} shows no output"


def test_each_recipe_is_in_the_manual():
    contents = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert {f"cookbook/{page.name}" for page in ROOT.glob("docs/cookbook/*.md")} <= set(
        re.findall(r"\]\(([^)#]+)", contents)
    )
