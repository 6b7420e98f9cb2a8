"""The listwise loss: one event and the items sampled for it form a list."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from shortlist.embeddings.layer import Tensor
from shortlist.errors import InputError
from shortlist.models.validate import check_positive


@keras.saving.register_keras_serializable(package="shortlist")
class ListwiseSoftmax(keras.losses.Loss):  # type: ignore[misc]
    """Cross-entropy between the labels and the softmax of the scores of each list.

    A batch holds its lists one after the other, each of `list_size` rows, as a loader
    with `list_size - 1` negatives per event makes them. Each row of a list with labels
    y and scores s gets `-list_size * y / sum(y) * log softmax(s)`: the mean over the
    rows is the mean over the lists, and the weight of a row applies to its own label. A
    list without a positive label has a loss of 0.

    `keras_rs.losses.ListMLELoss` (0.4) is no substitute: it maximizes the likelihood of
    one order of the whole list, and with equal labels that is the order of the rows,
    which means nothing for sampled items.

    Args:
        list_size: rows per list, at least 2.
        name: of the loss.

    References:
        Cao et al. (2007), Learning to Rank: From Pairwise Approach to Listwise
        Approach (ListNet, top one).
        Bruch et al. (2019), An Analysis of the Softmax Cost Function for Learning to
        Rank.
    """

    def __init__(
        self, list_size: int, name: str = "listwise_softmax", **kwargs: Any
    ) -> None:
        check_positive(list_size=list_size)
        if list_size < 2:
            raise InputError(
                "invalid-argument",
                "`list_size` must be at least 2: one item cannot be compared. Received:"
                f" {list_size}. Sample at least one negative.",
            )
        super().__init__(name=name, **kwargs)
        self.list_size = list_size

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Losses `(batch_size,)` of labels and scores `(batch_size, 1)`.

        The batch size is a multiple of `list_size`.
        """
        scores = ops.reshape(y_pred, (-1, self.list_size))
        labels = ops.cast(ops.reshape(y_true, (-1, self.list_size)), scores.dtype)
        total = ops.sum(labels, axis=1, keepdims=True)
        share = labels / ops.maximum(total, 1e-7)
        losses = -self.list_size * share * ops.log_softmax(scores, axis=1)
        return ops.reshape(losses, (-1,))

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {**super().get_config(), "list_size": self.list_size}
