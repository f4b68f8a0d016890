"""What a run was made with, and where."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import taktline
from taktline._observe.versions import LIBRARIES, versions
from taktline._working_folder import working_folder


def test_libraries_that_are_loaded_are_told_with_their_versions_and_no_others(monkeypatch):
    for name in LIBRARIES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    here = {"Python": sys.version.split()[0].rstrip("+"), "taktline": taktline.__version__}
    assert versions() == here
    torch = SimpleNamespace(__version__="2.9.1")
    scipy = SimpleNamespace(__version__=object())  # one that is no text is none
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "scipy", scipy)
    assert versions() == here | {"torch": "2.9.1"}


def test_a_working_folder_that_is_gone_has_no_name(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert working_folder() == os.path.realpath(folder)
    folder.rmdir()
    assert working_folder() == ""
