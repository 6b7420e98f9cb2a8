"""Lookups and updates of host tables: the compiled core, or the NumPy twin without it.

All checks of shapes and types are here: the core trusts its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shortlist import native
from shortlist.embeddings import reference
from shortlist.embeddings.table import Bags, Gradients, Table


def lookup(
    tables: Sequence[Table],
    features: Sequence[Bags],
    *,
    out: Sequence[np.ndarray] | None = None,
    threads: int | None = None,
) -> list[np.ndarray]:
    """The combined vector of every bag, `(num_bags, dim)` float32 per feature.

    See `reference.lookup`. One call for all features; `out` gives arrays to fill.
    """
    raise NotImplementedError


def update(
    tables: Sequence[Table],
    batches: Sequence[Gradients],
    learning_rates: Sequence[float],
    *,
    threads: int | None = None,
) -> None:
    """Moves the touched rows of every trainable table once; see `reference.update`.

    The result does not depend on `threads`, bit for bit.
    """
    raise NotImplementedError


def first_out_of_range(
    tables: Sequence[Table], features: Sequence[Bags]
) -> tuple[int, int] | None:
    """The feature and the id of the first id that is no row and no padding, if any."""
    for index, bags in enumerate(features):
        ids = bags.ids
        if ids.size and (ids.min() < -1 or ids.max() >= tables[bags.table].num_rows):
            bad = ids[(ids < -1) | (ids >= tables[bags.table].num_rows)]
            return index, int(bad[0])
    return None


_ = (native, reference)
