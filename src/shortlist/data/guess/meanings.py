"""What a column that is no user, item, time or rating may mean.

An event type (view, cart, purchase), an amount (plays, hours, quantity), or a rating in
words. Names decide first, content where names say nothing. They are used on request
only, and always reported.
"""

from __future__ import annotations

import re

import polars as pl

from shortlist.data.findings import shorten
from shortlist.data.read.validate import to_floats

MAX_TYPES = 50
"""Different values that a column of event types may have."""
_SHOWN = 8
_KINDS = frozenset("event action behavior behaviour interaction activity verb".split())
_OF_KIND = frozenset("type name kind code category".split())
_EVENTS = frozenset(
    "view views pageview pv detail click clk impression cart addtocart addcart"
    " removefromcart wishlist favorite favourite fav bookmark purchase purchased buy"
    " bought order transaction checkout payment refund return rent watch play played"
    " skip pause listen stream download install share comment follow subscribe search"
    " visit open read".split()
)
_OPINIONS = frozenset(
    "like dislike liked disliked love loved hate hated good bad ok okay neutral"
    " positive negative thumbsup thumbsdown up down upvote downvote excellent great"
    " poor terrible awful average fair one two three four five six seven eight nine ten"
    " zero verygood verybad best worst".split()
)
_AMOUNTS = frozenset(
    "play plays listens streams hours hour minutes mins seconds duration weight count"
    " counts quantity qty amount units number num frequency freq times visits views"
    " clicks purchases orders playcount playtime watchtime dwell listencount cnt spent"
    " spend scrobbles secs occurrences repeats".split()
)
QUANTITIES = frozenset(
    "age year price cost amount length duration runtime minutes size weight height"
    " count number num rank popularity score rating budget revenue income".split()
)
"""Words in the names of numbers whose size matters."""
_TWO_SIDES = frozenset(
    "like dislike liked disliked love hate up down upvote downvote thumbsup thumbsdown"
    " positive negative good bad yes no".split()
)
DECIMAL_COMMA = r"^\s*-?\d+,\d+\s*$"


def words_of(name: str) -> list[str]:
    """The words of a column name, in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.split(":")[0]).lower()
    return [part for part in re.split(r"[\W_]+", spaced) if part]


def names_event_type(name: str) -> bool:
    """Whether a column of this name says what kind of event a row is."""
    parts = words_of(name)
    joined = "".join(parts)
    if joined == "type" or joined in _KINDS:
        return True
    kinds = "|".join(sorted(_KINDS))
    return bool(
        re.fullmatch(rf"(?:user)?(?:{kinds})s?(?:{'|'.join(_OF_KIND)})", joined)
    )


def is_event_type(values: pl.Series) -> bool:
    """Whether a column holds the kind of each event, by its name or its values."""
    known = _texts(values)
    if known is None or not 1 <= known.n_unique() <= MAX_TYPES:
        return False
    if names_event_type(values.name):
        return known.n_unique() * 2 <= len(known) or known.n_unique() == 1
    if values.dtype != pl.String or known.n_unique() < 2:
        return False
    plain = _plain(known.unique())
    return 2 * sum(text in _EVENTS for text in plain) > len(plain)


def is_amount(name: str) -> bool:
    """Whether a name means an amount, and not how much an item was liked."""
    parts = words_of(name)
    joined = "".join(parts)
    ends = joined.endswith(("count", "counts", "playtime", "watchtime"))
    return ends or bool(_AMOUNTS & set(parts)) or joined in _AMOUNTS


def unread_rating(values: pl.Series, *, is_named: bool) -> str:
    """Why a column of ratings is not read as one; empty if it has no ratings.

    Args:
        values: a column that is no number.
        is_named: whether its name is that of a rating.
    """
    if values.dtype != pl.String:
        return ""
    known = _texts(values)
    if known is None:
        return ""
    few = known.n_unique() <= MAX_TYPES
    if not (few or is_named):
        return ""
    commas = known.str.contains(DECIMAL_COMMA).sum()
    numbers = known.str.contains(r"^\s*-?\d+(?:,\d+)?\s*$").sum()
    if commas and numbers >= 0.9 * len(known):
        example = known.filter(known.str.contains(DECIMAL_COMMA))[0]
        return (
            f"its numbers have decimal commas, such as {shorten(example)}. Write"
            f" {example.strip().replace(',', '.')}"
        )
    kinds = _plain(known.unique()) if few else []
    opinions = len(kinds) > 1 and set(kinds) <= _OPINIONS
    if opinions or (is_named and few):
        such = "1 and 0" if set(kinds) <= _TWO_SIDES else "1 to 5"
        return f"its values are words: {counted(values)}. Write numbers, such as {such}"
    return ""


def counted(values: pl.Series) -> str:
    """The values of a column with their counts, most common first."""
    counts = values.drop_nulls().value_counts(sort=True)
    pairs = counts.head(_SHOWN).rows()
    summary = ", ".join(f"{shorten(value)} {count:,}" for value, count in pairs)
    rest = len(counts) - _SHOWN
    return f"{summary} and {rest} more" if rest > 0 else summary


def has_amounts(values: pl.Series) -> bool:
    """Whether a column holds numbers that can weight events."""
    known = to_floats(values).drop_nulls()
    of_day = known.is_in([float(hour) for hour in range(24)])
    if "hour" in words_of(values.name) and of_day.all():
        return False
    return (
        is_amount(values.name)
        and len(known) >= 0.9 * (len(values) - values.null_count())
        and known.n_unique() > 1
        and bool((known >= 0).mean() >= 0.8)  # type: ignore[operator]
    )


def _texts(values: pl.Series) -> pl.Series | None:
    """Known texts or whole numbers, as text; `None` for another type."""
    if values.dtype != pl.String and not (
        values.dtype.is_integer() or values.dtype in (pl.Categorical, pl.Enum)
    ):
        return None
    known = values.drop_nulls().cast(pl.String)
    known = known.filter(known.str.len_bytes() > 0)
    return None if known.is_empty() else known


def _plain(texts: pl.Series) -> list[str]:
    return [re.sub(r"[\W_]+", "", text.lower()) for text in texts.to_list()]
