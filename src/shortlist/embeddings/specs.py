"""The resolved configuration of a table, as both placements read it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shortlist.embeddings.rules import Rule
from shortlist.embeddings.table import RowType, Table


class FollowedRate:
    """The schedule of a table that follows the rate of the model's optimizer.

    Returns the rate of the optimizer's schedule. Without one it returns NaN, which
    means the optimizer's rate at the time of the update.

    Attributes:
        schedule: that of the optimizer, if it has one.
    """

    schedule: Callable[[Any], Any] | None = None

    def __call__(self, step: Any) -> Any:
        """The rate of the update with the 0-based number `step`."""
        return math.nan if self.schedule is None else self.schedule(step)


@dataclass(frozen=True, kw_only=True, eq=False)
class TableSpec:
    """One table of a `DistributedEmbedding`.

    Args:
        name: its name, unique in the layer.
        num_rows: rows of the table.
        dim: width of a row.
        rule: how touched rows are updated.
        schedule: learning rate at the 0-based number of the update, a
            `keras.optimizers.schedules.LearningRateSchedule` or `FollowedRate`, in
            place of `rule.learning_rate`.
        initializer: a Keras initializer.
        row_type: number type of the rows.
        trainable: whether training updates it.
    """

    name: str
    num_rows: int
    dim: int
    rule: Rule
    schedule: Callable[[Any], Any] | None
    initializer: Any
    row_type: RowType = "float32"
    trainable: bool = True

    def allocate(self) -> Table:
        """A host table of zeros with fresh state.

        Raises:
            ResourceError: `out-of-memory`.
        """
        return Table.allocate(
            self.name,
            self.num_rows,
            self.dim,
            self.rule,
            row_type=self.row_type,
            trainable=self.trainable,
        )
