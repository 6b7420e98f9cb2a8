"""HTML pages without scripts: reports as one file.

Pages load nothing, and a content security policy forbids it. Names of files, columns
and ids are untrusted: all text is escaped here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from shortlist.atomic import atomic_file

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
figure { margin: 0; overflow-x: auto; } figure.wide { grid-column: 1 / -1; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
svg, img { width: 100%; height: auto; }
figure.wide svg, figure.wide img { min-width: 44rem; }
.verdict { margin: 1rem 0; padding: .6rem .9rem; background: var(--soft);
  border-left: 4px solid var(--mark); overflow-wrap: anywhere; }
.verdict strong { display: block; }
.ready, .better { --mark: #2f9e5f; } .worse { --mark: #d13c3c; }
.unsure { --mark: #dd7f1e; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin: 0 0 .4rem; }
  table { font-size: .85rem; } th, td { padding: .25rem .4rem; }
  th:first-child, td:first-child { white-space: normal; min-width: 6rem;
    max-width: min(9rem, 44vw); overflow-wrap: anywhere; }
}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_IMAGES = "; img-src data:"


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column names the row.

    Args:
        title: what the table is about.
        header: a name per column.
        rows: as many cells as the header has, per row.
        note: a sentence below the table, or nothing.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def page_html(
    title: str,
    body: Iterable[str],
    *,
    lead: Iterable[str] = (),
    details: Mapping[str, str] | None = None,
    has_images: bool = False,
) -> str:
    """A whole page.

    Args:
        title: heading of the page.
        body: elements below it, as HTML.
        lead: elements right below the title, above the details.
        details: lines between the two, such as files and their columns.
        has_images: images within the page are shown.
    """
    policy = _POLICY + (_IMAGES if has_images else "")
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{escape(title)}</h1>",
        *lead,
        *_details(details or {}),
        *body,
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def write_page(page: str, path: str | Path) -> None:
    """Writes a page atomically; an existing file is replaced.

    Raises:
        ResourceError: the disk refuses.
    """
    with atomic_file(path) as temporary:
        # A file name may contain bytes that are not text.
        temporary.write_text(page, encoding="utf-8", errors="replace")


def is_page(head: bytes) -> bool:
    """Whether a file with these first bytes is a page of Shortlist."""
    return head.startswith(b"<!DOCTYPE html>") and _POLICY.encode() in head


def figure_html(title: str, content: str, *, wide: bool = False) -> str:
    """A titled figure of an element."""
    width = ' class="wide"' if wide else ""
    caption = f"<figcaption>{escape(title)}</figcaption>"
    return f"<figure{width}>{caption}{content}</figure>"


def image_html(png: bytes, alt: str) -> str:
    """An image within the page; the page must have images."""
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def table_html(table: Table) -> list[str]:
    """A table with its title and note."""
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


def verdict_html(kind: str, text: str, next_step: str) -> list[str]:
    """The verdict at the top of a page.

    Args:
        kind: `better`, `worse` or `unsure`, which sets the colour.
        text: the verdict.
        next_step: what to do next, or empty; commands are in backticks.
    """
    parts = [escape(part) for part in next_step.split("`")]
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    content = f"<strong>{escape(text)}</strong>{''.join(parts)}"
    return [f'<p class="verdict {escape(kind)}">{content}</p>']


def terms_html(title: str, terms: Mapping[str, str]) -> list[str]:
    """A title and a list of terms with their meanings."""
    return [f"<h2>{escape(title)}</h2>", *_details(terms)] if terms else []


def _details(details: Mapping[str, str]) -> list[str]:
    terms = [
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>"
        for name, text in details.items()
    ]
    return ["<dl>", *terms, "</dl>"] if terms else []
