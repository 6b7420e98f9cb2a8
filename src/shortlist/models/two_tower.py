"""Two-tower retrieval: a user vector against all item vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import msgspec
from keras import ops

from shortlist.data.schema import NEGATIVE_PREFIX
from shortlist.embeddings.features import FeatureEmbedding, concatenate
from shortlist.embeddings.inputs import Input, owned_by
from shortlist.embeddings.layer import Tensor
from shortlist.errors import InputError
from shortlist.models import losses, towers
from shortlist.models.history_encoders import (
    AttentionEncoder,
    GruEncoder,
    SequenceEncoder,
)
from shortlist.models.options import TwoTowerOptions
from shortlist.models.validate import model_arguments


@keras.saving.register_keras_serializable(package="shortlist")
class TwoTower(keras.Model):  # type: ignore[misc]
    """Retrieval model trained to score a row's own item above other items.

    Args:
        inputs: what the towers read, in order.
        table_rows: rows of each embedding table, row 0 included.
        options: the options; the defaults if left out.
        user_layers: replaces the hidden layers of the user tower: a Keras layer or
            model, or a sequence of them, before the last, linear layer.
        item_layers: the same for the item tower; other objects than `user_layers`.
        table_optimizer: of every embedding table; see `TableConfig`. The optimizer of
            `compile` updates the other weights.
        table_learning_rate: replaces that optimizer's own.
        **kwargs: `name` and `dtype` of the Keras model, and single options by name, as
            in `TwoTower(inputs, rows, temperature=0.1)`.

    Attributes:
        options: the options; docs/recipe.md lists them. With `item_bias` the bias is
            the last column of `item_vector`, multiplied by a 1 in `user_vector`. A
            `history` of gru or attention needs it as a sequence
            (`model_inputs(..., as_sequence=True)`).

    Call arguments: a batch with the features of `inputs`. For training it also holds
    `item_index` `(batch_size,)` and, optionally, `sampling_probability`
    `(batch_size,)` float32, the item's share of the training events. For `mixed` and
    `all` negatives it also holds `negative_item_index` `(count,)` and
    `negative_<feature>` of the item features. For `mixed` with `sampling_probability`
    it also holds `negative_sampling_probability`, the probability of sampling each of
    them, equal for all, and `negative_share`, their shares of the training events. A
    loader with such negatives yields all of these.

    Returns: a dict of `user_vector` and `item_vector`, `(batch_size, embedding_dim)`.
    With several queries `user_vector` is `(batch_size, num_queries, embedding_dim)`.
    The score of a pair is their dot product, or the highest of them; `user_vector` is
    already divided by the temperature. A batch with only the user or only the item
    features gives only that vector; one with negatives also gives `negative_vector`
    `(count, embedding_dim)`.

    Raises:
        InputError: `invalid-argument`; `batch-incomplete` in training.

    References:
        Yi et al. (2019), Sampling-Bias-Corrected Neural Modeling for Large Corpus
        Item Recommendations.
        Yang et al. (2020), Mixed Negative Sampling for Learning Two-tower Neural
        Networks in Recommendations.
        Cen et al. (2020), Controllable Multi-Interest Framework for Recommendation
        (several queries).
        Kang, McAuley (2018), Self-Attentive Sequential Recommendation (`attention`).
    """

    def __init__(
        self,
        inputs: Iterable[Input | Mapping[str, Any]],
        table_rows: Mapping[str, int],
        options: TwoTowerOptions | None = None,
        *,
        user_layers: Any = None,
        item_layers: Any = None,
        table_optimizer: str | Any = "adam",
        table_learning_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        keras_arguments, changes = model_arguments(kwargs)
        options = TwoTowerOptions.of(options, changes)
        super().__init__(**keras_arguments)
        self.options = options
        self.inputs_spec = tuple(msgspec.convert(i, Input) for i in inputs)
        self.user_layers = towers.own_layers("user_layers", user_layers)
        self.item_layers = towers.own_layers("item_layers", item_layers)
        _check_own(self.user_layers, self.item_layers, options.hidden_units)
        self.user_inputs = owned_by(self.inputs_spec, "user")
        self.item_inputs = owned_by(self.inputs_spec, "item")
        _check_history(options.history, self.user_inputs, self.item_inputs)
        if options.projection == "sum":
            _check_sum(self)
        self.lookup = FeatureEmbedding(
            self.inputs_spec,
            table_rows,
            table_optimizer=table_optimizer,
            table_learning_rate=table_learning_rate,
            name="lookup",
        )
        self.user_tower = self._user_tower()
        self.item_tower = towers.build_tower(
            "item_tower",
            self.item_inputs,
            layers=self._item_layers(),
            encoders={},
        )

    def build(self, input_shape: Any = None) -> None:
        """Creates the tables; the towers are built already."""
        self.lookup.build()
        self.built = True

    def call(self, batch: Mapping[str, Tensor], training: bool = False) -> Any:
        """Vectors of the users and of the items, if the batch has their features."""
        outputs = {}
        batch, num_sampled = self._with_negatives(batch)
        vectors = self.lookup(batch, training=training)
        if any(i.feature in batch for i in self.user_inputs):
            columns = concatenate(self.user_inputs, vectors)
            outputs["user_vector"] = self.user_tower(columns, training=training)
        if any(i.feature in batch for i in self.item_inputs):
            columns = concatenate(self.item_inputs, vectors)
            items = self.item_tower(columns, training=training)
            if num_sampled is not None:
                own = ops.shape(items)[0] - num_sampled
                outputs["negative_vector"] = items[own:]
                items = items[:own]
            outputs["item_vector"] = items
        return outputs

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Mean loss of the positive item of each row among the candidates."""
        candidates = self._candidates(x, y_pred)
        logits = best_scores(y_pred["user_vector"], candidates.vectors)
        row_losses = losses.retrieval_loss(
            self.options.loss,
            logits,
            candidates.labels,
            losses.accidental_hits(
                candidates.labels, x["item_index"], candidates.item_index
            ),
            candidates.probability,
            hard_negatives=self.options.hard_negatives or None,
            margin=self.options.margin,
        )
        # Tables add a term of zero, from which they read the scale of the loss.
        added = sum(self.losses, start=ops.zeros((), "float32"))
        return losses.weighted_mean(row_losses, sample_weight) + added

    @property
    def embedding_dim(self) -> int:
        """Width of the user and item vectors."""
        return self.options.embedding_dim

    @property
    def num_queries(self) -> int:
        """User vectors per user."""
        return self.options.num_queries

    @property
    def item_bias(self) -> bool:
        """Whether the last column of an item vector is a bias."""
        return self.options.item_bias

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {
            **super().get_config(),
            "inputs": msgspec.to_builtins(self.inputs_spec),
            "table_rows": self.lookup.table_rows,
            "table_optimizer": self.lookup.get_config()["table_optimizer"],
            "table_learning_rate": self.lookup.table_learning_rate,
            "user_layers": towers.layer_configs(self.user_layers),
            "item_layers": towers.layer_configs(self.item_layers),
            **self.options.model_dump(),
        }

    def _with_negatives(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Tensor], Any]:
        """Appends the negatives to the items, so that one lookup reads all.

        Returns: the batch and the number of negatives, or `None` without negatives.
        """
        first = NEGATIVE_PREFIX + "item_index"
        if self.options.negatives == "in_batch" or first not in batch:
            return batch, None
        joined = dict(batch)
        for i in self.item_inputs:
            sampled = batch[NEGATIVE_PREFIX + i.feature]
            joined[i.feature] = ops.concatenate([batch[i.feature], sampled], axis=0)
        return joined, ops.shape(batch[first])[0]

    def _candidates(self, x: Mapping[str, Tensor], y_pred: Any) -> _Candidates:
        own, own_index = y_pred["item_vector"], x["item_index"]
        batch_size = ops.shape(own_index)[0]
        corrected = self.options.sampling_correction
        share = x.get("sampling_probability") if corrected else None
        if self.options.negatives == "in_batch":
            labels = ops.eye(batch_size, dtype="float32")
            return _Candidates(own, own_index, labels, share)
        sampled_index = _given(x, "item_index", self.options.negatives)
        sampled = y_pred["negative_vector"]
        if self.options.negatives == "all":
            labels = losses.same_item(own_index, sampled_index)
            return _Candidates(sampled, sampled_index, labels, None)
        num_sampled = ops.shape(sampled_index)[0]
        if share is not None:
            share = losses.mixture_probability(
                ops.concatenate([share, _given(x, "share", "mixed")], axis=0),
                ops.mean(_given(x, "sampling_probability", "mixed")),
                batch_size,
                num_sampled,
            )
        return _Candidates(
            ops.concatenate([own, sampled], axis=0),
            ops.concatenate(
                [own_index, ops.cast(sampled_index, own_index.dtype)], axis=0
            ),
            ops.eye(batch_size, batch_size + num_sampled, dtype="float32"),
            share,
        )

    def _user_tower(self) -> keras.Model:
        layers = self._made_layers(
            self.user_layers,
            self.user_inputs,
            self.num_queries * (self.embedding_dim - self.item_bias),
        )
        if self.num_queries > 1:
            shape = (self.num_queries, self.embedding_dim - self.item_bias)
            layers.append(keras.layers.Reshape(shape))
        layers += self._scaled()
        if self.options.learned_temperature:
            layers.append(towers.LearnedTemperature(self.options.temperature))
        elif self.options.temperature != 1.0:
            layers.append(keras.layers.Rescaling(1 / self.options.temperature))
        if self.item_bias:
            layers.append(towers.WithOne())
        return towers.build_tower(
            "user_tower",
            self.user_inputs,
            layers=layers,
            encoders={
                i.feature: self._encoder(i)
                for i in self.user_inputs
                if i.length is not None
            },
        )

    def _made_layers(
        self, own: list[Any] | None, inputs: Sequence[Input], width: int
    ) -> list[Any]:
        """The layers from the columns to a vector; the order decides their seeds."""
        rate = self.options.dropout
        made = [keras.layers.Dropout(rate)] if rate else []
        if self.options.projection == "sum":
            return [*made, towers.SumOfInputs(len(inputs), width)]
        if own is None:
            units = self.options.hidden_units
            made += [keras.layers.Dense(n, activation="relu") for n in units]
        return [*made, *(own or []), keras.layers.Dense(width)]

    def _item_layers(self) -> list[Any]:
        layers = self._made_layers(
            self.item_layers, self.item_inputs, self.embedding_dim
        )
        if self.item_bias and self.options.similarity == "cosine":
            return [*layers, towers.UnitLengthBesideBias()]
        return layers + self._scaled()

    def _scaled(self) -> list[Any]:
        return [towers.UnitLength()] if self.options.similarity == "cosine" else []

    def _encoder(self, i: Input) -> SequenceEncoder:
        assert i.length is not None  # callers pass sequences
        name = f"{i.feature}_encoder"
        if self.options.history == "gru":
            return GruEncoder(i.length, i.dim, dropout=self.options.dropout, name=name)
        return AttentionEncoder(
            i.length,
            i.dim,
            num_blocks=self.options.num_blocks,
            num_heads=self.options.num_heads,
            dropout=self.options.dropout,
            name=name,
        )


