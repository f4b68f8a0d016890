"""The pages of the site, from those of the checkout: what becomes of each, and where its links lead then."""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent
DOCS = ROOT / "docs"
CONTENTS = DOCS / "README.md"  # the list of pages, which is the navigation
PROJECT = {  # pages that are made of files beside docs/, and what the navigation calls them
    "README.md": "index.md",
    "docs/README.md": "contents.md",
    "FAULTS.md": "faults.md",
    "BENCHMARKS.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/README.md": "examples/index.md",
}
HOME_PAGE = PROJECT["README.md"]
REFERENCE = "Reference"  # the heading in that list below which the pages made of docstrings come too
GROUPS = {  # public names, by page; those that stand nowhere here come on a page of their own
    "Lines and steps": ["line", "Line", "step", "batch", "keep", "expand", "serial", "per_worker", "Step"],
    "Runs and reports": ["Run", "Report", "StepCount", "NodeCount", "Verdict", "Snapshot", "defaults"],
    "Plans, comparisons, checks": [
        "Plan", "PlannedStep", "FailedStep", "Prediction", "Comparison", "Row", "Check", "Finding",
    ],
    "Reading and writing": ["read", "write", "read_sql", "write_sql", "read_dead_letters", "DeadLetter", "Unkept"],
}  # fmt: skip
MODULES = {"taktline.abc": "Contracts", "taktline.testing": "Checks for tests", "taktline.otel": "OpenTelemetry"}
ENDS = {  # modules that show what they have from files of their own, and which of it people call
    "taktline.pubsub": ("Messages of Pub/Sub", ["subscribe", "publish", "Message"]),
    "taktline.redis": ("Messages of Redis", ["subscribe", "publish", "RedisMessage"]),
    "taktline.kafka": ("Messages of Kafka", ["subscribe", "publish", "KafkaMessage"]),
}
FENCE = re.compile(r"^(`{3,})(\w*)([^\n]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def write_site(target: Path) -> None:
    """Build the site into a folder, strictly: a link that leads nowhere is an error. Raises CalledProcessError."""
    sources = target.with_name(f"{target.name}.pages")
    shutil.rmtree(sources, ignore_errors=True)
    try:
        write_pages(sources / "pages")
        (sources / "mkdocs.yml").write_text(settings(sources / "pages", target), encoding="utf-8")
        build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "-f", "mkdocs.yml"]
        quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
        subprocess.run(build, cwd=sources, check=True, env=os.environ | quiet)
    finally:
        shutil.rmtree(sources, ignore_errors=True)


