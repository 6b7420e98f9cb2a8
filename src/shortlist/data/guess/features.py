"""Which columns of an attribute file are features, of which kind, and the title."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import polars as pl

from shortlist.data.guess.meanings import DECIMAL_COMMA, QUANTITIES, words_of
from shortlist.data.guess.roles import WORDS, is_index, name_score, time_share
from shortlist.data.read.column_types import is_plain
from shortlist.data.read.text.lists import is_list_text
from shortlist.data.schema import ITEM, RESERVED, Feature, Kind, Owner

# The likeliest first.
_TITLES = ("title", "name", "headline", "label", "caption", "description")
_LONG_TITLE = 80  # characters: longer text describes and does not name
_ITEM_WORDS = frozenset(WORDS["item_id"].split())
_CODES = frozenset(
    "zip zipcode postal postcode phone url link image email isbn issn ean upc gtin asin"
    " barcode uuid guid".split()
)
_LONG_CODE = 10**9  # whole numbers of ten digits or more are codes, not quantities
_MOMENTS = frozenset(
    "date datetime timestamp created updated modified released added".split()
)
_SEPARATORS = "|,;"
_MAX_CODES = 100  # integers with more values than this are quantities
_NEAR_UNIQUE = 0.2  # texts per row: an embedding needs about five rows for each


@dataclass
class AttributeGuess:
    """The features of one attribute file.

    Args:
        features: the columns used, in file order.
        title: the column that names an item for people, or `None`.
        reasons: one sentence per column used or left out.
    """

    features: list[Feature] = field(default_factory=list)
    title: str | None = None
    reasons: dict[str, str] = field(default_factory=dict)


def guess_features(
    table: pl.DataFrame,
    id_column: str,
    owner: Owner,
    taken: Collection[str],
    *,
    from_log: bool = False,
    has_title: bool = False,
) -> AttributeGuess:
    """Chooses features among the columns of an attribute table.

    Args:
        table: attribute rows, one per id.
        id_column: the column of the ids.
        owner: whose attributes they are.
        taken: feature names of the other file, which cannot be used twice.
        from_log: the attributes are columns of the log.
        has_title: the items have a title already.
    """
    guess = AttributeGuess()
    names = [n for n in table.columns if not is_index(n) and n != id_column]
    if owner == ITEM and not has_title:
        guess.title = _title(table, names)
    for name in names:
        if name == guess.title:
            guess.reasons[name] = "The title: text that names nearly every item."
        elif name in taken or name in RESERVED:
            guess.reasons[name] = (
                "Left out: the name is already used; rename it to use it."
            )
        else:
            kind, found, reason = _kind(table[name])
            separator = found or "|"
            guess.reasons[name] = reason
            if kind is not None:
                feature = Feature(
                    name=name,
                    owner=owner,
                    kind=kind,
                    separator=separator,
                    from_log=from_log,
                )
                guess.features.append(feature)
    return guess


def _title(table: pl.DataFrame, names: list[str]) -> str | None:
    """The text column that names the items best: `title` before `name` before
    others."""
    fits = [
        name
        for name in names
        if table[name].dtype == pl.String
        and set(_TITLES) & set(words_of(name))
        and table[name].n_unique() > len(table) / 2
        and float(table[name].str.len_chars().median() or 0) <= _LONG_TITLE  # type: ignore[arg-type]
    ]
    # If two names are alike, the text with more distinct values.
    rank = [(*_title_rank(name), -table[name].n_unique(), name) for name in fits]
    return min(rank, default=(None,))[-1]


def _title_rank(name: str) -> tuple[int, int, int]:
    """Rank, the likeliest first: `title`, `movie_title`, `title_en`, then `name`..."""
    parts = words_of(name)
    word = min(_TITLES.index(part) for part in parts if part in _TITLES)
    others = [part for part in parts if part != _TITLES[word]]
    foreign = sum(part not in _ITEM_WORDS for part in others)
    return int(bool(foreign)), word, len(others)


def _kind(values: pl.Series) -> tuple[Kind | None, str, str]:
    """Kind, separator and reason; no kind for a column to leave out."""
    known = values.drop_nulls()
    if values.dtype == pl.String:
        known = known.filter(known.str.len_bytes() > 0)
    if known.is_empty():
        return None, "", "Left out: it is empty."
    if (typed := _typed_kind(values, known)) is not None:
        return typed
    if isinstance(values.dtype, pl.List | pl.Array):
        inner = pl.Series(dtype=values.dtype.inner).dtype  # `inner` may be a class
        if is_plain(inner):
            return "multi_valued", "", "It holds lists."
    if _is_time(values, known):
        return None, "", "Left out: a time; a year or an age would be a feature."
    if not is_plain(values.dtype) or values.dtype.is_temporal():
        return None, "", f"Left out: the type {values.dtype} is no feature by itself."
    if values.dtype.is_float() and known.is_infinite().any():
        return None, "", "Left out: it holds infinite numbers."
    num_values = known.n_unique()
    if num_values == 1:
        return None, "", "Left out: all rows have the same value."
    if values.dtype.is_numeric():
        return _numeric_kind(values, known, num_values)
    return _text_kind(values, known.cast(pl.String), num_values)


def _typed_kind(
    values: pl.Series, known: pl.Series
) -> tuple[Kind | None, str, str] | None:
    """The kind that a header of RecBole names, such as `genre:token_seq`."""
    kind = values.name.rpartition(":")[2] if ":" in values.name else ""
    if kind == "token_seq":
        return "multi_valued", " ", "The header says so: tokens with blanks between."
    if kind == "float_seq":
        return None, "", "Left out: a list of numbers is no feature by itself."
    if kind == "token" and values.dtype.is_numeric():
        return _text_kind(values, known.cast(pl.String), known.n_unique())
    if kind == "float" and values.dtype.is_numeric() and known.n_unique() > 1:
        return "numeric", "", "The header says so: a number."
    return None


def _numeric_kind(
    values: pl.Series, known: pl.Series, num_values: int
) -> tuple[Kind | None, str, str]:
    parts = {part.rstrip("0123456789") for part in words_of(values.name)}
    are_codes = not QUANTITIES & parts and _are_long_codes(known)
    if _CODES & parts or are_codes and num_values > len(known) / 2:
        return None, "", f"Left out: {num_values} codes in {len(known)} rows."
    if are_codes:
        return "categorical", "", f"It holds {num_values} different codes."
    if values.dtype.is_float() or QUANTITIES & parts:
        return "numeric", "", "Its values are quantities."
    if "id" in parts and num_values > len(known) / 2:
        return None, "", f"Left out: {num_values} codes in {len(known)} rows."
    if num_values <= _MAX_CODES or "id" in parts:
        return "categorical", "", f"It holds {num_values} different codes."
    if num_values == len(known):
        return None, "", "Left out: every row has its own value, like an id."
    return "numeric", "", f"It holds {num_values} different integers."


def _text_kind(
    values: pl.Series, known: pl.Series, num_values: int
) -> tuple[Kind | None, str, str]:
    if is_list_text(known):
        return "multi_valued", "", "It holds lists."
    if known.str.contains(DECIMAL_COMMA).all():
        example = known[0].strip()
        right = example.replace(",", ".")
        why = f"Left out: numbers with decimal commas, such as {example!r}."
        return None, "", f"{why} Write {right}."
    parts = {part.rstrip("0123456789") for part in words_of(values.name)}
    for separator in _SEPARATORS:
        lists = known.str.split(separator)
        pieces = lists.explode().str.strip_chars()
        num_pieces = pieces.n_unique()
        if len(pieces) >= 1.1 * len(known) and num_pieces <= len(pieces) / 2:
            reason = f"{num_pieces} values, joined with {separator!r}, occur often."
            return "multi_valued", separator, reason
    most = max(_NEAR_UNIQUE * len(known), min(10, len(known) / 2))
    if num_values > most or _CODES & parts:
        return None, "", f"Left out: {num_values} texts in {len(known)} rows."
    return "categorical", "", f"It holds {num_values} different texts."


def _is_time(values: pl.Series, known: pl.Series) -> bool:
    """Whether a column holds moments, by its type, its values or its name."""
    parts = set(words_of(values.name))
    if values.dtype.is_nested():
        return False
    named = bool(_MOMENTS & parts) or name_score(values.name, "timestamp") == 2
    if values.dtype == pl.String:
        return "date" in parts or time_share(known) >= 0.95
    return values.dtype in (pl.Date, pl.Datetime) or named and time_share(known) >= 0.95


def _are_long_codes(known: pl.Series) -> bool:
    """Whether the median number of digits is so high that whole numbers must be
    codes."""
    whole = known.dtype.is_integer() or bool((known == known.round()).all())
    return whole and float(known.median() or 0) >= _LONG_CODE  # type: ignore[arg-type]
