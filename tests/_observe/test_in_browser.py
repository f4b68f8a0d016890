"""The pages of runs and comparisons in a real browser: what they show, at two widths, light and dark."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import zlib

import pytest
from browser import page

from taktline import Report, line
from taktline._observe import pictures, verdict, web
from taktline._observe.measures import duration

SECTIONS = [
    "Verdict", "Where the time went", "Over time", "Who did what when", "What if there were more cores", "Steps",
    "Failures", "What was run",
]  # fmt: skip


def parse(n):
    return sum(range(300)) and n // (n % 997)


def enrich(n):
    return sum(range(900)) and n


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of a run that is long enough to be judged, in which a worker ends and records fail."""
    died = tmp_path_factory.mktemp("died") / "died"

    def dies(n):
        if n == 2_000 and not died.exists():
            died.touch()
            os._exit(3)
        return n

    flow = line(dies, parse, enrich, name="<orders> & more")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(verdict, "SHORT", 0.0)
        return flow.run(range(100_000), on_error="skip", workers=2, how="line")


def seen(path, width, dark=False):
    """What the browser shows of a page: its text, its own width, what it complained of, its picture."""

    async def looks():
        async with page() as shown:
            await shown.open(f"file://{path}", width=width, dark=dark)
            text = await shown.value("document.body.innerText")
            wide = await shown.value("document.documentElement.scrollWidth")
            titles = await shown.value("[...document.querySelectorAll('[role=img]')].every("
                                       "e => e.ariaLabel || e.querySelector('title').textContent)")  # fmt: skip
            scripts = await shown.value("document.scripts.length")
            return text, wide, titles, scripts, shown.said, await shown.picture()

    return asyncio.run(looks())


def colours(png):
    """Width and height of a PNG, and how many different bytes its lines have: none has a page that is blank."""
    width, height = struct.unpack(">II", png[16:24])
    data, at = b"", 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        data += png[at + 8 : at + 8 + size] if png[at + 4 : at + 8] == b"IDAT" else b""
        at += size + 12
    return width, height, len(set(zlib.decompress(data)))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_of_a_run_shows_all_its_pictures(width, dark, report, tmp_path):
    report.to_html(tmp_path / "run.html")
    text, wide, titles, scripts, said, picture = seen(tmp_path / "run.html", width, dark)
    assert said == []
    assert wide == width  # nothing sticks out
    assert titles
    assert scripts == 0
    assert "<orders> & more" in text
    places = [text.index(f"\n{name}\n") for name in SECTIONS]
    assert places == sorted(places)
    for each in (f"{report.records_in:,} in", "worker 1", "worker 2", "ZeroDivisionError", "exit code 3"):
        assert each in text
    shown_width, _, different = colours(picture)
    assert shown_width == width
    assert different > 50


SHOWN_TEXTS = """[...document.querySelectorAll('.fits b, .fits li, .ticks span')].filter(e => e.checkVisibility())
.map(e => [e.textContent, e.getBoundingClientRect().toJSON()])"""


