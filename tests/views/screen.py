"""A program on a real pseudo-terminal, and what its screen shows in the end: as much of a terminal as is needed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata

ROWS, COLUMNS = 24, 80
PARTS = re.compile(r"\x1b\[(\d*)([A-Zm])|(.)", re.DOTALL)


def on_a_terminal(script, *arguments, env=None, columns=COLUMNS, **streams):
    """All that a Python program writes on a terminal of its own, so wide, and its exit code. `streams`: those that go
    elsewhere."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    around = {**os.environ, "TERM": "xterm", "CI": None, "NO_COLOR": None, "TAKTLINE_PROGRESS": None, **(env or {})}
    around = {name: value for name, value in around.items() if value is not None}
    given = {"stdin": theirs, "stdout": theirs, "stderr": theirs, **streams}
    program = subprocess.Popen(
        [sys.executable, *([] if os.path.exists(script) else ["-c"]), script, *arguments], env=around, **given
    )
    os.close(theirs)
    data = b""
    while True:
        try:
            some = os.read(ours, 1 << 16)
        except OSError:  # nobody has the other end any more
            break
        if not some:
            break
        data += some
    os.close(ours)
    return data.decode(), program.wait()


def shown(written, columns=COLUMNS):
    """The lines that a terminal so wide shows after this, those that have left it at the top among them."""
    lines, row, column, top = [""], 0, 0, 0
    for number, what, char in PARTS.findall(written):
        if char == "\r":
            column = 0
        elif char == "\n" or (char and column == columns):
            row += 1
            lines += [""] * (row + 1 - len(lines))
            top = max(top, row - ROWS + 1)
            column = column if char == "\n" else 0
        if char and char not in "\r\n":
            assert unicodedata.category(char)[0] != "C", repr(char)
            lines[row] = lines[row].ljust(column)[:column] + char + lines[row][column + 1 :]
            column += 1
        elif what == "A":
            row = max(top, row - int(number))
        elif what == "J":
            del lines[row + 1 :]
            lines[row] = lines[row][:column]
        elif what == "m":
            continue  # a colour takes no room
        else:
            assert not what, what
    return [line.rstrip() for line in lines]
