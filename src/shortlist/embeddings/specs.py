"""What the placements need to know of a table, with everything resolved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shortlist.embeddings.rules import Rule
from shortlist.embeddings.table import RowType


@dataclass(frozen=True, kw_only=True, eq=False)
class TableSpec:
    """One table of a `DistributedEmbedding`.

    Args:
        name: its name, unique in the layer.
        num_rows: rows of the table.
        dim: width of a row.
        rule: how touched rows move.
        schedule: learning rate at the 0-based number of the update, a
            `keras.optimizers.schedules.LearningRateSchedule`, in place of
            `rule.learning_rate`.
        initializer: a Keras initializer.
        row_type: number type of the rows.
        trainable: whether updates move it.
    """

    name: str
    num_rows: int
    dim: int
    rule: Rule
    schedule: Callable[[Any], Any] | None
    initializer: Any
    row_type: RowType = "float32"
    trainable: bool = True
