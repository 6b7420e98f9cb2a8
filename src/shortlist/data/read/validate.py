"""Converts columns as read into columns as used, and reports bad rows.

Works on one column of one block of rows, with whole-column expressions. A
`BadRowHandler` is called for bad values: `RaiseBadRows` raises and finds the row in the
file, `rejected.SkipBadRows` collects them. If it returns, bad values become null.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from shortlist.data.findings import shown
from shortlist.data.read.error_locations import row_of
from shortlist.data.read.log_file import LogFile
from shortlist.data.read.time_formats import (
    Found,
    check_format,
    compact_format,
    find_format,
    parse_times,
)
from shortlist.data.schema import Schema
from shortlist.data.split import DAY_MS
from shortlist.errors import LogError

# Called with an error code, the column as read, the mask of its bad rows, what must
# hold and what to do.
BadRowHandler = Callable[[str, pl.Series, pl.Series, str, str], None]

MAX_ID_BYTES = 4_096
"""Longer text is no id; a log whose lines do not end may be one value."""

# Milliseconds per unit, and the magnitude at which the next finer unit starts: 1e11
# seconds are the year 5138 and 1e11 milliseconds are March 1973.
_UNITS = {
    "seconds": (1000.0, 1e11),
    "milliseconds": (1.0, 1e14),
    "microseconds": (1e-3, 1e17),
    "nanoseconds": (1e-6, float("inf")),
}
# How many times decide the unit: units are a factor of 1000 apart.
_TIMES_LOOKED_AT = 100_000
_ISO = "iso"
# What NumPy and pandas write for a missing time among integers.
_NOT_A_TIME = -(2**63)


class RaiseBadRows:
    """Raises `LogError` at the first bad row.

    Args:
        file: the file being read.
        first: number of events of the file before the block.
    """

    def __init__(self, file: LogFile, first: int = 0) -> None:
        self.file = file
        self.first = first

    def __call__(
        self, code: str, values: pl.Series, bad: pl.Series, rule: str, fix: str
    ) -> None:
        """Raises for the first of `bad`."""
        index = bad.arg_max() or 0
        rest = int(bad.sum()) - 1
        also = f" and {rest} more like it" if rest else ""
        raise LogError(
            code,
            f"{rule} Found {shown(values, index)}{also}. {fix}",
            file=self.file.path,
            column=values.name,
            row=row_of(self.file, self.first + index),
        )


def to_ids(values: pl.Series, report: BadRowHandler, file: LogFile) -> pl.Series:
    """Ids as Int64 or String, never changed. Whole floats are read as integers: pandas
    writes them if an id is missing.
    Reports ids that are missing, blank or longer than `MAX_ID_BYTES`.

    Raises:
        LogError: the column holds neither text nor whole numbers.
    """
    given = values
    if values.dtype.is_float():
        values = _whole_ids(values, file)
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
        raise _no_ids(values, file, f"a column of type {values.dtype}")
    if missing.any():
        rule = "Every event needs a user and an item, every attribute row an id."
        fix = "Add the id, or remove the row."
        report("log-id-missing", given, missing, rule, fix)
    if ids.dtype == pl.String:
        lengths = ids.str.len_bytes()
        if (lengths.max() or 0) > MAX_ID_BYTES:  # type: ignore[operator]
            rule = f"An id must have at most {MAX_ID_BYTES:,} bytes."
            fix = "Check that lines end where events do, or name another column."
            too_long = (lengths > MAX_ID_BYTES).fill_null(False)
            report("log-id-long", given, too_long, rule, fix)
            kept = pl.when(~too_long).then(pl.col(ids.name))
            ids = ids.to_frame().select(kept).to_series()
    return ids


def _whole_ids(values: pl.Series, file: LogFile) -> pl.Series:
    """Floats as Int64, null for NaN; beyond 2^53 they are no longer exact."""
    known = values.fill_nan(None)
    whole = known.cast(pl.Int64, strict=False)
    exact = (whole == known) & (known.abs() < 2**53)
    bad = ~exact.fill_null(False) & known.is_not_null()
    if bad.any():
        raise _no_ids(values, file, f"the float {shown(values, bad.arg_max() or 0)}")
    return whole


def _no_ids(values: pl.Series, file: LogFile, found: str) -> LogError:
    return LogError(
        "log-id-type",
        "Ids must be text or whole numbers, so that each has one spelling. Received"
        f" {found}. Write the ids as text or integers.",
        file=file.path,
        column=values.name,
    )


def to_labels(values: pl.Series, schema: Schema, report: BadRowHandler) -> pl.Series:
    """Labels as Float32 within the limits of the schema.

    Reports labels that are missing, not a number, NaN, infinite or beyond Float32,
    outside `label_min` to `label_max`, or neither 0 nor 1 in a binary column.
    """
    labels = to_floats(values)
    missing = is_missing(values)
    if missing.any():
        rule = "Every event must have a label."
        fix = "Add it, or remove the row."
        report("log-label-missing", values, missing, rule, fix)
    unread = labels.is_null() & ~missing
    if unread.any():
        rule = "Labels must be numbers."
        fix = "Write a number with a decimal point, or choose another label column."
        report("log-label-type", values, unread, rule, fix)
    narrow = labels.cast(pl.Float32)  # beyond its range: infinite
    infinite = ~narrow.is_finite().fill_null(True)
    if infinite.any():
        rule = "Labels must be finite numbers, at most 3.4e38."
        fix = "Remove the row or write the true value."
        report("log-label-not-finite", values, infinite, rule, fix)
    low = float("-inf") if schema.label_min is None else schema.label_min
    high = float("inf") if schema.label_max is None else schema.label_max
    outside = (labels < low) | (labels > high)
    rule = f"Labels must be between {low:g} and {high:g}."
    if schema.label_kind == "binary":
        outside |= ~labels.is_in([0.0, 1.0])
        rule = "Binary labels must be 0 or 1."
    outside = outside.fill_null(False) & ~infinite
    if outside.any():
        fix = "Correct the row, or change label_min, label_max or label_kind."
        report("log-label-range", values, outside, rule, fix)
    return narrow


def to_numbers(values: pl.Series, report: BadRowHandler) -> pl.Series:
    """A numeric feature as Float64; missing values and NaN become null.

    Reports values that are text or infinite.
    """
    numbers = to_floats(values)
    bad = (numbers.is_null() & ~is_missing(values)) | numbers.is_infinite()
    if bad.fill_null(False).any():
        rule = "A numeric feature must hold finite numbers or nothing."
        fix = "Correct the row or make the feature categorical."
        report("log-number-type", values, bad.fill_null(False), rule, fix)
    return numbers.fill_nan(None)


class Times:
    """Reads the times of one file, block by block.

    Dates and times without a zone are UTC. Numbers are seconds, milliseconds,
    microseconds or nanoseconds: one unit for the file, found from the median of the
    first block; or they are dates written in digits. Other text is ISO-8601, or of the
    one format that the first block can be read in.

    Args:
        now_ms: the present, milliseconds since the epoch.
        form: the format of the times in the letters of strftime, where it is known.
    """

    def __init__(self, now_ms: int, form: str | None = None) -> None:
        self.now_ms = now_ms
        self.form = form
        self._kind = ""
        if form is not None:
            check_format(form)

    @property
    def are_text(self) -> bool:
        """Whether the times read so far are text, not numbers since 1970."""
        return self._kind == _ISO or self.form is not None

    def to_ms(self, values: pl.Series, report: BadRowHandler) -> pl.Series:
        """Event times as Int64 milliseconds since the epoch.

        Reports times that are missing, not a time, of another unit than most, before
        1970 or later than the present plus one day.
        """
        missing = is_missing(values)
        if missing.any():
            report_missing_time(values, missing, report)
        times = self._parsed(values, missing, report)
        early = (times < 0).fill_null(False)
        if early.any():
            rule = "Times must not be before 1970."
            fix = "Correct the row or check which column holds the time."
            report("log-time-before-1970", values, early, rule, fix)
        late = (times > self.now_ms + DAY_MS).fill_null(False)
        if late.any():
            rule = "Times must not be more than a day in the future."
            fix = "Correct the row or the clock that wrote it."
            report("log-time-future", values, late, rule, fix)
        return times

    def _parsed(
        self, values: pl.Series, missing: pl.Series, report: BadRowHandler
    ) -> pl.Series:
        if values.dtype == pl.Date or values.dtype == pl.Datetime:
            return values.cast(pl.Datetime("ms")).to_physical().alias(values.name)
        if values.dtype.is_numeric():
            return self._from_numbers(values, values, report)
        if values.dtype != pl.String:
            report_no_time(values, values.is_not_null(), report)
            return pl.Series(values.name, [None] * len(values), dtype=pl.Int64)
        if self.form is None and self._kind != _ISO:
            numbers = to_integers_or_floats(values)
            unread = numbers.is_null() & ~missing
            if self._kind or unread.sum() * 2 < len(values):
                if unread.any():
                    report_no_time(values, unread, report)
                return self._from_numbers(numbers, values, report)
        return self._from_text(values, missing, report)

    def _from_text(
        self, values: pl.Series, missing: pl.Series, report: BadRowHandler
    ) -> pl.Series:
        if self.form is None:
            times = iso_to_ms(values)
            if self._kind or times.null_count() * 2 < len(values) + missing.sum():
                self._kind = _ISO
            else:
                found = find_format(values)
                if len(found.formats) > 1:
                    _report_ambiguous(values, ~missing, found, report)
                self.form = found.formats[0] if len(found.formats) == 1 else None
        if self.form is not None:
            times = parse_times(values, self.form)
        unread = times.is_null() & ~missing
        if unread.any():
            report_no_time(values, unread, report, self.form)
        return times

    def _from_numbers(
        self, numbers: pl.Series, values: pl.Series, report: BadRowHandler
    ) -> pl.Series:
        if numbers.dtype.is_integer():
            numbers = _signed(numbers, values, report)
        if self.form is None and not self._kind:
            self.form = compact_format(numbers)
        if self.form is not None:
            return self._from_digits(numbers, values, report)
        self._kind = self._kind or _unit(numbers)
        unit = self._kind
        if numbers.dtype.is_float():
            infinite = ~numbers.is_finite().fill_null(True)
            if infinite.any():
                report_no_time(values, infinite, report)
        factor, end = _UNITS[unit]
        begin = max((e for _, e in _UNITS.values() if e < end), default=0.0)
        foreign = (numbers.abs() >= end) | ((numbers >= 0) & (numbers < begin))
        foreign = foreign.fill_null(False)
        if foreign.any():
            rule = (
                f"All times must have the same unit; most of this column have {unit}."
            )
            fix = "Write all of them in the same unit."
            report("log-time-mixed", values, foreign, rule, fix)
        times = _scaled(numbers, factor)
        if times.null_count() > numbers.null_count():
            report_no_time(values, times.is_null() & numbers.is_not_null(), report)
        return times

    def _from_digits(
        self, numbers: pl.Series, values: pl.Series, report: BadRowHandler
    ) -> pl.Series:
        """Numbers such as 20240131, in the format of their digits."""
        assert self.form is not None  # checked by the caller
        texts = numbers.cast(pl.Int64, strict=False).cast(pl.String)
        times = parse_times(texts.alias(values.name), self.form)
        unread = times.is_null() & numbers.is_not_null()
        if unread.any():
            report_no_time(values, unread, report, self.form)
        return times


def ms_per_unit(numbers: pl.Series) -> float:
    """Milliseconds per unit of a column of times: 1000 for seconds, by the median."""
    return _UNITS[_unit(numbers)][0]


def check_unique(ids: pl.Series, report: BadRowHandler) -> None:
    """Reports the second row of a repeated id of an attribute table."""
    repeated = ~ids.is_first_distinct()
    if repeated.any():
        rule = "An attribute file must have one row per id."
        fix = "Keep one of the rows."
        report("log-id-duplicated", ids, repeated, rule, fix)


def check_not_empty(values: pl.Series, file: LogFile) -> None:
    """Raises `LogError` for a column without any value."""
    if is_missing(values).all():
        raise LogError(
            "log-column-empty",
            f"A column that is used needs values. Column {values.name!r} is empty"
            " in every row. Name another column, or correct the export.",
            file=file.path,
            column=values.name,
        )


def iso_to_ms(text: pl.Series) -> pl.Series:
    """ISO-8601 text as Int64 milliseconds, null for other text. No zone: UTC.

    A zone may be followed by its name in brackets, as in Java: `Z[UTC]`.
    """
    times = _iso_to_ms(text)
    if times.null_count() == text.null_count():
        return times
    if not text.str.ends_with("]").any():
        return times
    offset = text.str.replace(r"(Z|z|[+-]\d\d(?::?\d\d)?)\[[\w/+-]+\]\s*$", "$1")
    return _iso_to_ms(offset.str.replace(r"\[(?:Etc/)?(?:UTC|GMT|Z)\]\s*$", "Z"))


def _iso_to_ms(text: pl.Series) -> pl.Series:
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
    """Float64, null where a value is not a number; true and false are 1 and 0."""
    if values.dtype == pl.String:
        numbers = values.cast(pl.Float64, strict=False)
        lower = values.str.to_lowercase() if numbers.null_count() else values
        if numbers.null_count() and lower.drop_nulls().is_in(["true", "false"]).all():
            return (lower == "true").cast(pl.Float64)
        return numbers
    if values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
        return values.cast(pl.Float64)
    return pl.Series(values.name, [None] * len(values), dtype=pl.Float64)


def to_integers_or_floats(text: pl.Series) -> pl.Series:
    """Int64 if all texts are integers, else as `to_floats`."""
    exact = text.cast(pl.Int64, strict=False)
    missing = text.null_count() if exact.null_count() else 0
    return exact if exact.null_count() == missing else to_floats(text)


def is_missing(values: pl.Series) -> pl.Series:
    """Mask of the values that are null or empty text."""
    if values.dtype == pl.String:
        return (values.str.len_bytes() == 0).fill_null(True)
    return values.is_null()


def report_no_time(
    values: pl.Series, bad: pl.Series, report: BadRowHandler, form: str | None = None
) -> None:
    """Reports values of a time column that are no times, or not of their format."""
    rule = "Times must be numbers since 1970 or ISO-8601 text, all of one kind."
    fix = "Write it like the others, choose another timestamp column, or set"
    fix += ' timestamp_format = "%d.%m.%Y %H:%M" or what it is under [log].'
    if form is not None:
        rule = f"Times must be written as timestamp_format says, {form!r}."
        fix = "Write it like the others, or correct the format under [log]."
    report("log-time-type", values, bad, rule, fix)


def _report_ambiguous(
    values: pl.Series, bad: pl.Series, found: Found, report: BadRowHandler
) -> None:
    readings = " or ".join(f'"{form}"' for form in found.formats)
    rule = "Dates must show which number is the day."
    fix = f"Set timestamp_format = {readings} under [log]."
    report("log-time-ambiguous", values, bad, rule, fix)


def report_missing_time(
    values: pl.Series, bad: pl.Series, report: BadRowHandler
) -> None:
    """Reports events without a time."""
    rule = "Every event must have a time."
    fix = "Add it, remove the row, or name no timestamp column."
    report("log-time-missing", values, bad, rule, fix)


def _signed(numbers: pl.Series, values: pl.Series, report: BadRowHandler) -> pl.Series:
    """Whole numbers as Int64, null where they do not fit and for a missing time."""
    times = numbers.cast(pl.Int64, strict=False)
    if times.null_count() > numbers.null_count():
        report_no_time(values, times.is_null() & numbers.is_not_null(), report)
    if times.min() != _NOT_A_TIME:
        return times
    absent = (times == _NOT_A_TIME).fill_null(False)
    report_missing_time(values, absent, report)
    known = pl.when(pl.col(times.name) != _NOT_A_TIME).then(pl.col(times.name))
    return times.to_frame().select(known).to_series()


def _unit(numbers: pl.Series) -> str:
    """The unit in which the median of the times is a date."""
    some = numbers.gather_every(max(len(numbers) // _TIMES_LOOKED_AT, 1))
    middle = abs(float(some.median() or 0))  # type: ignore[arg-type]
    return next((name for name, (_, end) in _UNITS.items() if middle < end), "seconds")


def _scaled(numbers: pl.Series, factor: float) -> pl.Series:
    if numbers.dtype.is_integer() and factor >= 1:
        return numbers.cast(pl.Int64) * int(factor)
    if numbers.dtype.is_integer():
        return numbers.cast(pl.Int64) // round(1 / factor)
    return (numbers * factor).round().cast(pl.Int64, strict=False)
