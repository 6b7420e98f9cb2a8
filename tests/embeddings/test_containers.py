"""Ids of every number type in every container against plain lists of Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embeddings.matrix import BACKEND, refused, to_numpy
from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.features import FeatureEmbedding
from shortlist.embeddings.ids.containers import Expected, checked
from shortlist.embeddings.ids.lookup_ids import Jagged
from shortlist.embeddings.inputs import Input
from shortlist.embeddings.layer import DistributedEmbedding
from shortlist.errors import InputError

pytestmark = pytest.mark.backend

ROWS, DIM, LENGTH = 9, 2, 3
EXPECTED = Expected("f", "items", ROWS, LENGTH)
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
EDGES = [-(2**63), -(2**40), -(2**31), -129, -2, -1, ROWS, 127, 255, 2**31 - 1]
EDGES += [2**31, 2**32 - 1, 2**32 + 3, 2**40, 2**63 - 1, 2**63, 2**63 + 4, 2**64 - 1]

Lists = list[list[int]]


# Containers: from ragged lists and the type of the numbers.


def of_lists(lists: Lists, dtype: str) -> Any:
    return [list(row) for row in lists]


def of_arrays_in_a_list(lists: Lists, dtype: str) -> Any:
    return [np.array(row, dtype) for row in lists]


def of_arrays_in_an_array(lists: Lists, dtype: str) -> Any:
    array = np.empty(len(lists), object)
    array[:] = of_arrays_in_a_list(lists, dtype)
    return array


def of_jagged(lists: Lists, dtype: str) -> Any:
    values = np.concatenate([np.zeros(0, dtype), *of_arrays_in_a_list(lists, dtype)])
    return Jagged(values, np.cumsum([0, *map(len, lists)]))


def of_polars(lists: Lists, dtype: str) -> Any:
    import polars as pl

    kind = getattr(pl, dtype.replace("uint", "UInt").replace("int", "Int"))
    return pl.Series(lists, dtype=pl.List(kind))


def of_tf_ragged(lists: Lists, dtype: str) -> Any:
    import tensorflow as tf

    flat = tf.constant(of_jagged(lists, dtype).values)
    return tf.RaggedTensor.from_row_lengths(flat, list(map(len, lists)))


def of_torch_nested(lists: Lists, dtype: str) -> Any:
    import torch

    with_rows = [torch.tensor(row, dtype=getattr(torch, dtype)) for row in lists]
    return torch.nested.nested_tensor(with_rows, layout=torch.jagged)


def places(lists: Lists) -> np.ndarray:
    found = [(r, c) for r, row in enumerate(lists) for c in range(len(row))]
    return np.array(found, np.int64).reshape(-1, 2)


def shape(lists: Lists) -> tuple[int, int]:
    return len(lists), max(1, *map(len, lists))


def backwards(lists: Lists, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and places in an order that is not that of the rows."""
    return of_jagged(lists, dtype).values[::-1].copy(), places(lists)[::-1].copy()


def of_tf_sparse(lists: Lists, dtype: str) -> Any:
    import tensorflow as tf

    values, at = backwards(lists, dtype)
    return tf.SparseTensor(at, tf.constant(values), shape(lists))


def of_scipy(lists: Lists, dtype: str) -> Any:
    from scipy import sparse

    values, at = backwards(lists, dtype)
    return sparse.csr_matrix(sparse.coo_array((values, at.T), shape(lists)))


def of_torch_sparse(lists: Lists, dtype: str) -> Any:
    import torch

    values, at = backwards(lists, dtype)
    return torch.sparse_coo_tensor(
        torch.from_numpy(at.T.copy()),
        torch.from_numpy(values),
        shape(lists),
        check_invariants=True,
    )


def of_bcoo(lists: Lists, dtype: str) -> Any:
    from jax import numpy as jnp
    from jax.experimental import sparse

    values, at = backwards(lists, dtype)
    at = np.concatenate([at, [shape(lists)]])  # as JAX pads
    values = np.concatenate([values, np.zeros(1, dtype)])
    return sparse.BCOO((jnp.asarray(values), jnp.asarray(at)), shape=shape(lists))


