"""The data report as one HTML file: plots, tables and findings, without any script."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from shortlist.data.check.plots import Plot, plots_of
from shortlist.data.check.report import LogReport, Verdict
from shortlist.data.check.tables import place_of, summary_of, tables_of
from shortlist.data.findings import Finding
from shortlist.page import figure_html, page_html, table_html, write_page

_WIDE = ("activity",)


def write_html(
    report: LogReport,
    path: str | Path,
    *,
    title: str = "Data report",
    details: Mapping[str, str] | None = None,
) -> None:
    """Writes the page; it appears whole or not at all.

    Args:
        report: what `check_log` returned.
        path: the file to write; an existing one is replaced.
        title: heading of the page.
        details: lines below it, such as the files and their columns.

    Raises:
        ResourceError: matplotlib is not installed, or the disk refuses.
    """
    page = report_html(report, title=title, details=details)
    write_page(page, path)


def report_html(
    report: LogReport,
    *,
    title: str = "Data report",
    details: Mapping[str, str] | None = None,
) -> str:
    """The page as text; arguments and errors as `write_html`."""
    body = [
        _verdict(report.verdict),
        *_findings(report.findings),
        '<div class="plots">',
        *(_plot(plot) for plot in plots_of(report)),
        "</div>",
        *(line for table in tables_of(report) for line in table_html(table)),
    ]
    return page_html(title, body, details=details)


def _verdict(verdict: Verdict) -> str:
    style = "ready" if verdict.ready else "problem"
    return f'<p class="verdict {style}">{escape(verdict.message)}</p>'


def _findings(findings: tuple[Finding, ...]) -> list[str]:
    entries = []
    for finding in findings:
        place = place_of(finding)
        style = "note-finding" if finding.severity == "note" else finding.severity
        entries.append(
            f'<li class="{style}"><strong>{finding.severity}</strong>'
            f" <code>{escape(finding.code)}</code>: {escape(finding.message)}"
            + (f' <span class="note">({escape(place)})</span>' if place else "")
            + "</li>"
        )
    heading = f"<h2>Findings: {escape(summary_of(findings))}</h2>"
    return [heading, *(['<ul class="findings">', *entries, "</ul>"] if entries else [])]


def _plot(plot: Plot) -> str:
    return figure_html(plot.title, plot.svg, wide=plot.name in _WIDE)
