"""Formats of times that are neither numbers since 1970 nor ISO-8601.

    formats_of       the formats that a text may be in
    find_format      the one format in which all of a column can be read
    parse_times      a column in a format as milliseconds since the epoch

Formats are those of strftime. A day over 12 somewhere in the column shows which number
is the day; without one, both formats are returned and none is used.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass

import polars as pl

from shortlist.data.split import DAY_MS
from shortlist.errors import InputError

_DIRECTIVES = re.compile(r"%([-_0]?[A-Za-z]|\.?\d?f|%)?")
_KNOWN = frozenset("YymdeHIMSpPbBhaAzZfjFTDRs")
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_MONTH = rf"(?:{'|'.join(_MONTHS)})[a-z]*\.?"
_DAY = r"(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?"
_ZONE_NAME = re.compile(r"(?i) ?(?:utc|gmt|z)$")

# Digits without separators, by their number.
_COMPACT = {
    8: "%Y%m%d",
    10: "%Y%m%d%H",
    12: "%Y%m%d%H%M",
    14: "%Y%m%d%H%M%S",
    17: "%Y%m%d%H%M%S%3f",
}
# As `date` and Twitter write it: the year after the clock.
_UNIX = (
    rf"(?i)({_DAY} )?{_MONTH} +\d{{1,2}} \d{{1,2}}:\d\d:\d\d"
    r"( [+-]\d{4}| UTC| GMT)? \d{4}"
)
_COMPACT_FIRST, _COMPACT_LAST = 1970, 2100

# Clocks with ":" between the numbers; with "." the same.
_WITH_COLONS = (
    (r"\d{1,2}:\d{2}:\d{2}[.,]\d+", "%H:%M:%S%.f"),
    (r"\d{1,2}:\d{2}:\d{2}", "%H:%M:%S"),
    (r"\d{1,2}:\d{2}", "%H:%M"),
    (r"\d{1,2}:\d{2}:\d{2} ?[ap]m", "%I:%M:%S %p"),
    (r"\d{1,2}:\d{2} ?[ap]m", "%I:%M %p"),
)
_CLOCKS = (
    *_WITH_COLONS,
    *((s.replace(":", r"\."), f.replace(":", ".")) for s, f in _WITH_COLONS),
    (r"\d{1,2}h\d{2}", "%Hh%M"),
    (r"\d{6}[.,]\d+", "%H%M%S%.f"),
    (r"\d{6}", "%H%M%S"),
    (r"\d{4}", "%H%M"),
    (r"\d{1,2} ?[ap]m", "%I %p"),
    (r"\d{1,2}", "%H"),
)
_BASIC_DATE = r"(?:19|20)\d{2}()\d{4}"
# The hour of a text whose format has no minutes, and what follows it.
_LAST_HOUR = (
    r"(?i)([ T:,_-])(\d{1,2})((?: ?[ap]m)?(?: ?(?:utc|gmt|z|[+-]\d\d:?\d\d))?\]?)$"
)
_DATES = (
    (_BASIC_DATE, ("%Y%m%d",)),
    (r"\d{4}([-/.])\d{1,2}\1\d{1,2}", ("%Y{0}%m{0}%d",)),
    (r"\d{1,2}([-/.])\d{1,2}\1\d{4}", ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y")),
    (
        r"\d{1,2}([-/.])\d{1,2}\1\d{2}",
        ("%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d"),
    ),
    (rf"\d{{1,2}}([-/ ]){_MONTH}\1\d{{4}}", ("%d{0}%B{0}%Y",)),
    (rf"\d{{1,2}}([-/ ]){_MONTH}\1\d{{2}}", ("%d{0}%B{0}%y",)),
    (rf"\d{{4}}([-/ ]){_MONTH}\1\d{{1,2}}", ("%Y{0}%B{0}%d",)),
    (rf"{_MONTH}( )\d{{1,2}}, \d{{4}}", ("%B %d, %Y",)),
    (rf"{_MONTH}( )\d{{1,2}} \d{{4}}", ("%B %d %Y",)),
)


@dataclass(frozen=True)
class Found:
    """The format of a column of times.

    Args:
        formats: one format; several if day, month and year are ambiguous;
            none where the texts are no times.
        unread: texts that the first format does not read.
    """

    formats: tuple[str, ...]
    unread: int = 0


def check_format(text: str) -> None:
    """Raises `InputError` (`file-format`) for a format that names no day."""
    directives = [d[-1:] for d in _DIRECTIVES.findall(text)]
    unknown = [d for d in directives if d not in _KNOWN and d != "%"]
    if unknown or not ("s" in directives or set(directives) & set("YyFD")):
        raise InputError(
            "file-format",
            "`timestamp_format` must be a format of strftime with a year, of"
            f" %Y %y %m %d %b %B %j %H %I %M %S %f %p %a %A %z %Z. Received: {text!r}."
            ' Use one such as "%d.%m.%Y %H:%M".',
        )


def compact_format(numbers: pl.Series) -> str | None:
    """The format of numbers such as 20240131 or 20240131235959, if all are of one.

    Args:
        numbers: integers, or floats without a fraction; nulls do not count.
    """
    known = numbers.drop_nulls()
    if known.is_empty() or (known.dtype.is_float() and (known % 1 != 0).any()):
        return None
    digits = len(str(int(known.max())))  # type: ignore[arg-type]
    if digits not in _COMPACT or len(str(int(known.min()))) != digits:  # type: ignore[arg-type]
        return None
    years = known.cast(pl.Int64) // 10 ** (digits - 4)
    if not years.is_between(_COMPACT_FIRST, _COMPACT_LAST).all():
        return None
    texts = known.cast(pl.Int64).cast(pl.String)
    times = parse_times(texts, _COMPACT[digits])
    return None if times.null_count() else _COMPACT[digits]


def formats_of(text: str) -> list[str]:
    """Possible formats of one text, those with the day before the month first."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) in _COMPACT:
        return [_COMPACT[len(text)]]
    before, after = ("[", "]") if text[:1] == "[" and text[-1:] == "]" else ("", "")
    text = text.removeprefix(before).removesuffix(after)
    for shape, formats in _shapes():
        if found := shape.fullmatch(text):
            named = found.groupdict()
            mark = next((m for m in found.groups()[1:2] if m), "")
            start = _weekday(named["day"] or "")
            zone = _zone(named["zone"] or "")
            ends = f"{named['gap'] or ''}{_clock(named['clock'] or '')}{zone}"
            return [f"{before}{start}{f.format(mark)}{ends}{after}" for f in formats]
    if found := re.fullmatch(_UNIX, text):
        zone = _zone(found[2] or "")
        return [f"{_weekday(found[1] or '')}%B %e %H:%M:%S{zone} %Y"]
    return []


