"""What the trained models read at prediction: users of a dataset, in batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shortlist.data.load.examples import Batch, user_features
from shortlist.data.schema import USER
from shortlist.data.store.dataset import Dataset

BLOCK = 8192  # rows per call of a model: one compiled shape, bounded memory


def user_batch(dataset: Dataset, user_index: np.ndarray) -> Batch:
    """Features of users, without their history.

    A user without training events gets the id row 0: the user's own was never trained.
    """
    batch = user_features(dataset, user_index)
    trained = dataset.vocabularies[USER].counts[user_index] > 0
    batch["user_index"] = np.where(trained, batch["user_index"], np.int32(0))
    return batch


def in_blocks(
    function: Callable[[Batch], np.ndarray], batch: Batch, width: int
) -> np.ndarray:
    """Calls a model on blocks of equal size, so that it is compiled once.

    The last block is padded with copies of its first row, which are cut off again.

    Args:
        function: block to outputs `(rows, width)`.
        batch: any number of rows, also none.
        width: columns of the outputs.

    Returns: outputs `(n, width)` float32.
    """
    num_rows = len(next(iter(batch.values())))
    outputs = []
    for start in range(0, num_rows, BLOCK):
        block = {key: values[start : start + BLOCK] for key, values in batch.items()}
        rows = min(BLOCK, num_rows - start)
        if num_rows > BLOCK and rows < BLOCK:
            fill = np.r_[np.arange(rows), np.zeros(BLOCK - rows, np.int64)]
            block = {key: values[fill] for key, values in block.items()}
        outputs.append(np.asarray(function(block)[:rows], np.float32))
    return np.concatenate(outputs or [np.zeros((0, width), np.float32)])