class _Candidates(NamedTuple):
    """Items that are scored for the rows of a batch.

    `vectors` `(m, dim)`, `item_index` `(m,)`, `labels` `(batch_size, m)` with 1 at the
    positive item of a row, `probability` `(m,)` or `None`.
    """

    vectors: Tensor
    item_index: Tensor
    labels: Tensor
    probability: Tensor | None


def best_scores(users: Tensor, items: Tensor) -> Tensor:
    """Scores `(n, m)` float32 of all pairs; with several queries the highest.

    Args:
        users: `(n, dim)` or `(n, num_queries, dim)`.
        items: `(m, dim)`.
    """
    scores = ops.cast(ops.matmul(users, ops.transpose(items)), "float32")
    return ops.max(scores, axis=1) if len(users.shape) == 3 else scores


def _given(x: Mapping[str, Tensor], name: str, negatives: str) -> Tensor:
    key = NEGATIVE_PREFIX + name
    if key not in x:
        raise InputError(
            "batch-incomplete",
            f"A batch must hold {key!r} to train with negatives={negatives!r}."
            f" Received: {sorted(x)}. Make batches of TrainingExamples with"
            f" ExampleOptions(negatives=Negatives({negatives!r}, ...)).",
        )
    return x[key]


def _check_sum(model: TwoTower) -> None:
    options = model.options
    others = {
        i.feature: i.width
        for i in model.inputs_spec
        if i.width != options.embedding_dim
    }
    layers = options.hidden_units or model.user_layers or model.item_layers
    if not others and not layers and options.num_queries == 1:
        return
    raise InputError(
        "invalid-argument",
        "`projection='sum'` needs inputs of width `embedding_dim`, one query and no"
        f" hidden layers. Received: embedding_dim={options.embedding_dim}, other"
        f" widths {others}, num_queries={options.num_queries},"
        f" hidden_units={options.hidden_units}. Set feature_dim to embedding_dim, or"
        " use projection='dense'.",
    )


