"""What the first lines of a text file say: separator, header, blanks, encoding."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from shortlist.data.read.text.missing import MISSING_TEXTS

SEPARATORS = ("\t", ",", ";", "|", "::")
"""Looked for in this order: a tab is rare inside values. A blank comes last of all."""
JOINED = "\x1f"
"""Stands for a separator of several characters, which `csv` cannot split at."""
SNIFFED_RECORDS = 200
_MOST_ALIKE = 0.9
_FIRST_EPOCH = 631_152_000  # seconds; 1990
_CLOCK = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}[ T]\d{1,2}:\d\d")
_HEADER_WORD = re.compile(
    r"(?i)(user|item|movie|product|session|customer|visitor|article|track|artist|book)"
    r"[ _-]?(id|s|no|number|name|key)?(:\w+)?|id|uid|iid|sku|asin|isbn|rating|score"
    r"|timestamp|time|date|event([ _]?(type|time))?|title|name|label|query|count"
)


def records(
    text: str, separator: str, *, quote: str = '"', complete: bool = True
) -> list[list[str]]:
    """The first records of a text that may be cut, without blank lines.

    Args:
        text: the start of a file.
        separator: between fields, one or more characters.
        quote: what fields are wrapped in; "" for nothing.
        complete: whether the text is all of the file: the last record of a cut one is
            cut as well.
    """
    if separator == " ":
        text = re.sub("(?m)^ +| +(?=\r?$)", "", re.sub(" +", " ", text))
    if len(separator) > 1:
        text, separator = text.replace(separator, JOINED), JOINED
    found: list[list[str]] = []
    lines = io.StringIO(text, newline="")
    with contextlib.suppress(csv.Error):
        for record in csv.reader(
            lines,
            delimiter=separator,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        ):
            found += [record] if record else []
            if len(found) == SNIFFED_RECORDS:
                return found
    return found if complete or len(found) < 2 else found[:-1]


def best_separator(
    text: str, candidates: Sequence[str], *, quote: str = '"', complete: bool
) -> str | None:
    """The separator that gives most records the width of the first, or `None`.

    Ties go to more columns, then to the earlier candidate. Without `candidates` they
    are `SEPARATORS`, and a blank if none of those is in the first line.
    """
    best: tuple[float, int, str] = (0.0, 1, "")
    for mark in candidates or SEPARATORS:
        found = records(text, mark, quote=quote, complete=complete)
        width = len(found[0]) if found else 0
        same = sum(len(record) == width for record in found)
        score = (same / max(len(found), 1), width)
        if width > 1 and score > best[:2]:
            best = (*score, mark)
    if best[2] or candidates:
        return best[2] or None
    widths = Counter(map(len, records(text, " ", quote=quote, complete=complete)))
    width, count = widths.most_common(1)[0] if widths else (0, 0)
    return " " if width > 1 and count >= _MOST_ALIKE * widths.total() else None


def is_headerless(found: Sequence[Sequence[str]]) -> bool:
    """Whether the first record is data like the others, not column names."""
    first, others = found[0], found[1:]
    if all(map(_is_number, first)):
        return True
    if first[0] == "" and all(map(str.isdigit, first[1:])):
        return False  # as pandas writes an index and columns without names
    if any(_is_moment(field) for field in first) and not _named(first):
        return True
    if not others or _named(first):
        return False
    alike = [
        _is_alike(field, [r[n] for r in others if n < len(r)])
        for n, field in enumerate(first)
    ]
    return False not in alike and True in alike


def has_row_names(found: Sequence[Sequence[str]]) -> bool:
    """Whether rows start with a name without a column in the header, as R writes them.

    All of them have one field more than the header, and their first fields are unique.
    """
    first, others = found[0], found[1:]
    names = {record[0] for record in others}
    return (
        len(others) > 1
        and len(names) == len(others)
        and all(len(record) == len(first) + 1 for record in others)
        and any(record[-1] for record in others)
    )


def are_sequences(text: str, *, complete: bool) -> str | None:
    """The separator of lines such as `user item item ...`, or `None` for others.

    Lines have at least two fields, of many different numbers, all of them ids.
    """
    for mark in (" ", "\t", ",", ";"):
        found = records(text, mark, quote="", complete=complete)
        widths = Counter(len([f for f in record if f]) for record in found)
        fields = {f for record in found for f in record if f}
        if (
            len(found) >= 3
            and len(widths) >= 2
            and max(widths) > 2
            and widths.most_common(1)[0][1] < _MOST_ALIKE * len(found)
            and all(re.fullmatch(r"[\w:-]{1,40}", field) for field in fields)
            and (all(map(str.isdigit, fields)) or _repeats(found))
        ):
            return mark
    return None


def is_padded(found: Sequence[Sequence[str]]) -> bool:
    """Whether fields start with a blank, as in `user, item`."""
    fields = [field for record in found for field in record[1:] if field]
    padded = sum(field.startswith(" ") for field in fields)
    return bool(fields) and padded >= _MOST_ALIKE * len(fields)


def guess_encoding(raw: bytes) -> str | None:
    """The encoding that bytes that are not UTF-8 are probably in.

    Returns: a name for Python; `None` where most letters are beyond ASCII, so that it
    could be one of many.
    """
    for mark, name in (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if raw.startswith(mark):
            return name
    if b"\x00" in raw:
        even, odd = raw[::2].count(0), raw[1::2].count(0)
        if max(even, odd) < len(raw) / 4:  # of Latin letters every second byte is 0
            return None
        return "utf-16-le" if odd > even else "utf-16-be"
    high = [byte for byte in raw if byte >= 0x80]
    letters = sum(chr(byte).isalnum() for byte in raw if byte < 0x80)
    runs = re.findall(rb"[\x80-\xff]{3,}", raw)
    if 3 * len(high) > letters or 2 * sum(map(len, runs)) > len(high):
        return None
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252" if any(byte < 0xA0 for byte in high) else "latin-1"


def head_is_utf8(head: bytes) -> int | None:
    """The position of the first byte that is not UTF-8; the last character may be
    cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        return error.start
    return None


def first_lines(text: str, number: int = 3) -> list[str]:
    """Some lines, for messages."""
    return [line[:80] for line in islice(text.splitlines(), number)]


def _named(first: Sequence[str]) -> bool:
    return any(_HEADER_WORD.fullmatch(field.strip()) for field in first)


def _is_moment(field: str) -> bool:
    """Whether a field is a date with a time, and so no column name."""
    if _CLOCK.search(field):
        return True
    return _is_number(field) and float(field) >= _FIRST_EPOCH


def _is_alike(field: str, others: list[str]) -> bool | None:
    """Whether a field is like those below it; `None` if unclear."""
    known = [other for other in others if other and other.lower() not in MISSING_TEXTS]
    if not known or not field:
        return None
    numbers = sum(map(_is_number, known)) / len(known)
    if _is_number(field):
        return True if numbers >= _MOST_ALIKE else None
    if numbers >= _MOST_ALIKE:
        return False
    if field in known:
        return True
    form = _form(field)
    same = sum(_form(other) == form for other in known) / len(known)
    if same >= _MOST_ALIKE:
        return True if "9" in form else None
    return None if same else False


def _form(text: str) -> str:
    """What a text looks like: `u12` and `u7` are both `a9`."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", text))


def _repeats(found: Sequence[Sequence[str]]) -> bool:
    """Whether the same items occur in several records."""
    items = Counter(item for record in found for item in set(record[1:]) if item)
    return sum(count > 1 for count in items.values()) > len(items) / 4


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
