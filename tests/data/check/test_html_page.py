"""The HTML report: well-formed, self-contained, safe, the same in every run."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from grouped_logs import DAY, SCHEMA, Row, grouped_log
from shortlist.data import Finding, LogReport, Schema, Split, check_log
from shortlist.data.check import html_page
from shortlist.data.check.html_page import report_html, write_html
from shortlist.data.check.plots import Plot, plots_of
from shortlist.errors import InputError, ResourceError

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta"}
EVIL = "<script>alert('x')</script>&\"'$x$"


def log_of(num_events: int = 600) -> list[Row]:
    return [
        (n % 7, n * n % 11, n * DAY // 2 + DAY, 1 + n % 5, (0, 0, 0, 1, 2)[n % 5])
        for n in range(num_events)
    ]


def report_of(*findings: Finding, schema: Schema = SCHEMA) -> LogReport:
    return check_log(grouped_log(log_of(), findings=findings), schema, Split())


@functools.cache
def whole_page() -> str:
    """The page of the log above, drawn once: it takes seconds."""
    return report_html(report_of())


@functools.cache
def whole_plots() -> list[Plot]:
    return plots_of(report_of())


class Page(HTMLParser):
    """Collects elements and text, and checks that every tag is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_and_holds_plots_tables_and_findings() -> None:
    finding = Finding("a-code", "problem", "Something.", file="a.csv", row=3)
    page = Page(report_html(report_of(finding), title="My log", details={"files": "a"}))
    assert page.tags.count("svg") == page.tags.count("figure") == 13
    assert page.tags.count("table") == 7
    assert "Findings: 2 problems" in page.text
    assert "Something. (file a.csv, row 3)" in page.text
    assert page.text.count("My log") == 2
    assert "rows read" in page.text and "600" in page.text


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs() -> None:
    text = whole_page()
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name != "src"
        if name in ("href", "xlink:href"):
            assert value is not None and value.startswith("#")
    addresses = set(re.findall(r"https?://[^\"' ]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text


def test_text_of_the_log_is_never_markup() -> None:
    finding = Finding(EVIL, "warning", EVIL, file=EVIL, column=EVIL)
    text = report_html(report_of(finding), title=EVIL, details={EVIL: EVIL})
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert page.text.count(EVIL) == 8


def test_plots_are_svg_with_names_and_the_colour_of_the_page() -> None:
    ids: list[str] = []
    for plot in whole_plots():
        root = ET.fromstring(plot.svg)
        assert root.tag == f"{SVG}svg"
        assert root.get("role") == "img"
        title = root.find(f"{SVG}title")
        assert title is not None and title.text == plot.alt
        assert root.get("aria-labelledby") == title.get("id")
        assert "currentColor" in plot.svg
        assert "#010203" not in plot.svg and "#000000" not in plot.svg
        assert "#ffffff" not in plot.svg
        own = [element.get("id") for element in root.iter() if element.get("id")]
        links = re.findall(r'(?:url\(|href=")#([^")]+)', plot.svg)
        assert set(links) <= set(own)
        ids += [name for name in own if name is not None]
    assert len(ids) == len(set(ids))


def test_a_plot_per_question_that_the_log_can_answer() -> None:
    names = ["activity", "popularity", "per-user", "per-item", "labels"]
    quantities = ["item-popularity", "label", "hour", "weekday"]
    drift = [f"drift-{part}-{q}" for part in ("validation", "test") for q in quantities]
    assert [plot.name for plot in whole_plots()] == names + drift
    bare = report_of(schema=Schema(user_id="user", item_id="item"))
    assert [p.name for p in plots_of(bare)] == [
        "popularity",
        "per-user",
        "per-item",
        "drift-validation-item-popularity",
        "drift-test-item-popularity",
    ]
    only = check_log(grouped_log([(0, 0, DAY, 1, 0)]), SCHEMA, Split())
    assert [plot.name for plot in plots_of(only)] == names
    assert Page(report_html(only)).tags.count("svg") == 5


def test_plots_keep_a_size_at_which_a_telephone_can_show_them() -> None:
    """A plot on a page of 390 px shrinks little, or the page scrolls it."""
    text = whole_page()
    wide = re.findall(r'<figure class="wide">.*?</figure>', text, re.DOTALL)
    assert len(wide) == 1
    for plot in whole_plots():
        points = float(re.search(r'<svg[^>]* width="([\d.]+)pt"', plot.svg)[1])
        assert plot.svg in wide[0] or points * 4 / 3 < 390 * 1.15
    assert "figure.wide svg" in text and "min-width: 44rem" in text
    assert "figure { margin: 0; overflow-x: auto; }" in text


def test_the_verdict_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html_page, "plots_of", lambda report: [])
    ready = check_log(grouped_log(log_of()), SCHEMA, Split(), repeats=True)
    for report, style in ((ready, "ready"), (report_of(), "problem")):
        text = report_html(report)
        verdict = f'<p class="verdict {style}">{report.verdict.message}</p>'
        assert text.index(verdict) < text.index("<h2>")


def test_the_bars_drawn_are_the_numbers_reported() -> None:
    report = report_of()
    (labels,) = (plot for plot in whole_plots() if plot.name == "labels")
    assert report.labels is not None
    root = ET.fromstring(labels.svg)
    bars = [
        element.get("d", "")
        for element in root.iter(f"{SVG}path")
        if "#4a86d8" in element.get("style", "")
    ]
    heights = []
    for path in bars:
        ys = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", path)]
        heights.append(max(ys) - min(ys))
    counts = [bar.count for bar in report.labels.histogram]
    assert len(heights) == len(counts) == 5
    for height, count in zip(heights, counts, strict=True):
        assert height / heights[0] == pytest.approx(count / counts[0], rel=1e-3)


def test_the_same_report_is_the_same_page() -> None:
    assert report_html(report_of()) == whole_page()


def test_a_page_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_page, "plots_of", lambda report: [])
    path = tmp_path / "deep" / "report.html"
    write_html(report_of(), path, title="one")
    write_html(report_of(), path, title="two")
    assert "<h1>two</h1>" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(InputError) as caught:
        write_html(report_of(), path / "below.html")
    assert caught.value.code == "output-path"


def test_without_matplotlib_the_install_line_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ResourceError, match=r"shortlist\[plots\]") as caught:
        write_html(report_of(), tmp_path / "report.html")
    assert caught.value.code == "package-missing"
    assert list(tmp_path.iterdir()) == []


def test_no_window_and_no_global_state_of_matplotlib() -> None:
    script = (
        "import sys, matplotlib\n"
        "before = matplotlib.rcParams.copy()\n"
        "sys.path.insert(0, 'tests')\n"
        "from data.check.test_html_page import report_of\n"
        "from shortlist.data.check.html_page import report_html\n"
        "report_html(report_of())\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
