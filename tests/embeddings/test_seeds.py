"""`keras.utils.set_random_seed` decides the first rows of tables."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import keras_rs
import numpy as np
import pytest

from embeddings.matrix import BACKEND
from shortlist.embeddings.config import FeatureConfig, TableConfig
from shortlist.embeddings.features import FeatureEmbedding
from shortlist.embeddings.inputs import Input
from shortlist.embeddings.layer import DistributedEmbedding

pytestmark = pytest.mark.backend

PLACEMENTS = ["host", "device"] if BACKEND == "jax" else ["host"]
OF_KERAS_RS = keras_rs.layers.TableConfig("items", 9, 4)
OURS = TableConfig("items", 9, 4)
UNSEEDED = TableConfig("items", 9, 4, initializer=keras.initializers.HeNormal())


def rows_of(table: Any) -> np.ndarray:
    layer = DistributedEmbedding({"a": FeatureConfig("a", table)})
    return layer.get_embedding_tables()["items"].copy()


def table(initializer: Any = None, placement: str = "host") -> TableConfig:
    given = {} if initializer is None else {"initializer": initializer}
    return TableConfig("items", 9, 4, placement=placement, **given)


MADE: dict[str, Callable[[str], Any]] = {
    # Made when this module was imported, before any seed was set.
    "default of KerasRS, made before": lambda placement: OF_KERAS_RS,
    "default, made before": lambda placement: OURS,
    "object, made before": lambda placement: UNSEEDED,
    "default": lambda placement: table(placement=placement),
    "name": lambda placement: table("glorot_uniform", placement),
    "object": lambda placement: table(keras.initializers.RandomNormal(), placement),
    "drawn by Keras": lambda placement: table("orthogonal", placement),
    "from a config": lambda placement: TableConfig.from_config(
        table(placement=placement).get_config()
    ),
}


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", MADE)
def test_a_seed_decides_and_another_differs(kind: str, placement: str) -> None:
    found = []
    for seed in (5, 5, 6):
        keras.utils.set_random_seed(seed)
        found.append(rows_of(MADE[kind](placement)))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert len(np.unique(found[0])) == found[0].size


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("seed", [0, 3])
def test_a_seed_of_the_initializer_wins(placement: str, seed: int) -> None:
    found = []
    for everywhere in (5, 6):
        keras.utils.set_random_seed(everywhere)
        uniform = keras.initializers.RandomUniform(seed=seed)
        found.append(rows_of(table(uniform, placement)))
    np.testing.assert_array_equal(found[0], found[1])
    other = keras.initializers.RandomUniform(seed=seed + 1)
    assert not np.array_equal(found[0], rows_of(table(other, placement)))


def test_tables_of_one_initializer_begin_with_different_rows() -> None:
    shared = keras.initializers.RandomNormal()
    inputs = [
        Input(feature=name, kind="categorical", owner="user", table=name, dim=4)
        for name in ("a", "b")
    ]
    layer = FeatureEmbedding(inputs, {"a": 9, "b": 9}, embeddings_initializer=shared)
    layer.build()
    tables = layer.tables()
    assert not np.array_equal(tables["a"], tables["b"])


ELSEWHERE = """
import json, keras
keras.utils.set_random_seed(11)
from shortlist.embeddings import DistributedEmbedding, FeatureConfig, TableConfig
table = TableConfig("items", 9, 4)
layer = DistributedEmbedding({"a": FeatureConfig("a", table)})
print(json.dumps(layer.get_embedding_tables()["items"].tolist()))
"""


def test_another_process_draws_the_same_rows() -> None:
    """Also if it imports the layer after the seed was set."""
    if BACKEND != "jax":  # NumPy draws these rows under every backend
        return
    keras.utils.set_random_seed(11)
    here = rows_of(OURS)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=True
    )
    there = np.array(json.loads(done.stdout), np.float32)
    np.testing.assert_array_equal(there, here)
