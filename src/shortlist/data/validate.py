"""Columns as read become columns as used, or an error that names the row.

Knows one column at a time; everything is a whole-column expression, and only a refused
value is looked up in the file.
"""

from __future__ import annotations

from typing import NoReturn

import polars as pl

from shortlist.data.layouts import LogFile
from shortlist.data.locate import row_of
from shortlist.data.schema import Schema
from shortlist.errors import LogError

DAY_MS = 86_400_000

# Milliseconds per unit, and the magnitude where the next finer unit begins: 1e11
# seconds are the year 5138 and 1e11 milliseconds are March 1973.
_UNITS = {
    "seconds": (1000.0, 1e11),
    "milliseconds": (1.0, 1e14),
    "microseconds": (1e-3, 1e17),
    "nanoseconds": (1e-6, float("inf")),
}


def to_ids(values: pl.Series, file: LogFile) -> pl.Series:
    """Ids as Int64 or String, never changed.

    Raises:
        LogError: an id is missing or blank, or the column holds neither text nor
            integers.
    """
    _refuse_empty(values, file)
    if values.dtype.is_integer():
        wide = values.cast(pl.Int64, strict=False)
        # Unsigned ids beyond 2^63 keep their digits as text.
        fits = wide.null_count() == values.null_count()
        ids = wide if fits else values.cast(pl.String)
        missing = ids.is_null()
    elif values.dtype in (pl.String, pl.Categorical, pl.Enum):
        ids = values.cast(pl.String)
        missing = (ids.str.strip_chars().str.len_bytes() == 0).fill_null(True)
    else:
        raise LogError(
            "log-id-type",
            "Ids must be text or integers, so that each has one spelling. Received a"
            f" column of type {values.dtype}. Write the ids as text or integers.",
            file=file.path,
            column=values.name,
        )
    if missing.any():
        _refuse(
            "log-id-missing",
            values,
            missing,
            file,
            "Every event must name its user and item, every attribute row its id.",
            "Fill the id in or remove the row.",
        )
    return ids


def to_labels(values: pl.Series, schema: Schema, file: LogFile) -> pl.Series:
    """Labels as Float32 within the limits of the schema.

    Raises:
        LogError: a label is missing, not a number, NaN or infinite, outside
            `label_min` to `label_max`, or neither 0 nor 1 in a binary column.
    """
    _refuse_empty(values, file)
    labels = to_floats(values)
    missing = _is_missing(values)
    if missing.any():
        rule = "Every event must have a label."
        fix = "Fill it in or remove the row."
        _refuse("log-label-missing", values, missing, file, rule, fix)
    if labels.null_count():
        rule = "Labels must be numbers."
        fix = "Write a number with a decimal point, or choose another label column."
        _refuse("log-label-type", values, labels.is_null(), file, rule, fix)
    finite = labels.is_finite()
    if not finite.all():
        rule = "Labels must be finite numbers."
        fix = "Remove the row or write the true value."
        _refuse("log-label-not-finite", values, ~finite, file, rule, fix)
    low = float("-inf") if schema.label_min is None else schema.label_min
    high = float("inf") if schema.label_max is None else schema.label_max
    outside = (labels < low) | (labels > high)
    rule = f"Labels must lie between {low:g} and {high:g}."
    if schema.label_kind == "binary":
        outside |= ~labels.is_in([0.0, 1.0])
        rule = "Binary labels must be 0 or 1."
    if outside.any():
        fix = "Repair the row, or change label_min, label_max or label_kind."
        _refuse("log-label-range", values, outside, file, rule, fix)
    return labels.cast(pl.Float32)


def to_numbers(values: pl.Series, file: LogFile) -> pl.Series:
    """A numeric feature as Float64; missing values and NaN become null.

    Raises:
        LogError: a value is text or infinite.
    """
    numbers = to_floats(values)
    bad = (numbers.is_null() & ~_is_missing(values)) | numbers.is_infinite()
    if bad.fill_null(False).any():
        _refuse(
            "log-number-type",
            values,
            bad.fill_null(False),
            file,
            "A numeric feature must hold finite numbers or nothing.",
            "Repair the row or make the feature categorical.",
        )
    return numbers.fill_nan(None)


def to_times_ms(values: pl.Series, file: LogFile, now_ms: int) -> pl.Series:
    """Event times as Int64 milliseconds since the epoch.

    Dates and ISO-8601 text without a zone are UTC. Numbers are seconds, milliseconds,
    microseconds or nanoseconds: one unit for the column, told from its median.

    Raises:
        LogError: a time is missing, not a time, of another unit than most, before
            1970 or later than `now_ms` plus one day.
    """
    _refuse_empty(values, file)
    missing = _is_missing(values)
    if missing.any():
        rule = "Every event must have a time."
        fix = "Fill it in, remove the row, or name no timestamp column."
        _refuse("log-time-missing", values, missing, file, rule, fix)
    times = _parse_times(values, file)
    if (times < 0).any():
        rule = "Times must not lie before 1970."
        fix = "Repair the row or check which column holds the time."
        _refuse("log-time-before-1970", values, times < 0, file, rule, fix)
    late = times > now_ms + DAY_MS
    if late.any():
        rule = "Times must not lie in the future (more than a day from now)."
        fix = "Repair the row or the clock that wrote it."
        _refuse("log-time-future", values, late, file, rule, fix)
    return times


def ms_per_unit(numbers: pl.Series) -> float:
    """Milliseconds per unit of a column of times: 1000 for seconds, by the median."""
    return _UNITS[_unit(numbers)][0]


