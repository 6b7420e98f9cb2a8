"""Separator, header and columns of text: from its first lines and the settings."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from shortlist.data.read.file_format import SECTIONS
from shortlist.data.read.log_file import LogFile, refuse_format
from shortlist.data.read.text import sniff
from shortlist.errors import LogError

# The official order of the 19 flags of `u.item` and of the `genres` text.
GENRES = (
    "unknown,Action,Adventure,Animation,Children's,Comedy,Crime,Documentary,Drama,"
    "Fantasy,Film-Noir,Horror,Musical,Mystery,Romance,Sci-Fi,Thriller,War,Western"
).split(",")

_RATINGS = ("user_id", "item_id", "rating", "timestamp")
_ITEMS_100K = ("item_id", "title", "release_date", "video_release_date", "imdb_url")
# Columns of the files without a header, by layout and number of fields.
HEADERLESS: dict[tuple[str, int], tuple[str, ...]] = {
    ("movielens-dat", 4): _RATINGS,
    ("movielens-dat", 3): ("item_id", "title", "genres"),
    ("movielens-dat", 5): ("user_id", "gender", "age", "occupation", "zip_code"),
    ("movielens-100k", 4): _RATINGS,
    ("movielens-100k", 5): ("user_id", "age", "gender", "occupation", "zip_code"),
    ("movielens-100k", 24): (*_ITEMS_100K, *GENRES),
}

_HINT = re.compile(r'(?i)"?sep=(.)"?\r?\n')
LEAVE_OUT = "Omit the layout to detect it."


def movielens_text(file: LogFile, text: str) -> LogFile:
    """A MovieLens file with the names of its columns, detected from its first lines."""
    line = next(line for line in text.splitlines() if line.strip())
    marks = ["::"] if file.layout == "movielens-dat" else ["\t", "|"]
    for mark in marks:
        columns = HEADERLESS.get((file.layout, len(line.split(mark))))
        if columns:
            return replace(file, delimiter=mark, columns=columns)
    counts = sorted(count for name, count in HEADERLESS if name == file.layout)
    refuse_format(
        file.path,
        f"a first line without {' or '.join(map(repr, marks))} between"
        f" {counts} fields, so not the layout {file.layout!r}",
        LEAVE_OUT,
    )


def sequences_text(file: LogFile, text: str) -> LogFile:
    """Lines such as `user item item item`, without a header."""
    given = file.format
    mark = given.separator or sniff.are_sequences(text, complete=file.is_whole) or " "
    names = given.column_names or ("user_id", "item_id")
    if len(names) != 2:
        refuse_format(
            file.path,
            f"{len(names)} column_names",
            "Lines of sequences have two: of the user and of the items.",
        )
    return replace(file, delimiter=mark, columns=tuple(names))


def delimited_text(file: LogFile, text: str) -> LogFile:
    """A file of fields with its separator and columns, detected from its first lines.

    Args:
        file: what is known of it.
        text: its first lines.
    """
    given, complete = file.format, file.is_whole
    quote = '"' if given.quote_char is None else given.quote_char
    marks = [given.separator] if given.separator else []
    if file.layout == "tsv" and not marks:
        marks = ["\t"]
    # Excel writes its separator into a separate first line.
    if hint := _HINT.match(text):
        marks, text = marks or [hint[1]], text[hint.end() :]
    mark = sniff.best_separator(text, marks, quote=quote, complete=complete)
    if mark is None:
        wanted = (
            " or ".join(map(repr, marks)) or 'one of , ; | or a tab, "::" or a blank'
        )
        raise LogError(
            "log-delimiter",
            f"The first line must be a header of two or more columns with {wanted}"
            f" between them. Found: {sniff.first_lines(text, 1)[0]!r}. Write the file"
            " with one of these separators, or set `separator` under [log].",
            file=file.path,
            row=1,
        )
    found = sniff.records(text, mark, quote=quote, complete=complete)
    named = replace(
        file,
        layout="tsv" if mark == "\t" else "csv",
        delimiter=mark,
        quote_char=quote,
        padded=mark != " " and sniff.is_padded(found),
    )
    known = _with_columns(named, found, text)
    return replace(known, header_lines=known.header_lines + bool(hint))


def _with_columns(file: LogFile, found: list[list[str]], text: str) -> LogFile:
    """The names of the columns, from the settings or the header."""
    given = file.format
    has_header = given.has_header
    if has_header is None:
        has_header = not given.column_names
        if has_header and sniff.is_headerless(found):
            raise _no_header(file, found[0])
    names = given.column_names or tuple(f"column_{n + 1}" for n in range(len(found[0])))
    if not has_header:
        if len(names) < len(found[0]):
            _refuse_names(file, len(found[0]))
        return replace(file, columns=tuple(names))
    header, lines = _header(text, file)
    header = tuple(name.strip() for name in header) if file.padded else header
    if sniff.has_row_names(found):
        header = ("", *header)
    if given.column_names:
        if len(given.column_names) != len(header):
            _refuse_names(file, len(header))
        header = tuple(given.column_names)
    _check_header(file.path, header, lines)
    return replace(file, columns=header, header_lines=lines)


def _header(text: str, file: LogFile) -> tuple[tuple[str, ...], int]:
    """The fields of the first record that is not blank, and the lines up to its end."""
    if file.delimiter == " " or len(file.delimiter) > 1 or not file.has_quotes:
        lines = text.split("\n")
        first = next(n for n, line in enumerate(lines) if line.strip())
        (record, *_) = sniff.records(
            lines[first], file.delimiter, quote=file.quote_char
        )
        return tuple(record), first + 1
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=file.delimiter,
        quotechar=file.quote_char,
        skipinitialspace=file.padded,
    )
    return tuple(next(record for record in reader if record)), reader.line_num


def _no_header(file: LogFile, first: Sequence[str]) -> LogError:
    kind = "only numbers" if all(map(_is_number, first)) else "data"
    shown = [field[:40] for field in first[:8]]
    return LogError(
        "log-no-header",
        f"The first line must name the columns. Found {kind}: {shown}. Add a header"
        " line such as 'user_id,item_id,rating'; or set has_header = false and"
        f" column_names = [...] under {SECTIONS}, as `shortlist init` proposes; or"
        " has_header = true if these are names.",
        file=file.path,
        row=1,
    )


def _refuse_names(file: LogFile, width: int) -> NoReturn:
    names = list(file.format.column_names)
    refuse_format(
        file.path,
        f"{width} columns and {len(names)} column_names: {names}",
        "Name every column.",
    )


def _check_header(path: Path, columns: Sequence[str], row: int) -> None:
    for name in columns:
        if columns.count(name) > 1:
            raise LogError(
                "log-column-duplicated",
                f"Column names must differ. Found {name!r} {columns.count(name)}"
                f" times among {list(columns)}. Rename or drop one of them.",
                file=path,
                column=name,
                row=row,
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
