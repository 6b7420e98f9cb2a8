"""Ranking: a score for one (user, item) row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import keras
import msgspec

from shortlist.embeddings.features import FeatureEmbedding, concatenate
from shortlist.embeddings.inputs import Input, input_width, owned_by
from shortlist.embeddings.layer import Tensor
from shortlist.errors import InputError
from shortlist.models.validate import check_finite, check_rate, check_units

Objective = Literal["explicit", "binary"]
OBJECTIVES = ("explicit", "binary")


@keras.saving.register_keras_serializable(package="shortlist")
class Ranker(keras.Model):  # type: ignore[misc]
    """A multilayer perceptron over the features of the user and of the item.

    Args:
        inputs: what it reads, user inputs first.
        table_rows: rows of each embedding table, row 0 included.
        objective: `explicit` (predicts the label; mean squared error) or `binary`
            (predicts a logit; cross-entropy).
        hidden_units: widths of the hidden layers.
        dropout: share of the looked-up inputs dropped in training, from 0 to below 1.
        mean_label: first prediction before any training, for `explicit`.
        table_optimizer: of every embedding table; see `TableConfig`. The optimizer of
            `compile` moves the other weights.
        table_learning_rate: in place of that optimizer's own.

    Call arguments: a batch with the features of `inputs`.

    Returns: `(batch_size, 1)` predicted label or logit.
    """

    def __init__(
        self,
        inputs: Iterable[Input | Mapping[str, Any]],
        table_rows: Mapping[str, int],
        *,
        objective: Objective = "binary",
        hidden_units: Sequence[int] = (64, 32),
        dropout: float = 0.0,
        mean_label: float = 0.0,
        table_optimizer: str | Any = "adam",
        table_learning_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_units(hidden_units=hidden_units)
        check_rate(dropout=dropout)
        check_finite(mean_label=mean_label)
        if objective not in OBJECTIVES:
            raise InputError(
                "invalid-argument",
                f"`objective` must be one of {OBJECTIVES}. Received: {objective!r}.",
            )
        super().__init__(**kwargs)
        given = tuple(msgspec.convert(i, Input) for i in inputs)
        self.inputs_spec = (*owned_by(given, "user"), *owned_by(given, "item"))
        self.objective = objective
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.mean_label = mean_label
        self.lookup = FeatureEmbedding(
            self.inputs_spec,
            table_rows,
            table_optimizer=table_optimizer,
            table_learning_rate=table_learning_rate,
            name="lookup",
        )
        self.scorer = self._scorer()

    def build(self, input_shape: Any = None) -> None:
        """Creates the tables; the perceptron is built already."""
        self.lookup.build()
        self.built = True

    def call(self, batch: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Scores of the rows of a batch."""
        vectors = self.lookup(batch, training=training)
        return self.scorer(concatenate(self.inputs_spec, vectors), training=training)

    def loss_function(self) -> keras.losses.Loss:
        """The loss that belongs to the objective."""
        if self.objective == "explicit":
            return keras.losses.MeanSquaredError()
        return keras.losses.BinaryCrossentropy(from_logits=True)

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {
            **super().get_config(),
            "inputs": msgspec.to_builtins(self.inputs_spec),
            "table_rows": self.lookup.table_rows,
            "table_optimizer": self.lookup.get_config()["table_optimizer"],
            "table_learning_rate": self.lookup.table_learning_rate,
            "objective": self.objective,
            "hidden_units": list(self.hidden_units),
            "dropout": self.dropout,
            "mean_label": self.mean_label,
        }

    def _scorer(self) -> keras.Model:
        width = input_width(self.inputs_spec)
        tensor = source = keras.Input((width,), name="ranker_input")
        if self.dropout:
            tensor = keras.layers.Dropout(self.dropout)(tensor)
        for units in self.hidden_units:
            tensor = keras.layers.Dense(units, activation="relu")(tensor)
        bias = keras.initializers.Constant(self.mean_label)
        tensor = keras.layers.Dense(1, bias_initializer=bias)(tensor)
        return keras.Model(source, tensor, name="scorer")
