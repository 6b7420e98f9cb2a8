"""Rivals that run beside our rows, on the same training part."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from threadpoolctl import threadpool_limits

from accuracy_claims import protocol
from accuracy_claims.table import Table
from shortlist.models.scorers import KnownItems

NUM_USERS, NUM_ITEMS = 943, 1682


def implicit_als(table: Table) -> protocol.Figures:
    """The package implicit's ALS as it comes, on all events as positives."""
    from implicit.als import AlternatingLeastSquares

    log = table.train
    ones = np.ones(len(log), np.float32)
    taken = scipy.sparse.csr_matrix(
        (ones, (log.user - 1, log.item - 1)), (NUM_USERS, NUM_ITEMS)
    )
    with threadpool_limits(1, "blas"):  # as implicit asks for
        model = AlternatingLeastSquares(random_state=0, use_gpu=False)
        model.fit(taken, show_progress=False)
    users = np.arange(NUM_USERS)
    items, _ = model.recommend(users, taken, N=protocol.K)
    return protocol.measure(users + 1, items + 1, table.test)


def assert_equal_ease(table: Table) -> None:
    """EASE in five lines of NumPy gives the scores of the table's row."""
    settings, row = table.settings["ease"], table.row("ease")
    taken = np.zeros((table.dataset.num_users, table.dataset.num_items))
    part = table.dataset.part("train")
    taken[part.user_index, part.item_index] = 1
    gram = taken.T @ taken
    held = settings["l2"] + settings["dropout"] / (1 - settings["dropout"]) * np.diag(
        gram
    )
    inverse = np.linalg.inv(gram + np.diag(held))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    users = np.arange(1, table.dataset.num_users, dtype=np.int32)
    known = KnownItems(table.dataset, ("train",)).of(users)
    scores = row.model.score_all(known)
    trained = table.dataset.item_counts("train") > 0
    expected = taken[1:] @ weights
    np.testing.assert_allclose(
        scores[:, trained], expected[:, trained], rtol=1e-3, atol=1e-4
    )
