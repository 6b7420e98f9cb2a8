"""A bundle small enough to compute by hand: 7 items, 4 users, one-layer graphs.

The expected scores below are computed from the raw numbers, one user and one item at
a time, without any code of the package.
"""

import numpy as np
import onnx
import polars as pl
from onnx import TensorProto, helper, numpy_helper

from shortlist.bundle.contents import (
    BundleContents,
    RankerContents,
    RetrievalContents,
    TowerContents,
)
from shortlist.data import Feature, Schema, Vocabulary
from shortlist.embeddings.inputs import Input

ITEM_IDS = ["heat", "toy story", "a/b", 'say "hi"', "it's 🎬", "c:\\d", "100%?&#"]
ITEM_COUNTS = [5, 9, 1, 9, 2, 0, 3]
TITLES = ["Heat", "Toy Story", "A over B", "Say Hi", "Film", "C", "Hundred"]
USER_IDS = ["ann", "bob", "cat", "dan"]  # dan has attributes, and no events
USER_COUNTS = [2, 1, 3, 0]
HISTORIES = [[], [1, 2], [3], [4, 4, 1, 7], []]
SEGMENTS = [0, 1, 2, 1, 2]
AGES = [0.0, -1.0, 0.5, 2.0, 0.25]
GENRES = [[], [1], [1, 2], [], [2, 3], [3], [1, 2, 3], [2]]
YEARS = [0.0, -1.5, 0.5, 0.0, 1.0, -0.25, 2.0, 0.75]
HISTORY_LENGTH = 3
WEIGHT = 0.5

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="rating",
    label_kind="explicit",
    label_min=1.0,
    label_max=5.0,
    title="title",
    features=(
        Feature(name="segment", owner="user", kind="categorical"),
        Feature(name="age", owner="user", kind="numeric"),
        Feature(name="genres", owner="item", kind="multi_valued"),
        Feature(name="year", owner="item", kind="numeric"),
    ),
)


def _input(feature, kind, owner, table, dim):
    return Input(feature=feature, kind=kind, owner=owner, table=table, dim=dim)


TOWER_INPUTS = (
    _input("user_index", "categorical", "user", "user", 3),
    _input("history", "multi_valued", "user", "item", 3),
    _input("segment", "categorical", "user", "segment", 2),
    _input("age", "numeric", "user", None, 1),
)
RANKER_INPUTS = (
    _input("user_index", "categorical", "user", "user", 3),
    _input("item_index", "categorical", "item", "item", 3),
    _input("history", "multi_valued", "user", "item", 3),
    _input("genres", "multi_valued", "item", "genres", 2),
    _input("year", "numeric", "item", None, 1),
    _input("age", "numeric", "user", None, 1),
)
TOWER_WIDTH, RANKER_WIDTH, DIM = 9, 13, 4