def test_the_times_on_other_numbers_of_cores_can_all_be_read_at_any_width(tmp_path):
    curves = [(20.8, 10.4, 5.3, 2.7, 1.5, 1.4, 1.39, 1.38), (754, 740, 735, 731, 730, 730, 729), (15_420, 9_000, 8_000)]
    for curve in curves:
        points = [
            {"cores": 1 << n, "seconds": each, "bottleneck": "score", "here": n == len(curve) // 2}
            for n, each in enumerate(curve)
        ]
        (tmp_path / "page.html").write_text(web.html_page("page", web._fragment(pictures.what_if({"what_if": points}))))

        async def texts():
            async with page() as shown:
                for width in (390, 500, 640, 760, 900, 1280):
                    await shown.open(f"file://{tmp_path / 'page.html'}", width=width)
                    assert await shown.value("document.documentElement.scrollWidth") == width
                    yield width, await shown.value(SHOWN_TEXTS)

        async def looks():
            return [each async for each in texts()]

        for width, found in asyncio.run(looks()):
            times = [text for text, _ in found if text.rpartition(": ")[2] in {duration(each) for each in curve}]
            assert len(times) == len(curve), width
            over = [
                (text, other)
                for n, (text, one) in enumerate(found)
                for other, two in found[:n]
                if one["left"] < two["right"] and two["left"] < one["right"]
                if one["top"] < two["bottom"] and two["top"] < one["bottom"]
            ]
            assert not over, (width, over)


def test_the_page_of_a_comparison_has_bars_and_the_time_diagram_of_each_technique(tmp_path):
    table = line(parse, enrich).compare(list(range(1, 900)), rounds=2, workers=2)
    table.to_html(tmp_path / "compared.html")
    for width in (1280, 390):
        text, wide, titles, _, said, picture = seen(tmp_path / "compared.html", width)
        assert (said, wide, titles) == ([], width, True)
        assert "How long each takes" in text
        diagrams = text[text.index("Who did what when") :]
        assert all(row.technique in diagrams for row in table.rows if not row.reference)
        assert table.closing in text
        assert colours(picture)[2] > 50


def test_no_column_of_the_steps_has_to_be_looked_for_on_a_narrow_screen(tmp_path):
    heads = ("step", "records", "busy", "waiting", "blocked", "a record")
    rows = [
        ["a_step_with_a_long_name", "1,000,000", "12 m 12 s", "10.4 s", "31.9 s", "144.3 µs/rec"],
        ["b", *["1 s"] * 5],
    ]
    (tmp_path / "page.html").write_text(web.html_page("page", web._fragment(pictures.table(heads, rows, range(1, 6)))))

    async def looks():
        async with page() as shown:
            await shown.open(f"file://{tmp_path / 'page.html'}", width=390)
            return await shown.value("(e => [e.scrollWidth, e.clientWidth])(document.querySelector('.wide'))")

    inside, room = asyncio.run(looks())
    assert inside == room


def test_a_saved_report_makes_the_same_page(report, tmp_path):
    report.to_html(tmp_path / "run.html")
    again = web.report_html(json.loads(report.to_json()))
    assert web.html_page(report.name, again) == (tmp_path / "run.html").read_text()


def test_a_page_is_small_however_many_batches_there_were(tmp_path):
    done = line(abs).run(range(10_000), how="line", batch_size=1, workers=2)
    done.to_html(tmp_path / "run.html")
    assert (tmp_path / "run.html").stat().st_size < 400_000
    assert len(done.to_json()) < 400_000


def test_what_has_no_time_or_no_record_makes_a_page_too(tmp_path):
    for done in (line(abs).run([]), line(abs).run([1], how="line", workers=1)):
        done.to_html(tmp_path / "run.html")
        assert "Who did what when" in (tmp_path / "run.html").read_text() or not done.records_in


def test_a_failed_run_says_what_ended_it_and_a_stopped_one_that_nothing_did():
    run = line(parse)(range(1, 5_000), how="loop")
    with pytest.raises(ZeroDivisionError):
        run.drain()
    failed = run.report
    assert not failed.complete
    assert failed.error.startswith("ZeroDivisionError: ")
    assert failed.records_in == 997
    assert failed.failures[0]["examples"] == [[996, "997"]]
    assert failed.ended - failed.started == pytest.approx(failed.seconds, abs=1e-5)
    assert "ZeroDivisionError" in failed._repr_html_()
    with line(abs)(range(9)) as run:
        next(run)
    assert (run.report.complete, run.report.error) == (False, "")

    def refuses(result):
        raise OSError("no room")

    with pytest.raises(Exception, match="no room"):
        (run := line(abs)(range(9))).drain(refuses)
    assert "no room" in run.report.error


def test_everything_that_is_looked_at_has_a_repr_of_one_line(report):
    run = line(abs)(range(9))
    flow = line(abs)
    for each in (report, run, run.snapshot(), flow.plan(range(9)), flow.check(range(9)), flow):
        assert "\n" not in repr(each)
        assert len(repr(each)) < 160
    assert isinstance(report, Report)


def test_long_names_and_words_wrap_on_a_narrow_screen(tmp_path):
    def a_function_with_a_quite_long_name_that_people_do_write_sometimes(n):
        if n == 3:
            raise ValueError(f"https://example.com/{'0123456789abcdef' * 20}")
        return n

    step = a_function_with_a_quite_long_name_that_people_do_write_sometimes
    run = line(step)(range(10), on_error="skip", progress=False)
    run.drain(None)
    failed = line(step)(range(10), progress=False)
    with pytest.raises(ValueError, match="example"):
        failed.drain(None)
    for n, each in enumerate((run, failed)):
        each.report.to_html(tmp_path / f"{n}.html")
        _, wide, *_ = seen(tmp_path / f"{n}.html", 390)
        assert wide <= 390


def test_the_page_says_in_words_what_is_no_step():
    verdict = {"bottleneck": "parse", "evidence": "It is.", "action": "Do.", "next": "hub"}
    points = [
        {"cores": n, "seconds": 1.0, "bottleneck": what, "here": n == 1} for n, what in ((1, "parse"), (2, "hub"))
    ]
    report = line(abs).run(range(9), progress=False).to_dict() | {"verdict": verdict, "what_if": points}
    shown = pictures.html.unescape(web.report_html(report))
    assert "Then the caller's process is next." in shown
    assert "Bottleneck: 'parse', from 2 cores on the caller's process." in shown
