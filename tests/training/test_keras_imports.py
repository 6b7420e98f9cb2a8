"""A training under JAX does not load the other backends."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from shortlist.training.keras_imports import without_tensorflow
from toy import CHECKERBOARD_SCHEMA, checkerboard, recipe

TRAIN = """
import json, sys
from shortlist.data.store.dataset import Dataset
from shortlist.recipe import build_recipe
from shortlist.evaluation import ranking_metrics
from shortlist.training import load_pipeline, train

dataset = Dataset.open(sys.argv[1])
recipe = build_recipe(json.loads(sys.argv[3]))
run = train(dataset, sys.argv[2], recipe, validate=ranking_metrics, quiet=True)
load_pipeline(run, dataset)
loaded = [name for name in ("tensorflow", "torch", "jax") if name in sys.modules]
print(json.dumps(loaded))
"""


def test_training_under_jax_loads_jax_alone(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With a ranker: all kinds of models, checkpoints and evaluations."""
    dataset = checkerboard(tmp_path_factory.getbasetemp())
    brief = {"epochs": 1, "batch_size": 96, "embedding_dim": 4}
    made = recipe(CHECKERBOARD_SCHEMA, retrieval=brief, ranker=brief)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            TRAIN,
            str(dataset.path),
            str(tmp_path / "run"),
            json.dumps(made.to_builtins()),
        ],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["jax"]
    assert done.stderr == ""


@pytest.mark.backend
def test_keras_finds_tensorflow_again_afterwards(monkeypatch) -> None:
    from keras.src.utils.module_utils import LazyModule

    lazy = LazyModule("tensorflow")
    monkeypatch.setattr("keras.src.utils.module_utils.tensorflow", lazy)
    loaded = "tensorflow" in sys.modules or keras.backend.backend() == "tensorflow"
    with without_tensorflow():
        assert lazy.available == loaded
        with without_tensorflow():
            assert lazy.available == loaded
        assert lazy.available == loaded
    installed = importlib.util.find_spec("tensorflow") is not None
    assert lazy.available == installed


@pytest.mark.backend
def test_a_seed_in_there_is_the_same_seed() -> None:
    import random

    drawn = []
    for context in (without_tensorflow, without_tensorflow, _nothing):
        with context():
            keras.utils.set_random_seed(3)
            drawn.append(
                [
                    random.random(),
                    np.random.random(),
                    float(keras.random.normal(())),
                    keras.initializers.RandomNormal().seed,
                ]
            )
    assert drawn[0] == drawn[1] == drawn[2]


def _nothing():
    import contextlib

    return contextlib.nullcontext()
