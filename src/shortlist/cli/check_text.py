"""The data report as text for people, at a terminal or in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from shortlist.cli.terminal import plain_text, printed, table_parts
from shortlist.data.check.report import LogReport
from shortlist.data.check.tables import place_of, summary_of, tables_of
from shortlist.data.findings import Finding

_COLOURS = {"problem": "bold red", "warning": "yellow", "note": "cyan"}


def report_text(
    report: LogReport, lines: Sequence[str], next_: str, html: Path | None
) -> str:
    """Tables and findings; with colours only at a terminal.

    Args:
        report: what `check_log` returned.
        lines: printed after the verdict: the files and columns.
        next_: the next command to run, if any.
        html: the page that was written, if any.
    """
    verdict, style = report.verdict, "green" if report.verdict.ready else "bold red"
    parts: list[RenderableType] = [plain_text(verdict.message, style=style)]
    if next_:
        solved = "" if verdict.ready else ", which sets this"
        parts.append(plain_text(f"next: {next_}{solved}"))
    parts += [Text(""), *(plain_text(line) for line in lines)]
    for table in tables_of(report):
        parts += table_parts(table)
    summary = f"Findings: {summary_of(report.findings)}"
    parts += [Text(""), Text(summary, style="bold")]
    parts += [Padding(_line(finding), (0, 0, 0, 2)) for finding in report.findings]
    if html is not None:
        parts.append(plain_text(f"report: {html}"))
    return printed(parts)


def _line(finding: Finding) -> Text:
    line = Text().append(finding.severity, style=_COLOURS[finding.severity])
    line.append(f" {finding.code}: ", style="bold")
    line.append_text(plain_text(finding.message))
    place = place_of(finding)
    return line.append_text(plain_text(f" ({place})", style="dim")) if place else line
