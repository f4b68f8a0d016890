"""The site: it is built without a warning, needs nothing from elsewhere, and is searched where there is no server."""

from __future__ import annotations

import asyncio
import html
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import browser
import pytest

from taktline.cli import explaining
from website import pages, pictures

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason=f"the site is not built: {package} is not here")
    target = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "website", "build", str(target)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


class Asked(HTMLParser):
    """What a page has the browser load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        loads = given.get("src") if tag != "link" else given.get("href")
        if loads and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(loads)


def test_each_page_is_there_with_what_its_docstrings_and_the_command_say(site):
    for place in pages.places().values():
        assert (site / Path(place).with_suffix(".html" if place.endswith(".md") else Path(place).suffix)).exists(), (
            place
        )
    text = (site / "reference/lines-and-steps.html").read_text()
    assert "Drop the records for which" in text
    assert '<span class="gp">&gt;&gt;&gt; </span>' in text
    assert "taktline compare steps.py:parse,enrich,score" in (site / "reference/commands.html").read_text()
    assert "What comes of" not in (site / "faults.html").read_text()[:200]
    assert "| verdict |" not in (site / "faults.html").read_text()  # a table, not its source


def test_each_error_is_explained_in_the_words_of_the_command(site):
    page = re.sub(r"<[^>]+>", "", (site / "errors.html").read_text())
    words = " ".join(html.unescape(page).split())
    for each in explaining.explanations():
        assert " ".join(re.sub(r"\*\*|`|\[([^]]+)\]\([^)]+\)", r"\1", each.text).split()) in words, each.code


def test_nothing_comes_from_elsewhere(site):
    for path in site.rglob("*.html"):
        page = Asked()
        page.feed(path.read_text())
        assert not [each for each in page.found if re.match(r"(https?:)?//", each)], path
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", path.read_text()), path


def test_what_is_wrong_on_a_page_fails_the_build(tmp_path):
    pytest.importorskip("mkdocs")
    for name in ("docs", "examples", "src", "website"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.md"):
        shutil.copy(path, tmp_path)
    (tmp_path / "docs/new.md").write_text("# New\n\n[a](nowhere.md) [b](options.md#nothing)\n")
    command = [sys.executable, "-m", "website", "build", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    for wrong in ("- new.md", "'nowhere.md'", "'options.md#nothing'"):
        assert wrong in done.stderr, done.stderr
    assert "the site was not built" in done.stderr


def test_it_is_searched_as_a_file(site):
    async def look():
        async with browser.page() as page:
            await page.open((site / "index.html").as_uri(), width=1280)
            await page.value("document.querySelector('[data-md-component=search-query]').focus()")
            await page.tell("Input.insertText", text="journal")
            links = "[...document.querySelectorAll('.md-search-result__link')].map(each => each.getAttribute('href'))"
            found = await page.until(f"({links}).length ? {links} : null")
            return found, page.said, await page.picture()

    found, said, picture = asyncio.run(look())
    assert any("resuming.html" in each for each in found), found
    assert not said
    assert len(picture) > 20_000


def test_every_public_name_has_its_place_in_the_reference():
    import taktline

    text = "".join(pages.reference().values())
    for name in taktline.__all__:
        assert f"::: taktline.{name}\n" in text, name


def test_a_link_that_leaves_the_manual_leads_to_the_page_made_of_it():
    known = pages.places()
    source = ROOT / "docs/explanations/when-not.md"
    text = "[a](../../FAULTS.md) [b](../options.md#x) [c](../../dev.py) [d](https://python.org) [e](../README.md)"
    assert pages.adapted(text, source, known) == (
        "[a](../faults.md) [b](../options.md#x) c [d](https://python.org) [e](../contents.md)"
    )


def test_titles_of_code_are_quoted_and_sessions_are_told():
    text = "```python title=steps.py\nx = 1\n```\n\n```python\n>>> 1\n1\n\n```\n"
    assert pages.adapted(text, ROOT / "docs/lines.md", {}) == (
        '```python title="steps.py"\nx = 1\n```\n\n```pycon\n>>> 1\n1\n\n```\n'
    )


def test_examples_in_docstrings_are_code():
    pytest.importorskip("griffe")
    from website.fenced import fenced

    assert fenced("Adds one.\n\n>>> plus_one(\n...     1)\n2\n\nMore.") == (
        "Adds one.\n\n\n```pycon\n>>> plus_one(\n...     1)\n2\n```\n\nMore."
    )


def test_a_terminals_colours_are_read():
    assert [(each.colour, each.bold, text) for each, text in pictures.stretches("a\x1b[1;32mb\x1b[0mc")] == [
        (pictures.INK, False, "a"), (pictures.COLOURS["32"], True, "b"), (pictures.INK, False, "c"),
    ]  # fmt: skip
    assert ">b<" in pictures.as_svg("a\x1b[1mb\x1b[0m\n", "two signs")


def test_each_picture_is_made_by_the_build_and_shown_on_a_page():
    there = {path.name for path in (ROOT / "docs/pictures").iterdir()}
    assert there == {*pictures.DRAWN, "compared.png"}
    shown = "".join(path.read_text() for path in ROOT.glob("docs/*.md"))
    assert not [name for name in there if f"(pictures/{name})" not in shown]
