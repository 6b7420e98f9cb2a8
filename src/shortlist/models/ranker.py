"""Ranking: a score for one (user, item) row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import msgspec

from shortlist.embeddings.defaults import with_defaults
from shortlist.embeddings.features import FeatureEmbedding, concatenate
from shortlist.embeddings.inputs import Input, owned_by
from shortlist.embeddings.layer import Tensor
from shortlist.models.interactions import score_graph, widened
from shortlist.models.listwise import ListwiseSoftmax
from shortlist.models.options import Objective, RankerOptions
from shortlist.models.validate import check_finite, check_positive, model_arguments


@keras.saving.register_keras_serializable(package="shortlist")
class Ranker(keras.Model):  # type: ignore[misc]
    """A score from the features of the user and of the item.

    The objective is `explicit` (predicts the label; mean squared error), `binary`
    (predicts a logit; cross-entropy) or `listwise` (a score that orders each event and
    the items sampled for it; see `ListwiseSoftmax`).

    Args:
        inputs: what it reads, user inputs first.
        table_rows: rows of each embedding table, row 0 included.
        options: the options; the defaults if left out.
        list_size: rows per list, for `listwise`: 1 + the negatives of an event.
        mean_label: initial prediction, for `explicit`.
        table_optimizer: of every embedding table; see `TableConfig`. The optimizer of
            `compile` updates the other weights.
        table_learning_rate: replaces that optimizer's own.
        **kwargs: `name` and `dtype` of the Keras model, and single options by name, as
            in `Ranker(inputs, rows, interaction="dcn")`.

    Attributes:
        options: the options; docs/recipe.md lists them.

    Raises:
        InputError: `invalid-argument`.

    Call arguments: a batch with the features of `inputs`. Side features and history may
    be absent and then have their default; see `with_defaults`.

    Returns: `(batch_size, 1)` predicted label, logit or score.
    """

    def __init__(
        self,
        inputs: Iterable[Input | Mapping[str, Any]],
        table_rows: Mapping[str, int],
        options: RankerOptions | None = None,
        *,
        list_size: int = 5,
        mean_label: float = 0.0,
        table_optimizer: str | Any = "adam",
        table_learning_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive(list_size=list_size)
        check_finite(mean_label=mean_label)
        keras_arguments, changes = model_arguments(kwargs)
        options = RankerOptions.of(options, changes)
        given = tuple(msgspec.convert(i, Input) for i in inputs)
        given = (*owned_by(given, "user"), *owned_by(given, "item"))
        spec = widened(options.interaction, given)
        super().__init__(**keras_arguments)
        self.options = options
        self.given_inputs = given
        self.inputs_spec = spec
        self.list_size = list_size
        self.mean_label = mean_label
        self.lookup = FeatureEmbedding(
            self.inputs_spec,
            table_rows,
            table_optimizer=table_optimizer,
            table_learning_rate=table_learning_rate,
            table_l2=options.table_l2,
            name="lookup",
        )
        self.scorer = score_graph(options, given, bias=mean_label)

    @property
    def objective(self) -> Objective:
        """What the score is."""
        return self.options.objective

    def build(self, input_shape: Any = None) -> None:
        """Creates the tables; the scorer is built already."""
        self.lookup.build()
        self.built = True

    def call(self, batch: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Scores of the rows of a batch."""
        whole = with_defaults(self.inputs_spec, batch)
        vectors = self.lookup(whole, training=training)
        return self.scorer(concatenate(self.inputs_spec, vectors), training=training)

    def score_on_batch(self, batch: Mapping[str, Any]) -> Any:
        """Scores that a pipeline uses, `(batch_size, 1)`."""
        return self.predict_on_batch(batch)

    def loss_function(self) -> keras.losses.Loss:
        """The loss that belongs to the objective."""
        return loss_of(self.objective, self.list_size)

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {
            **super().get_config(),
            "inputs": msgspec.to_builtins(self.given_inputs),
            "table_rows": self.lookup.table_rows,
            "table_optimizer": self.lookup.get_config()["table_optimizer"],
            "table_learning_rate": self.lookup.table_learning_rate,
            "list_size": self.list_size,
            "mean_label": self.mean_label,
            **self.options.model_dump(),
        }


def loss_of(objective: str, list_size: int) -> keras.losses.Loss:
    """The loss of an objective; `list_size` matters for `listwise` alone."""
    if objective == "explicit":
        return keras.losses.MeanSquaredError()
    if objective == "binary":
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return ListwiseSoftmax(list_size)
