"""Two-tower retrieval: a user vector against all item vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import keras_rs
import msgspec
from keras import ops

from shortlist.embeddings.features import FeatureEmbedding, concatenate
from shortlist.embeddings.inputs import Input, input_width, owned_by
from shortlist.embeddings.layer import Tensor
from shortlist.models.validate import (
    check_above_zero,
    check_positive,
    check_rate,
    check_units,
)

REMOVED = 1e9  # taken from a logit, it leaves nothing of it in a softmax


@keras.saving.register_keras_serializable(package="shortlist")
class TwoTower(keras.Model):  # type: ignore[misc]
    """Retrieval model trained with an in-batch sampled softmax.

    The items of the other rows of a batch are the negatives of a row. A popular item
    is a negative more often, so `log(sampling_probability)` is subtracted from its
    logit; an item that equals the positive of the row is not taken as its negative.

    Args:
        inputs: what the towers read, in order.
        table_rows: rows of each embedding table, row 0 included.
        embedding_dim: width of the user and item vectors.
        hidden_units: widths of the hidden layers of each tower; may be empty.
        dropout: share of the looked-up inputs dropped in training, from 0 to below 1.
        temperature: logits are dot products divided by it.
        normalize: whether the vectors have length 1 (cosine) or not (dot product).
        table_optimizer: of every embedding table; see `TableConfig`. The optimizer of
            `compile` moves the other weights.
        table_learning_rate: in place of that optimizer's own.

    Call arguments: a batch with the features of `inputs`. For training it also holds
    `item_index` `(batch_size,)` and, optionally, `sampling_probability`
    `(batch_size,)` float32, the share of training events that the item has.

    Returns: a dict of `user_vector` and `item_vector`, `(batch_size, embedding_dim)`.
    The score of a pair is their dot product: the temperature is folded into
    `user_vector`. A batch with the features of one side alone gives its vector alone.

    References:
        Yi et al. (2019), Sampling-Bias-Corrected Neural Modeling for Large Corpus
        Item Recommendations.
    """

    def __init__(
        self,
        inputs: Iterable[Input | Mapping[str, Any]],
        table_rows: Mapping[str, int],
        *,
        embedding_dim: int = 64,
        hidden_units: Sequence[int] = (),
        dropout: float = 0.0,
        temperature: float = 0.1,
        normalize: bool = True,
        table_optimizer: str | Any = "adam",
        table_learning_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive(embedding_dim=embedding_dim)
        check_units(hidden_units=hidden_units)
        check_rate(dropout=dropout)
        check_above_zero(temperature=temperature)
        super().__init__(**kwargs)
        self.inputs_spec = tuple(msgspec.convert(i, Input) for i in inputs)
        self.embedding_dim = embedding_dim
        self.hidden_units = tuple(hidden_units)
        self.dropout = dropout
        self.temperature = temperature
        self.normalize = normalize
        self.user_inputs = owned_by(self.inputs_spec, "user")
        self.item_inputs = owned_by(self.inputs_spec, "item")
        self.lookup = FeatureEmbedding(
            self.inputs_spec,
            table_rows,
            table_optimizer=table_optimizer,
            table_learning_rate=table_learning_rate,
            name="lookup",
        )
        self.user_tower = self._tower("user_tower", self.user_inputs, 1 / temperature)
        self.item_tower = self._tower("item_tower", self.item_inputs, 1.0)
        self.correction = keras_rs.layers.SamplingProbabilityCorrection()

    def build(self, input_shape: Any = None) -> None:
        """Creates the tables; the towers are built already."""
        self.lookup.build()
        self.built = True

    def call(self, batch: Mapping[str, Tensor], training: bool = False) -> Any:
        """Vectors of the users, of the items or of both, as the batch has features."""
        vectors = self.lookup(batch, training=training)
        sides = (
            ("user_vector", self.user_tower, self.user_inputs),
            ("item_vector", self.item_tower, self.item_inputs),
        )
        return {
            name: tower(concatenate(inputs, vectors), training=training)
            for name, tower, inputs in sides
            if any(i.feature in batch for i in inputs)
        }

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Mean cross-entropy of each row's own item among the items of the batch."""
        logits = ops.matmul(y_pred["user_vector"], ops.transpose(y_pred["item_vector"]))
        logits = ops.cast(logits, "float32")
        labels = ops.eye(ops.shape(logits)[0], dtype="float32")
        if "sampling_probability" in x:
            logits = self.correction(logits, x["sampling_probability"])
        logits = without_accidental_hits(logits, labels, x["item_index"])
        losses = keras.losses.categorical_crossentropy(labels, logits, from_logits=True)
        # The tables read the scale of the loss from a term of zero that they add.
        added = sum(self.losses, start=ops.zeros((), "float32"))
        if sample_weight is None:
            return ops.mean(losses) + added
        weights = ops.cast(sample_weight, "float32")
        mean = ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1e-12)
        return mean + added

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {
            **super().get_config(),
            "inputs": msgspec.to_builtins(self.inputs_spec),
            "table_rows": self.lookup.table_rows,
            "table_optimizer": self.lookup.get_config()["table_optimizer"],
            "table_learning_rate": self.lookup.table_learning_rate,
            "embedding_dim": self.embedding_dim,
            "hidden_units": list(self.hidden_units),
            "dropout": self.dropout,
            "temperature": self.temperature,
            "normalize": self.normalize,
        }

    def _tower(self, name: str, inputs: Sequence[Input], scale: float) -> keras.Model:
        tensor = source = keras.Input((input_width(inputs),), name=f"{name}_input")
        if self.dropout:
            tensor = keras.layers.Dropout(self.dropout)(tensor)
        for units in self.hidden_units:
            tensor = keras.layers.Dense(units, activation="relu")(tensor)
        tensor = keras.layers.Dense(self.embedding_dim)(tensor)
        if self.normalize:
            tensor = UnitLength()(tensor)
        if scale != 1.0:
            tensor = keras.layers.Rescaling(scale)(tensor)
        return keras.Model(source, tensor, name=name)


def without_accidental_hits(
    logits: Tensor, labels: Tensor, item_index: Tensor
) -> Tensor:
    """Takes out the negatives that are the positive of their row.

    `keras_rs.layers.RemoveAccidentalHits` is meant for this, but up to version 0.4 it
    adds 1e-40 to their logits, which removes nothing (keras-team/keras-rs#206).

    Args:
        logits: `(batch_size, batch_size)`; column j belongs to item j of the batch.
        labels: the identity matrix, of the same shape.
        item_index: item rows of the batch, `(batch_size,)`.

    Returns: the logits, very low where a column other than the row's own has the same
    item.
    """
    same = ops.equal(ops.expand_dims(item_index, 1), ops.expand_dims(item_index, 0))
    hits = ops.cast(same, logits.dtype) - labels
    return logits - hits * REMOVED


@keras.saving.register_keras_serializable(package="shortlist")
class UnitLength(keras.layers.Layer):  # type: ignore[misc]
    """Scales vectors to length 1; zeros stay zeros.

    Unlike `keras.layers.UnitNormalization` its gradient at zero is finite: a user
    without history and with every input dropped would turn the tables into NaN.
    """

    def call(self, vectors: Tensor) -> Tensor:
        """Vectors `(batch_size, dim)` divided by their length."""
        squared = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
        return vectors * ops.rsqrt(squared + 1e-12)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape
