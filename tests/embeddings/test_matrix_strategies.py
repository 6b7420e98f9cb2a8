"""More than one replica is refused, wherever Keras may have been told of it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from embeddings.matrix import BACKEND, make_data, make_model, refused
from embeddings.matrix_twin import LOOKUPS

pytestmark = pytest.mark.backend

# Devices are made when a process starts, so each case is one of its own.
HEAD = """
import numpy as np
import keras
from shortlist.embeddings import DistributedEmbedding, FeatureConfig, TableConfig
from shortlist.errors import InputError

def make():
    table = TableConfig("t", 8, 4, placement="host")
    layer = DistributedEmbedding({"a": FeatureConfig("a", table)})
    ids = keras.Input((), name="a", dtype="int32", batch_size=None)
    outputs = keras.layers.Dense(1)(layer({"a": ids})["a"])
    model = keras.Model({"a": ids}, outputs)
    model.compile("sgd", "mse")
    return model, layer

def fit(model):
    model.fit({"a": np.arange(8, dtype=np.int32)}, np.ones((8, 1)), 4, verbose=0)

def refused(call):
    try:
        call()
    except InputError as error:
        assert error.code == "strategy-unsupported", error.code
        assert "over 2 replicas" in str(error) and "Train without it" in str(error)
    else:
        raise AssertionError("not refused")
"""
CASES = {
    "jax": {
        "data_parallel": """
keras.distribution.set_distribution(keras.distribution.DataParallel())
refused(make)
""",
        "model_parallel": """
mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"])
layouts = keras.distribution.LayoutMap(mesh)
keras.distribution.set_distribution(
    keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")
)
refused(make)
""",
    },
    "tensorflow": {
        "mirrored": """
import tensorflow as tf

cpus = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpus[0], two)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    refused(make)
    refused(lambda: fit(make()[0]))
""",
    },
}


def test_two_replicas() -> None:
    flags = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    )
    for name, case in CASES.get(BACKEND, {}).items():
        done = subprocess.run(
            [sys.executable, "-c", HEAD + case],
            env={**os.environ, "XLA_FLAGS": flags, "KERAS_BACKEND": BACKEND},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{name}: {done.stderr[-3000:]}"


def test_two_processes_of_pytorch(monkeypatch: Any) -> None:
    if BACKEND != "torch":
        return
    import torch

    lookups = LOOKUPS["one"]
    model = make_model(lookups)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for call in (
        lambda: make_model(lookups),
        lambda: model.layer(make_data(lookups, 4)[0]),
    ):
        with refused("strategy-unsupported", "over 2 replicas"):
            call()
