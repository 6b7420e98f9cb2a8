"""Several predictions from one model: each head has its own label, loss and metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

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
from shortlist.models.options import MultiTaskOptions, Objective
from shortlist.models.ranker import loss_of
from shortlist.models.validate import check_finite, check_positive, model_arguments


@keras.saving.register_keras_serializable(package="shortlist")
class MultiTask(keras.Model):  # type: ignore[misc]
    """Several heads over the features of the user and of the item.

    With `bottom="shared"` all heads read one perceptron (Caruana, 1997). With `mmoe`
    there are `num_experts` of them, and every head weights their outputs with its own
    softmax gate, a linear map of the input.

    Args:
        inputs: what it reads, user inputs first.
        table_rows: rows of each embedding table, row 0 included.
        options: the options, with at least one head.
        list_size: rows per list, for `listwise` heads.
        mean_label: initial prediction of `explicit` heads that learn the label of an
            event.
        table_optimizer: of every embedding table; see `TableConfig`.
        table_learning_rate: replaces that optimizer's own.
        **kwargs: `name` and `dtype` of the Keras model, and single options by name, as
            in `MultiTask(inputs, rows, heads={"click": Head(objective="binary")})`.

    Attributes:
        options: the options; docs/recipe.md lists them.
        heads: `options.heads`.
        score_shares: weight of each head in the score that a pipeline and a server
            use; the first head alone where `score` is not set.

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
        options: MultiTaskOptions | None = None,
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
        options = MultiTaskOptions.of(options, changes)
        shares = _shares(options)
        given = tuple(msgspec.convert(i, Input) for i in inputs)
        super().__init__(**keras_arguments)
        self.options = options
        self.heads = options.heads
        self.score_shares = shares
        self.inputs_spec = (*owned_by(given, "user"), *owned_by(given, "item"))
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
        """Scores that a pipeline uses, `(batch_size, 1)` float32."""
        outputs = self.predict_on_batch(batch)
        parts = (np.float32(s) * outputs[name] for name, s in self.score_shares.items())
        return np.asarray(sum(parts), np.float32)

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        """Stock `compile`; losses, their weights and metrics are those of the heads."""
        if loss is None:
            loss = self.loss_functions()
            kwargs.setdefault("loss_weights", self.loss_weights())
            # Weighted, so that rows without a label of a head do not count for it.
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
        """Raises `InputError` (`heads-labels`) unless each head has a label.

        Args:
            labels: names of the labels; each must be that of a head.
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
        """The stock weighted sum, after the names of the labels are checked."""
        self.check_labels(y if isinstance(y, Mapping) else ())
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        """The stock metrics; Keras may compute them before the loss."""
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
            "list_size": self.list_size,
            "mean_label": self.mean_label,
            **self.options.model_dump(),
            "score": dict(self.score_shares),
        }

    def _towers(self) -> keras.Model:
        width = input_width(self.inputs_spec)
        tensor = source = keras.Input((width,), name="ranker_input")
        if self.options.dropout:
            tensor = keras.layers.Dropout(self.options.dropout)(tensor)
        read = self._read_by_heads(tensor)
        outputs = {}
        for name, head in self.heads.items():
            predicts = head.objective == "explicit" and head.label in (None, "label")
            bias = keras.initializers.Constant(self.mean_label if predicts else 0.0)
            hidden = perceptron(read[name], self.options.tower_units)
            outputs[name] = keras.layers.Dense(1, bias_initializer=bias)(hidden)
        return keras.Model(source, outputs, name="towers")

    def _read_by_heads(self, tensor: Tensor) -> dict[str, Tensor]:
        """The tensor that each head reads."""
        options = self.options
        if options.bottom == "shared":
            return dict.fromkeys(self.heads, perceptron(tensor, options.hidden_units))
        experts = ops.stack(
            [
                perceptron(tensor, options.hidden_units)
                for _ in range(options.num_experts)
            ],
            axis=1,
        )
        read = {}
        for name in self.heads:
            gate = keras.layers.Dense(
                self.options.num_experts, activation="softmax", use_bias=False
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


def _shares(options: MultiTaskOptions) -> dict[str, float]:
    """The weight of each head in the score, without those of 0.

    Raises:
        InputError: `invalid-argument`: no head, a name that is no identifier, or no
            weight other than 0.
    """
    if not options.heads:
        raise InputError(
            "invalid-argument",
            "`heads` must map at least one name to a Head. Received:"
            f" {options.heads!r}. Give heads={{'click': Head(objective='binary')}}.",
        )
    for name in options.heads:
        if not name.isidentifier():
            raise InputError(
                "invalid-argument",
                "The name of a head must be letters, digits and underscores. Received:"
                f" {name!r}. Rename it.",
            )
    given = options.shares() or {next(iter(options.heads)): 1.0}
    shares = {name: share for name, share in given.items() if share}
    if not shares:
        raise InputError(
            "invalid-argument",
            "`score` must give a head a weight other than 0. Received:"
            f" {options.score!r}. Change a weight.",
        )
    return shares


def _labels_error(found: str, name: str, known: list[str]) -> InputError:
    return InputError(
        "heads-labels",
        "The labels of a batch must be those of the heads, by name. Received:"
        f" {found}.{did_you_mean(name, known)} Name heads and labels alike.",
    )
