"""The data report as one HTML file: plots, tables and findings, without any script.

Nothing is loaded from elsewhere. What comes from a log (ids, column and file names) is
text that others wrote: all of it is escaped, and a policy in the page forbids scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from shortlist.atomic import atomic_file
from shortlist.data.check.plots import Plot, plots_of
from shortlist.data.check.report import LogReport
from shortlist.data.check.tables import Table, place_of, summary_of, tables_of
from shortlist.data.findings import Finding

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto;
  padding: 0 1rem; color: CanvasText; background: Canvas; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { opacity: .7; }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { font-weight: 600; opacity: .7; }
tbody th { font-weight: 400; }
.note { font-size: .85rem; opacity: .75; margin: .3rem 0; }
.findings { list-style: none; padding: 0; }
.findings li { margin: .5rem 0; padding: .5rem .8rem; background: var(--soft);
  border-left: 4px solid var(--mark); overflow-wrap: anywhere; }
.problem { --mark: #d13c3c; }
.warning { --mark: #dd7f1e; }
.note-finding { --mark: #4a86d8; }
.plots { display: grid; gap: 1rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
figure { margin: 0; } figure.wide { grid-column: 1 / -1; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
svg { width: 100%; height: auto; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_WIDE = ("activity", "drift-validation", "drift-test")


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
    with atomic_file(path) as temporary:
        # A file name may hold bytes that are no text.
        temporary.write_text(page, encoding="utf-8", errors="replace")


def report_html(
    report: LogReport,
    *,
    title: str = "Data report",
    details: Mapping[str, str] | None = None,
) -> str:
    """The page as text; arguments and errors as `write_html`."""
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{escape(title)}</h1>",
        *_details(details or {}),
        *_findings(report.findings),
        '<div class="plots">',
        *(_plot(plot) for plot in plots_of(report)),
        "</div>",
        *(line for table in tables_of(report) for line in _table(table)),
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _details(details: Mapping[str, str]) -> list[str]:
    terms = [
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
        for name, text in details.items()
    ]
    return ["<dl>", *terms, "</dl>"] if terms else []


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
    width = ' class="wide"' if plot.name in _WIDE else ""
    caption = f"<figcaption>{escape(plot.title)}</figcaption>"
    return f"<figure{width}>{caption}{plot.svg}</figure>"


def _table(table: Table) -> list[str]:
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = [
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    ]
    return [
        f"<h2>{escape(table.title)}</h2>",
        '<div class="scroll"><table>',
        f"<thead><tr>{header}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody></table></div>",
        *([f'<p class="note">{escape(table.note)}</p>'] if table.note else []),
    ]
