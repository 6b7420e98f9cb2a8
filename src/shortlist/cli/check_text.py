"""The data report as text for people, at a terminal or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from shortlist.data.check.report import LogReport
from shortlist.data.check.tables import Table, place_of, summary_of, tables_of
from shortlist.data.findings import Finding

_PIPED_WIDTH = 120
_COLOURS = {"problem": "bold red", "warning": "yellow", "note": "cyan"}


def report_text(report: LogReport, told: Sequence[str], html: Path | None) -> str:
    """Tables and findings; with colours only at a terminal.

    Args:
        report: what `check_log` returned.
        told: lines that come first: what the log was taken to be.
        html: the page that was written, if any.
    """
    # Ids and names of a log may look like markup: nothing is interpreted.
    at_terminal = sys.stdout.isatty()
    console = Console(
        width=None if at_terminal else _PIPED_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )
    with console.capture() as captured:
        for line in told:
            console.print(_plain(line), soft_wrap=True)
        for table in tables_of(report):
            console.print()
            console.print(Text(table.title, style="bold"))
            console.print(_rich(table))
            if table.note:
                console.print(Padding(Text(table.note, style="dim"), (0, 0, 0, 2)))
        console.print()
        console.print(Text(f"Findings: {summary_of(report.findings)}", style="bold"))
        for finding in report.findings:
            console.print(Padding(_line(finding), (0, 0, 0, 2)))
        if html is not None:
            console.print(_plain(f"report: {html}"), soft_wrap=True)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _rich(table: Table) -> RichTable:
    shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    shown.show_header = any(name != "value" for name in table.header if name)
    for place, name in enumerate(table.header):
        # A cell that does not fit is broken, never cut.
        shown.add_column(
            Text(name), justify="right" if place else "left", overflow="fold"
        )
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown


def _line(finding: Finding) -> Text:
    line = Text().append(finding.severity, style=_COLOURS[finding.severity])
    line.append(f" {finding.code}: ", style="bold")
    line.append_text(_plain(finding.message))
    place = place_of(finding)
    return line.append_text(_plain(f" ({place})", style="dim")) if place else line


def _plain(text: str, style: str = "") -> Text:
    """Text of a log or file name, without what moves the cursor of a terminal."""
    shown = (
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
    return Text("".join(shown), style=style)
