"""Encoders of the history of a user: one vector from a sequence of item vectors.

A sequence has the layout of `FeatureEmbedding`: one position after the other, each a
vector and 1, or zeros for padding; the newest item is last. Knows no tables and no
other inputs.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from shortlist.embeddings.layer import Tensor


class SequenceEncoder(keras.layers.Layer):  # type: ignore[misc]
    """Base class of the encoders: one vector from a sequence; zeros if it is empty.

    Args:
        length: positions.
        dim: width of a position's vector.
        dropout: share dropped in training.

    Call arguments: columns `(batch_size, length * (dim + 1))`.

    Returns: `(batch_size, dim)`.
    """

    def __init__(
        self, length: int, dim: int, *, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.length = length
        self.dim = dim
        self.dropout = dropout

    def split(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `(batch_size, length, dim)` and mask `(batch_size, length, 1)`."""
        positions = ops.reshape(columns, (-1, self.length, self.dim + 1))
        return positions[:, :, : self.dim], positions[:, :, self.dim :]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Shape `(batch_size, dim)`."""
        return (input_shape[0], self.dim)

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {
            **super().get_config(),
            "length": self.length,
            "dim": self.dim,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package="shortlist")
class GruEncoder(SequenceEncoder):
    """A gated recurrent unit that reads the items in order; its last state.

    See `SequenceEncoder`.

    References:
        Hidasi et al. (2016), Session-based Recommendations with Recurrent Neural
        Networks.
    """

    def __init__(self, length: int, dim: int, **kwargs: Any) -> None:
        super().__init__(length, dim, **kwargs)
        self.drop = keras.layers.Dropout(self.dropout)
        # cuDNN needs the padding after the items; here it is before them.
        self.gru = keras.layers.GRU(dim, use_cudnn=False, name="gru")

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        self.gru.build((None, self.length, self.dim))
        self.built = True

    def call(self, columns: Tensor, training: bool = False) -> Tensor:
        """The state after the newest item."""
        vectors, mask = self.split(columns)
        vectors = self.drop(vectors, training=training)
        return self.gru(vectors, mask=ops.squeeze(mask, -1) > 0.5, training=training)


@keras.saving.register_keras_serializable(package="shortlist")
class ExportableNormalization(keras.layers.LayerNormalization):  # type: ignore[misc]
    """Keras's layer normalization over the last axis, in operations that export.

    Under PyTorch its own call (Keras 3.15) reads the shape of its input in a way that
    PyTorch's ONNX exporter refuses.
    """

    def call(self, inputs: Tensor) -> Tensor:
        """Vectors `(..., dim)`, normalized."""
        wide = ops.cast(inputs, "float32")
        centred = wide - ops.mean(wide, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
        scaled = centred * ops.rsqrt(variance + self.epsilon)
        scaled = scaled * ops.cast(self.gamma, "float32")
        return ops.cast(scaled + ops.cast(self.beta, "float32"), self.compute_dtype)


@keras.saving.register_keras_serializable(package="shortlist")
class AttentionEncoder(SequenceEncoder):
    """Causal self-attention with the blocks of SASRec; the vector of the newest item.

    A learned vector is added for every position, counted from the newest. A block is
    causal attention, then two dense layers, each with layer normalization before it
    and a residual connection.

    Args:
        length: positions.
        dim: width of a position's vector.
        num_blocks: blocks, one after the other.
        num_heads: of the attention; the width of a head is `dim // num_heads`, at
            least 1.
        dropout: share dropped in training.

    See `SequenceEncoder` for the call.

    References:
        Kang, McAuley (2018), Self-Attentive Sequential Recommendation.
    """

    def __init__(
        self,
        length: int,
        dim: int,
        *,
        num_blocks: int = 2,
        num_heads: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(length, dim, **kwargs)
        self.num_blocks = num_blocks
        self.num_heads = num_heads
        self.drop = keras.layers.Dropout(self.dropout)
        self.blocks = [self._block(i) for i in range(num_blocks)]
        self.norm = ExportableNormalization(epsilon=1e-6, name="norm")

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        self.places = self.add_weight(
            shape=(self.length, self.dim),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="places",
        )
        shape = (None, self.length, self.dim)
        for block in self.blocks:
            for name in ("attention_norm", "dense_norm", "inner"):
                block[name].build(shape)
            block["attention"].build(shape, shape, shape)
            block["outer"].build((None, self.length, self.dim))
        self.norm.build(shape)
        self.built = True

    def call(self, columns: Tensor, training: bool = False) -> Tensor:
        """The last position after all blocks; zeros for an empty history."""
        vectors, mask = self.split(columns)
        # As in SASRec, so that the positions do not outweigh the items.
        tensor = vectors * self.dim**0.5 + self.places
        tensor = self.drop(tensor, training=training) * mask
        causal = ops.tril(ops.ones((self.length, self.length), dtype=mask.dtype))
        seen = ops.transpose(mask, (0, 2, 1)) * causal > 0.5
        for block in self.blocks:
            query = block["attention_norm"](tensor)
            found = block["attention"](
                query, tensor, tensor, attention_mask=seen, training=training
            )
            tensor = tensor + found
            inner = block["inner"](block["dense_norm"](tensor))
            inner = self.drop(block["outer"](inner), training=training)
            tensor = (tensor + inner) * mask
        return self.norm(tensor[:, -1]) * mask[:, -1]

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return {
            **super().get_config(),
            "num_blocks": self.num_blocks,
            "num_heads": self.num_heads,
        }

    def _block(self, number: int) -> dict[str, Any]:
        def name(part: str) -> str:
            return f"{part}_{number}"

        return {
            "attention_norm": ExportableNormalization(
                epsilon=1e-6, name=name("attention_norm")
            ),
            # A bias of the keys would cancel out of the softmax.
            "attention": keras.layers.MultiHeadAttention(
                self.num_heads,
                max(1, self.dim // self.num_heads),
                dropout=self.dropout,
                use_bias=False,
                name=name("attention"),
            ),
            "dense_norm": ExportableNormalization(
                epsilon=1e-6, name=name("dense_norm")
            ),
            "inner": keras.layers.Dense(
                self.dim, activation="relu", name=name("inner")
            ),
            "outer": keras.layers.Dense(self.dim, name=name("outer")),
        }
