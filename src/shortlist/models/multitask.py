"""Several predictions from one model: each head has its own label, loss and metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import keras
import msgspec
import numpy as np
from keras import ops

from shortlist.embeddings.defaults import with_defaults
from shortlist.embeddings.features import FeatureEmbedding, concatenate
from shortlist.embeddings.inputs import Input, input_width, owned_by
from shortlist.embeddings.layer import Tensor
from shortlist.errors import InputError, did_you_mean
from shortlist.models.interactions import perceptron
from shortlist.models.ranker import Objective, check_objective, loss_of
from shortlist.models.validate import (
    check_above_zero,
    check_finite,
    check_not_negative,
    check_positive,
    check_rate,
    check_units,
)

Bottom = Literal["shared", "mmoe"]
BOTTOMS: tuple[str, ...] = get_args(Bottom)


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One output of a `MultiTask` model.

    Args:
        objective: `explicit`, `binary` or `listwise`, as of a `Ranker`.
        weight: of its loss in the sum of all, above 0.
        label: which label of an event it learns (`training/batches/labels.py`). The
            model itself takes a label per head, by the head's name.
    """

    objective: Objective
    weight: float = 1.0
    label: str | None = None


@keras.saving.register_keras_serializable(package="shortlist")
class MultiTask(keras.Model):  # type: ignore[misc]
    """Several heads over the features of the user and of the item.

    With `bottom="shared"` all heads read one perceptron (Caruana, 1997). With `mmoe`
    there are `num_experts` of them, and every head weighs their outputs by a softmax
    gate of its own, a linear map of the input.

    Args:
        inputs: what it reads, user inputs first.
        table_rows: rows of each embedding table, row 0 included.
        heads: by name, each a `Head` or its fields.
        bottom: `shared` or `mmoe`.
        num_experts: perceptrons of `mmoe`.
        hidden_units: widths of the layers of the bottom, or of each expert.
        tower_units: widths of the hidden layers of each head.
        score: what a pipeline and a server take as the ranker's score: the name of a
            head, or weights by name, whose weighted sum of outputs it is. The first
            head by default.
        list_size: rows per list, for `listwise` heads.
        dropout: share of the looked-up inputs dropped in training, from 0 to below 1.
        mean_label: first prediction, before any training, of `explicit` heads that
            learn the label of an event.
        table_optimizer: of every embedding table; see `TableConfig`.
        table_learning_rate: in place of that optimizer's own.
        table_l2: adds `table_l2 * row` to the gradient of every row a batch touches.

    Call arguments: a batch with the features of `inputs`; see `Ranker`.

    Returns: a dict of `(batch_size, 1)`, one per head. For training, labels come as a
    dict too, and so do sample weights.

    Raises:
        InputError: `invalid-argument`; `heads-labels` in training, for labels that are
            not those of the heads.

    References:
        Caruana (1997), Multitask Learning.
        Ma et al. (2018), Modeling Task Relationships in Multi-task Learning with
        Multi-gate Mixture-of-Experts.
    """

    def __init__(
        self,
        inputs: Iterable[Input | Mapping[str, Any]],
        table_rows: Mapping[str, int],
        *,
        heads: Mapping[str, Head | Mapping[str, Any]],
        bottom: Bottom = "shared",
        num_experts: int = 4,
        hidden_units: Sequence[int] = (64, 32),
        tower_units: Sequence[int] = (16,),
        score: str | Mapping[str, float] | None = None,
        list_size: int = 5,
        dropout: float = 0.0,
        mean_label: float = 0.0,
        table_optimizer: str | Any = "adam",
        table_learning_rate: float | None = None,
        table_l2: float = 0.0,
        **kwargs: Any,
    ) -> None:
        check_units(hidden_units=hidden_units, tower_units=tower_units)
        check_positive(num_experts=num_experts, list_size=list_size)
        check_rate(dropout=dropout)
        check_finite(mean_label=mean_label)
        check_not_negative(table_l2=table_l2)
        _check_bottom(bottom, hidden_units)
        known = _known_heads(heads)
        shares = _shares(score, tuple(known))
        given = tuple(msgspec.convert(i, Input) for i in inputs)
        super().__init__(**kwargs)
        self.heads = known
        self.score_shares = shares
        self.inputs_spec = (*owned_by(given, "user"), *owned_by(given, "item"))
        self.bottom = bottom
        self.num_experts = num_experts
        self.hidden_units = tuple(hidden_units)
        self.tower_units = tuple(tower_units)
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
        self.towers = self._towers()

    @property
    def scorer(self) -> keras.Model:
        """The graph from the flat input to the score, of the weights of `towers`."""
        outputs = self.towers.output
        summands = [
            outputs[name]
            if share == 1
            else keras.layers.Rescaling(share)(outputs[name])
            for name, share in self.score_shares.items()
        ]
        total = summands[0] if len(summands) == 1 else keras.layers.Add()(summands)
        return keras.Model(self.towers.input, total, name="scorer")

    @property
    def objective(self) -> Objective:
        """What the score is: that of its head, or a number that only orders."""
        names = list(self.score_shares)
        if len(names) == 1 and self.score_shares[names[0]] == 1:
            return self.heads[names[0]].objective
        return "listwise"

    def build(self, input_shape: Any = None) -> None:
        """Creates the tables; the towers are built already."""
        self.lookup.build()
        self.built = True

    def call(
        self, batch: Mapping[str, Tensor], training: bool = False
    ) -> dict[str, Tensor]:
        """Outputs of all heads for the rows of a batch."""
        whole = with_defaults(self.inputs_spec, batch)
        vectors = self.lookup(whole, training=training)
        flat = concatenate(self.inputs_spec, vectors)
        outputs: dict[str, Tensor] = self.towers(flat, training=training)
        return outputs

    def score_on_batch(self, batch: Mapping[str, Any]) -> np.ndarray:
        """What the ranker is asked for in a pipeline, `(batch_size, 1)` float32."""
        outputs = self.predict_on_batch(batch)
        parts = (np.float32(s) * outputs[name] for name, s in self.score_shares.items())
        return np.asarray(sum(parts), np.float32)

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        """Stock `compile`; losses, their weights and metrics are those of the heads."""
        if loss is None:
            loss = self.loss_functions()
            kwargs.setdefault("loss_weights", self.loss_weights())
            # Weighted, so that rows that are nothing to a head do not count for it.
            kwargs.setdefault("weighted_metrics", self.head_metrics())
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    def loss_functions(self) -> dict[str, keras.losses.Loss]:
        """The loss of every head."""
        return {
            name: loss_of(head.objective, self.list_size)
            for name, head in self.heads.items()
        }

    def loss_weights(self) -> dict[str, float]:
        """The weight of every head's loss."""
        return {name: head.weight for name, head in self.heads.items()}

    def head_metrics(self) -> dict[str, list[keras.metrics.Metric]]:
        """RMSE of the explicit heads, AUC of the binary ones."""
        made: dict[str, list[keras.metrics.Metric]] = {}
        for name, head in self.heads.items():
            if head.objective == "explicit":
                made[name] = [keras.metrics.RootMeanSquaredError(name="rmse")]
            elif head.objective == "binary":
                made[name] = [keras.metrics.AUC(from_logits=True, name="auc")]
        return made

    def check_labels(self, labels: Iterable[str]) -> None:
        """Raises `InputError` (`heads-labels`) unless there is a label for each head.

        Args:
            labels: names of the labels there are; none may be left over.
        """
        names = list(labels)
        for name in self.heads:
            if name not in names:
                raise _labels_error(f"none for {name!r}", name, names)
        for name in names:
            if name not in self.heads:
                raise _labels_error(f"one for {name!r}", name, list(self.heads))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The stock weighted sum, after the labels were found to be those of heads."""
        self.check_labels(y if isinstance(y, Mapping) else ())
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        """The stock metrics; Keras may ask for them before the loss."""
        self.check_labels(y if isinstance(y, Mapping) else ())
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {
            **super().get_config(),
            "inputs": msgspec.to_builtins(self.inputs_spec),
            "table_rows": self.lookup.table_rows,
            "table_optimizer": self.lookup.get_config()["table_optimizer"],
            "table_learning_rate": self.lookup.table_learning_rate,
            "table_l2": self.lookup.table_l2,
            "heads": {
                name: msgspec.to_builtins(head) for name, head in self.heads.items()
            },
            "bottom": self.bottom,
            "num_experts": self.num_experts,
            "hidden_units": list(self.hidden_units),
            "tower_units": list(self.tower_units),
            "score": dict(self.score_shares),
            "list_size": self.list_size,
            "dropout": self.dropout,
            "mean_label": self.mean_label,
        }

    def _towers(self) -> keras.Model:
        width = input_width(self.inputs_spec)
        tensor = source = keras.Input((width,), name="ranker_input")
        if self.dropout:
            tensor = keras.layers.Dropout(self.dropout)(tensor)
        read = self._bottom(tensor)
        outputs = {}
        for name, head in self.heads.items():
            predicts = head.objective == "explicit" and head.label in (None, "label")
            bias = keras.initializers.Constant(self.mean_label if predicts else 0.0)
            hidden = perceptron(read[name], self.tower_units)
            outputs[name] = keras.layers.Dense(1, bias_initializer=bias)(hidden)
        return keras.Model(source, outputs, name="towers")

    def _bottom(self, tensor: Tensor) -> dict[str, Tensor]:
        """What each head reads."""
        if self.bottom == "shared":
            return dict.fromkeys(self.heads, perceptron(tensor, self.hidden_units))
        experts = ops.stack(
            [perceptron(tensor, self.hidden_units) for _ in range(self.num_experts)],
            axis=1,
        )
        read = {}
        for name in self.heads:
            gate = keras.layers.Dense(
                self.num_experts, activation="softmax", use_bias=False
            )
            read[name] = mixture(gate(tensor), experts)
        return read


def mixture(gate: Tensor, experts: Tensor) -> Tensor:
    """The outputs of the experts, weighted.

    Args:
        gate: `(batch_size, num_experts)`, weights.
        experts: `(batch_size, num_experts, dim)`.

    Returns: `(batch_size, dim)`.
    """
    return ops.sum(ops.expand_dims(gate, -1) * experts, axis=1)


def _known_heads(heads: Mapping[str, Any]) -> dict[str, Head]:
    if not isinstance(heads, Mapping) or not heads:
        raise InputError(
            "invalid-argument",
            "`heads` must map at least one name to a Head. Received:"
            f" {heads!r}. Give heads={{'click': Head(objective='binary')}}.",
        )
    known = {}
    for name, given in heads.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(
                "invalid-argument",
                "The name of a head must be letters, digits and underscores. Received:"
                f" {name!r}. Rename it.",
            )
        fields = given if isinstance(given, Head) else dict(given)
        if isinstance(fields, dict):
            check_objective(fields.get("objective"))
        try:
            head = msgspec.convert(fields, Head)
        except msgspec.ValidationError as error:
            raise InputError(
                "invalid-argument",
                f"Head {name!r} must have the fields {Head.__struct_fields__}."
                f" Received: {given!r} ({error}). Correct them.",
            ) from error
        check_objective(head.objective)
        check_above_zero(weight=head.weight)
        known[name] = head
    return known


def _shares(
    score: str | Mapping[str, float] | None, names: tuple[str, ...]
) -> dict[str, float]:
    """Weights by head, those that are not 0."""
    if score is None:
        return {names[0]: 1.0}
    shares = {score: 1.0} if isinstance(score, str) else dict(score)
    for name, share in shares.items():
        if name not in names:
            raise InputError(
                "invalid-argument",
                f"`score` must name heads, of {', '.join(names)}. Received:"
                f" {name!r}.{did_you_mean(name, names)}",
            )
        check_finite(score=share)
    shares = {name: float(share) for name, share in shares.items() if share}
    if not shares:
        raise InputError(
            "invalid-argument",
            f"`score` must give a head a weight other than 0. Received: {score!r}.",
        )
    return shares


def _check_bottom(bottom: object, hidden_units: Sequence[int]) -> None:
    if bottom not in BOTTOMS:
        raise InputError(
            "invalid-argument",
            f"`bottom` must be one of {', '.join(BOTTOMS)}. Received:"
            f" {bottom!r}.{did_you_mean(bottom, BOTTOMS)}",
        )
    if bottom == "mmoe" and not hidden_units:
        raise InputError(
            "invalid-argument",
            "bottom='mmoe' needs experts with a hidden layer: `hidden_units` must not"
            " be empty. Received: (). Give a width or use bottom='shared'.",
        )


def _labels_error(found: str, name: str, known: list[str]) -> InputError:
    return InputError(
        "heads-labels",
        "The labels of a batch must be those of the heads, by name. Received:"
        f" {found}.{did_you_mean(name, known)} Name heads and labels alike.",
    )
