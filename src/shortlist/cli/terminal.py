"""Tables and lines for people, at a terminal or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from shortlist.cli.printable import printable
from shortlist.page import Table

_PIPED_WIDTH = 120


def printed(parts: Iterable[RenderableType], *, piped_width: int = _PIPED_WIDTH) -> str:
    """Parts below each other, in colour only at a terminal.

    Args:
        parts: text, which is not wrapped, tables and others.
        piped_width: width of what is wrapped, where there is no terminal.
    """
    # Ids and names of a log may look like markup: nothing is interpreted.
    at_terminal = sys.stdout.isatty()
    console = Console(
        width=None if at_terminal else piped_width,
        markup=False,
        emoji=False,
        highlight=False,
    )
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def table_parts(table: Table) -> list[RenderableType]:
    """A table below its title, with its note."""
    shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    shown.show_header = any(name != "value" for name in table.header if name)
    for place, name in enumerate(table.header):
        # A cell that does not fit is broken, never cut.
        shown.add_column(
            Text(name), justify="right" if place else "left", overflow="fold"
        )
    for row in table.rows:
        shown.add_row(*(plain_text(cell) for cell in row))
    note = [Padding(Text(table.note, style="dim"), (0, 0, 0, 2))] if table.note else []
    return [Text(""), Text(table.title, style="bold"), shown, *note]


def plain_text(text: str, style: str = "") -> Text:
    """A text for a table, through `printable`."""
    return Text(printable(text), style=style)
