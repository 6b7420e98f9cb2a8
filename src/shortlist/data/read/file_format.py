"""Settings for reading a file, which override what is detected.

The settings of a recipe under `[log]`, `[log.users_format]` and `[log.items_format]`.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shortlist.data.read.time_formats import check_format
from shortlist.errors import InputError

RepeatedIds = Literal["raise", "last"]

SECTIONS = "[log], or of an attribute file [log.users_format] or [log.items_format]"
"""Where the settings are in a recipe, for messages."""


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """How a file is read; what is `None` or empty is detected from the file.

    Args:
        layout: one of `layouts.LAYOUTS`.
        separator: between the fields of a text file, one or more characters.
        encoding: of a text file, a name that Python knows; UTF-8 by default.
        quote_char: what fields are wrapped in, one character, or "" where quotes are
            ordinary characters; a double quote by default.
        has_header: whether the first line names the columns.
        column_names: names of the columns of a file without a header; with
            `has_header` they replace those of the header.
        null_values: texts that mean a missing value, in any column.
        timestamp_format: of the times of a log, in the letters of strftime.
        unroll: columns that hold a list per row: every element becomes an event.
        unroll_separator: between the elements of such a list where it is text and
            neither JSON nor Python; a blank by default.
        repeated_ids: of an attribute file: whether a repeated id is an error,
            or its `last` row counts.

    Raises:
        InputError: a value that cannot be used (`file-format`).
    """

    layout: str | None = None
    separator: str | None = None
    encoding: str | None = None
    quote_char: str | None = None
    has_header: bool | None = None
    column_names: Sequence[str] = ()
    null_values: Sequence[str] = ()
    timestamp_format: str | None = None
    unroll: Sequence[str] = ()
    unroll_separator: str = " "
    repeated_ids: RepeatedIds = "raise"

    def __post_init__(self) -> None:
        for name in ("column_names", "null_values", "unroll"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_characters()
        if self.encoding is not None and not _is_text_encoding(self.encoding):
            raise _refused(
                "`encoding` must be the name of a text encoding.",
                self.encoding,
                'Use one such as "latin-1", "cp1252" or "utf-16".',
            )
        if len(set(self.column_names)) < len(self.column_names):
            raise _refused(
                "`column_names` must differ.", self.column_names, "Rename one of them."
            )
        if "" in self.null_values:
            raise _refused(
                "`null_values` must be texts.", "", "An empty field is missing anyway."
            )
        if self.timestamp_format is not None:
            check_format(self.timestamp_format)

    def _check_characters(self) -> None:
        for name in ("separator", "unroll_separator"):
            given = getattr(self, name)
            if given is not None and (not given or set(given) & set('\n\r"')):
                raise _refused(
                    f"`{name}` must be one or more characters of one line.",
                    given,
                    'Use one such as ";", "\\t" or "::".',
                )
        quote = self.quote_char
        if quote is not None and (len(quote) > 1 or quote in ("\n", "\r", "\t", " ")):
            raise _refused(
                "`quote_char` must be one character, or nothing.",
                quote,
                'Use "\\"", "\'" or "".',
            )
        if quote is not None and not quote.isascii():
            raise _refused(
                "`quote_char` must be an ASCII character.", quote, 'Use "\'" or "".'
            )


def as_format(layout: str | FileFormat | None) -> FileFormat:
    """A format, given as one or as the name of a layout alone."""
    return layout if isinstance(layout, FileFormat) else FileFormat(layout=layout)


def _is_text_encoding(name: str) -> bool:
    try:
        return codecs.lookup(name).encode("a,b\n")[1] == 4 and bool(
            "".encode(name) or 1
        )
    except (LookupError, TypeError, ValueError):
        return False


def _refused(rule: str, received: object, fix: str) -> InputError:
    return InputError("file-format", f"{rule} Received: {received!r}. {fix}")
