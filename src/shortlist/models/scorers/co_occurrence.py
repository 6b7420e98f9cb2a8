"""Co-occurrence: how many users have both items of a pair. For EASE and item-kNN."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shortlist.data.store.ragged import offsets_of
from shortlist.models.scorers.queries import Queries

PAIRS = 2**22
"""(user, item, item) triples expanded at once."""


def co_occurrences(known: Queries, num_items: int) -> np.ndarray:
    """Users with both items, `(num_items, num_items)` float64.

    Args:
        known: each user's distinct items, as `Queries.distinct` gives them.
        num_items: item rows, row 0 included.
    """
    gram = np.empty((num_items, num_items))
    for begin, rows in co_occurrence_rows(known, num_items):
        gram[begin : begin + len(rows)] = rows
    return gram


def co_occurrence_rows(
    known: Queries, num_items: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks of rows of that matrix: the first row's number and `(rows, num_items)`.

    For each item of a block, the items of all its users are counted, so the work is the
    sum of the squared history lengths.
    """
    offsets, users = known.transposed(num_items)
    sizes = known.lists.lengths
    work = offsets_of(sizes[users])[offsets]  # triples before each item
    widest = max(1, PAIRS // num_items)
    begin = 0
    while begin < num_items:
        end = int(np.searchsorted(work, work[begin] + PAIRS, "right")) - 1
        end = min(max(end, begin + 1), begin + widest, num_items)
        takers = users[offsets[begin] : offsets[end]]
        owners = np.repeat(np.arange(end - begin), np.diff(offsets[begin : end + 1]))
        items = known.lists.take(takers)
        keys = np.repeat(owners * num_items, items.lengths) + items.values
        cells = np.bincount(keys, minlength=(end - begin) * num_items)
        yield begin, cells.reshape(end - begin, num_items)
        begin = end
