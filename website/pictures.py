"""The pictures in docs/pictures, made from the real thing: commands in a terminal of 80 columns (tmux), a notebook that was
run, and pages as a browser shows them (Chromium)."""

from __future__ import annotations

import asyncio
import html
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from website.pages import DOCS, ROOT

PICTURES = DOCS / "pictures"
COLUMNS, ROWS = 80, 40
PATIENCE = 300  # seconds for one command
SIZE, LINE, EDGE = 13, 17, 12  # of a sign, a row and the frame, in pixels; a sign is 0.6 of its size wide
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"  # what the reader's system has
PAPER, INK = "#14191f", "#d7dde4"
COLOURS = {
    "30": "#3b4654", "31": "#ff7b72", "32": "#56d364", "33": "#e3b341", "34": "#79c0ff", "35": "#d2a8ff", "36": "#56d4dd",
    "37": "#d7dde4", "90": "#8b949e", "91": "#ffa198", "92": "#7ee787", "93": "#f2cc60", "94": "#a5d6ff", "95": "#e2c5ff",
    "96": "#b3f0ff", "97": "#ffffff",
}  # fmt: skip


def make(names: list[str]) -> None:
    """Make these pictures, or all. Ends where a program that draws is missing."""
    unknown = [name for name in names if name not in DRAWN]
    if unknown:
        sys.exit(f"there is no picture {unknown[0]!r}; there are {', '.join(DRAWN)}")
    if missing := [name for name in ("tmux", "chromium") if shutil.which(name) is None]:
        sys.exit(f"pictures need {' and '.join(missing)}: apt-get install {' '.join(missing)}")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in names or DRAWN:
            DRAWN[name](Path(folder))
            print(PICTURES / name, flush=True)


# --- a terminal ---


class Style(NamedTuple):
    """How a stretch of text looks."""

    colour: str = INK
    bold: bool = False
    dim: bool = False


def stretches(row: str) -> Iterator[tuple[Style, str]]:
    """A row of text with escapes, as tmux captures it, in stretches of one look."""
    style = Style()
    for part in re.split(r"(\x1b\[[0-9;]*m)", row):
        if not part.startswith("\x1b["):
            if part:
                yield style, part
            continue
        for code in part[2:-1].split(";"):
            if code in ("", "0"):
                style = Style()
            elif code == "1":
                style = style._replace(bold=True)
            elif code == "2":
                style = style._replace(dim=True)
            elif code == "39":
                style = style._replace(colour=INK)
            elif code in COLOURS:
                style = style._replace(colour=COLOURS[code])


def as_svg(screen: str, title: str) -> str:
    """What stands on a terminal, as a picture that needs no font from elsewhere. Each stretch is as wide as it was there."""
    rows = screen.strip("\n").removesuffix("\n$").split("\n")
    sign = SIZE * 0.6
    width, height = round(COLUMNS * sign + 2 * EDGE), len(rows) * LINE + 2 * EDGE
    said = []
    for number, row in enumerate(rows):
        column = 0
        for style, text in stretches(row):
            if text.strip():
                look = f'fill="{style.colour}"' + ' font-weight="bold"' * style.bold + ' opacity=".65"' * style.dim
                at = f'x="{EDGE + column * sign:.1f}" y="{EDGE + number * LINE + SIZE}" textLength="{len(text) * sign:.1f}"'
                said.append(f'<text {at} {look} xml:space="preserve">{html.escape(text)}</text>')
            column += len(text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="{FONT}" font-size="{SIZE}">\n'
        f"<title>{html.escape(title)}</title>\n"
        f'<rect width="{width}" height="{height}" rx="6" fill="{PAPER}"/>\n' + "\n".join(said) + "\n</svg>\n"
    )


