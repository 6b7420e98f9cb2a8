"""The items a recommender can name: ids, titles, popularity, and unknown ids.

Knows no users and no model.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from shortlist.bundle.contents import BundleContents
from shortlist.data.schema import ITEM
from shortlist.data.store.vocabulary import Vocabulary
from shortlist.errors import InputError, UnknownIdError
from shortlist.serving.results import ExternalId, ScoredItem

MAX_ID_LENGTH = 1024
_LONGEST_CORRECTED = 40
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_LETTERS = string.ascii_letters + string.digits + " -_.:/"


class Scored(NamedTuple):
    """Items and their scores.

    Args:
        rows: item rows, `(n,)` int32.
        scores: finite, `(n,)` float32.
        degraded: the ranker failed, and these are the scores of retrieval.
    """

    rows: np.ndarray
    scores: np.ndarray
    degraded: bool = False


class Catalogue:
    """Items by row. Row 0 is no item.

    Args:
        contents: contents of a bundle.
    """

    def __init__(self, contents: BundleContents) -> None:
        self.vocabulary = contents.vocabularies[ITEM]
        # Plain lists: taking one element out of a Polars column costs a microsecond.
        self._ids: list[ExternalId] = self.vocabulary.ids.to_list()
        title = contents.schema.title
        self._titles: list[str | None] = (
            contents.items[title].cast(str).to_list()
            if title in contents.items.columns
            else [None] * len(self._ids)
        )

    def __len__(self) -> int:
        """Number of items."""
        return len(self._ids) - 1

    def require(self, item_id: ExternalId, *, suggest: bool = True) -> int:
        """Row of a known item; raises `UnknownIdError` (`unknown-item`).

        Without `suggest` the message names no similar id, which takes a millisecond.
        """
        row = self.vocabulary.row(check_id("item_id", item_id))
        if row == 0:
            hint = suggest_id(self.vocabulary, item_id) if suggest else ""
            raise UnknownIdError(
                "unknown-item",
                "An item must be one the model was trained with. Received:"
                f" {shortened(item_id)}.{hint or ' Check the id.'}",
            )
        return row

    def rows(self, item_ids: Iterable[ExternalId]) -> list[int]:
        """Row of each item, 0 where unknown."""
        return [self.vocabulary.row(check_id("item_id", i)) for i in item_ids]

    def scored(self, rows: np.ndarray, scores: np.ndarray) -> list[ScoredItem]:
        """The items at `rows` with their scores, in that order."""
        return [
            ScoredItem(self._ids[row], score, self._titles[row])
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def popular(self, k: int, excluded: np.ndarray) -> Scored:
        """The k items with the most training events, ties by lower row."""
        # However many of the first k + len(excluded) are excluded, k remain.
        first = self._popularity_order[: k + len(excluded)]
        rows = first[~np.isin(first, excluded)][:k]
        return Scored(rows, self._counts[rows])

    def by_popularity(self, rows: np.ndarray) -> Scored:
        """Given items by their number of training events, ties by lower row."""
        rows = rows[np.lexsort((rows, -self._counts[rows]))]
        return Scored(rows, self._counts[rows])

    @cached_property
    def _counts(self) -> np.ndarray:
        return self.vocabulary.counts.astype(np.float32)

    @cached_property
    def _popularity_order(self) -> np.ndarray:
        order = np.argsort(-self._counts[1:], kind="stable") + 1
        return order.astype(np.int32)


def check_id(name: str, external_id: object) -> ExternalId:
    """Returns an id that can be looked up and stored, or raises `InputError`.

    Raises:
        InputError: not a string or 64-bit integer, empty, too long or not Unicode
            (`invalid-id`).
    """
    if isinstance(external_id, str):
        if 0 < len(external_id) <= MAX_ID_LENGTH and _is_unicode(external_id):
            return external_id
    elif isinstance(external_id, int | np.integer) and not isinstance(
        external_id, bool
    ):
        if -(2**63) <= external_id < 2**63:
            return int(external_id)
    raise InputError(
        "invalid-id",
        f"`{name}` must be a 64-bit integer or a string of 1 to {MAX_ID_LENGTH}"
        f" Unicode characters. Received: {shortened(external_id)}. Send the id that the"
        " log uses; larger numbers and numbers with a point as text.",
    )


def shortened(value: object) -> str:
    """The value for a message, at most some 60 characters and always printable."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"an integer of about {int(math.log10(abs(value))) + 1} digits"
    text = ascii(value) if not isinstance(value, str) else repr(value)
    if isinstance(value, str) and not _is_unicode(value):
        text = ascii(value)
    return text if len(text) <= 60 else f"{text[:56]}…"


def suggest_id(vocabulary: Vocabulary, external_id: ExternalId) -> str:
    """Returns " Did you mean 'x'?" for a known id one typing slip away, or "".

    It tries the slips (Norvig 2007, https://norvig.com/spell-correct.html), so its
    time does not grow with the catalogue: comparing with every id would let one
    request with an unknown id hold the server for seconds.
    """
    text = str(external_id)
    if len(text) > _LONGEST_CORRECTED:
        return ""
    # The neighbour of a number is some other id, not the one that was meant.
    is_number = _NUMBER.fullmatch(text.strip())
    for guess in (text.strip(),) if is_number else _slips(text):
        if guess and (row := vocabulary.row(guess)):
            return f" Did you mean {vocabulary.id(row)!r}?"
    return ""


def _slips(text: str) -> Iterator[str]:
    yield from (text.strip(), text.lower(), text.upper(), text.title())
    cuts = [(text[:i], text[i:]) for i in range(len(text) + 1)]
    yield from (a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1)
    yield from (a + b[1:] for a, b in cuts if b)
    yield from (a + c + b[1:] for a, b in cuts if b for c in _LETTERS)
    yield from (a + c + b for a, b in cuts for c in _LETTERS)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