def find_format(texts: pl.Series) -> Found:
    """The format of a column of texts.

    Args:
        texts: String; nulls and empty texts do not count. Up to a tenth of them may be
            in another format.
    """
    known = texts.drop_nulls()
    known = known.filter(known.str.len_bytes() > 0)
    if known.is_empty():
        return Found(())
    step = max(len(known) // 50, 1)
    tried = dict.fromkeys(
        f for text in known.gather_every(step).to_list() for f in formats_of(text)
    )
    tomorrow = time.time() * 1000 + DAY_MS
    read: dict[str, pl.Series] = {}
    for form in tried:
        times = parse_times(known, form)
        unread = times.null_count()
        if unread <= 0.1 * len(times) and (times.drop_nulls() <= tomorrow).all():
            read[form] = times
    least = min((times.null_count() for times in read.values()), default=0)
    best = {f: times for f, times in read.items() if times.null_count() == least}
    different: list[str] = []
    for form, times in best.items():
        if not any(times.equals(best[other]) for other in different):
            different.append(form)
    return Found(tuple(different), least)


def parse_times(texts: pl.Series, form: str) -> pl.Series:
    """Texts in a format as Int64 milliseconds since the epoch, null where they are not.

    Times without a zone are UTC.
    """
    raw = pl.col(texts.name).str.strip_chars()
    if form.endswith("%Z"):
        form, raw = form[:-2].rstrip(), raw.str.replace(_ZONE_NAME.pattern, "")
    form = form.replace("%Z", "UTC")
    form = form.replace("%S.%f", "%S%.f").replace("%S,%f", "%S%.f")
    if "%e" in form:  # a day of one digit may follow two blanks
        form, raw = form.replace("%e", "%d"), raw.str.replace_all(" +", " ")
    if "%S%.f" in form:
        raw = raw.str.replace(r"(\d\d),(\d+)", "$1.$2")
    if "%M" not in form and "%d%H" in form:  # Polars needs minutes beside an hour
        form, raw = form.replace("%H", "%H%M"), raw.str.replace(r"$", "00")
    elif "%M" not in form and ("%H" in form or "%I" in form):
        form = form.replace("%H", "%H:%M").replace("%I", "%I:%M")
        raw = raw.str.replace(_LAST_HOUR, "$1$2:00$3")
    if "%s" in form:
        seconds = raw.cast(pl.Float64, strict=False) * 1000
        lazy = texts.to_frame().lazy()
        return lazy.select(seconds.round().cast(pl.Int64)).collect().to_series()
    moment = raw.str.to_datetime(form, time_unit="ms", strict=False, exact=True)
    if "%z" in form:
        moment = moment.dt.convert_time_zone("UTC")
    parsed = texts.to_frame().lazy().select(moment.to_physical().alias(texts.name))
    return parsed.collect(engine="streaming").to_series()


@functools.cache
def _shapes() -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
    clock = "|".join(shape for shape, _ in _CLOCKS)
    zone = r"(?P<zone> ?(?:utc|gmt|z|[+-]\d\d:?\d\d))?"
    shapes: list[tuple[re.Pattern[str], tuple[str, ...]]] = []
    for date, formats in _DATES:
        gap = "[ T:_-]|, " if date == _BASIC_DATE else "[ T:]|, "
        rest = rf"(?:(?P<gap>{gap})(?P<clock>{clock}){zone})?"
        shape = re.compile(rf"(?i)(?P<day>{_DAY},? )?{_numbered(date)}{rest}")
        shapes.append((shape, formats))
    return shapes


def _numbered(date: str) -> str:
    """Renumbers the group of the separator, which is the second group of a shape."""
    return date.replace(r"\1", r"\2")


def _clock(text: str) -> str:
    lower = text.lower()
    for shape, form in _CLOCKS:
        if text and re.fullmatch(shape, lower):
            return form if " " in text else form.replace(" ", "")
    return ""


def _zone(text: str) -> str:
    if not text:
        return ""
    blank = " " if text[0] == " " else ""
    return f"{blank}%z" if text.strip()[0] in "+-" else f"{blank}%Z"


def _weekday(text: str) -> str:
    """`Wed, ` as a format."""
    if not text:
        return ""
    return "%A, " if "," in text else "%A "
