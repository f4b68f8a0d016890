"""The pages hang together: each can be reached, and each link leads somewhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("src/**/*.md")])


def links(page: Path) -> list[str]:
    """What the page's links lead to in this checkout."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [each for each in found if not each.startswith(("http:", "https:", "mailto:"))]


def heads(page: Path) -> set[str]:
    """The names of the page's headings, as links spell them."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        name, _, head = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not head or head in heads(target), link


def test_each_page_of_the_manual_is_named_in_its_table_of_contents():
    """Which is also the navigation of the site: a page that is not there would not be on it."""
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/**/*.md")} - {"README.md"}
    assert pages == {link for link in links(ROOT / "docs/README.md") if not link.startswith("../")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_hold_what_every_markdown_reads(page):
    """Neither what one generator of sites alone knows, nor lists that some of them take for a part of the paragraph above."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for special in (r"^(!!!|\?\?\?|===) ", r"^::: ", r"\{[:.#][^}`]*\}$"):
        assert not re.search(special, text, re.MULTILINE), special
    before = ""
    for line in text.splitlines():
        begins = re.match(r"([-*]|\d+\.) ", line)
        assert not begins or not before or re.match(r"([-*]|\d+\.) |  ", before), f"no empty line before: {line}"
        before = line


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 72


HOUSE = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("src/taktline/*/README.md"))]
HOUSE += sorted(each for room in ("faults", "website", "tests", "benchmarks") for each in ROOT.glob(f"{room}/**/*.md"))
PATH = re.compile(r"[\w.-]+(/[\w.-]+)*(/|\.(py|md|toml|lock|ini|ya?ml))")


@cache
def checkout() -> tuple[frozenset[str], frozenset[str]]:
    """All files and folders of the project, and all words of its code."""
    rooms = ("src", "tests", "faults", "website", "benchmarks", "docs", "examples", ".github")
    found = [path for room in rooms for path in (ROOT / room).rglob("*") if "__pycache__" not in path.parts] + [
        path for path in ROOT.iterdir() if not path.name.startswith(".venv")
    ]
    words = {word for path in found if path.suffix == ".py" for word in re.findall(r"\w+", path.read_text("utf-8"))}
    named = {"/" + path.relative_to(ROOT).as_posix() + "/" * path.is_dir() for path in found}
    return frozenset(named), frozenset(words)


@pytest.mark.parametrize("page", HOUSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_pages_about_the_code_name_is_there(page):
    """Files, folders, and names of the code: a part that was renamed is renamed there too."""
    there, words = checkout()
    gone = []
    for name in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
        if PATH.fullmatch(name):
            gone += [name] * (not any(each.endswith("/" + name) for each in there))
        elif re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*(\(\))?", name):
            gone += [name] * (not {*re.findall(r"\w+", name)} <= words)
    assert not gone