RAGGED = [
    of_lists,
    of_arrays_in_a_list,
    of_arrays_in_an_array,
    of_jagged,
    of_polars,
    of_tf_ragged,
    of_torch_nested,
    of_tf_sparse,
    of_scipy,
    of_torch_sparse,
    of_bcoo,
]


def of_numpy(lists: Lists, dtype: str) -> Any:
    return np.array(lists, dtype)


def of_swapped_bytes(lists: Lists, dtype: str) -> Any:
    return np.array(lists, np.dtype(dtype).newbyteorder(">"))


def of_objects(lists: Lists, dtype: str) -> Any:
    return np.array(lists, dtype).astype(object)


def of_tf(lists: Lists, dtype: str) -> Any:
    import tensorflow as tf

    return tf.constant(np.array(lists, dtype))


def of_torch(lists: Lists, dtype: str) -> Any:
    import torch

    return torch.from_numpy(np.array(lists, dtype))


def of_jax(lists: Lists, dtype: str) -> Any:
    from jax import numpy as jnp

    return jnp.asarray(np.array(lists, dtype))


DENSE = [of_numpy, of_swapped_bytes, of_objects, of_tf, of_torch, of_jax]
CONTAINERS = [*RAGGED, *DENSE]


def known(make: Callable[..., Any], dtype: str) -> bool:
    """JAX has no 64 bits, SciPy and PyTorch lack some unsigned ones in their sparse."""
    if make in (of_jax, of_bcoo):
        return "64" not in dtype
    if make in (of_torch_sparse, of_torch_nested):
        return dtype[0] != "u" or dtype == "uint8"
    return make is not of_lists or dtype == "int64"


@st.composite
def cases(draw: Any) -> tuple[Any, Lists, str]:
    dtype = draw(st.sampled_from(INTEGERS))
    make = draw(st.sampled_from([m for m in CONTAINERS if known(m, dtype)]))
    limits = np.iinfo(dtype)
    good = st.integers(0 if dtype[0] == "u" else -1, ROWS - 1)
    edge = st.sampled_from([e for e in EDGES if limits.min <= e <= limits.max])
    one = draw(st.sampled_from([good, good, good | edge]))
    num_rows = draw(st.integers(1, 4))
    length = draw(st.integers(1, 5))
    fewest = length if make in DENSE else 0
    row = st.lists(one, min_size=fewest, max_size=length)
    return make, draw(st.lists(row, min_size=num_rows, max_size=num_rows)), dtype


def stripped(array: np.ndarray) -> Lists:
    return [[int(i) for i in row if i != -1] for row in array]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_ids_are_the_lists_or_an_error(case: Any) -> None:
    make, lists, dtype = case
    bad = [i for row in lists for i in row if not -1 <= i < ROWS]
    ids = make(lists, dtype)
    if bad:
        with pytest.raises(InputError) as caught:
            checked(ids, None, EXPECTED, at_once=True)
        assert caught.value.code == "id-out-of-range"
        assert any(f"Received: {i} in feature 'f'" in str(caught.value) for i in bad)
        return
    found = checked(ids, None, EXPECTED, dense=True, at_once=True)[0]
    if found is ids:  # taken as it is
        if type(ids).__name__ in ("RaggedTensor", "SparseTensor"):
            return
        found = to_numpy(ids)
    assert found.dtype in (np.int32, np.int64)
    assert stripped(found) == [[i for i in row if i != -1] for row in lists]


def test_a_matrix_of_objects_names_the_id_beyond_64_bits() -> None:
    ids = np.array([[0, 2**63], [3, -1]], object)
    with pytest.raises(InputError, match=f"Received: {2**63} in feature 'f'"):
        checked(ids, None, EXPECTED, at_once=True)


def make_layer(shape: Any = (None, LENGTH), **options: Any) -> DistributedEmbedding:
    table = TableConfig("items", ROWS, DIM, combiner="sum", **options)
    layer = DistributedEmbedding({"f": FeatureConfig("f", table, shape)})
    layer.set_embedding_tables({"items": VALUES})
    return layer


VALUES = np.arange(ROWS * DIM, dtype=np.float32).reshape(ROWS, DIM) + 1
PLACEMENTS = ["host", "device"] if BACKEND == "jax" else ["host"]


