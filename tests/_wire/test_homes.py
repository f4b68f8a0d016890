"""Which modules are the user's own."""

import pytest

from taktline._wire import homes


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that modules are imported from, with a package that was installed into it, and the user's own code."""
    (tmp_path / "lib-1.0.dist-info").mkdir()
    (tmp_path / "lib-1.0.dist-info" / "RECORD").write_text(
        "lib/__init__.py,sha256=1,1\nlib/deep/part.py,,\nalone.py,,\n../../bin/lib,,\nlib-1.0.dist-info/RECORD,,\n"
    )
    (tmp_path / "lists_nothing.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("file", ["lib/__init__.py", "lib/deep/part.py", "alone.py"])
def test_what_a_package_beside_the_program_lists_is_installed(folder, file):
    assert homes.installed(str(folder / file))


@pytest.mark.parametrize("file", ["steps.py", "library/part.py", "deep/part.py", "lib.py", "bin/lib"])
def test_what_no_package_lists_is_the_users_own(folder, file):
    assert not homes.installed(str(folder / file))


def test_a_folder_that_nothing_is_imported_from_lists_nothing(tmp_path):
    assert not homes.installed(str(tmp_path / "lib" / "part.py"))
