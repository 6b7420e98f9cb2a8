"""Text of a log, an id or a file name, as it may go to a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text on one line, without what a terminal would obey.

    Control characters, line ends, and marks that change the direction of writing are
    shown as escapes.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )
