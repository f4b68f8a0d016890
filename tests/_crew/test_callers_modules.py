"""Modules that a worker's machine does not have come from the caller, and are modules as any other then."""

from __future__ import annotations

import importlib
import pickle
import sys
import traceback
from pathlib import Path

import pytest

from taktline._crew.callers_modules import CallersModules
from taktline._wire import homes

KITCHEN = """\
from tl_house import built
class Pan:
    pass
def cook(n):
    built.append(n)
    return 1 // n
"""
FILES = {
    "tl_house/__init__.py": "built = []\n",
    "tl_house/kitchen.py": KITCHEN,
    "tl_house/attic/trunk.py": "from ..kitchen import cook\n",
    "tl_alone.py": "import tl_house.kitchen\nlimit = 7\n",
}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Names that were asked for. The files are found by the caller alone."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    names: list[str] = []

    def ask(name):
        names.append(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(tmp_path))
            return pickle.loads(pickle.dumps(homes.source_of(name)))

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, CallersModules(ask)])
    before = set(sys.modules)
    yield names
    for name in set(sys.modules) - before:
        if name.startswith("tl_"):
            del sys.modules[name]


def test_packages_their_parts_and_plain_modules_are_there_with_one_state(asked):
    alone, trunk = importlib.import_module("tl_alone"), importlib.import_module("tl_house.attic.trunk")
    house, kitchen = sys.modules["tl_house"], sys.modules["tl_house.kitchen"]
    assert alone.limit == 7
    assert trunk.cook(1) == 1
    assert house.built == [1]
    assert trunk.cook is kitchen.cook
    assert type(pickle.loads(pickle.dumps(kitchen.Pan()))) is kitchen.Pan
    assert sorted(asked) == ["tl_alone", "tl_house", "tl_house.attic", "tl_house.attic.trunk", "tl_house.kitchen"]


def test_a_traceback_shows_the_callers_line_and_its_file(asked):
    kitchen = importlib.import_module("tl_house.kitchen")
    with pytest.raises(ZeroDivisionError) as caught:
        kitchen.cook(0)
    (frame,) = traceback.extract_tb(caught.value.__traceback__)[-1:]
    assert Path(frame.filename).parts[-2:] == ("tl_house", "kitchen.py")
    assert (frame.lineno, frame.line) == (6, "return 1 // n")


def test_what_is_not_the_users_own_or_nowhere_is_not_found_and_asked_for_once(asked):
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="No module named 'tl_nowhere'"):
            importlib.import_module("tl_nowhere")
    assert asked == ["tl_nowhere"]
    assert homes.source_of("pytest") is None
    assert homes.source_of("json.decoder") is None
    assert homes.source_of("taktline.abc") is None
