"""Towers: the dense part between looked-up columns and a user or item vector.

Knows Keras layers and the widths of inputs; knows nothing of tables or losses. A tower
has one input `(batch_size, width)`, so that it can be exported as one graph.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from shortlist.embeddings.inputs import Input, input_width
from shortlist.embeddings.layer import Tensor
from shortlist.errors import InputError


def build_tower(
    name: str,
    inputs: Sequence[Input],
    *,
    layers: Sequence[Any],
    encoders: dict[str, Any],
) -> keras.Model:
    """A tower over the concatenated columns of `inputs`.

    Args:
        name: of the model.
        inputs: the inputs that the columns belong to.
        layers: the layers from the columns to the vector, in order.
        encoders: the encoder of each sequence, by feature; applied before `layers`.
    """
    source = keras.Input((input_width(inputs),), name=f"{name}_input")
    tensor = source
    if encoders:
        blocks = _encoded(source, inputs, encoders)
        tensor = keras.layers.Concatenate()(blocks) if len(blocks) > 1 else blocks[0]
    for layer in layers:
        tensor = layer(tensor)
    return keras.Model(source, tensor, name=name)


def _encoded(
    source: Any, inputs: Sequence[Input], encoders: dict[str, Any]
) -> list[Any]:
    """The columns of each input; a sequence is replaced by its encoded vector."""
    blocks, start = [], 0
    for i in inputs:
        columns = source[:, start : start + i.width]
        if i.length is not None:
            columns = encoders[i.feature](columns)
        blocks.append(columns)
        start += i.width
    return blocks


def own_layers(name: str, layers: Any) -> list[Any] | None:
    """Keras layers from one layer, a sequence of them or their configurations.

    Raises:
        InputError: `invalid-argument` for anything else.
    """
    if layers is None:
        return None
    given = [layers] if isinstance(layers, (keras.layers.Layer, dict)) else layers
    if not isinstance(given, (list, tuple)):
        given = [given]
    made = [
        keras.saving.deserialize_keras_object(one) if isinstance(one, dict) else one
        for one in given
    ]
    for one in made:
        if not isinstance(one, keras.layers.Layer):
            raise InputError(
                "invalid-argument",
                f"`{name}` must be a Keras layer or model, or a sequence of them."
                f" Received: {one!r} (of type {type(one).__name__}). Pass layer"
                " objects, such as keras.layers.Dense(64, activation='relu').",
            )
    return made


def layer_configs(layers: Sequence[Any] | None) -> list[Any] | None:
    """The configurations of layers, as plain JSON values."""
    if layers is None:
        return None
    configs = [keras.saving.serialize_keras_object(layer) for layer in layers]
    plain: list[Any] = json.loads(json.dumps(configs))  # lists for tuples
    return plain


def unit_length(vectors: Tensor) -> Tensor:
    """Vectors `(..., dim)` divided by their length."""
    wide = ops.cast(vectors, "float32")  # 1e-12 is 0 in float16
    squared = ops.sum(ops.square(wide), axis=-1, keepdims=True)
    return ops.cast(wide * ops.rsqrt(squared + 1e-12), vectors.dtype)


@keras.saving.register_keras_serializable(package="shortlist")
class UnitLength(keras.layers.Layer):  # type: ignore[misc]
    """Scales vectors to length 1; zeros stay zeros.

    Unlike `keras.layers.UnitNormalization` its gradient at zero is finite: a user
    without history and with every input dropped would turn the tables into NaN.
    """

    def call(self, vectors: Tensor) -> Tensor:
        """Vectors `(..., dim)` divided by their length."""
        return unit_length(vectors)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape


@keras.saving.register_keras_serializable(package="shortlist")
class LearnedTemperature(keras.layers.Layer):  # type: ignore[misc]
    """Divides vectors by a trained temperature.

    The weight is the logarithm of the temperature, which therefore stays above 0.

    Args:
        initial: the temperature before training, above 0.

    Call arguments: vectors of any shape. Returns: the same shape.

    References:
        Radford et al. (2021), Learning Transferable Visual Models From Natural
        Language Supervision, section 2.5.
    """

    def __init__(self, initial: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: Any) -> None:
        """Creates the weight."""
        start = keras.initializers.Constant(float(ops.log(self.initial)))
        self.log_temperature = self.add_weight(
            shape=(), initializer=start, name="log_temperature"
        )
        self.built = True

    def call(self, vectors: Tensor) -> Tensor:
        """The vectors divided by the temperature."""
        return vectors * ops.exp(-self.log_temperature)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable(package="shortlist")
class SumOfInputs(keras.layers.Layer):  # type: ignore[misc]
    """Adds up concatenated inputs of equal width.

    Args:
        count: number of inputs.
        kept: number of leading columns of the sum that are kept.

    Call arguments: columns `(batch_size, count * width)`.

    Returns: `(batch_size, kept)`.
    """

    def __init__(self, count: int, kept: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count
        self.kept = kept

    def call(self, columns: Tensor) -> Tensor:
        """The sum of the inputs."""
        total = sum(ops.split(columns, self.count, axis=-1))
        return total[:, : self.kept]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Shape `(batch_size, kept)`."""
        return (input_shape[0], self.kept)

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {**super().get_config(), "count": self.count, "kept": self.kept}


@keras.saving.register_keras_serializable(package="shortlist")
class UnitLengthBesideBias(keras.layers.Layer):  # type: ignore[misc]
    """Scales all columns but the last, which is the bias of an item, to length 1.

    Call arguments: vectors `(..., dim)`. Returns: the same shape.
    """

    def call(self, vectors: Tensor) -> Tensor:
        """The scaled vectors; the last column is unchanged."""
        scaled = unit_length(vectors[..., :-1])
        return ops.concatenate([scaled, vectors[..., -1:]], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape


@keras.saving.register_keras_serializable(package="shortlist")
class WithOne(keras.layers.Layer):  # type: ignore[misc]
    """The user side of an item bias: appends a column of ones."""

    def call(self, vectors: Tensor) -> Tensor:
        """Vectors `(..., dim)` and a column of ones, `(..., dim + 1)`."""
        return ops.concatenate([vectors, ops.ones_like(vectors[..., :1])], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """One column more."""
        return (*input_shape[:-1], input_shape[-1] + 1)