class Terminal:
    """A terminal of 80 columns with a shell in it."""

    def __init__(self, folder: Path) -> None:
        self._name = f"pictures-{uuid.uuid4().hex[:8]}"
        command = folder / ".bin" / "taktline"
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m taktline "$@"\n')
        command.chmod(0o755)
        path = f"export PATH={command.parent}:$PATH PYTHONPATH={ROOT / 'src'} PS1='$ '\nunset NO_COLOR CI\nclear\n"
        (folder / ".bin" / "shell").write_text(path)
        shell = f"bash --noprofile --rcfile {folder}/.bin/shell -i"
        size = ("-x", str(COLUMNS), "-y", str(ROWS))
        self._tmux("-u", "new-session", "-d", *size, "-c", str(folder), shell)

    def _tmux(self, *arguments: str) -> str:
        start, rest = (arguments[:1], arguments[1:]) if arguments[0] == "-u" else ((), arguments)
        command = ["tmux", "-L", self._name, *start, *rest]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def type(self, command: str) -> None:
        """Run a command in it."""
        self._tmux("send-keys", "-l", command)
        self._tmux("send-keys", "Enter")

    def screen(self) -> str:
        """What stands there now, with its colours."""
        return self._tmux("capture-pane", "-p", "-e").rstrip() + "\n"

    def until(self, seen: Callable[[str], bool]) -> str:
        """Wait for the screen to be so; what stands there."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if seen(plain(screen := self.screen())):
                return screen
            time.sleep(0.1)
        raise TimeoutError(f"the terminal still shows\n{self.screen()}")

    def close(self) -> None:
        """End the shell and what runs in it."""
        self._tmux("kill-server")


def plain(screen: str) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", screen)


def shown(folder: Path, command: str, seen: Callable[[str], bool], picture: str, title: str) -> None:
    """The picture of a terminal in which this command runs, at the moment at which this is seen."""
    terminal = Terminal(folder)
    try:
        terminal.type(command)
        screen = terminal.until(seen)
        (PICTURES / picture).write_text(as_svg(screen, title), encoding="utf-8")
    finally:
        terminal.close()


def ready(screen: str) -> bool:
    """Whether the shell waits for the next command."""
    return screen.rstrip("\n").endswith("\n$")


# --- what is run for them ---

STEPS = '''"""Orders: read, looked up, scored."""

import json
import math


def parse(text):
    return json.loads(text)


def enrich(order):
    order["route"] = [math.sin(order["id"] + n) for n in range(240)]
    return order


def score(order):
    if order["id"] % 40_000 == 39_999:
        raise ValueError(f"no score for order {order['id']}")
    return {"id": order["id"], "score": round(sum(abs(each) for each in order["route"]), 3)}
'''
TARGET = "steps.py:parse,enrich,score"


def orders(folder: Path) -> None:
    """Steps and records, once."""
    (folder / "steps.py").write_text(STEPS)
    if not (folder / "orders.jsonl").exists():
        with open(folder / "orders.jsonl", "w", encoding="utf-8") as file:
            for n in range(200_000):
                file.write(json.dumps({"id": n, "customer": f"c{n % 977}", "amount": n % 83}) + "\n")


def running(folder: Path) -> None:
    """A run on a terminal, half-way."""
    orders(folder)
    command = f"taktline run {TARGET} --in orders.jsonl --in-format text --out scored.jsonl --dead-letters failed.jsonl"

    def half_way(screen: str) -> bool:
        shares = re.findall(r"(\d+)%", screen)  # the last one is how far it is
        return "bottleneck" in screen and "left" in screen and 40 <= int(shares[-1]) <= 90

    shown(folder, command, half_way, "running.svg", "A run on a terminal: its steps, the bottleneck, how far it is")
    (folder / "failed.jsonl").unlink(missing_ok=True)


def done(folder: Path) -> None:
    """The end of a run on a terminal."""
    orders(folder)
    command = f"taktline run {TARGET} --in orders.jsonl --in-format text --out scored.jsonl --dead-letters failed.jsonl"
    shown(
        folder, command, lambda screen: "verdict" in screen and ready(screen), "done.svg", "What a run says at its end"
    )
    (folder / "failed.jsonl").unlink(missing_ok=True)


def compared(folder: Path) -> None:
    """A comparison on a terminal, and its page."""
    orders(folder)
    command = f"taktline compare {TARGET} --in orders.jsonl --in-format text --limit 20000 --export compared.html"
    shown(
        folder, command, lambda screen: "technique" in screen and ready(screen), "compared.svg",
        "The techniques side by side on a terminal",
    )  # fmt: skip
    photographed(folder / "compared.html", "compared.png")


def report(folder: Path) -> None:
    """The page of a run."""
    orders(folder)
    command = [sys.executable, "-m", "taktline", "run", TARGET, "--in", "orders.jsonl", "--in-format", "text"]
    more = ["--out", "scored.jsonl", "--dead-letters", "failed.jsonl", "--report", "run.json", "--quiet"]
    subprocess.run([*command, *more], cwd=folder)  # ends with 3, since some records fail
    subprocess.run([sys.executable, "-m", "taktline", "report", "run.json", "--html", "run.html"], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    (folder / "failed.jsonl").unlink(missing_ok=True)
    photographed(folder / "run.html", "report.png")


CELLS = (
    "from steps import enrich, parse, score\n\nimport taktline\nfrom taktline import line\n\n"
    'flow = line(parse, enrich, score, name="orders")\nrecords = open("orders.jsonl").read().splitlines()[:39_999]',
    "flow.run(records)",
)


def notebook(folder: Path) -> None:
    """A notebook in which a line was run."""
    import nbformat
    from nbclient import NotebookClient

    orders(folder)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(book, timeout=PATIENCE, resources={"metadata": {"path": str(folder)}}).execute()
    page = folder / "notebook.html"
    page.write_text(notebook_html(book), encoding="utf-8")
    photographed(page, "notebook.png", width=860)


def notebook_html(book: object) -> str:
    """Cells and what they gave, one below the other, as notebooks show them."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    look = HtmlFormatter(style="default")
    parts = []
    for number, cell in enumerate(book.cells, 1):  # type: ignore[attr-defined]
        code = highlight(cell.source, PythonLexer(), look)
        parts.append(f'<div class="cell"><b>[{number}]:</b>{code}</div>')
        for output in cell.outputs:
            data = output.get("data", {})
            given = (
                data.get("text/html") or f"<pre>{html.escape(data.get('text/plain') or output.get('text', ''))}</pre>"
            )
            parts.append(f'<div class="cell"><b></b><div>{given}</div></div>')
    style = """body { font: 14px system-ui, sans-serif; margin: 16px; background: #fff; color: #111 }
.cell { display: grid; grid-template-columns: 44px minmax(0, 1fr); margin: 6px 0 }
.cell > b { color: #307fc1; font: 13px monospace; padding-top: 9px }
.highlight { background: #f7f7f7; border: 1px solid #e0e0e0; padding: 0 10px; font-size: 13px }"""
    return (
        f"<!doctype html><meta charset=utf-8><style>{style}{look.get_style_defs('.highlight')}</style>{''.join(parts)}"
    )


def photographed(page: Path, picture: str, width: int = 960) -> None:
    """The picture of a whole page in a browser."""
    (PICTURES / picture).write_bytes(asyncio.run(_photograph(page, width)))


async def _photograph(path: Path, width: int) -> bytes:
    from tests import browser

    async with browser.page() as page:
        await page.open(path.resolve().as_uri(), width=width)
        assert not page.said, page.said
        picture: bytes = await page.picture()
        return picture


DRAWN: dict[str, Callable[[Path], None]] = {
    "running.svg": running,
    "done.svg": done,
    "compared.svg": compared,  # and compared.png
    "report.png": report,
    "notebook.png": notebook,
}
