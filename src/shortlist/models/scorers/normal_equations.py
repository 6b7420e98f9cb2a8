"""Many small ridge regressions at once: the step of every alternating method here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CELLS = 2**21
"""Numbers gathered at once."""


def solve_rows(
    offsets: np.ndarray,
    columns: np.ndarray,
    vectors: np.ndarray,
    weights: np.ndarray,
    targets: np.ndarray,
    *,
    gram: np.ndarray,
    ridge: np.ndarray,
) -> np.ndarray:
    """Solves `(gram + sum w v v' + diag(ridge)) x = sum t v` for every row.

    Args:
        offsets: `(n + 1,)`: row r has the entries `offsets[r]` to `offsets[r + 1]`.
        columns: which vector each entry is of, `(m,)`.
        vectors: `(num_columns, k)`; gathered rows are converted to float64.
        weights: w of each entry, `(m,)`.
        targets: t of each entry, `(m,)`.
        gram: shared part of the matrix, `(k, k)`.
        ridge: `(n,)` or `(n, k)`, added to the diagonal.

    Returns: `(n, k)` float64; zeros for a row without entries.
    """
    num_rows, dim = len(offsets) - 1, vectors.shape[1]
    solved = np.zeros((num_rows, dim))
    ridge = ridge if ridge.ndim == 2 else np.repeat(ridge[:, None], dim, axis=1)
    for rows, entries, present in padded_blocks(offsets, dim):
        gathered = vectors[columns[entries]].astype(np.float64)
        gathered *= present[:, :, None]
        weighted = gathered * weights[entries][:, :, None]
        matrix = np.matmul(gathered.transpose(0, 2, 1), weighted) + gram
        matrix[:, np.arange(dim), np.arange(dim)] += ridge[rows]
        right = np.einsum("nl,nlk->nk", targets[entries], gathered)
        solved[rows] = np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
    return solved


def padded_blocks(
    offsets: np.ndarray, dim: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows of like length together, so that little of a block is padding.

    Args:
        offsets: `(n + 1,)`, where each row's entries begin.
        dim: numbers gathered per entry.

    Yields: the rows `(b,)`, their entries `(b, longest)` and which of those are real.
    """
    lengths = np.diff(offsets)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    begin = 0
    while begin < len(order):
        shortest = int(lengths[order[begin]])
        widest = shortest + max(8, shortest // 4)
        end = begin + max(1, CELLS // (dim * max(widest, dim)))
        rows = order[begin:end]
        rows = rows[lengths[rows] <= widest]
        longest = int(lengths[rows].max())
        places = np.arange(longest)
        present = places < lengths[rows][:, None]
        yield rows, np.where(present, offsets[rows][:, None] + places, 0), present
        begin += len(rows)
