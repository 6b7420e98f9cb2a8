"""Missing values that are written as text, such as `NULL`."""

from __future__ import annotations

import polars as pl

MISSING_TEXTS = frozenset(
    {"null", "na", "n/a", "#n/a", "none", "nan", "nil", "nat", "\\n", "undefined"}
    | {"-", "--", "?", "<na>", "(null)", "<null>", "missing", "(none)", "[null]"}
)
"""In lower case."""


def missing_texts(values: pl.Series) -> list[str]:
    """The different texts of a column that probably stand for a missing value.

    Args:
        values: String or any other type, which has none; nulls do not matter.
    """
    if values.dtype != pl.String:
        return []
    short = values.filter(values.str.len_bytes() <= 9).unique(maintain_order=True)
    lower = short.str.strip_chars().str.to_lowercase()
    found = short.filter(lower.is_in(list(MISSING_TEXTS)))
    return found.drop_nulls().to_list()