def settings(pages: Path, target: Path) -> str:
    """The file that MkDocs reads."""
    text = (HERE / "settings.yml").read_text(encoding="utf-8")
    text = text.replace("[SOURCE]", json.dumps([str(ROOT / "src")]))
    text = text.replace("[FENCED]", json.dumps([str(HERE / "fenced.py")]))
    ours = {"docs_dir": str(pages), "site_dir": str(target.resolve()), "nav": navigation()}
    return text + "".join(f"\n{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in ours.items()) + "\n"


def write_pages(folder: Path) -> None:
    """Write all pages, pictures and what else the site is made of into a folder."""
    known = places()
    for source, place in known.items():
        if source.suffix == ".md":
            write(folder / place, adapted(source.read_text(encoding="utf-8"), source, known))
        elif source.suffix == ".py":
            write(folder / place, program(source))
        else:
            write(folder / place, source.read_bytes())
    for place, text in reference().items():
        write(folder / place, text)
    shutil.copytree(HERE / "assets", folder / "assets")


def write(path: Path, content: str | bytes) -> None:
    """Write a file, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def places() -> dict[Path, str]:
    """Each file of the checkout that is on the site, and its place there."""
    found = {ROOT / name: place for name, place in PROJECT.items()}
    for path in sorted(DOCS.rglob("*")):
        if path.is_file() and path != CONTENTS and not path.name.startswith("."):
            found[path] = path.relative_to(DOCS).as_posix()
    for path in sorted((ROOT / "examples").glob("*.py")):
        found[path] = f"examples/{path.stem}.md"
    return found


def program(path: Path) -> str:
    """A page that shows a program."""
    return f"# {path.name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"


def adapted(text: str, source: Path, known: dict[Path, str]) -> str:
    """A page with its links as they are on the site, and its blocks of code as MkDocs reads them."""
    parts, at = [], 0
    for block in FENCE.finditer(text):
        parts += [with_links(text[at : block.start()], source, known), as_block(block)]
        at = block.end()
    return "".join([*parts, with_links(text[at:], source, known)])


def as_block(block: re.Match[str]) -> str:
    """A block of code. `title=steps.py` is written with quotes; a session is coloured as one."""
    fence, language, options, code = block.groups()
    if language == "python" and code.startswith(">>> "):
        language = "pycon"
    title = re.search(r"title=([^\s\"]+)", options)
    return f"{fence}{language}" + (f' title="{title[1]}"' if title else "") + f"\n{code}{fence}"


def with_links(text: str, source: Path, known: dict[Path, str]) -> str:
    """Text with its links as they are on the site. What is not on it is named, without a link."""

    def moved(found: re.Match[str]) -> str:
        picture, label, link = found.groups()
        if re.match(r"[a-z]+:", link) or link.startswith("#"):
            return found[0]
        name, mark, heading = link.partition("#")
        there = (source.parent / name).resolve()
        if there == ROOT / "examples":
            there = there / "README.md"
        place = known.get(there)
        if place is None:  # a link to nothing is left to MkDocs, which complains of it
            return label if there.exists() else found[0]
        return f"{picture}[{label}]({posixpath.relpath(place, posixpath.dirname(known[source]) or '.')}{mark}{heading})"

    return LINK.sub(moved, text)


def navigation() -> list[dict[str, object]]:
    """The list of pages in docs/README.md: its headings are the sections, its links the pages."""
    known = places()
    sections: dict[str, dict[str, str]] = {}  # heading: place: title
    heading = ""
    for line in CONTENTS.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
            continue
        for picture, label, link in LINK.findall(line):
            there = (DOCS / link.partition("#")[0]).resolve()
            there = there / "README.md" if there == ROOT / "examples" else there
            if heading and not picture and there in known and known[there] != HOME_PAGE:
                sections.setdefault(heading, {}).setdefault(known[there], label)
    sections.setdefault(REFERENCE, {}).update({place: title_of(text) for place, text in reference().items()})
    sections["Programs"] = {known[path]: path.name for path in known if path.suffix == ".py"}
    named: list[dict[str, object]] = [
        {title: [{page: place} for place, page in pages.items()]} for title, pages in sections.items()
    ]
    return [{"taktline": HOME_PAGE}, {"All pages": known[CONTENTS]}, *named]


def title_of(text: str) -> str:
    """A page's heading."""
    return text.partition("\n")[0].removeprefix("# ")


def reference() -> dict[str, str]:
    """The pages that are made of docstrings, and of the command's own help."""
    from taktline import _public

    left = dict(_public.HOME)
    groups = {title: [name for name in names if left.pop(name, None)] for title, names in GROUPS.items()}
    groups["All errors"] = [name for name, home in left.items() if home == "taktline.errors"]
    groups["More"] = [name for name, home in left.items() if home != "taktline.errors"]
    found = {
        f"reference/{slug(title)}.md": f"# {title}\n\n" + "".join(f"::: taktline.{name}\n\n" for name in names)
        for title, names in groups.items()
        if names
    }
    for module, title in MODULES.items():
        found[f"reference/{slug(title)}.md"] = (
            f"# {title}\n\n::: {module}\n    options:\n      show_root_heading: false\n"
        )
    for module, (title, names) in ENDS.items():
        text = f"# {title}\n\n" + "".join(f"::: {module}.{name}\n\n" for name in names)
        found[f"reference/{slug(title)}.md"] = text
    found["reference/commands.md"] = "# Commands\n\n" + "\n".join(command_help())
    return found


def command_help() -> Iterator[str]:
    """What each command says of itself, 80 columns wide."""
    import click

    from taktline.cli.commands import commands

    for name, command in [("", commands), *sorted(commands.commands.items())]:
        called = f"taktline {name}".rstrip()
        context = click.Context(command, info_name=called, terminal_width=80)
        yield f"## {called}\n\n```text\n{command.get_help(context)}\n```\n"


def slug(title: str) -> str:
    """A title as a file is called."""
    return re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