@pytest.fixture(scope="module")
def layer() -> DistributedEmbedding:
    return make_layer(placement="host")


@pytest.fixture(scope="module", params=PLACEMENTS)
def placed(request: Any) -> DistributedEmbedding:
    """A layer of each placement that this backend has."""
    return make_layer(placement=request.param)


def sums(lists: Lists, weights: Any = None) -> np.ndarray:
    """What the vectors are, by a plain loop."""
    out = np.zeros((len(lists), DIM), np.float32)
    for at, row in enumerate(lists):
        for place, i in enumerate(row):
            factor = 1.0 if weights is None else weights[at][place]
            out[at] += np.float32(factor) * VALUES[i]
    return out


@pytest.mark.parametrize("make", CONTAINERS)
def test_a_call_and_preprocess_give_the_rows(placed: Any, make: Any) -> None:
    lists = [[1, 8, 3], [2, 2, 0]] if make in DENSE else [[1, 8, 3], [], [2, 0]]
    dtype = "int64" if known(make, "int64") else "int16"
    ids = make(lists, dtype)
    np.testing.assert_allclose(to_numpy(placed({"f": ids})["f"]), sums(lists))
    prepared = placed.preprocess({"f": ids})
    np.testing.assert_allclose(to_numpy(placed(prepared)["f"]), sums(lists))


@pytest.mark.parametrize("make", CONTAINERS)
def test_weights_come_in_the_same_containers(placed: Any, make: Any) -> None:
    lists = [[1, 8, 3], [2, 4, 0]] if make in DENSE else [[1, 8, 3], [], [2, 0]]
    factors = [
        [0.5 + place + at for place, _ in enumerate(row)]
        for at, row in enumerate(lists)
    ]
    ids = make(lists, "int32")
    if make is of_polars:
        import polars as pl

        weights: Any = pl.Series(factors, dtype=pl.List(pl.Float64))
    elif make is of_jagged:
        weights = np.concatenate([np.array(row) for row in factors])
    else:
        weights = make(factors, "float32")
    found = placed({"f": ids}, {"f": weights})["f"]
    np.testing.assert_allclose(to_numpy(found), sums(lists, factors))
    prepared = placed.preprocess({"f": ids}, {"f": weights})
    np.testing.assert_allclose(to_numpy(placed(prepared)["f"]), sums(lists, factors))


@pytest.mark.parametrize("make", RAGGED)
def test_weights_of_other_rows_are_refused(layer: Any, make: Any) -> None:
    if make in (of_jagged, of_polars):
        return
    ids, weights = make([[1, 8], [2]], "int32"), make([[1], [2, 3]], "float32")
    with refused("invalid-weights", "must have the shape of the ids"):
        layer({"f": ids}, {"f": weights})


