"""The pages hang together: each can be reached, and each link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("src/**/*.md")])


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


def test_each_page_of_the_manual_is_named_in_the_readme_and_in_its_own_table_of_contents():
    pages = {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"}
    assert pages == set(links(ROOT / "docs/README.md"))
    assert pages == {link.removeprefix("docs/") for link in links(ROOT / "README.md") if link.startswith("docs/")}


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90