def numbers(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


TOWER_TABLES = {
    "user": numbers(5, 3, seed=1),
    "item": numbers(8, 3, seed=2),
    "segment": numbers(3, 2, seed=3),
}
RANKER_TABLES = {
    "user": numbers(5, 3, seed=4),
    "item": numbers(8, 3, seed=5),
    "genres": numbers(4, 2, seed=6),
}
TOWER_KERNEL, TOWER_BIAS = numbers(TOWER_WIDTH, DIM, seed=7), numbers(DIM, seed=8)
RANKER_KERNEL, RANKER_BIAS = numbers(RANKER_WIDTH, 1, seed=9), numbers(1, seed=10)
ITEM_VECTORS = numbers(8, DIM, seed=11)
ITEM_VECTORS[0] = 0


def gemm_graph(kernel, bias):
    """An ONNX graph `x @ kernel + bias`."""
    width, dim = kernel.shape
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "kernel", "bias"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", dim])],
        [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def vocabulary(name, ids, counts):
    return Vocabulary(name, pl.Series(ids), np.array(counts))


def make_contents(*, retrieval=True, ranker=True, **changes):
    """The contents of the tiny bundle; `changes` replace whole fields.

    `retrieval` and `ranker` may be left out with `False`, or be given, the two-tower
    model as `TowerContents`.
    """
    tower = TowerContents(
        graph=gemm_graph(TOWER_KERNEL, TOWER_BIAS),
        tables=TOWER_TABLES,
        inputs=TOWER_INPUTS,
        history_length=HISTORY_LENGTH,
        item_vectors=ITEM_VECTORS,
    )
    if isinstance(retrieval, TowerContents):
        retrieval = RetrievalContents.of_tower(retrieval)
    rank = RankerContents(
        graph=gemm_graph(RANKER_KERNEL, RANKER_BIAS),
        tables=RANKER_TABLES,
        inputs=RANKER_INPUTS,
        history_length=HISTORY_LENGTH,
        weight=WEIGHT,
        candidates=5,
        objective="explicit",
    )
    fields = {
        "name": "tiny",
        "schema": SCHEMA,
        "vocabularies": {
            "user": vocabulary("user", USER_IDS, USER_COUNTS),
            "item": vocabulary("item", ITEM_IDS, ITEM_COUNTS),
            "segment": vocabulary("segment", ["x", "y"], [1, 1]),
            "genres": vocabulary("genres", ["p", "q", "r"], [3, 2, 1]),
        },
        "items": pl.DataFrame(
            {
                "title": [None, *TITLES],
                "feature:genres": pl.Series(GENRES, dtype=pl.List(pl.Int32)),
                "feature:year": pl.Series(YEARS, dtype=pl.Float32),
            }
        ),
        "users": pl.DataFrame(
            {
                "feature:segment": pl.Series(SEGMENTS, dtype=pl.Int32),
                "feature:age": pl.Series(AGES, dtype=pl.Float32),
                "history": pl.Series(HISTORIES, dtype=pl.List(pl.Int32)),
            }
        ),
        "retrieval": RetrievalContents.of_tower(tower)
        if retrieval is True
        else retrieval or None,
        "ranker": rank if ranker is True else ranker or None,
        "metrics": {"ndcg@10": 0.25},
        "environment": {"python": "3.11"},
    }
    return BundleContents(**(fields | changes))


def tower_of(contents):
    """The two-tower model of a bundle."""
    (tower,) = contents.retrieval.towers.values()
    return tower


def mean_of(table, rows):
    return np.mean([table[r] for r in rows], axis=0) if rows else np.zeros(3)


def retrieval_scores(user_row, history, feature_row=None):
    """Score of every item row, straight from the definition; row 0 is meaningless."""
    feature_row = user_row if feature_row is None else feature_row
    x = np.concatenate(
        [
            TOWER_TABLES["user"][user_row],
            mean_of(TOWER_TABLES["item"], history[-HISTORY_LENGTH:]),
            TOWER_TABLES["segment"][SEGMENTS[feature_row]],
            [AGES[feature_row]],
        ]
    )
    return ITEM_VECTORS @ (x @ TOWER_KERNEL + TOWER_BIAS)


def ranker_score(user_row, history, item_row, feature_row=None):
    """Output of the ranker for one pair, straight from the definition."""
    feature_row = user_row if feature_row is None else feature_row
    genres = [RANKER_TABLES["genres"][g] for g in GENRES[item_row]]
    x = np.concatenate(
        [
            RANKER_TABLES["user"][user_row],
            RANKER_TABLES["item"][item_row],
            mean_of(RANKER_TABLES["item"], history[-HISTORY_LENGTH:]),
            np.mean(genres, axis=0) if genres else np.zeros(2),
            [YEARS[item_row]],
            [AGES[feature_row]],
        ]
    )
    return float((x @ RANKER_KERNEL + RANKER_BIAS)[0])


def expected_list(
    user_row,
    history,
    *,
    k=10,
    excluded=None,
    ranker=True,
    candidates=5,
    weight=WEIGHT,
):
    """(item id, score) pairs of the answer, straight from the definition."""
    excluded = set(history) if excluded is None else set(excluded)
    scores = retrieval_scores(user_row, history)
    left = [row for row in range(1, 8) if row not in excluded]
    left.sort(key=lambda row: (-scores[row], row))
    if ranker:
        left = left[: max(k, candidates)]
        scores = {
            row: scores[row] + weight * ranker_score(user_row, history, row)
            for row in left
        }
        left.sort(key=lambda row: (-scores[row], row))
    return [(ITEM_IDS[row - 1], float(scores[row])) for row in left[:k]]
