"""One call of a layer on its host tables, as the backends carry it out.

A backend passes tensors through its graph; where they have values it calls back with
NumPy arrays. Knows bags and host tables; knows nothing of a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shortlist.embeddings.host.host_tables import HostTables
from shortlist.embeddings.table import Bags, Combiner

Rates = Callable[[Any], Sequence[Any]] | Sequence[float]


@dataclass(frozen=True)
class BagPlaces:
    """Where the bags of one feature are among the arrays of a call.

    Args:
        table: index of the table.
        combiner: how the rows of a bag become one vector.
        dim: width of the vectors.
        num_bags: number of bags; `None` where the graph leaves it open.
        values: index of the ids.
        offsets: index of the offsets, `None` without.
        weights: index of the weights, `None` without.
    """

    table: int
    combiner: Combiner
    dim: int
    num_bags: int | None
    values: int
    offsets: int | None
    weights: int | None


@dataclass(frozen=True, eq=False)
class LookupCall:
    """What a lookup and the backward pass after it need beside the tensors.

    Args:
        host: the tables.
        places: of each feature.
        rates: learning rates of the tables, or a function that gives them at the
            0-based number of an update.
        loss_scale: factor of the loss; `None` to take the gradient of the scalar zero
            that a lookup returns.
    """

    host: HostTables
    places: tuple[BagPlaces, ...]
    rates: Rates
    loss_scale: float | None

    def rates_at(self, step: Any) -> Sequence[Any]:
        """The learning rates at the 0-based number of an update."""
        return self.rates(step) if callable(self.rates) else self.rates

    def bags(self, arrays: Sequence[np.ndarray]) -> list[Bags]:
        """The bags of all features, from the values of the arrays of the call."""
        bags = []
        for one in self.places:
            offsets = None if one.offsets is None else arrays[one.offsets]
            if offsets is not None:
                offsets = np.ascontiguousarray(offsets, np.int64)
            bags.append(
                Bags(
                    table=one.table,
                    ids=np.ascontiguousarray(arrays[one.values]),
                    offsets=offsets,
                    weights=None if one.weights is None else arrays[one.weights],
                    combiner=one.combiner,
                )
            )
        return bags

    def append(
        self,
        handle: Any,
        bags: Sequence[Bags],
        gradients: Sequence[np.ndarray],
        scale: Any,
        rates: Sequence[float],
    ) -> np.float32:
        """Hands in the gradients of the call; see `HostTables.append`.

        Args:
            handle: the handle of the step.
            bags: the bags of the lookup.
            gradients: `(num_bags, dim)` float32 for each.
            scale: gradient of the scalar zero.
            rates: learning rates of the tables.
        """
        scale = float(scale) if self.loss_scale is None else self.loss_scale
        return self.host.append(handle, bags, gradients, scale, rates)
