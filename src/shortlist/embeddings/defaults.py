"""Default values for model inputs that are missing in a batch.

Knows batches and the inputs of a model; knows nothing of tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keras import ops

from shortlist.embeddings.inputs import Input
from shortlist.errors import InputError, did_you_mean

REQUIRED = ("user_index", "item_index")


def with_defaults(
    inputs: Iterable[Input], batch: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The batch, with defaults for missing side features and history.

    The defaults are those of missing values: row 0 for a categorical input, an empty
    list for a multi-valued one, 0 (the mean of a standardized feature) for a number.
    The ids of user and item have no default: pass row 0 for an unknown one.

    Args:
        inputs: of the model.
        batch: features by name, `(batch_size, ...)`.

    Raises:
        InputError: `batch-id-missing`: an id that the model reads is missing.
    """
    inputs = tuple(inputs)
    absent = [i for i in inputs if i.feature not in batch]
    if not absent:
        return batch
    for i in absent:
        if i.feature in REQUIRED:
            raise InputError(
                "batch-id-missing",
                f"A batch must have {i.feature!r}, rows of its vocabulary. Received:"
                f" {sorted(batch)}.{did_you_mean(i.feature, batch)} Give row 0 for an"
                " unknown one.",
            )
    present = [i.feature for i in inputs if i.feature in batch]
    if not present:
        raise InputError(
            "batch-id-missing",
            "A batch must have at least one input of the model. Received:"
            f" {sorted(batch)} for a model that reads {[i.feature for i in inputs]}.",
        )
    rows = batch[present[0]]
    rows = rows[:, 0] if len(rows.shape) > 1 else rows
    return {**batch, **{i.feature: _default(i, rows) for i in absent}}


def _default(one: Input, rows: Any) -> Any:
    """The default of an input, with as many rows as `rows` `(batch_size,)`."""
    if one.kind == "numeric":
        return ops.zeros_like(rows, dtype="float32")
    if one.kind == "categorical":
        return ops.zeros_like(rows, dtype="int32")
    return ops.expand_dims(ops.zeros_like(rows, dtype="int32") - 1, -1)
