"""Ranking: a score for one (user, item) row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import keras
import msgspec

from shortlist.embeddings.defaults import with_defaults
from shortlist.embeddings.features import FeatureEmbedding, concatenate
from shortlist.embeddings.inputs import Input, owned_by
from shortlist.embeddings.layer import Tensor
from shortlist.errors import InputError, did_you_mean
from shortlist.models.interactions import (
    Interaction,
    Sizes,
    check_interaction,
    score_graph,
    widened,
)
from shortlist.models.listwise import ListwiseSoftmax
from shortlist.models.validate import (
    check_finite,
    check_not_negative,
    check_positive,
    check_rate,
    check_units,
)

Objective = Literal["explicit", "binary", "listwise"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)


@keras.saving.register_keras_serializable(package="shortlist")
class Ranker(keras.Model):  # type: ignore[misc]
    """A score from the features of the user and of the item.

    Args:
        inputs: what it reads, user inputs first.
        table_rows: rows of each embedding table, row 0 included.
        objective: `explicit` (predicts the label; mean squared error), `binary`
            (predicts a logit; cross-entropy) or `listwise` (a score that orders each
            event and the items drawn beside it; see `ListwiseSoftmax`).
        interaction: how the vectors become a score: `mlp`, `ncf`, `wide_deep`,
            `deepfm`, `dcn`, `dcn_low_rank` or `dlrm`; see `models/interactions.py`.
        hidden_units: widths of the hidden layers.
        cross_layers: number of cross layers, for `dcn` and `dcn_low_rank`.
        low_rank_dim: rank of their matrices, for `dcn_low_rank`; by default a quarter
            of the width of the input.
        list_size: rows per list, for `listwise`: 1 + the negatives of an event.
        dropout: share of the looked-up inputs dropped in training, from 0 to below 1.
        mean_label: first prediction before any training, for `explicit`.
        table_optimizer: of every embedding table; see `TableConfig`. The optimizer of
            `compile` moves the other weights.
        table_learning_rate: in place of that optimizer's own.
        table_l2: adds `table_l2 * row` to the gradient of every row a batch touches.

    Call arguments: a batch with the features of `inputs`. Side features and history may
    be absent: they then have their default, see `with_defaults`.

    Returns: `(batch_size, 1)` predicted label, logit or score.
    """

    def __init__(
        self,
        inputs: Iterable[Input | Mapping[str, Any]],
        table_rows: Mapping[str, int],
        *,
        objective: Objective = "binary",
        interaction: Interaction = "mlp",
        hidden_units: Sequence[int] = (64, 32),
        cross_layers: int = 2,
        low_rank_dim: int | None = None,
        list_size: int = 5,
        dropout: float = 0.0,
        mean_label: float = 0.0,
        table_optimizer: str | Any = "adam",
        table_learning_rate: float | None = None,
        table_l2: float = 0.0,
        **kwargs: Any,
    ) -> None:
        check_units(hidden_units=hidden_units)
        check_positive(cross_layers=cross_layers, list_size=list_size)
        if low_rank_dim is not None:
            check_positive(low_rank_dim=low_rank_dim)
        check_rate(dropout=dropout)
        check_finite(mean_label=mean_label)
        check_not_negative(table_l2=table_l2)
        check_objective(objective)
        check_interaction(interaction)
        given = tuple(msgspec.convert(i, Input) for i in inputs)
        given = (*owned_by(given, "user"), *owned_by(given, "item"))
        spec = widened(interaction, given)
        super().__init__(**kwargs)
        self.given_inputs = given
        self.inputs_spec = spec
        self.objective = objective
        self.interaction = interaction
        self.hidden_units = tuple(hidden_units)
        self.cross_layers = cross_layers
        self.low_rank_dim = low_rank_dim
        self.list_size = list_size
        self.dropout = dropout
        self.mean_label = mean_label
        self.lookup = FeatureEmbedding(
            self.inputs_spec,
            table_rows,
            table_optimizer=table_optimizer,
            table_learning_rate=table_learning_rate,
            table_l2=table_l2,
            name="lookup",
        )
        self.scorer = score_graph(
            interaction,
            given,
            Sizes(
                hidden_units=self.hidden_units,
                cross_layers=cross_layers,
                low_rank_dim=low_rank_dim,
            ),
            dropout=dropout,
            bias=mean_label,
        )

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
        """What the ranker is asked for in a pipeline, `(batch_size, 1)`."""
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
            "table_l2": self.lookup.table_l2,
            "objective": self.objective,
            "interaction": self.interaction,
            "hidden_units": list(self.hidden_units),
            "cross_layers": self.cross_layers,
            "low_rank_dim": self.low_rank_dim,
            "list_size": self.list_size,
            "dropout": self.dropout,
            "mean_label": self.mean_label,
        }


def check_objective(objective: object) -> None:
    """Raises `InputError` (`invalid-argument`) for an unknown objective."""
    if objective not in OBJECTIVES:
        raise InputError(
            "invalid-argument",
            f"`objective` must be one of {', '.join(OBJECTIVES)}. Received:"
            f" {objective!r}.{did_you_mean(objective, OBJECTIVES)}",
        )


def loss_of(objective: str, list_size: int) -> keras.losses.Loss:
    """The loss of an objective; `list_size` matters for `listwise` alone."""
    if objective == "explicit":
        return keras.losses.MeanSquaredError()
    if objective == "binary":
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return ListwiseSoftmax(list_size)
