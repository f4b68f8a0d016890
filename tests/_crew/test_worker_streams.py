"""What steps do with standard output and error in workers: the loop's answer, and the loop's bytes."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = r"""
import codecs, contextlib, io, logging, os, subprocess, sys
from taktline import line
from rich.console import Console
class Nothing: pass
class Unflushed:
    def write(self, text): return len(text)
class Odd(io.StringIO):
    def flush(self): raise SystemExit
def none(n): sys.stdout = None; print("x")
def none_of_both(n): sys.stdout = sys.stderr = None
def unflushed(n): sys.stdout = Unflushed(); print("x")
def nothing(n): sys.stdout = sys.stderr = Nothing()
def odd(n): sys.stdout = Odd(); print("x")
def closed(n): sys.stdout = io.StringIO(); sys.stdout.close()
def close(n):
    print("before", n, flush=True)
    sys.stdout.close()
def print_to_closed(n): sys.stdout.close(); print("x")
def detached(n): return type(sys.stdout.detach()).__name__ != ""
def deleted(n): del sys.stdout
def put_back(n): sys.stdout = sys.__stdout__; print("p", n); sys.stdout.flush()
def raw(n): sys.stdout.buffer.write(b"b%d \xff\xfe\n" % n); sys.stdout.buffer.flush()
def raw_unflushed(n): sys.stderr.buffer.write(b"u%d" % n)
def memory(n): sys.stdout.buffer.write(memoryview(bytearray(b"m%d\n" % n)))
def both(n): print("text", n, flush=True); sys.stdout.buffer.write(b"bytes\n"); sys.stdout.buffer.flush()
def descriptors(n): return sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.buffer.fileno()
def duplicated(n):
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as file: file.write(f"d{n}\n")
def child(n): subprocess.run(["echo", f"c{n}"], stdout=sys.stdout, check=True)
def system(n): os.write(1, b"s%d\n" % n)
def forked(n):
    if not (pid := os.fork()):
        print("f", n, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
def redirected(n):
    with contextlib.redirect_stdout(io.StringIO()) as held: print("hidden", n)
    return held.getvalue()
def redirected_error(n):
    with contextlib.redirect_stderr(sys.stdout): print("e", n, file=sys.stderr)
def error(n): print("e", n, file=sys.stderr)
def handler(n): logging.StreamHandler(sys.stdout).emit(logging.makeLogRecord({"msg": f"h{n}"}))
def looked_at(n):
    out = sys.stdout
    asked = out.isatty(), out.writable(), out.readable(), out.seekable()
    return *asked, out.encoding, out.errors, out.name, out.mode, out.closed
def configured(n): sys.stdout.reconfigure(line_buffering=True, encoding="latin-1"); print("ä", n)
def bytes_as_text(n): sys.stdout.write(b"x")
def lines(n): sys.stdout.writelines([f"w{n}\n", "a\nb"])
def surrogate(n): print("\udcff", "ä", n)
def pretty(n): Console().print(f"[b]r{n}[/b]")
def wrapped(n): sys.stdout = codecs.getwriter("utf-8")(sys.stdout.buffer); print("ä", n)
def wrapped_again(n): sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", 0, closefd=False), write_through=True); print("t", n)
def much(n): sys.stdout.write("." * 200_000)
CASES = [
    none, none_of_both, unflushed, nothing, odd, closed, close, print_to_closed, detached, deleted, put_back, raw,
    raw_unflushed, memory, both, descriptors, duplicated, child, system, forked, redirected, redirected_error, error, handler,
    looked_at, configured, bytes_as_text, lines, surrogate, pretty, wrapped, wrapped_again, much,
]
def fresh(descriptor): return open(descriptor, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
options = {"how": "loop"} if sys.argv[1] == "loop" else {"how": "line", "workers": 1, "start": sys.argv[1], "batch_size": 2}
for case in CASES:
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = fresh(1), fresh(2)
    sys.stdout.buffer.raw.name = "<stdout>"
    records = [0] if case in (close, detached, deleted, forked) else range(4)
    try:
        results = list(line(case)(records, **options))
    except Exception as error:
        results = type(error).__name__, str(error)
    for stream in ("stdout", "stderr"):
        with contextlib.suppress(Exception, SystemExit): getattr(sys, stream).flush()
    os.write(1, f"\n== {case.__name__}: {results}\n".encode())
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, bytes]]:
    folder = tmp_path_factory.mktemp("said")
    (folder / "program.py").write_text(PROGRAM)

    def run(how: str) -> tuple[bytes, bytes]:
        command = [sys.executable, "program.py", how]
        done = subprocess.run(command, capture_output=True, timeout=120, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return {how: run(how) for how in ("loop", "fork", "launch")}


@pytest.mark.parametrize("start", ["fork", "launch"])
def test_whatever_a_step_does_to_its_streams_is_as_in_the_loop(start, said):
    loop, other = ([part.split(b"\n") for part in said[how][0].split(b"\n== ")] for how in ("loop", start))
    for one, two in zip(loop, other, strict=True):
        assert one == two
    assert said["loop"][1] == said[start][1]