def _check_own(
    user_layers: list[Any] | None, item_layers: list[Any] | None, units: Sequence[int]
) -> None:
    if units and user_layers is not None and item_layers is not None:
        raise InputError(
            "invalid-argument",
            "`hidden_units` must be left out if `user_layers` and `item_layers` are"
            f" given. Received: hidden_units={list(units)} and both. Leave it out.",
        )
    own = {id(layer) for layer in user_layers or ()}
    if any(id(layer) in own for layer in item_layers or ()):
        raise InputError(
            "invalid-argument",
            "`user_layers` and `item_layers` must be different objects. Received: the"
            " same layer in both. Make a layer for each tower.",
        )


def _check_history(history: str, user: Sequence[Input], item: Sequence[Input]) -> None:
    sequences = [i.feature for i in user if i.length is not None]
    fits = bool(sequences) == (history != "mean")
    if fits and all(i.length is None for i in item):
        return
    raise InputError(
        "invalid-argument",
        "`history` must be 'gru' or 'attention' if the inputs hold the history as a"
        f" sequence, and 'mean' if not. Received: history={history!r}, sequences"
        f" {sequences} of the user and"
        f" {[i.feature for i in item if i.length is not None]} of the item. Make the"
        " inputs with model_inputs(..., as_sequence=True), a history_length of at least"
        " 1, and sequences of the user alone.",
    )