@pytest.mark.parametrize("make", CONTAINERS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bool"])
def test_whole_floats_and_booleans_are_no_ids(
    layer: Any, make: Any, dtype: str
) -> None:
    lists: Any = [[2, 1], [0, 1]]
    if make is of_polars:
        lists, dtype = [[2.0], [0.0]], "int8"
        with refused("invalid-ids", "Received: float64 for feature 'f'"):
            layer({"f": np.array(lists, object)})
        return
    if make is of_lists:
        lists = np.array(lists, dtype).tolist()
    if (make, dtype) == (of_scipy, "float16"):
        return  # SciPy has none
    with refused("invalid-ids", "Ids must be integers. Received: "):
        layer({"f": make(lists, dtype)})


@pytest.mark.parametrize("bad", [1.5, 1e20, float("nan"), float("inf"), 2.0])
def test_floats_are_no_ids_in_lists_and_arrays(layer: Any, bad: float) -> None:
    for ids in ([1, bad], [[1], [bad]], np.array([bad]), np.array([1, bad], object)):
        with refused("invalid-ids", "Received: float64 for feature 'f'"):
            layer({"f": ids})
        with refused("invalid-ids", "Received: float64 for feature 'f'"):
            layer.preprocess({"f": ids})


@pytest.mark.parametrize(
    ("ids", "came"),
    [
        (["1", "2"], "str"),
        (np.array(["1", "2"]), "<U1"),
        ([b"1"], "bytes"),
        ("12", "str"),
        ([1, None], "NoneType"),
        ([1, True], "bool"),
        ([[1], [True, False]], "a mixture of bool"),
        ([1, [2]], "a mixture of lists and single values"),
        ([[[1]], [[1, 2], [3]]], "more than two dimensions"),
        (np.array([1 + 2j]), "complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64[D]"),
        (np.ma.masked_array([1, 2], [False, True]), "fill it with -1"),
        (None, "NoneType"),
        ({1, 2}, "set"),
        (range(3), "range"),
        (Jagged([1, 2], [0, 2, 1]), "offsets that do not rise"),
        (Jagged([1, 2], [0, 1]), "offsets that do not rise"),
        (Jagged([1, 2], [0.0, 2.0]), "offsets that are not integers"),
        (Jagged([[1], [2]], [0, 2]), "not one dimension"),
    ],
)
def test_what_holds_no_integers_is_refused(layer: Any, ids: Any, came: str) -> None:
    with refused("invalid-ids", came):
        layer({"f": ids})
    with refused("invalid-ids", came):
        layer.preprocess({"f": ids})


@pytest.mark.parametrize("bad", [2**63, 2**64 + 1, -(2**70), 10**30])
def test_integers_of_python_of_any_size(layer: Any, bad: int) -> None:
    for ids in ([-1, bad], [[1], [3, bad]], np.array([bad, 2], object)):
        with refused("id-out-of-range", f"Received: {bad} in feature 'f'"):
            layer({"f": ids})


def test_places_that_hold_two_ids_are_refused(layer: Any) -> None:
    from scipy import sparse

    twice = sparse.coo_array(([1, 2], ([0, 0], [1, 1])), (1, 3))
    with refused("invalid-ids", "two values at one place"):
        layer({"f": twice})


@pytest.mark.parametrize("make", RAGGED)
def test_rows_longer_than_declared_count_in_full(layer: Any, make: Any) -> None:
    """In every form, as in a dense array that is wider."""
    lists = [[1, 2, 3, 4, 5], [6]]
    wide = np.array([[1, 2, 3, 4, 5], [6, -1, -1, -1, -1]], np.int32)
    expected = to_numpy(layer({"f": wide})["f"])
    np.testing.assert_allclose(expected, sums(lists))
    ids = make(lists, "int32" if make is not of_lists else "int64")
    np.testing.assert_allclose(to_numpy(layer({"f": ids})["f"]), expected)
    np.testing.assert_allclose(
        to_numpy(layer(layer.preprocess({"f": ids}))["f"]), expected
    )


def test_rows_are_padded_to_the_declared_length() -> None:
    layer = make_layer((None, 4))
    prepared = layer.preprocess({"f": [[1], [2, 3]]})
    ids = next(iter(prepared.values()))["inputs"]["f"]
    np.testing.assert_array_equal(ids, [[1, -1, -1, -1], [2, 3, -1, -1]])
    assert ids.dtype == np.int32 or BACKEND != "jax"
    (empty,) = next(iter(layer.preprocess({"f": []}).values()))["inputs"].values()
    assert empty.shape == (0,)


def test_arrays_of_more_dimensions_are_bags_of_their_last(layer: Any) -> None:
    lists = [[[1, 2], [3, -1]], [[0, 0], [8, 8]]]
    found = to_numpy(layer({"f": lists})["f"])
    expected = [sums([[1, 2], [3]]), sums([[0, 0], [8, 8]])]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("dtype", ["uint32", "uint64", "int64"])
def test_wide_types_in_a_traced_step(dtype: str) -> None:
    """2**32 - 1 is no -1, and 2**32 + 1 no 1."""
    layer = make_layer(placement="host")
    bad = {"uint32": 2**32 - 1, "uint64": 2**64 - 1, "int64": 2**32 + 1}[dtype]
    if BACKEND == "tensorflow":
        import tensorflow as tf

        call: Any = tf.function(lambda ids: layer({"f": ids})["f"])
        good, wrong = (tf.constant([1, i], dtype) for i in (2, bad))
    elif BACKEND == "torch":
        import torch

        call = lambda ids: layer({"f": ids})["f"]  # noqa: E731
        good, wrong = (
            torch.tensor([1, i], dtype=getattr(torch, dtype)) for i in (2, bad)
        )
    else:
        import jax

        if dtype != "uint32":  # JAX cuts them before any layer is called
            return
        call = jax.jit(lambda ids: layer({"f": ids})["f"])
        good, wrong = (jax.numpy.array([1, i], dtype) for i in (2, bad))
    np.testing.assert_allclose(to_numpy(call(good)), VALUES[[1, 2]])
    with refused("id-out-of-range", "in feature 'f' for table 'items'"):
        call(wrong)
        layer.sync()


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_a_graph_of_other_types_is_refused_when_built(dtype: str) -> None:
    layer = make_layer()
    with refused("invalid-ids", f"Received: {dtype} for feature 'f'"):
        layer({"f": keras.Input((LENGTH,), dtype=dtype)})


@pytest.mark.parametrize("bad", [2**32 + 1, 2.0, True, "1"])
def test_a_batch_of_features_is_checked_too(bad: Any) -> None:
    inputs = [
        Input(feature="a", kind="categorical", owner="user", table="t", dim=2),
        Input(feature="b", kind="multi_valued", owner="user", table="t", dim=2),
    ]
    layer = FeatureEmbedding(inputs, {"t": 5})
    good = layer({"a": np.array([1, 2], np.int64), "b": [[1, 2], [3]]})
    rows = layer.tables()["t"]
    np.testing.assert_allclose(to_numpy(good["a"]), rows[[1, 2]])
    expected = [rows[[1, 2]].mean(axis=0), rows[3]]
    np.testing.assert_allclose(to_numpy(good["b"]), expected, rtol=1e-6)
    code = "id-out-of-range" if type(bad) is int else "invalid-ids"
    with pytest.raises(InputError) as caught:
        layer({"a": np.array([bad, bad])})
    assert caught.value.code == code
    with pytest.raises(InputError) as caught:
        layer({"b": [[1], [bad]]})
    assert caught.value.code == code


def traced(layer: Any, make: Any, lists: Lists, factors: Any) -> np.ndarray:
    """The vectors of a call whose ids and weights are symbols."""
    ids, weights = make(lists, "int32"), make(factors, "float32")
    if BACKEND == "tensorflow":
        import tensorflow as tf

        call: Any = tf.function(lambda ids, weights: layer({"f": ids}, {"f": weights}))
    else:
        import jax

        call = jax.jit(lambda ids, weights: layer({"f": ids}, {"f": weights}))
    return to_numpy(call(ids, weights)["f"])


@pytest.mark.parametrize("make", [of_tf_ragged, of_tf_sparse, of_bcoo])
def test_ragged_and_sparse_ids_of_a_traced_step(layer: Any, make: Any) -> None:
    """Sparse ones are stored backwards."""
    wanted = {of_bcoo: "jax"}.get(make, "tensorflow")
    if wanted != BACKEND:
        return
    lists, factors = [[1, 8, 3], [], [2, 0]], [[0.5, 1, 2], [], [3, 4]]
    found = traced(layer, make, lists, factors)
    np.testing.assert_allclose(found, sums(lists, factors))
    if BACKEND == "tensorflow":
        with pytest.raises(Exception, match="invalid-weights") as caught:
            traced(layer, make, [[1, 8], [2]], [[1], [2, 3]])
        assert "Weights must have the shape of the ids" in str(caught.value)
        assert len(str(caught.value)) < 1500


def test_a_batched_bcoo_of_a_traced_step(layer: Any) -> None:
    if BACKEND != "jax":
        return
    import jax
    from jax.experimental import sparse

    dense = jax.numpy.array([[1, 8, 3], [2, 4, 5]])
    for options in ({"n_batch": 1}, {"n_dense": 1}, {"n_batch": 0}):
        ids = sparse.BCOO.fromdense(dense, **options)
        expected = sums([[1, 8, 3], [2, 4, 5]])
        for call in (layer, jax.jit(lambda inputs: layer(inputs))):
            np.testing.assert_allclose(to_numpy(call({"f": ids})["f"]), expected)
