"""How a ranker combines its looked-up vectors into one score.

Each kind is a graph from the flat input `(batch_size, width)` to a score
`(batch_size, 1)`, so that it is exported and served as it is. Knows vectors and their
widths; knows no tables, ids, losses or data.

Some kinds need more numbers for every row of a table: a first-order weight
(`wide_deep`, `deepfm`) or a second vector (`ncf`). These are extra columns of the same
tables: `widened` says how many, and the graph splits them off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import msgspec
from keras import ops

from shortlist.embeddings.inputs import Input, input_width, table_dims
from shortlist.embeddings.layer import Tensor
from shortlist.embeddings.original import keras_rs
from shortlist.errors import InputError
from shortlist.models.options import RankerOptions

PAIR = ("user_index", "item_index")

Built = tuple[Tensor, list[Tensor]]
"""What the last layer reads, and summands `(batch_size, 1)` of the score beside it."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The flat input of a ranker, split up. All are symbolic tensors.

    Args:
        flat: all vectors side by side, the extra columns left out.
        looked_up: vector `(batch_size, dim)` of each looked-up input, by feature.
        extra: the extra columns `(batch_size, n)` of each looked-up input.
        numeric: `(batch_size, 1)` of each numeric input.
    """

    flat: Tensor
    looked_up: dict[str, Tensor]
    extra: dict[str, Tensor]
    numeric: list[Tensor]


def widened(interaction: str, inputs: Sequence[Input]) -> tuple[Input, ...]:
    """The inputs with the extra columns that an interaction needs of its tables.

    Raises:
        InputError: `ncf` without a user and an item input of one width
            (`invalid-argument`).
    """
    more = dict.fromkeys(table_dims(inputs), 0)
    if interaction in ("wide_deep", "deepfm"):
        more = dict.fromkeys(more, 1)
    elif interaction == "ncf":
        pair = {i.feature: i for i in inputs if i.feature in PAIR}
        dims = {i.dim for i in pair.values()}
        if len(pair) != 2 or len(dims) != 1:
            raise InputError(
                "invalid-argument",
                "interaction='ncf' multiplies the vectors of user and item: `inputs`"
                f" must have both {' and '.join(PAIR)}, with one `dim`. Received:"
                f" {[(i.feature, i.dim) for i in pair.values()]}. Add them or choose"
                " another interaction.",
            )
        more |= {str(i.table): i.dim for i in pair.values()}
    return tuple(
        i if i.table is None else msgspec.structs.replace(i, dim=i.dim + more[i.table])
        for i in inputs
    )


def score_graph(
    options: RankerOptions, inputs: Sequence[Input], *, bias: float = 0.0
) -> keras.Model:
    """A Keras model from the flat input to the score.

    Args:
        options: the interaction, the sizes of its layers and the dropout.
        inputs: what is concatenated, in order, before `widened`.
        bias: initial value of the score's bias.

    Returns: a model from `(batch_size, width)` to `(batch_size, 1)`; the width is that
    of the widened inputs.

    References:
        He et al. (2017), Neural Collaborative Filtering.
        Cheng et al. (2016), Wide & Deep Learning for Recommender Systems.
        Guo et al. (2017), DeepFM: A Factorization-Machine based Neural Network for CTR
        Prediction.
        Wang et al. (2021), DCN V2: Improved Deep & Cross Network and Practical Lessons
        for Web-scale Learning to Rank Systems.
        Naumov et al. (2019), Deep Learning Recommendation Model for Personalization
        and Recommendation Systems.
    """
    wide = widened(options.interaction, inputs)
    tensor = source = keras.Input((input_width(wide),), name="ranker_input")
    if options.dropout:
        tensor = keras.layers.Dropout(options.dropout)(tensor)
    blocks = _blocks(tensor, inputs, wide)
    hidden, summands = _BUILDERS[options.interaction](blocks, options)
    start = keras.initializers.Constant(bias)
    score = keras.layers.Dense(1, bias_initializer=start)(hidden)
    if summands:
        score = keras.layers.Add()([score, *summands])
    return keras.Model(source, score, name="scorer")


def perceptron(tensor: Tensor, hidden_units: Sequence[int]) -> Tensor:
    """Dense layers with ReLU one after the other; the input itself without any."""
    for units in hidden_units:
        tensor = keras.layers.Dense(units, activation="relu")(tensor)
    return tensor


def pairwise_products(vectors: Tensor) -> Tensor:
    """Sum of the dot products of all pairs of vectors: the second-order term of an FM.

    By the identity of Rendle (2010), in linear time: half of the square of the sum
    less the sum of the squares.

    Args:
        vectors: `(batch_size, num_inputs, dim)`.

    Returns: `(batch_size, 1)`.
    """
    squared_sum = ops.square(ops.sum(vectors, axis=1))
    sum_of_squares = ops.sum(ops.square(vectors), axis=1)
    return 0.5 * ops.sum(squared_sum - sum_of_squares, axis=-1, keepdims=True)


def pairwise_dots(vectors: Tensor) -> Tensor:
    """The dot products of all pairs of vectors, side by side: (1, 0), (2, 0), (2, 1)...

    Same result as `keras_rs.layers.DotInteraction`, which uses a gather that Keras
    cannot export to ONNX under PyTorch (KerasRS 0.4).

    Args:
        vectors: `(batch_size, num_inputs, dim)`, at least two.

    Returns: `(batch_size, num_inputs * (num_inputs - 1) / 2)`.
    """
    rows = [
        ops.sum(vectors[:, i : i + 1] * vectors[:, :i], axis=-1)
        for i in range(1, vectors.shape[1])
    ]
    return rows[0] if len(rows) == 1 else ops.concatenate(rows, axis=-1)


def _mlp(blocks: Blocks, options: RankerOptions) -> Built:
    """A perceptron over all vectors."""
    return perceptron(blocks.flat, options.hidden_units), []


def _ncf(blocks: Blocks, options: RankerOptions) -> Built:
    """NeuMF of He et al. (2017): the product of two vectors beside a perceptron.

    The two halves have separate embeddings, as in the paper.
    """
    product = keras.layers.Multiply()([blocks.extra[name] for name in PAIR])
    deep = perceptron(blocks.flat, options.hidden_units)
    return keras.layers.Concatenate()([product, deep]), []


def _wide_deep(blocks: Blocks, options: RankerOptions) -> Built:
    """Wide & deep of Cheng et al. (2016): a weight for every value, plus a perceptron.

    The wide part has no crossed columns; `dcn` learns crosses instead of listing them.
    """
    return perceptron(blocks.flat, options.hidden_units), _first_order(blocks)


def _deepfm(blocks: Blocks, options: RankerOptions) -> Built:
    """DeepFM of Guo et al. (2017): first and second order plus a perceptron."""
    vectors = _of_one_width(blocks)
    dim = vectors[0].shape[-1]
    # As in the paper, each number scales a learned vector.
    vectors += [keras.layers.Dense(dim, use_bias=False)(x) for x in blocks.numeric]
    summands = _first_order(blocks)
    if len(vectors) > 1:
        summands.append(pairwise_products(ops.stack(vectors, axis=1)))
    return perceptron(blocks.flat, options.hidden_units), summands


def _dcn(blocks: Blocks, options: RankerOptions) -> Built:
    """DCN-v2 of Wang et al. (2021), cross and deep part side by side."""
    return _crossed(blocks, options, None)


def _dcn_low_rank(blocks: Blocks, options: RankerOptions) -> Built:
    """DCN-v2 with every matrix of the cross layers as a product of two thin ones."""
    rank = options.low_rank_dim or max(blocks.flat.shape[-1] // 4, 1)
    return _crossed(blocks, options, rank)


def _crossed(blocks: Blocks, options: RankerOptions, rank: int | None) -> Built:
    crossed = blocks.flat
    for _ in range(options.cross_layers):
        layer = keras_rs.layers.FeatureCross(projection_dim=rank)
        crossed = layer(blocks.flat, crossed)
    if not options.hidden_units:
        return crossed, []
    deep = perceptron(blocks.flat, options.hidden_units)
    return keras.layers.Concatenate()([crossed, deep]), []


def _dlrm(blocks: Blocks, options: RankerOptions) -> Built:
    """DLRM of Naumov et al. (2019): dot products of all pairs, then a perceptron.

    The numeric inputs go through a separate perceptron. Its output is one more vector,
    which the last perceptron also reads directly.
    """
    vectors = _of_one_width(blocks)
    numbers = []
    if blocks.numeric:
        tensor = _joined(blocks.numeric)
        dim = vectors[0].shape[-1]
        numbers = [perceptron(tensor, (*options.hidden_units, dim))]
    vectors = [*numbers, *vectors]
    dots = vectors
    if len(vectors) > 1:
        dots = [pairwise_dots(ops.stack(vectors, axis=1))]
    return perceptron(_joined([*numbers, *dots]), options.hidden_units), []


_BUILDERS: dict[str, Callable[[Blocks, RankerOptions], Built]] = {
    "mlp": _mlp,
    "ncf": _ncf,
    "wide_deep": _wide_deep,
    "deepfm": _deepfm,
    "dcn": _dcn,
    "dcn_low_rank": _dcn_low_rank,
    "dlrm": _dlrm,
}


def _blocks(tensor: Tensor, inputs: Sequence[Input], wide: Sequence[Input]) -> Blocks:
    looked_up, extra, numeric, parts = {}, {}, [], []
    start = 0
    for narrow, whole in zip(inputs, wide, strict=True):
        middle, end = start + narrow.dim, start + whole.dim
        vector = tensor[:, start:middle]
        parts.append(vector)
        if narrow.table is None:
            numeric.append(vector)
        else:
            looked_up[narrow.feature] = vector
            if end > middle:
                extra[narrow.feature] = tensor[:, middle:end]
        start = end
    flat = tensor if tuple(inputs) == tuple(wide) else _joined(parts)
    return Blocks(flat=flat, looked_up=looked_up, extra=extra, numeric=numeric)


def _first_order(blocks: Blocks) -> list[Tensor]:
    """Summands `(batch_size, 1)`: a weight for every row and every number."""
    summands = list(blocks.extra.values())
    if blocks.numeric:
        layer = keras.layers.Dense(1, use_bias=False)
        summands.append(layer(_joined(blocks.numeric)))
    return summands


def _of_one_width(blocks: Blocks) -> list[Tensor]:
    """The looked-up vectors, narrow ones brought to the width of the widest.

    By a matrix each, as in Ginart et al. (2019), Mixed Dimension Embeddings.
    """
    vectors = list(blocks.looked_up.values())
    dim = max(vector.shape[-1] for vector in vectors)
    return [
        vector
        if vector.shape[-1] == dim
        else keras.layers.Dense(dim, use_bias=False)(vector)
        for vector in vectors
    ]


def _joined(tensors: Sequence[Any]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else keras.layers.Concatenate()(tensors)