def check_unique(ids: pl.Series, file: LogFile) -> None:
    """Raises `LogError` at the second row of a repeated id of an attribute table."""
    repeated = ~ids.is_first_distinct()
    if repeated.any():
        rule = "An attribute file must have one row per id."
        fix = "Keep one of the rows."
        _refuse("log-id-duplicated", ids, repeated, file, rule, fix)


def _parse_times(values: pl.Series, file: LogFile) -> pl.Series:
    if values.dtype == pl.Date or values.dtype == pl.Datetime:
        return values.cast(pl.Datetime("ms")).to_physical().alias(values.name)
    if values.dtype.is_numeric():
        return _numbers_to_ms(values, file)
    if values.dtype != pl.String:
        _refuse_time(values, values.is_not_null(), file)
    numbers = to_floats(values)
    if numbers.null_count() * 2 < len(values):
        if numbers.null_count():
            _refuse_time(values, numbers.is_null(), file)
        exact = values.cast(pl.Int64, strict=False)
        return _numbers_to_ms(numbers if exact.null_count() else exact, file)
    times = iso_to_ms(values)
    if times.null_count():
        _refuse_time(values, times.is_null(), file)
    return times


def _unit(numbers: pl.Series) -> str:
    middle = abs(float(numbers.median() or 0))  # type: ignore[arg-type]
    return next((name for name, (_, end) in _UNITS.items() if middle < end), "seconds")


def _numbers_to_ms(numbers: pl.Series, file: LogFile) -> pl.Series:
    if numbers.dtype.is_float() and not numbers.is_finite().all():
        _refuse_time(numbers, ~numbers.is_finite(), file)
    unit = _unit(numbers)
    factor, end = _UNITS[unit]
    begin = max((e for _, e in _UNITS.values() if e < end), default=0.0)
    foreign = (numbers.abs() >= end) | ((numbers >= 0) & (numbers < begin))
    if foreign.any():
        rule = f"All times must have one unit; most of this column are {unit}."
        fix = "Write all of them in the same unit."
        _refuse("log-time-mixed", numbers, foreign, file, rule, fix)
    _refuse_compact_dates(numbers, file)
    if numbers.dtype.is_integer() and factor >= 1:
        return numbers.cast(pl.Int64) * int(factor)
    if numbers.dtype.is_integer():
        return numbers.cast(pl.Int64) // round(1 / factor)
    return (numbers * factor).round().cast(pl.Int64)


def _refuse_compact_dates(numbers: pl.Series, file: LogFile) -> None:
    """20240131 is meant as a day, not as a second of August 1970."""
    if not numbers.is_between(19_700_101, 21_001_231).all():
        return
    days = numbers.cast(pl.Int64).cast(pl.String).str.to_date("%Y%m%d", strict=False)
    if not days.null_count():
        rule = "Times must be numbers since 1970 or ISO-8601 text."
        fix = "These look like days: write them as 2024-01-31."
        _refuse("log-time-type", numbers, days.is_not_null(), file, rule, fix)


def iso_to_ms(text: pl.Series) -> pl.Series:
    """ISO-8601 text as Int64 milliseconds, null where it is none. No zone: UTC."""
    raw = pl.col(text.name).str.strip_chars()
    raw = pl.when(raw.str.len_bytes() == 10).then(raw + "T00:00").otherwise(raw)
    zone = r"(?: ?UTC|[Zz]|[+-]\d\d(?::?\d\d)?)$"
    clock = raw.str.replace(zone, "")
    clock = pl.when(clock.str.len_bytes() == 16).then(clock + ":00").otherwise(clock)
    offset = raw.str.extract(r"([+-]\d\d(?::?\d\d)?)$")
    # chrono reads only whole offsets: "+02" lacks its minutes.
    hours = offset.str.len_bytes() == 3
    offset = pl.when(hours).then(offset + ":00").otherwise(offset)
    whole = clock + offset.fill_null("Z")
    moment = whole.str.to_datetime(
        "%+", time_unit="ms", time_zone="UTC", strict=False, exact=True
    )
    lazy = text.to_frame().lazy().select(moment.to_physical().alias(text.name))
    return lazy.collect(engine="streaming").to_series()


def to_floats(values: pl.Series) -> pl.Series:
    """Float64, null where a value is no number; true and false count as 1 and 0."""
    if values.dtype == pl.String:
        numbers = values.cast(pl.Float64, strict=False)
        lower = values.str.to_lowercase() if numbers.null_count() else values
        if numbers.null_count() and lower.drop_nulls().is_in(["true", "false"]).all():
            return (lower == "true").cast(pl.Float64)
        return numbers
    if values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
        return values.cast(pl.Float64)
    return pl.Series(values.name, [None] * len(values), dtype=pl.Float64)


def _is_missing(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        return (values.str.len_bytes() == 0).fill_null(True)
    return values.is_null()


def _refuse_empty(values: pl.Series, file: LogFile) -> None:
    if _is_missing(values).all():
        raise LogError(
            "log-column-empty",
            f"A column that is used must hold values. Column {values.name!r} is empty"
            " in every row. Name another column or repair the export.",
            file=file.path,
            column=values.name,
        )


def _refuse_time(values: pl.Series, bad: pl.Series, file: LogFile) -> NoReturn:
    rule = "Times must be numbers since 1970 or ISO-8601 text, all of one kind."
    fix = "Write this one as the others, or choose another timestamp column."
    _refuse("log-time-type", values, bad, file, rule, fix)


def _refuse(
    code: str, values: pl.Series, bad: pl.Series, file: LogFile, rule: str, fix: str
) -> NoReturn:
    index = bad.arg_max() or 0
    rest = int(bad.sum()) - 1
    also = f" and {rest} more like it" if rest else ""
    raise LogError(
        code,
        f"{rule} Found {values[index]!r}{also}. {fix}",
        file=file.path,
        column=values.name,
        row=row_of(file, index),
    )
