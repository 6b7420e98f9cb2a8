"""Whether a column holds times, and how they are written."""

from __future__ import annotations

import time
from dataclasses import dataclass

import polars as pl

from shortlist.data.read.time_formats import compact_format, find_format, parse_times
from shortlist.data.read.validate import (
    is_missing,
    iso_to_ms,
    ms_per_unit,
    to_integers_or_floats,
)
from shortlist.data.split import DAY_MS

_YEAR_1990_MS = 631_152_000_000
_LOOKED_AT = 10_000


@dataclass(frozen=True)
class TimeGuess:
    """How the values of a column are read as times.

    Args:
        share: of the values that are times between 1990 and tomorrow.
        formats: format in the letters of strftime; several if day and month are
            ambiguous; none for numbers since 1970 and ISO-8601.
        unread: number of values that are no times.
        example: one of them.
        same: whether all values are one.
    """

    share: float
    formats: tuple[str, ...] = ()
    unread: int = 0
    example: object = None
    same: bool = False


def guess_times(values: pl.Series, form: str | None = None) -> TimeGuess:
    """Guesses the format of times from up to 10,000 values.

    Args:
        values: the column.
        form: the format of the times in the letters of strftime, if it is known.
    """
    known = values.filter(~is_missing(values))
    if known.is_empty() or known.dtype.is_nested():
        return TimeGuess(0.0)
    same = len(known) > 1 and known.n_unique() == 1
    if known.dtype in (pl.Date, pl.Datetime):
        return TimeGuess(1.0, same=same)
    some = known.gather_every(max(len(known) // _LOOKED_AT, 1))
    if form is not None:
        return _in_format(known, form, same=same)
    if some.dtype.is_numeric():
        times, formats = _of_numbers(some)
    elif some.dtype == pl.String:
        times, formats = _of_text(some)
    else:
        return TimeGuess(0.0)
    share = _share(times)
    if not share:
        return TimeGuess(0.0, formats, same=same)
    bad = _unread(known, formats) if some.dtype == pl.String else known.clear()
    example = bad[0] if len(bad) else None
    return TimeGuess(share, formats, len(bad), example, same)


def _in_format(known: pl.Series, form: str, *, same: bool) -> TimeGuess:
    if known.dtype.is_numeric():
        known = known.cast(pl.Int64, strict=False).cast(pl.String)
    if known.dtype != pl.String:
        return TimeGuess(0.0, (form,), same=same)
    times = parse_times(known, form)
    bad = known.filter(times.is_null())
    example = bad[0] if len(bad) else None
    return TimeGuess(_share(times), (form,), len(bad), example, same)


def _share(times: pl.Series) -> float:
    """The share of times between 1990 and tomorrow."""
    tomorrow = time.time() * 1000 + DAY_MS
    good = times.is_between(_YEAR_1990_MS, tomorrow).fill_null(False)
    return float(good.mean() or 0.0)  # type: ignore[arg-type]


def _of_numbers(numbers: pl.Series) -> tuple[pl.Series, tuple[str, ...]]:
    if form := compact_format(numbers):
        texts = numbers.cast(pl.Int64, strict=False).cast(pl.String)
        return parse_times(texts, form), (form,)
    return numbers.cast(pl.Float64) * ms_per_unit(numbers), ()


def _of_text(texts: pl.Series) -> tuple[pl.Series, tuple[str, ...]]:
    numbers = to_integers_or_floats(texts)
    if numbers.null_count() * 2 < len(texts):
        return _of_numbers(numbers)
    times = iso_to_ms(texts)
    if times.null_count() * 2 < len(texts):
        return times, ()
    found = find_format(texts)
    if not found.formats:
        return times, ()
    return parse_times(texts, found.formats[0]), found.formats


def _unread(known: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    """The values that cannot be read like the others."""
    if formats:
        times = parse_times(known, formats[0])
    else:
        times = to_integers_or_floats(known)
        if times.null_count() * 2 >= len(known):
            times = iso_to_ms(known)
    return known.filter(times.is_null())
