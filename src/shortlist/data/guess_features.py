"""Which columns of an attribute file are features, of which kind, and the title."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

import polars as pl

from shortlist.data.guess_roles import is_index
from shortlist.data.list_text import is_list_text
from shortlist.data.schema import ITEM, RESERVED, Feature, Kind, Owner

_TITLES = frozenset({"title", "name", "headline", "label", "caption"})
_QUANTITIES = frozenset(
    "age year price cost amount length duration runtime minutes size weight height"
    " count number num rank popularity score rating budget revenue income".split()
)
_CODES = frozenset("zip zipcode postal postcode phone url link image email".split())
_SEPARATORS = "|,;"
_MAX_CODES = 100  # integers with more values than this are quantities
_NEAR_UNIQUE = 0.2  # texts per row: less than five rows each teach an embedding little


@dataclass
class AttributeGuess:
    """The features of one attribute file.

    Args:
        features: the columns taken, in file order.
        title: the column that names an item for people, or `None`.
        reasons: one sentence per column taken or left out.
    """

    features: list[Feature] = field(default_factory=list)
    title: str | None = None
    reasons: dict[str, str] = field(default_factory=dict)


def guess_features(
    table: pl.DataFrame, id_column: str, owner: Owner, taken: Collection[str]
) -> AttributeGuess:
    """Chooses features among the columns of an attribute table.

    Args:
        table: attribute rows, one per id.
        id_column: the column of the ids.
        owner: whose attributes they are.
        taken: feature names of the other file, which cannot be used twice.
    """
    guess = AttributeGuess()
    names = [n for n in table.columns if not is_index(n) and n != id_column]
    if owner == ITEM:
        guess.title = _title(table, names)
    for name in names:
        if name == guess.title:
            guess.reasons["title"] = f"{name!r} is text that names nearly every item."
        elif name in taken or name in RESERVED:
            guess.reasons[name] = "Left out: the name is taken; rename it to use it."
        else:
            kind, found, reason = _kind(table[name])
            separator = found or "|"
            guess.reasons.setdefault(name, reason)
            if kind is not None:
                guess.features.append(
                    Feature(name=name, owner=owner, kind=kind, separator=separator)
                )
    return guess


def _title(table: pl.DataFrame, names: list[str]) -> str | None:
    for name in names:
        values = table[name]
        if values.dtype == pl.String and _TITLES & set(_parts(name)):
            if values.n_unique() > len(values) / 2:
                return name
    return None


def _kind(values: pl.Series) -> tuple[Kind | None, str, str]:
    """Kind, separator and reason; no kind for a column to leave out."""
    known = values.drop_nulls()
    if values.dtype == pl.String:
        known = known.filter(known.str.len_bytes() > 0)
    if known.is_empty():
        return None, "", "Left out: it is empty."
    if (typed := _typed_kind(values, known)) is not None:
        return typed
    if isinstance(values.dtype, pl.List):
        return "multi_valued", "", "It holds lists."
    if values.dtype.is_nested() or values.dtype.is_temporal():
        return None, "", f"Left out: the type {values.dtype} is no feature by itself."
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
    parts = set(_parts(values.name))
    if values.dtype.is_float() or _QUANTITIES & parts:
        return "numeric", "", "Its values are quantities."
    if _CODES & parts or "id" in parts and num_values > len(known) / 2:
        return None, "", f"Left out: {num_values} codes in {len(known)} rows."
    if num_values <= _MAX_CODES or "id" in parts:
        return "categorical", "", f"It holds {num_values} different codes."
    if num_values == len(known):
        return None, "", "Left out: every row has its own value, like an id."
    return "numeric", "", f"It holds {num_values} different integers."


def _text_kind(
    values: pl.Series, known: pl.Series, num_values: int
) -> tuple[Kind | None, str, str]:
    parts = _parts(values.name)
    if is_list_text(known):
        return "multi_valued", "", "It holds lists."
    if "date" in parts:
        return None, "", "Left out: a date; a year or an age would be a feature."
    for separator in _SEPARATORS:
        lists = known.str.split(separator)
        pieces = lists.explode()
        num_pieces = pieces.n_unique()
        if len(pieces) >= 1.1 * len(known) and num_pieces <= len(pieces) / 2:
            reason = f"{num_pieces} values, joined with {separator!r}, come back often."
            return "multi_valued", separator, reason
    most = max(_NEAR_UNIQUE * len(known), min(10, len(known) / 2))
    if num_values > most or _CODES & set(parts):
        return None, "", f"Left out: {num_values} texts in {len(known)} rows."
    return "categorical", "", f"It holds {num_values} different texts."


def _parts(name: str) -> list[str]:
    """The words of a column name, in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.split(":")[0]).lower()
    return [part for part in re.split(r"[\W_]+", spaced) if part]
