"""What no cluster can be asked for is refused at the door, with or without Ray on this machine."""

from __future__ import annotations

import pytest

import taktline
from taktline import LineError, line
from taktline._ray.cluster import is_installed
from taktline.cli import commands


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("ray://head:10001",), "ray job submit"),
        (("head",), "HOST:PORT"),
        ((7,), "HOST:PORT"),
        ({"cpus": 0}, r"cpus=0\): give a whole number"),
        ({"nodes": True}, r"nodes=True\): give a whole number"),
        ({"gpus": -1}, r"gpus=-1\): give a number above 0"),
        ({"resources": {"disk": 0}}, "give names and numbers above 0"),
        ({"lost_after": float("inf")}, r"lost_after=inf\): give a number above 0"),
        ({"resources": ["disk"]}, r"resources=\['disk'\]\): give a dict, such as"),
        ({"runtime_env": "."}, r"runtime_env='\.'\): give a dict, such as"),
        ({"node": 2}, r"no argument 'node'; did you mean 'nodes'\?"),
        ({"workers": 4}, r"no argument 'workers'; there are address, nodes, cpus"),
        (("http://127.0.0.1:8265",), "its dashboard is another one"),
        ({"idle_after": 0}, r"idle_after=0\): give a number above 0"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(given, says):
    with pytest.raises(LineError, match=says):
        taktline.ray(**given) if isinstance(given, dict) else taktline.ray(*given)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"how": "loop"}, "runs them here"), ({"start": "threads"}, "workers on other machines are launched")],
)
def test_what_does_not_go_together_is_refused(options, says):
    with pytest.raises(LineError, match=says):
        line(abs)([1], on=taktline.ray(), **options)


@pytest.mark.skipif(is_installed(), reason="Ray is installed here")
def test_without_ray_a_run_says_what_to_install():
    for starts in (line(abs), line(abs).plan):
        with pytest.raises(LineError, match=r"pip install 'taktline\[ray\]'"):
            starts([1], on=taktline.ray())


@pytest.mark.parametrize(
    ("on", "says"), [("spark", "give ray, or"), ("ray:", "give ray, or"), ("ray://h:1", "ray job submit")]
)
def test_the_command_refuses_them_too(on, says, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("1\n")
    (tmp_path / "s.py").write_text("def f(x): return x\n")
    assert commands.run_main(["run", "s.py:f", "--in", "in.jsonl", "--out", "o.jsonl", "--on", on]) == 2
    assert says in capfd.readouterr().err
