"""What a shell is told to complete: commands, techniques, paths, and the functions of a file that is not run for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

STEPS = '''
import taktline
raise SystemExit("this was run")

def parse(text):
    """One order of its text."""

async def price(order): ...

class Model: ...

flow = taktline.line(parse)
_hidden = parse
LIMIT = 7
'''


@pytest.fixture
def complete(tmp_path):
    """What is offered in the place of the last word, with the shell standing in a folder of its own."""
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "steps.txt").write_text("")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text('raise SystemExit("this was run")')
    (tmp_path / "shop" / "lines.py").write_text(STEPS)

    def complete(*words):
        done = subprocess.run(
            [sys.executable, "-m", "taktline"], cwd=tmp_path, capture_output=True, text=True, check=True,
            env={
                **os.environ, "_TAKTLINE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["taktline", *words]),
                "COMP_CWORD": str(len(words)),
            },
        )  # fmt: skip
        return sorted(done.stdout.split())

    return complete


def test_commands_and_techniques(complete):
    assert "plain,compare" in complete("")
    assert complete("run", "steps.py:parse", "--how", "l") == ["plain,line", "plain,loop"]
    assert complete("run", "steps.py:parse", "--start", "t") == ["plain,threads"]


@pytest.mark.parametrize("flag", ["--in", "--out", "--journal", "--dead-letters", "--report"])
def test_paths_are_the_shells(complete, flag):
    assert complete("run", "steps.py:parse", flag, "ord") == ["file,ord"]


@pytest.mark.parametrize("place", ["steps.py", "shop.lines", "shop/lines.py"])
def test_functions_of_a_file_that_is_only_read(complete, place):
    assert complete("run", f"{place}:") == [f"plain,{place}:{name}" for name in ("Model", "flow", "parse", "price")]
    assert complete("run", f"{place}:parse,p") == [f"plain,{place}:parse,price"]
    assert complete("run", f"{place}:no") == []


def test_files_with_functions_and_folders(complete):
    assert complete("run", "s") == ["plain,shop/", "plain,steps.py:"]
    assert complete("run", "nowhere.py:p") == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_takes_what_docs_tell_it_to_evaluate(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "taktline").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m taktline "$@"\n')
    (tmp_path / "taktline").chmod(0o755)
    typed = """
    eval "$(_TAKTLINE_COMPLETE=bash_source taktline)"; COMP_WORDBREAKS=${COMP_WORDBREAKS//:}
    COMP_WORDS=(taktline run steps.py:par); COMP_CWORD=2
    _taktline_completion taktline
    echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", typed], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout.split() == ["steps.py:parse"]
