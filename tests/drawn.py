"""A page's elements, read back: what tests of pages look at."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = ("meta", "br")  # that are never closed


class Element:
    """One of them. `text`: all that stands in it."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes = tag, attributes
        self.inside: list[Element] = []
        self.text = ""

    def all(self, tag: str, kind: str = "") -> list[Element]:
        """Those in it of a tag, and a class."""
        found = [each for each in self.inside if each.tag == tag and kind in each.attributes.get("class", "")]
        return found + [more for each in self.inside for more in each.all(tag, kind)]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        element = self.open.pop()
        assert element.tag == tag, f"</{tag}> where <{element.tag}> is open"

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data


def read(page: str) -> Element:
    """The elements of a page or of a part of one, each of which must be closed."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is not closed"
    return reader.open[0]
