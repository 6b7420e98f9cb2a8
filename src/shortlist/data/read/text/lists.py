"""Lists in one field: as JSON, Python or NumPy write them, or with a separator."""

from __future__ import annotations

import ast
import contextlib
import json
import re

import polars as pl

_QUOTED = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'"
_BARE = r"[^\s,\[\]\"'{}()][^,\[\]\"'{}()]*"
_ITEM = re.compile(rf"\s*({_QUOTED}|{_BARE})\s*(,|$|(?=[\"']))")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")
_NOTHING = frozenset({"none", "null", "nan"})
_ENDS = {"[": "]", "(": ")", "{": "}"}


def parse_list(text: str) -> list[str] | None:
    """The elements of a list as JSON, Python or NumPy write it, as text.

    `["a", "b"]`, `['a', 'b']`, `['a' 'b']`, `[1, 2]`, `[1 2]`; and tuples and sets of
    numbers or of quoted texts. Missing elements (`null`, `None`, `nan`) are left out.

    Returns: the elements, or `None` for text that is no list or a nested one.
    """
    text = text.strip()
    if len(text) < 2 or _ENDS.get(text[0]) != text[-1]:
        return None
    inner, found, place = text[1:-1].strip(), [], 0
    while place < len(inner):
        item = _ITEM.match(inner, place)
        if item is None:
            return None
        found.append(item[1].strip())
        place = item.end()
    if len(found) == 1 and all(map(_NUMBER.fullmatch, found[0].split())):
        found = found[0].split()  # NumPy puts blanks between numbers
    # "(no genres listed)" is no tuple, and {"a": 1} no set.
    if text[0] != "[" and not all(i[0] in "\"'" or _NUMBER.fullmatch(i) for i in found):
        return None
    elements = [_element(item) for item in found]
    return [element for element in elements if element is not None]


def _element(item: str) -> str | None:
    if item[0] in "\"'":
        for read in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError):
                return str(read(item))
        return item[1:-1]
    return None if item.lower() in _NOTHING else item


def is_list_text(values: pl.Series) -> bool:
    """Whether the texts of a column, up to 1,000 of them, are lists in brackets."""
    known = values.drop_nulls().head(1_000)
    known = known.filter(known.str.len_bytes() > 0)
    if known.is_empty() or not known.str.contains(r"^\s*[\[({]").all():
        return False
    return all(parse_list(text) is not None for text in known.to_list())


def split_lists(values: pl.Series, separator: str) -> pl.Series:
    """Texts as lists of text: those in brackets parsed, the others split.

    Args:
        values: String.
        separator: between the elements of a text that is no list in brackets.

    Returns: List(String), elements stripped of blanks; null where the text is.
    """
    strip = pl.element().str.strip_chars()
    frame = values.alias("text").to_frame()
    split = frame.select(pl.col("text").str.split(separator).list.eval(strip))
    lists = split.to_series().alias(values.name)
    bracketed = values.str.contains(r"^\s*[\[({].*[\])}]\s*$").fill_null(False)
    if not bracketed.any():
        return lists
    texts = values.filter(bracketed).unique()
    parsed = [parse_list(text) for text in texts.to_list()]
    table = pl.DataFrame(
        {"text": texts, "list": pl.Series(parsed, dtype=pl.List(pl.String))}
    ).drop_nulls("list")
    found = frame.join(table, on="text", how="left", maintain_order="left")["list"]
    both = pl.DataFrame({"found": found, "split": lists})
    return both.select(pl.coalesce("found", "split").alias(values.name)).to_series()
